import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from matl.trust.campaign import MOST_COMPANY
from matl.trust.campaign import campaign as judged

WIDTH, HONEST, LIARS, SHADOWS = 512, 28, 22, 120
BAR = 3.0
NOBODY = np.zeros((HONEST + LIARS, HONEST + LIARS), bool)


def campaign(residuals, shadows, alien, alike, bar):
    return judged(residuals, shadows, alien, alike, np.zeros(len(residuals), bool), bar)


def noise(count, seed):
    """Rows of about unit length without anything in common: their cosines have a deviation of .044."""
    return (np.random.default_rng(seed).normal(size=(count, WIDTH)) / np.sqrt(WIDTH)).astype(np.float32)


def cohort(strength=0.8, seed=0):
    """Liars first, each with ``strength`` of one direction; then honest clients, and shadows."""
    residuals, direction = noise(LIARS + HONEST, seed), noise(1, seed + 1)
    residuals[:LIARS] += strength * direction
    return residuals, noise(SHADOWS, seed + 2)


def looking(liars, honest):
    return np.concatenate([np.full(LIARS, liars), np.full(HONEST, honest)])


def test_liars_below_the_alien_bar_are_accused_for_what_they_share():
    residuals, shadows = cohort()
    found = campaign(residuals, shadows, looking(0.5, 0.2), NOBODY, BAR)
    # A liar's cosine is about .6, six deviations from where evidence is 1; an honest client would need a cosine past
    # fourteen of them: a false failure has a probability below 1e-7.
    assert found.evidence[:LIARS].min() > 1.0
    assert found.evidence[LIARS:].max() < 0.75
    assert found.shared[:LIARS].min() > 2 * found.usual


def test_aliens_with_nothing_in_common_are_no_campaign():
    residuals, shadows = cohort(strength=0.0)
    found = campaign(residuals, shadows, looking(0.6, 0.2), NOBODY, BAR)
    assert found.evidence.max() < 1.0  # it would take a cosine eight deviations out


def test_nobody_is_accused_for_company_alone():
    residuals, shadows = cohort(strength=3.0)
    residuals[-1] = residuals[:LIARS].mean(axis=0)  # all that they share, and nothing else
    alien = looking(0.9, 0.1)
    alien[-2:] = 0.0, 0.99 / MOST_COMPANY
    residuals[-2] = residuals[-1]
    found = campaign(residuals, shadows, alien, NOBODY, BAR)
    assert found.shared[-1] > 0.95
    assert found.evidence[-2] == 0.0
    assert 0.9 < found.evidence[-1] < 1.0


def test_nobody_keeps_company_with_itself():
    residuals, shadows = cohort(strength=0.0)
    alone = np.zeros(LIARS + HONEST)
    alone[3] = 5.0
    found = campaign(residuals, shadows, alone, NOBODY, BAR)
    assert abs(found.shared[3]) < 1e-3
    assert found.evidence[3] < 1.0  # it would take shadows whose median cosine is nine deviations below 0


def test_nobody_sets_the_direction_alone():
    residuals, shadows = cohort()
    alien = looking(0.9, 0.0)
    alien[-1] = 1e6
    shared = campaign(residuals, shadows, alien, NOBODY, BAR).shared
    np.testing.assert_allclose(
        shared[:-1], campaign(residuals, shadows, np.minimum(alien, 1.0), NOBODY, BAR).shared[:-1]
    )
    assert shared[:LIARS].min() > 0.3


def test_those_that_move_as_one_weigh_as_one():
    residuals, shadows = cohort()
    residuals[10:LIARS] = residuals[-1]  # twelve copies of one honest client, and ten liars of another campaign
    alike = np.zeros_like(NOBODY)
    alike[10:LIARS, 10:LIARS] = ~np.eye(LIARS - 10, dtype=bool)
    counted = [campaign(residuals, shadows, looking(0.8, 0.1), each, BAR).shared for each in (NOBODY, alike)]
    assert (counted[1][:10] > counted[0][:10] + 0.2).all()


def test_whoever_is_copied_is_not_accused():
    residuals, shadows = cohort()
    copied = np.arange(LIARS + HONEST) == 3
    found = judged(residuals, shadows, looking(0.9, 0.1), NOBODY, copied, BAR)
    assert found.evidence[3] == 0.0
    assert np.delete(found.evidence[:LIARS], 3).min() > 1.0


def test_what_most_of_the_cohort_shares_is_no_evidence():
    residuals, shadows = noise(LIARS + HONEST, 0) + noise(1, 1), noise(SHADOWS, 2)  # real data differ from the root
    assert campaign(residuals, shadows, np.full(LIARS + HONEST, 0.5), NOBODY, BAR).evidence.max() < 0.75


def test_no_opinion_in_a_small_cohort_and_no_nan_for_zeros():
    residuals, shadows = cohort()
    few = campaign(residuals[:9], shadows, np.ones(9), NOBODY[:9, :9], BAR)
    assert np.isnan(few.evidence).all()
    assert np.isnan(few.shared).all()
    residuals[0] = 0.0
    silent = campaign(residuals, shadows, looking(0.5, 0.2), NOBODY, BAR)
    assert silent.shared[0] == 0.0
    assert silent.evidence[0] < 1.0
    assert not campaign(0 * residuals, 0 * shadows, looking(0.5, 0.2), NOBODY, BAR).evidence.any()


@given(seed=st.integers(0, 2**16), scale=st.floats(0.01, 100.0))
def test_neither_length_nor_order_matters(seed, scale):
    residuals, shadows = cohort(seed=seed)
    rng = np.random.default_rng(seed)
    alien, order = rng.uniform(-0.5, 1.5, LIARS + HONEST), rng.permutation(LIARS + HONEST)
    plain = campaign(residuals, shadows, alien, NOBODY, BAR).evidence
    longer = campaign(np.float32(scale) * residuals, shadows, alien, NOBODY, BAR).evidence
    permuted = campaign(residuals[order], shadows, alien[order], NOBODY, BAR).evidence
    assert longer == pytest.approx(plain, abs=1e-4)
    assert permuted == pytest.approx(plain[order], abs=1e-4)
    assert (plain <= np.sqrt(np.maximum(alien, 0.0) * MOST_COMPANY)).all()
