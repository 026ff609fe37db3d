"""Nearest-neighbour mixing against float64, with explicit distances."""

import numpy as np
import pytest

from matl.aggregators import NNM, Context, FLTrust, Mean, MultiKrum, TrimmedMean
from matl.errors import InvalidValueError


def naive_mixing(X, f):
    rows = np.asarray(X, np.float32).astype(float)
    mixed = []
    for row in rows:
        distances = ((rows - row) ** 2).sum(axis=1)
        mixed.append(rows[np.argsort(distances, kind="stable")[: len(rows) - f]].mean(axis=0))
    return np.array(mixed)


@pytest.mark.parametrize("f", [0, 1, 4])
def test_mixing_before_the_trimmed_mean(X, agree, f):
    f = min(f, NNM().max_f(len(X)))
    mixed = np.sort(naive_mixing(X, f), axis=0)
    agree(NNM(f)(X), mixed[f : len(X) - f].mean(axis=0), X)


def test_mixing_before_the_mean(X, agree):
    f = NNM().max_f(len(X))
    agree(NNM(f, Mean())(X), naive_mixing(X, f).mean(axis=0), X)


def test_an_f_given_to_one_of_the_two_holds_for_both():
    X = np.random.default_rng(0).normal(size=(9, 4))
    expected = NNM(2, TrimmedMean(2))(X)
    np.testing.assert_array_equal(NNM(2)(X), expected)
    np.testing.assert_array_equal(NNM(rule=TrimmedMean(2))(X, f=1), expected)
    np.testing.assert_array_equal(NNM()(X, f=2), expected)
    assert not np.array_equal(NNM(2, TrimmedMean(0))(X), expected)


def test_weights_are_those_of_the_rows_before_mixing():
    X = np.array([[0.0], [0.1], [0.2], [0.3], [9.0]])
    result, _ = NNM(1, MultiKrum()).aggregate(X, Context(), {})
    assert result.unit_weights.sum() == pytest.approx(1)
    assert result.unit_weights[4] == 0
    assert NNM(1).aggregate(X, Context(), {})[0].unit_weights is None


def test_a_rule_that_needs_a_root_is_refused_before_there_is_a_round():
    with pytest.raises(InvalidValueError, match=r"needs no root data after NNM, got FLTrust; use it alone"):
        NNM(rule=FLTrust())
