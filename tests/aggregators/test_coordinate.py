"""Median, trimmed mean and mean around the median against float64, coordinate by coordinate."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from matl.aggregators import Meamed, Median, TrimmedMean


def naive_trimmed_mean(X, f):
    return [np.mean(sorted(column)[f : len(column) - f]) for column in np.asarray(X, float).T]


def test_median(X, agree):
    agree(Median()(X), np.median(np.asarray(X, float), axis=0), X)


@pytest.mark.parametrize("f", [0, 1, 4])
def test_trimmed_mean(X, agree, f):
    f = min(f, TrimmedMean().max_f(len(X)))
    agree(TrimmedMean(f)(X), naive_trimmed_mean(X, f), X)


@given(
    hnp.arrays(
        np.float32, hnp.array_shapes(min_dims=2, max_dims=2, max_side=7), elements=st.floats(-1e6, 1e6, width=32)
    )
)
def test_any_values_ties_and_signed_zeros(X):
    f = (len(X) - 1) // 2
    tolerance = 1e-6 * float(np.abs(X).max()) + float(np.finfo(np.float32).smallest_subnormal)
    np.testing.assert_allclose(Median()(X), np.median(X.astype(float), axis=0), atol=tolerance)
    np.testing.assert_allclose(TrimmedMean(f)(X), naive_trimmed_mean(X, f), atol=tolerance)


@pytest.mark.parametrize("rule", [Median(), TrimmedMean(1)], ids=repr)
@pytest.mark.parametrize("shape", [(5, 1), (5, 3)])
def test_the_callers_rows_are_not_sorted(rule, shape):
    """A single column, or Fortran order, transposes to memory that could be sorted in place."""
    X = np.asfortranarray(np.random.default_rng(0).normal(size=shape).astype(np.float32))
    before = X.copy()
    rule(X)
    np.testing.assert_array_equal(X, before)


def test_most_trimming_is_the_median_of_an_odd_number():
    X = np.random.default_rng(0).normal(size=(7, 5))
    np.testing.assert_array_equal(TrimmedMean(3)(X), Median()(X))


def naive_meamed(X, f):
    means = []
    for column in np.sort(np.asarray(X, np.float32).astype(float), axis=0).T:
        gaps = np.abs(column - np.median(column))
        means.append(column[np.argsort(gaps, kind="stable")[: len(column) - f]].mean())
    return means


@pytest.mark.parametrize("f", [0, 1, 4])
def test_meamed(X, agree, f):
    f = min(f, Meamed().max_f(len(X)))
    agree(Meamed(f)(X), naive_meamed(X, f), X)


def test_of_two_values_equally_near_to_the_median_the_lower_is_taken():
    assert Meamed(1)(np.array([[-1.0], [0.0], [1.0]])) == [-0.5]


def naive_weighted_median(X, weights):
    """Middle of the interval on which sum_i w_i |x_i - m| is least."""
    medians = []
    for column in np.asarray(X, float).T:
        costs = np.abs(column[:, None] - column[None, :]) @ weights
        best = column[costs <= costs.min() + 1e-9 * weights.sum()]
        medians.append((best.min() + best.max()) / 2)
    return medians


@pytest.mark.parametrize("seed", range(50))
def test_weighted_median(seed):
    rng = np.random.default_rng(seed)
    X = rng.integers(-5, 5, size=(rng.integers(1, 12), 6)).astype(np.float32)
    weights = rng.integers(0, 4, size=len(X)).astype(float)
    weights[0] += 1
    np.testing.assert_allclose(Median(weighted=True)(X, weights=weights), naive_weighted_median(X, weights))


def test_weights_count_only_where_they_are_asked_for():
    X, weights = np.array([[1.0], [2.0], [9.0]]), np.array([1.0, 1.0, 5.0])
    assert Median()(X, weights=weights) == 2
    assert Median(weighted=True)(X, weights=weights) == 9
    assert Median(weighted=True)(X) == 2
    even = np.random.default_rng(0).normal(size=(6, 9000)).astype(np.float32)
    np.testing.assert_allclose(Median(weighted=True)(even, weights=np.full(6, 0.1)), Median()(even), rtol=1e-6)
