import numpy as np

from matl.trust.calibration import shadow_mixes, standardise, tail_probability


def test_mixes_are_distributions_from_skewed_to_even():
    mixes = shadow_mixes(10, 96, seed=3)
    np.testing.assert_allclose(mixes.sum(axis=1), 1.0)
    concentration = (mixes**2).sum(axis=1)
    assert concentration.max() > 0.95  # one class
    assert concentration.min() < 0.12  # all classes alike
    np.testing.assert_array_equal(mixes, shadow_mixes(10, 96, seed=3))
    assert not np.array_equal(mixes, shadow_mixes(10, 96, seed=4))


def test_standardise_puts_median_at_0_and_q95_at_1():
    shadows = np.random.default_rng(0).gamma(2.0, size=(500, 3)) * [1.0, 10.0, 0.1]
    marks = np.stack([np.median(shadows, axis=0), np.quantile(shadows, 0.95, axis=0)])
    np.testing.assert_allclose(standardise(marks, shadows), [[0, 0, 0], [1, 1, 1]], atol=1e-6)


def test_shadows_without_spread_do_not_divide_by_zero():
    assert np.isfinite(standardise(np.array([1.0, 2.0]), np.ones(50))).all()


def test_tail_probability_of_shadows_is_uniform():
    rng = np.random.default_rng(1)
    p = tail_probability(rng.exponential(size=4000), rng.exponential(size=4000))
    # Standard error of a share of 4000 is under .008; with both samples, .04 fails with probability < 1e-6.
    for level in (0.02, 0.1, 0.5, 0.9):
        assert abs((p <= level).mean() - level) < 0.04


def test_tail_probability_falls_with_evidence_and_stays_in_range():
    p = tail_probability(np.linspace(-5, 50, 200), np.random.default_rng(2).normal(size=100))
    assert (np.diff(p) <= 1e-12).all()
    assert p.max() == 1.0
    assert 0.0 <= p.min() < 1e-12
