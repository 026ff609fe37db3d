import numpy as np

from matl.trust.calibration import (
    CONCENTRATIONS,
    SIZES,
    Expectation,
    Shadows,
    circumstances,
    sizes_for,
    standardise,
    tail_probability,
)


def test_mixes_are_distributions_from_skewed_to_even():
    mixes = Shadows.draw(10, 96, seed=3).mixes
    np.testing.assert_allclose(mixes.sum(axis=1), 1.0)
    concentration = (mixes**2).sum(axis=1)
    assert concentration.max() > 0.95  # one class
    assert concentration.min() < 0.12  # all classes alike
    np.testing.assert_array_equal(mixes, Shadows.draw(10, 96, seed=3).mixes)
    assert not np.array_equal(mixes, Shadows.draw(10, 96, seed=4).mixes)


def test_every_size_comes_with_every_concentration():
    count = len(CONCENTRATIONS) * len(SIZES)
    pairs = {(j % len(CONCENTRATIONS), size) for j, size in enumerate(Shadows.draw(10, count, seed=0).sizes.tolist())}
    assert len(pairs) == count


def world(count, rng):
    """Figures that depend on what a client holds, in their middle and in their spread, with its circumstances."""
    sizes, mixes = rng.choice(SIZES, size=count), rng.dirichlet(np.full(10, 0.3), size=count)
    about = circumstances(sizes, mixes)
    held, skew = about[:, 1], about[:, 2]
    noise = rng.normal(size=(count, 2)) * np.exp(-0.2 * held + 0.5 * skew)[:, None]
    return np.stack([3 * skew - held, held], axis=1) + noise, about


def test_an_expectation_holds_in_all_circumstances():
    rng = np.random.default_rng(0)
    expected = Expectation.of(*world(2000, rng))
    figures, about = world(20_000, rng)
    z = expected.standardise(figures, about)
    few, many = about[:, 1] < np.log(30), about[:, 1] > np.log(200)
    for group in (few, many, about[:, 2] > 0.6, about[:, 2] < 0.3):
        # Standard error of a share of 1500 or more is under .015; the fit adds more where few shadows are.
        assert abs((z[group] > 0).mean() - 0.5) < 0.1
        assert 0.02 < (z[group] > 1).mean() < 0.11
    assert abs((figures[few, 0] - figures[:, 0].mean() > figures[:, 0].std()).mean() - 0.05) > 0.11  # it matters
    np.testing.assert_allclose(expected.standardise(expected.usual(about), about), 1.0)


def test_an_outlier_among_shadows_moves_the_expectation_little():
    rng = np.random.default_rng(1)
    figures, about = world(120, rng)
    clean = Expectation.of(figures, about)
    figures[:3] += 100.0
    np.testing.assert_allclose(Expectation.of(figures, about).middle, clean.middle, atol=0.3)


def test_sizes_beyond_those_of_shadows_change_nothing():
    mixes = np.full((4, 10), 0.1)
    about = circumstances(np.array([1.0, SIZES[0], SIZES[-1], 1e9]), mixes)
    np.testing.assert_array_equal(about[0], about[1])
    np.testing.assert_array_equal(about[2], about[3])


def test_figures_that_do_not_differ_do_not_divide_by_zero():
    about = world(60, np.random.default_rng(2))[1]
    assert np.isfinite(Expectation.of(np.ones((60, 1)), about).standardise(np.array([[2.0]]), about[:1])).all()


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


def passes(samples):
    """Local steps of one pass in batches of 8."""
    return max(samples // 8, 1)


def test_shadows_hold_what_clients_do_where_those_with_more_train_longer():
    claims = np.array([12.0, 30.0, 40.0, 60.0])
    assert sizes_for(claims, passes) == (8, 13, 22, 36, 60)  # and not up to 800, ten times as long as anybody trains
    assert sizes_for(claims, lambda _: 10) == SIZES
    assert sizes_for(np.array([3.0, 4.0]), passes) == (4, 4, 4, 4, 4)


def test_one_enormous_claim_does_not_make_shadows_train_for_hours():
    assert sizes_for(np.array([40.0, 1e6]), passes)[-1] == 120
    assert sizes_for(np.array([40.0, 50.0, 60.0, 1e6]), passes)[-1] == 150


def test_sizes_stay_while_they_reach_as_far_as_clients_do_and_not_much_further():
    present = sizes_for(np.full(9, 100.0), passes)
    assert sizes_for(np.full(9, 51.0), passes, present) == present
    assert sizes_for(np.full(9, 101.0), passes, present)[-1] == 101
    assert sizes_for(np.full(9, 49.0), passes, present)[-1] == 49
    assert sizes_for(np.array([2.0, 1e6]), passes, present) == present  # which of the two is odd?


def test_nothing_is_made_up_about_holdings_that_no_shadow_has():
    mixes = np.full((4, 2), 0.5)
    about = circumstances(np.array([4, 60, 61, 1e6]), mixes, shown=(8, 13, 22, 36, 60))
    np.testing.assert_array_equal(about[:, 1], np.log([8, 60, 60, 60]))
