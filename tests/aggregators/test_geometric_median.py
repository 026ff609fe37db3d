"""Smoothed Weiszfeld steps against float64, and against what the exact minimiser has to satisfy."""

import numpy as np
import pytest

from matl.aggregators import NNM, GeometricMedian
from matl.errors import BoundError, InvalidValueError


def naive_steps(X, nu, steps, weights=None):
    rows = np.asarray(X, np.float32).astype(float)
    weights = np.ones(len(rows)) if weights is None else weights
    z = np.zeros(rows.shape[1])
    for _ in range(steps):
        pull = weights / np.maximum(np.linalg.norm(rows - z, axis=1), nu)
        z = pull @ rows / pull.sum()
    return z


@pytest.mark.parametrize("steps", [1, 3, 7])
def test_steps(X, agree, steps):
    nu = 0.1 * float(np.abs(X).max())
    agree(GeometricMedian(nu=nu, iterations=steps, tolerance=0)(X), naive_steps(X, nu, steps), X)


def test_weights_count_only_where_they_are_asked_for():
    X, weights = np.random.default_rng(0).normal(size=(6, 4)), np.arange(1.0, 7.0)
    steps = {"nu": 1e-3, "iterations": 5, "tolerance": 0}
    for rule, counted in ((GeometricMedian(**steps), None), (GeometricMedian(weighted=True, **steps), weights)):
        np.testing.assert_allclose(rule(X, weights=weights), naive_steps(X, 1e-3, 5, counted), rtol=1e-5)


@pytest.mark.parametrize("offset", [0.0, 5.0])
def test_at_the_minimum_the_directions_to_all_rows_cancel(offset):
    X = np.random.default_rng(1).normal(size=(15, 30)) + offset
    z = GeometricMedian(iterations=500, tolerance=0)(X)
    gaps = X - z
    directions = gaps / np.linalg.norm(gaps, axis=1, keepdims=True)
    assert np.linalg.norm(directions.sum(axis=0)) < 1e-3


def test_it_stops_when_the_objective_does():
    X = np.random.default_rng(2).normal(size=(15, 30))
    taken = [
        GeometricMedian(tolerance=tolerance, iterations=100).aggregate(X, context(), {})[0].diagnostics["steps"]
        for tolerance in (1e-2, 1e-5, 0)
    ]
    assert 1 <= taken[0] < taken[1] < taken[2] == 100


def test_behind_mixing_no_step_reads_the_matrix_again(monkeypatch):
    from matl.aggregators import Rows

    X = np.random.default_rng(3).normal(size=(9, 40)) + 2
    passes = []
    real = Rows._reduced
    monkeypatch.setattr(Rows, "_reduced", lambda self, *a: (passes.append(a), real(self, *a))[1])
    result = (NNM(2) | GeometricMedian(nu=1e-3, iterations=6, tolerance=0))(X)
    assert not passes
    np.testing.assert_allclose(result, naive_steps(NNM(2).mix(X), 1e-3, 6), atol=1e-5)


def test_a_row_of_any_length_pulls_with_one_unit_of_force():
    honest = np.random.default_rng(4).normal(size=(9, 20)) + 1
    for size in (1e3, 1e8, 1e30):
        result = GeometricMedian()(np.vstack([honest, np.full((4, 20), size)]))
        assert (
            np.linalg.norm(result - honest.mean(axis=0))
            < 2 * np.linalg.norm(honest - honest.mean(axis=0), axis=1).max()
        )


def test_arguments_that_are_none():
    for wrong in ({"nu": 0.0}, {"iterations": 0}, {"tolerance": -1.0}):
        with pytest.raises(InvalidValueError, match=next(iter(wrong))):
            GeometricMedian(**wrong)
    with pytest.raises(BoundError, match="2f < n"):
        GeometricMedian()(np.eye(4), f=2)


def context():
    from matl.aggregators import Context

    return Context()
