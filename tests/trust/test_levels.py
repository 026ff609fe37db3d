import numpy as np
import pytest

from matl.trust.calibration import Expectation, Shadows, circumstances
from matl.trust.levels import (
    DRIFT_COHORT,
    FIGURES,
    LEAST_SCORE,
    LEVELS,
    LevelBars,
    drift,
    heard,
    judge_levels,
    round_scores,
)
from matl.trust.sequential import WINDOW

ROUNDS = 12


def cohort(n, rng, rounds=ROUNDS):
    window = np.full((n, WINDOW, len(LEVELS)), np.nan)
    client = rng.normal(size=(n, 1, len(LEVELS)))  # clients differ from each other for good
    window[:, -rounds:] = client + 0.5 * rng.normal(size=(n, rounds, len(LEVELS)))
    return window


def test_clients_like_shadows_stay_under_the_bars():
    rng = np.random.default_rng(0)
    found = judge_levels(cohort(200, rng), cohort(100, rng), cohort(100, rng), LevelBars())
    # The lowest bar is 1.7 spreads = 2.8 deviations: a normal value exceeds it with probability .003.
    assert (found.evidence > 1.0).mean() < 0.01
    assert found.shadows.shape == (200, 100)


def test_each_channel_hears_its_own_scores():
    rng = np.random.default_rng(1)
    clients, shadows = cohort(4, rng), cohort(100, rng)
    for channel in range(len(LEVELS)):
        clients[channel] = 0.0
        clients[channel, -ROUNDS:, channel] = 12.0
        clients[channel, :-ROUNDS] = np.nan
    found = judge_levels(clients, shadows, shadows, LevelBars())
    np.testing.assert_array_equal(found.evidence > 1.0, np.eye(len(LEVELS), dtype=bool))


def test_one_round_is_weaker_evidence_than_many():
    rng = np.random.default_rng(2)
    shadows = cohort(100, rng)
    clients = cohort(2, rng)
    clients[:, -ROUNDS:, 2] = 7.0
    clients[1, -ROUNDS:-1] = np.nan
    found = judge_levels(clients, shadows, shadows, LevelBars())
    assert 0 < found.evidence[1, 1] < found.evidence[0, 1]


def test_the_fast_memory_sees_a_recent_change():
    rng = np.random.default_rng(3)
    clients, shadows = cohort(1, rng), cohort(100, rng)
    clients[0, -ROUNDS:, 2] = 0.0
    before = judge_levels(clients, shadows, shadows, LevelBars()).evidence[0, 2]
    clients[0, -2:, 2] += 8.0
    after = judge_levels(clients, shadows, shadows, LevelBars()).evidence[0, 2]
    assert before < 0.2
    assert after > 1.0


def test_what_shows_a_little_everywhere_counts_together():
    rng = np.random.default_rng(4)
    clients, shadows = cohort(1, rng), cohort(100, rng)
    clients[0, -ROUNDS:] = 0.0
    alone = judge_levels(clients, shadows, shadows, LevelBars())
    assert alone.joint[0] < 0.5
    clients[0, -ROUNDS:, :3] = 2.4
    found = judge_levels(clients, shadows, shadows, LevelBars())
    assert found.evidence.max() < 1.0 < found.joint[0]


def test_one_that_is_below_the_usual_in_every_channel_has_negative_joint_evidence():
    rng = np.random.default_rng(5)
    clients, shadows = cohort(1, rng), cohort(100, rng)
    clients[0, -ROUNDS:] = -3.0
    found = judge_levels(clients, shadows, shadows, LevelBars())
    assert found.joint[0] == found.evidence[0].max() < 0.0


def test_flipped_shadows_are_measured_on_the_scale_of_the_shadows():
    rng = np.random.default_rng(6)
    clients, shadows = cohort(3, rng), cohort(100, rng)
    clients[1, -5:] = np.nan
    found = judge_levels(clients, shadows, shadows + 6.0, LevelBars())
    np.testing.assert_array_equal(judge_levels(clients, shadows, shadows, LevelBars()).flipped, found.shadows)
    assert (np.median(found.flipped, axis=1) > 1.0).all()


def test_gain_and_share_are_heard_together():
    rng = np.random.default_rng(7)
    shadows = Shadows.draw(10, 80, seed=0)
    about = circumstances(shadows.sizes, shadows.mixes)
    measured = rng.normal(size=(80, len(FIGURES)))
    expected = Expectation.of(measured, about)
    scores = round_scores(measured, about, expected)
    assert scores.shape == (80, len(LEVELS))
    more = measured.copy()
    more[:, :2] += 1.0
    raised = round_scores(more, about, expected) - scores
    assert (raised[:, 0] > 0).all()
    assert not raised[:, 1:].any()


def test_drift_is_what_most_of_the_cohort_shows_and_never_raises_a_score():
    rng = np.random.default_rng(7)
    strange, usual = 1.5 + 0.5 * rng.normal(size=(40, 4)), rng.normal(size=(40, 4)) - 1.0
    assert (drift(strange) > 1.0).all()
    assert not drift(usual).any()
    assert not drift(strange[: DRIFT_COHORT - 1]).any()


def test_where_no_drift_can_be_told_alien_has_no_opinion_and_no_part_in_what_counts_together():
    rng = np.random.default_rng(12)
    clients, shadows, flipped = cohort(3, rng), cohort(100, rng), cohort(100, rng)
    told = heard(3)
    assert [name for name, one in zip(LEVELS, told, strict=True) if not one] == ["alien"]
    assert heard(DRIFT_COHORT).all()
    plain, found = (judge_levels(clients, shadows, flipped, LevelBars(), *also) for also in ((), (told,)))
    assert np.isnan(found.evidence[:, ~told]).all()
    np.testing.assert_array_equal(found.evidence[:, told], plain.evidence[:, told])
    for window in (clients, shadows, flipped):
        window[:, :, 2] = 40.0 * rng.random(window.shape[:2])
    other = judge_levels(clients, shadows, flipped, LevelBars(), told)
    for name in ("joint", "shadows", "flipped"):
        np.testing.assert_array_equal(getattr(other, name), getattr(found, name))


@pytest.mark.parametrize("lie", [-50.0, 0.0, 50.0])
def test_liars_lift_the_drift_to_the_honest_median_and_no_further(lie):
    rng = np.random.default_rng(8)
    honest = 1.0 + rng.normal(size=(55, 4))
    found = drift(np.concatenate([honest, np.full((45, 4), lie)]))
    assert (found >= 0.0).all()
    assert (found <= np.quantile(honest, 0.56, axis=0)).all()


def test_one_silent_round_does_not_outweigh_a_loud_one():
    rng = np.random.default_rng(9)
    shadows = Shadows.draw(10, 120, seed=0)
    about = circumstances(shadows.sizes, shadows.mixes)
    shown = rng.normal(size=(120, 5))
    expected = Expectation.of(shown, about)
    silent = np.full((1, 5), -1e6)
    assert round_scores(silent, about[:1], expected)[0, LEVELS.index("norm")] == LEAST_SCORE


def test_liars_that_are_known_and_quiet_do_not_keep_the_drift_from_being_seen():
    honest, quiet = np.full((28, 4), 2.0), np.full((22, 4), -6.0)
    scores, known = np.concatenate([honest, quiet]), np.arange(50) < 28
    assert not drift(scores).any()
    assert (drift(scores, known) == 2.0).all()
    assert not drift(scores, np.arange(50) < 4).any()  # too few to say what is usual
