import numpy as np

from matl.trust.collusion import collusion, foremost, likeness, originals


def test_copies_stand_out_among_independent_clients():
    residuals = np.random.default_rng(0).normal(size=(30, 512)).astype(np.float32)
    residuals[:6] = residuals[0] * np.arange(1, 7)[:, None]  # the same direction at six lengths
    agreement = collusion(likeness(residuals))
    np.testing.assert_allclose(agreement[:6], 1.0, atol=1e-5)
    # Each cosine of independent rows has a deviation of .044; five of them exceed a mean of .3 with probability < 1e-9.
    assert agreement[6:].max() < 0.3


def test_a_pair_of_copies_is_not_a_group():
    residuals = np.random.default_rng(1).normal(size=(30, 512)).astype(np.float32)
    residuals[1] = residuals[0]
    assert collusion(likeness(residuals)).max() < 0.6


def test_no_opinion_in_a_small_cohort_and_no_nan_for_zeros():
    assert likeness(np.ones((4, 8), np.float32)) is None
    assert not collusion(likeness(np.zeros((6, 8), np.float32))).any()


def test_whoever_is_copied_is_told_from_the_copies_by_its_past():
    alike = np.zeros((6, 6), bool)
    alike[:4, :4] = ~np.eye(4, dtype=bool)
    turned = np.array([0.1, 1.0, 0.9, 1.1, 0.0, 0.2])
    assert originals(alike, turned).tolist() == [True] + 5 * [False]  # the last two are like nobody


def test_of_those_that_are_like_each_other_one_counts_in_full_at_most():
    alike = ~np.eye(12, dtype=bool)
    turned = np.concatenate([np.linspace(0.05, 0.1, 6), np.full(6, 1.0)])
    copied = originals(alike, turned)
    assert copied.tolist() == 6 * [True] + 6 * [False]
    assert foremost(alike, copied, turned).tolist() == [True] + 11 * [False]
    assert not foremost(alike, copied, np.where(copied, 0.1, 1.0)).any()  # nobody was there first


def test_who_repeats_itself_and_is_like_nobody_is_no_original_whatever_rounding_says():
    turned = np.array([-2e-7, 2e-7, 0.0, -1e-7])
    assert not originals(np.zeros((4, 4), bool), turned).any()
    assert not originals(~np.eye(4, dtype=bool), turned).any()


def test_those_that_always_moved_as_one_are_all_copies():
    alike = ~np.eye(4, dtype=bool)
    assert not originals(alike, np.full(4, 0.05)).any()
    assert not originals(alike, np.ones(4)).any()  # nobody has a past
