"""Centered clipping over rounds against float64."""

import numpy as np
import pytest

from matl.aggregators import NNM, CenteredClipping, Context
from matl.errors import InvalidValueError, StateError
from matl.params import ParamLayout
from matl.state import digest


def naive(X, centre, radius, steps):
    rows, v = np.asarray(X, np.float32).astype(float), np.asarray(centre, float)
    for _ in range(steps):
        gaps = rows - v
        lengths = np.linalg.norm(gaps, axis=1)
        v = v + (np.minimum(1, radius / np.maximum(lengths, 1e-300))[:, None] * gaps).mean(axis=0)
    return v


@pytest.mark.parametrize("share", [0.3, 1.0, 3.0])
@pytest.mark.parametrize("steps", [1, 3])
def test_one_round_from_zero(X, agree, share, steps):
    radius = share * float(np.median(np.linalg.norm(np.asarray(X, float), axis=1)))
    agree(CenteredClipping(radius, steps)(X), naive(X, np.zeros(X.shape[1]), radius, steps), X)


def test_rounds_remember():
    rng, rule = np.random.default_rng(0), CenteredClipping(radius=1.5, iterations=2)
    state, v = rule.init(ParamLayout.of([np.zeros(30)])), np.zeros(30)
    for _ in range(5):
        X = rng.normal(size=(8, 30)) + 1
        result, state = rule.aggregate(X, Context(), state)
        v = naive(X, v, 1.5, 2)
        np.testing.assert_allclose(result.vector, v, rtol=1e-4, atol=1e-5)
        assert np.linalg.norm(result.vector) > 0
        digest(state)  # plain data
    assert result.diagnostics == {"clipped": 8}


def test_unit_weights_of_the_first_round_are_those_of_the_rows():
    X = np.random.default_rng(1).normal(size=(6, 10)).astype(np.float32)
    result, _ = CenteredClipping(1.0, 3).aggregate(X, Context(), {"centre": None})
    np.testing.assert_allclose(result.unit_weights @ X, result.vector, atol=1e-6)


def test_f_rows_move_it_by_no_more_than_their_share_of_the_radius():
    X = np.random.default_rng(2).normal(size=(10, 20))
    attacked = X.copy()
    attacked[:3] = 1e20
    gap = np.linalg.norm(CenteredClipping(0.5)(attacked) - CenteredClipping(0.5)(X))
    assert 0 < gap <= 2 * 0.5 * 3 / 10 * 1.0001


def test_it_works_behind_mixing():
    X = np.random.default_rng(3).normal(size=(9, 20)) + 1
    rule = NNM(2) | CenteredClipping(radius=0.5)
    state, v = rule.init(ParamLayout.of([np.zeros(20)])), np.zeros(20)
    assert rule.keeps_state
    for _ in range(3):
        result, state = rule.aggregate(X, Context(), state)
        v = naive(NNM(2).mix(X), v, 0.5, 1)
        np.testing.assert_allclose(result.vector, v, atol=1e-5)


def test_arguments_and_states_that_are_none():
    for wrong in ({"radius": 0.0}, {"iterations": 0}):
        with pytest.raises(InvalidValueError, match=next(iter(wrong))):
            CenteredClipping(**wrong)
    for wrong in ({"centre": np.zeros(7, np.float32)}, {}):
        with pytest.raises(StateError, match=r"centre of shape \(3,\), got .* another run"):
            CenteredClipping().aggregate(np.eye(3), Context(), wrong)


def test_the_result_is_the_callers_to_change():
    result, state = CenteredClipping().aggregate(np.eye(3), Context(), {"centre": None})
    before = state["centre"].copy()
    result.vector[:] = 99
    np.testing.assert_array_equal(state["centre"], before)


@pytest.mark.parametrize("offset", [0.0, 10.0, 1000.0])
def test_behind_mixing_a_common_offset_does_not_blur_the_distances(offset):
    X = np.random.default_rng(4).normal(size=(20, 500)) + offset
    start = (X.mean(axis=0) + 0.3).astype(np.float32)
    result, _ = (NNM(4) | CenteredClipping(radius=5.0)).aggregate(X, Context(), {"centre": start})
    np.testing.assert_allclose(result.vector, naive(NNM(4).mix(X), start, 5.0, 1), atol=1e-3 + 1e-6 * offset)
    assert result.diagnostics == {"clipped": 20}
