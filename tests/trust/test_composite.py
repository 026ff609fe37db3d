"""The composite: probabilities in, a weighted probability out, and an interval that keeps its promise."""

import numpy as np
import pytest

from matl.errors import InvalidValueError
from matl.trust.calibration import typicality
from matl.trust.composite import Composite


def test_typicality_of_honest_figures_is_even_and_both_ends_are_odd():
    rng = np.random.default_rng(0)
    p = typicality(rng.gamma(2.0, size=4000), rng.gamma(2.0, size=4000))
    for level in (0.02, 0.1, 0.5, 0.9):  # standard errors below .011; .04 fails with probability < 1e-3
        assert abs((p <= level).mean() - level) < 0.04
    low, middle, high = typicality(np.array([-9.0, 0.0, 9.0]), rng.normal(size=500))
    assert max(low, high) < 1e-6
    assert middle > 0.8


def test_typicality_does_not_care_which_way_a_figure_counts_and_keeps_silence():
    values, shadows = np.array([0.3, np.nan, -2.0]), np.random.default_rng(1).normal(size=100)
    p = typicality(values, shadows)
    np.testing.assert_array_equal(p, typicality(-values, -shadows))
    assert np.isnan(p).tolist() == [False, True, False]


def test_a_figure_that_all_shadows_share_is_typical():
    assert typicality(np.zeros(2), np.zeros(50)).tolist() == [1.0, 1.0]


def test_the_score_is_the_weighted_mean():
    pogq, tcdm, entropy = np.random.default_rng(0).random((3, 7))
    trust = Composite().score({"pogq": pogq, "tcdm": tcdm, "entropy": entropy}, shadows=100)
    np.testing.assert_allclose(trust.score, 0.4 * pogq + 0.3 * tcdm + 0.3 * entropy)
    other = Composite(pogq=1.0, tcdm=0.0, entropy=0.0).score({"entropy": entropy, "pogq": pogq}, shadows=100)
    np.testing.assert_allclose(other.score, pogq)


def test_components_without_an_opinion_leave_their_weight_to_the_others():
    p = np.array([0.2, 0.2, np.nan, np.nan])
    trust = Composite().score({"pogq": p, "entropy": np.array([0.9, np.nan, 0.9, np.nan])}, shadows=100)
    np.testing.assert_allclose(trust.score[:3], [(0.4 * 0.2 + 0.3 * 0.9) / 0.7, 0.2, 0.9])
    assert np.isnan([part[3] for part in trust]).all()
    silent = Composite(pogq=0.0, tcdm=0.5, entropy=0.5).score({"pogq": p}, shadows=100)
    assert np.isnan(silent.score).all(), "an opinion without weight is none"


def test_the_interval_holds_the_score_stays_in_range_and_narrows_with_shadows():
    grid = np.linspace(0, 1, 11)
    few, many = (Composite().score({"pogq": grid, "tcdm": grid}, shadows=count) for count in (100, 10_000))
    for trust in (few, many):
        assert (trust.low <= trust.score).all()
        assert (trust.score <= trust.high).all()
        assert 0.0 <= trust.low.min() <= trust.high.max() <= 1.0
    assert ((few.high - few.low) > 5 * (many.high - many.low)).all()


@pytest.mark.parametrize("figures", [(0.5, 0.2, 0.9), (0.02, 0.01, 0.03), (0.99, 0.5, 0.5)])
def test_the_interval_covers_what_endless_shadows_would_say(figures):
    """Components calibrated on the very same shadows, the worst case for their errors."""
    rng, covered = np.random.default_rng(0), 0
    at = np.array(figures)
    truth = Composite().score(
        {"pogq": 1 - at[:1], "tcdm": 2 * np.minimum(at, 1 - at)[1:2], "entropy": 2 * np.minimum(at, 1 - at)[2:]}, 10**9
    )
    for _ in range(500):
        shadows = rng.random(100)
        upper = np.array([(shadows >= value).mean() for value in at])
        two_sided = np.minimum(2 * np.minimum(upper, 1 - upper), 1.0)
        parts = {"pogq": upper[:1], "tcdm": two_sided[1:2], "entropy": two_sided[2:]}
        trust = Composite().score(parts, shadows=100)
        covered += bool(trust.low[0] <= truth.score[0] <= trust.high[0])
    assert covered >= 0.93 * 500  # 95 % less two standard errors


@pytest.mark.parametrize(
    ("weights", "words"),
    [
        ({"pogq": 0.5}, "expected weights that sum to 1, got pogq=0.5, tcdm=0.3, entropy=0.3"),
        ({"pogq": 1.2, "tcdm": -0.2, "entropy": 0.0}, "expected tcdm >= 0"),
        ({"pogq": float("nan")}, "expected pogq to be finite"),
    ],
)
def test_impossible_weights_are_refused(weights, words):
    with pytest.raises(InvalidValueError, match=words):
        Composite(**weights)


@pytest.mark.parametrize(
    ("components", "words"),
    [
        ({"pogg": [0.5]}, "unknown component 'pogg'; known: pogq, tcdm, entropy"),
        ({"pogq": [0.5], "tcdm": [0.5, 0.5]}, "expected components of one length"),
        ({"pogq": [0.5, 3.0]}, r"expected pogq in \[0, 1\], got values from 0.5 to 3"),
    ],
)
def test_components_that_are_no_probabilities_are_refused(components, words):
    with pytest.raises(InvalidValueError, match=words):
        Composite().score({name: np.array(values) for name, values in components.items()}, shadows=100)
