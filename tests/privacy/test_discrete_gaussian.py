"""The sampler against the law itself, compiled and as plain Python."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2

from matl.errors import InvalidValueError
from matl.privacy import _coins
from matl.privacy.discrete_gaussian import MAX_SIGMA, discrete_gaussian
from matl.privacy.words import Words

LEVEL = 1e-8  # of a false failure, for each statistical test
GOLDEN = [-916, -836, -182, 561, -517, 22, -31, -119, -652, -649, -1563, -367]


def law(sigma, reach=8):
    values = np.arange(-reach * sigma, reach * sigma + 1)
    weights = np.exp(-((values / sigma) ** 2) / 2)
    return values, weights / weights.sum()


def p_value(samples, sigma):
    """Of a chi-square test; values that are expected less than ten times are pooled."""
    values, chance = law(sigma)
    common = chance * len(samples) >= 10
    seen = np.array([(samples == value).sum() for value in values[common]])
    wanted = chance[common] * len(samples)
    rest, expected_rest = len(samples) - seen.sum(), len(samples) - wanted.sum()
    statistic = ((seen - wanted) ** 2 / wanted).sum() + (rest - expected_rest) ** 2 / max(expected_rest, 1)
    return chi2.sf(statistic, common.sum())


@pytest.mark.parametrize("sigma", [1, 2, 3, 10])
def test_samples_follow_the_discrete_gaussian(sigma):
    assert p_value(discrete_gaussian(200_000, sigma), sigma) > LEVEL


def test_a_rounded_gaussian_would_be_noticed():
    rounded = np.rint(np.random.default_rng(0).normal(size=200_000)).astype(np.int64)
    assert p_value(rounded, 1) < LEVEL


@pytest.mark.parametrize("sigma", [300, 70_000, MAX_SIGMA])
def test_moments_of_wide_ones(sigma):
    samples = discrete_gaussian(100_000, sigma) / sigma
    # Standard errors: 1 / sqrt(n) of the mean, sqrt(2 / n) of the variance, sqrt(96 / n) of the fourth moment.
    for power, wanted, spread in ((1, 0.0, 1.0), (2, 1.0, 2.0**0.5), (4, 3.0, 96.0**0.5)):
        assert abs((samples**power).mean() - wanted) < 6 * spread / np.sqrt(len(samples))


def test_plain_python_draws_the_same(monkeypatch):
    compiled = discrete_gaussian(40, 5, Words(bytes(32)))
    for name in ("below", "exp_of_minus", "fill"):
        monkeypatch.setattr(_coins, name, getattr(_coins, name).py_func)
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(discrete_gaussian(40, 5, Words(bytes(32))), compiled)


def test_golden_vector():
    assert discrete_gaussian(12, 1000, Words(bytes(32))).tolist() == GOLDEN


def test_samples_are_fresh_unless_a_key_is_given():
    assert (discrete_gaussian(50, 1000) != discrete_gaussian(50, 1000)).any()


@given(st.integers(1, 400), st.integers(0, 300))
@settings(max_examples=20, deadline=None)
def test_any_size(sigma, size):
    assert discrete_gaussian(size, sigma).shape == (size,)


@pytest.mark.parametrize(
    ("sigma", "seen"), [(0, "sigma=0"), (MAX_SIGMA + 1, f"sigma={MAX_SIGMA + 1}"), (2.5, "sigma=2.5")]
)
def test_refusals(sigma, seen):
    with pytest.raises(InvalidValueError, match=seen):
        discrete_gaussian(3, sigma)
