import numpy as np

from matl.trust.levels import FIGURES, LevelBars, judge_levels
from matl.trust.sequential import WINDOW

ROUNDS = 12


def cohort(n, rng, rounds=ROUNDS):
    window = np.full((n, WINDOW, len(FIGURES)), np.nan)
    client = rng.normal(size=(n, 1, len(FIGURES)))  # clients differ from each other for good
    window[:, -rounds:] = client + 0.5 * rng.normal(size=(n, rounds, len(FIGURES)))
    return window


def test_clients_like_shadows_stay_under_the_bars():
    rng = np.random.default_rng(0)
    found = judge_levels(cohort(200, rng), cohort(100, rng), cohort(100, rng), LevelBars())
    # The lowest bar is 2.5 spreads = 4 deviations: 200 clients, 4 figures and 2 speeds exceed it with p < .05.
    assert found.evidence.max() < 1.05
    assert found.shadows.shape == (200, 100)


def test_each_channel_hears_its_own_figures():
    rng = np.random.default_rng(1)
    clients, shadows = cohort(4, rng), cohort(100, rng)
    clients[0, -ROUNDS:, :2] += 12.0
    clients[1, -ROUNDS:, 2] += 12.0
    clients[2, -ROUNDS:, 3] += 12.0
    found = judge_levels(clients, shadows, shadows, LevelBars())
    assert (found.evidence > 1.0).tolist() == [
        [True, False, False],
        [False, True, False],
        [False, False, True],
        [False, False, False],
    ]


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
    before = judge_levels(clients, shadows, shadows, LevelBars()).evidence[0, 1]
    clients[0, -2:, 2] += 12.0
    after = judge_levels(clients, shadows, shadows, LevelBars()).evidence[0, 1]
    assert before < 1.0 < after


def test_what_shows_a_little_everywhere_counts_together():
    rng = np.random.default_rng(4)
    clients, shadows = cohort(1, rng), cohort(100, rng)
    clients[0, -ROUNDS:] = 0.0
    alone = judge_levels(clients, shadows, shadows, LevelBars())
    assert alone.joint[0] < 0.5
    clients[0, -ROUNDS:, :2], clients[0, -ROUNDS:, 2] = 3.0, 3.4
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
