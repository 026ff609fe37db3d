"""Median and trimmed mean against float64, coordinate by coordinate."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from matl.aggregators import Median, TrimmedMean


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
    tolerance = 1e-6 * float(np.abs(X).max())
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
