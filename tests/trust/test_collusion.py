import numpy as np

from matl.trust.collusion import collusion


def test_copies_stand_out_among_independent_clients():
    residuals = np.random.default_rng(0).normal(size=(30, 512)).astype(np.float32)
    residuals[:6] = residuals[0] * np.arange(1, 7)[:, None]  # the same direction at six lengths
    agreement = collusion(residuals)
    np.testing.assert_allclose(agreement[:6], 1.0, atol=1e-5)
    # Each cosine of independent rows has a deviation of .044; five of them exceed a mean of .3 with probability < 1e-9.
    assert agreement[6:].max() < 0.3


def test_a_pair_of_copies_is_not_a_group():
    residuals = np.random.default_rng(1).normal(size=(30, 512)).astype(np.float32)
    residuals[1] = residuals[0]
    assert collusion(residuals).max() < 0.6


def test_no_opinion_in_a_small_cohort_and_no_nan_for_zeros():
    assert collusion(np.ones((4, 8), np.float32)) is None
    assert not collusion(np.zeros((6, 8), np.float32)).any()
