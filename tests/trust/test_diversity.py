"""Diversity: copies and noise are both odd company, and simulated clients say where honest company ends."""

import numpy as np
import pytest

from matl.errors import InvalidValueError
from matl.trust.diversity import LEAST_ROUNDS, NEIGHBOURS, _likeness_of_guests, diversity, synchrony
from matl.trust.peers import unit_rows

N, M, K = 30, 100, 256
NOWHERE = np.zeros((N, 16))


def company(count, seed):
    """Residuals of honest clients: a mix of ten things that clients share in part, and as much of each one's own."""
    rng = np.random.default_rng(seed)
    shared = np.random.default_rng(0).normal(size=(10, K)) / np.sqrt(K)
    own = rng.normal(size=(count, K)) / np.sqrt(K)
    return (rng.dirichlet(np.full(10, 0.5), size=count) @ shared + 0.5 * own).astype(np.float32)


def test_honest_clients_are_spread_over_the_whole_range():
    typical = np.concatenate([diversity(company(N, s), company(M, 99 + s), NOWHERE).typical for s in range(1, 41)])
    # 1200 values, those of one draw dependent through its guests: the share below a level has an error under .02.
    for level in (0.05, 0.2, 0.5, 0.8):
        assert abs((typical < level).mean() - level) < 0.06


def test_copies_and_noise_are_both_atypical_though_noise_is_the_most_diverse():
    histories = company(N, 1)
    histories[:6] = histories[0]
    histories[6:12] = np.random.default_rng(2).normal(size=(6, K))
    found = diversity(histories, company(M, 3), NOWHERE)
    np.testing.assert_allclose(found.community[:6], 0.0, atol=1e-6)
    assert found.community[6:12].min() > found.community[12:].max()
    assert found.typical[:12].max() < 0.01
    assert np.median(found.typical[12:]) > 0.2


def test_the_length_of_a_history_does_not_count():
    histories = company(N, 4)
    plain, stretched = (
        diversity(X, company(M, 5), NOWHERE) for X in (histories, histories * np.arange(1, N + 1)[:, None])
    )
    np.testing.assert_allclose(plain.typical, stretched.typical, atol=1e-5)


def test_a_guest_is_measured_as_the_member_whose_place_it_takes():
    histories, guest = company(9, 6), company(1, 7)
    likeness = []
    for out in range(9):
        seats = histories.copy()
        seats[out] = guest[0]
        likeness.append(1.0 - diversity(seats, company(M, 8), NOWHERE[:9]).community[out])
    cosines = unit_rows(guest) @ unit_rows(histories).T
    assert _likeness_of_guests(cosines, NEIGHBOURS)[0] == pytest.approx(np.mean(likeness), abs=1e-6)


def test_no_opinion_about_a_handful_nor_about_clients_without_a_history():
    assert diversity(company(4, 1), company(M, 2), NOWHERE[:4]) is None
    histories = company(6, 1)
    histories[2] = 0.0
    found = diversity(histories, company(M, 2), NOWHERE[:6])
    assert np.flatnonzero(np.isnan(found.typical)).tolist() == [2]
    assert np.flatnonzero(np.isnan(found.community)).tolist() == [2]
    histories[3] = 0.0
    assert diversity(histories, company(M, 2), NOWHERE[:6]) is None


def test_permuting_clients_permutes_what_is_said_about_them():
    order, histories = np.random.default_rng(1).permutation(N), company(N, 1)
    arrivals = np.random.default_rng(2).lognormal(size=(N, 16))
    straight = diversity(histories, company(M, 2), arrivals)
    shuffled = diversity(histories[order], company(M, 2), arrivals[order])
    for name in ("community", "temporal", "typical"):
        np.testing.assert_allclose(getattr(straight, name)[order], getattr(shuffled, name), atol=1e-9)


def test_arriving_together_with_those_one_is_like_is_atypical():
    rng = np.random.default_rng(3)
    shared, arrivals = company(N, 1), rng.lognormal(1.0, 0.5, size=(N, 16))
    shared[:6] = shared[0] + 0.7 * company(6, 9)  # alike, but no more than some honest clients are
    apart = diversity(shared, company(M, 2), arrivals)
    arrivals[:6] = arrivals[0] + rng.uniform(0, 0.05, size=(6, 16))
    together = diversity(shared, company(M, 2), arrivals)
    np.testing.assert_array_equal(apart.community, together.community)
    assert together.temporal[:6].max() < 0.2 < 0.5 < together.temporal[6:].min()
    assert together.typical[:6].max() < 0.02
    assert np.median(together.typical[6:]) > 0.2


def test_arrivals_without_information_give_no_temporal_opinion():
    histories, guests = company(N, 1), company(M, 2)
    arrivals = np.random.default_rng(3).lognormal(size=(N, 16))
    late = arrivals.copy()
    late[0, LEAST_ROUNDS - 1 :] = np.nan
    always_same = np.repeat(arrivals[:, :1], 16, axis=1)
    unknown = np.full((N, 16), np.nan)
    for given in (NOWHERE, always_same, unknown):
        assert np.isnan(diversity(histories, guests, given).temporal).all()
    assert np.flatnonzero(np.isnan(diversity(histories, guests, late).temporal)).tolist() == [0]
    assert np.isnan(diversity(histories[:6], guests, arrivals[:6]).temporal).all(), "everybody else is a neighbour"


def test_independent_arrivals_leave_the_calibration_as_it_is():
    typical = []
    for seed in range(1, 31):
        arrivals = np.random.default_rng(seed).lognormal(1.0, 0.5, size=(N, 16))
        typical.append(diversity(company(N, seed), company(M, 99 + seed), arrivals).typical)
    for level in (0.05, 0.2, 0.5):  # 900 values; as above
        assert abs((np.concatenate(typical) < level).mean() - level) < 0.07


def test_slow_machines_are_not_in_step_for_being_slow():
    arrivals = np.random.default_rng(0).normal(size=(N, 200))
    arrivals[:6] += 100.0
    # Four standard errors of a correlation over 200 rounds; six that share the last six ranks even lean apart.
    assert synchrony(arrivals)[:6, :6].max() < 0.28


def test_synchrony_looks_only_at_rounds_that_both_came_to():
    arrivals = np.random.default_rng(0).normal(size=(N, 40))
    arrivals[1] = arrivals[0]
    arrivals[0, ::2], arrivals[2, 1::2] = np.nan, np.nan
    pairs = synchrony(arrivals)
    assert pairs[0, 1] > 0.8
    assert pairs[0, 2] == 0.0
    np.testing.assert_allclose(pairs, pairs.T)
    with pytest.raises(InvalidValueError, match=r"expected arrivals of shape \(n, W\)"):
        synchrony(arrivals[0])
