"""Means and intervals, against SciPy's."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from matl.campaigns.statistics import mean_interval, t_quantile


@pytest.mark.parametrize("freedom", [*range(1, 12), 29, 30, 101, 1000])
@pytest.mark.parametrize("probability", [0.5, 0.9, 0.975, 0.995])
def test_quantiles_are_those_of_student(probability, freedom):
    assert t_quantile(probability, freedom) == pytest.approx(stats.t.ppf(probability, freedom), rel=1e-9, abs=1e-12)


@given(st.lists(st.floats(0, 1), min_size=2, max_size=12))
def test_intervals_are_those_of_scipy(values):
    found = mean_interval(values)
    assert (found.n, found.mean) == (len(values), pytest.approx(math.fsum(values) / len(values)))
    error = stats.sem(values)
    expected = stats.t.interval(0.95, len(values) - 1, loc=found.mean, scale=error)[1] - found.mean if error else 0
    assert found.half_width == pytest.approx(expected, abs=1e-9)


def test_one_value_has_no_interval_and_none_has_no_mean():
    assert mean_interval([0.3]).half_width is None
    assert mean_interval([]) is None
