"""Peer evidence: each channel speaks about what it is for, and about nothing else."""

from __future__ import annotations

import numpy as np
import pytest

from matl.errors import StateError
from matl.state import pack, unpack
from matl.trust import peers
from matl.trust.peers import PeerBook

WIDTH = 64


def spread(n: int, pull: float, seed: int = 0) -> np.ndarray:
    """Histories with a common part of relative length ``pull``."""
    rng = np.random.default_rng(seed)
    own = peers.unit_rows(rng.normal(size=(n, WIDTH)))
    return peers.unit_rows(own + pull * np.eye(1, WIDTH))


def skewed(n: int = 40, classes: int = 10, seed: int = 0) -> np.ndarray:
    """Histories of clients that hold much of one class and some of another; two classes have cosine -0.05."""
    kinds = np.linalg.cholesky(1.05 * np.eye(classes) - 0.05) @ np.eye(classes, WIDTH)
    first = np.arange(n)
    mix = np.eye(classes)[first % classes] + 0.5 * np.eye(classes)[(first + 1 + first // classes) % classes]
    return peers.unit_rows(mix @ kinds + 0.02 * np.random.default_rng(seed).normal(size=(n, WIDTH)))


def everyone(histories: np.ndarray, size: int) -> peers.Agreement:
    n = len(histories)
    return peers.agreement(histories, np.full(n, True), np.full(n, np.nan), size)


def book_after(rounds: list[dict[str, np.ndarray]], centre: np.ndarray, suspicion: float = 0.0) -> PeerBook:
    """A book after rounds of updates by name; everyone is under ``suspicion`` from the second round on."""
    book = PeerBook.empty(WIDTH)
    for number, updates in enumerate(rounds):
        ids = sorted(updates)
        book = book.opened(ids)
        book.suspicion[:] = suspicion if number else 0.0
        X = np.stack([updates[name] for name in ids]).astype(np.float32)
        book = book.with_round(book.rows(ids), X, np.linalg.norm(X, axis=1).astype(float), centre, number)
    return book


def test_a_third_that_flips_its_sign_is_far_beyond_the_bar():
    histories = spread(30, 1.0)
    histories[:10] *= -1
    evidence, bar = peers.direction_evidence(everyone(histories, 20))
    assert bar < 0
    assert evidence[:10].min() > 1
    assert evidence[10:].max() < 1


def test_honest_clients_that_only_differ_are_not_accused():
    for seed in range(10):
        evidence, _ = peers.direction_evidence(everyone(spread(30, 1.0, seed), 20))
        assert evidence.max() < 1, f"seed {seed}"


def test_a_minority_of_copies_does_not_become_the_common_direction():
    # Their cosines sum to more than those of the honest majority; their votes do not.
    histories = spread(30, 0.4)
    histories[:10] = -np.eye(1, WIDTH)
    assert histories[0] @ histories.sum(axis=0) > 0, "the plain mean must be captured, or this test shows nothing"
    found = everyone(histories, 20)
    assert not found.reference[:10].any()
    assert found.centre[0] > 0.4


@pytest.mark.parametrize("seed", range(5))
def test_who_flips_its_sign_contradicts_those_that_hold_the_same_classes(seed):
    histories, liars = skewed(seed=seed), np.zeros(40, bool)
    assert not peers.contradicted(histories, 13).any()
    assert np.median(histories @ histories.T) < 0, "honest clients must disagree, or this test shows nothing"
    liars[np.random.default_rng(seed).permutation(40)[:13]] = True
    histories[liars] *= -1
    assert everyone(histories, 27).reference[liars].sum() >= 4, "votes must be captured, or this test shows nothing"
    cosines = histories @ histories.T
    outvoted = (cosines < -peers.CLEAR).sum(axis=1) > (cosines > peers.CLEAR).sum(axis=1) - 1
    assert (outvoted != liars).any(), "some class must have more liars than others, or counting ties would do"
    assert peers.contradicted(histories, 13).tolist() == liars.tolist()


def test_copies_that_pull_back_are_the_smaller_side_however_many_they_contradict():
    """Some honest clients are tied to more copies than to peers."""
    histories, liars = skewed(), np.arange(40) < 13
    histories[liars] = -peers.unit_rows(histories[13:].sum(axis=0))
    cosines = histories @ histories.T
    against = (cosines < -peers.CLEAR)[:, liars].sum(axis=1)
    assert (against > (cosines > peers.CLEAR).sum(axis=1))[13:].any(), "counting ties must fail, or this shows nothing"
    assert peers.contradicted(histories, 13).tolist() == liars.tolist()


def test_the_smaller_side_of_every_class_is_named():
    """Each class is a world of its own here: liars must be outvoted within it."""
    kinds = np.repeat(np.eye(4, WIDTH), 5, axis=0)
    liars = np.isin(np.arange(20), [0, 1, 8, 9, 10, 12, 17, 18])
    kinds[liars] *= -1
    assert peers.contradicted(kinds, 8).tolist() == liars.tolist()


def test_a_smaller_side_of_more_than_may_be_malicious_is_how_the_data_fall():
    """Two classes, and clients that hold nearly only one of them: what helps one hurts the other."""
    histories = np.repeat([1.0, -1.0], [9, 6])[:, None] * np.eye(1, WIDTH)
    assert peers.contradicted(histories, 6).sum() == 6
    assert not peers.contradicted(histories, 5).any()


def test_there_is_no_smaller_side_of_two_halves_of_copies_of_noise_or_of_silence():
    halves = np.repeat([1.0, -1.0], 8)[:, None] * np.eye(1, WIDTH)
    copies = skewed()
    copies[:13] = copies[0]
    noise = peers.unit_rows(np.random.default_rng(6).normal(size=(30, 2048)))
    for histories in (halves, copies, noise, np.zeros((6, WIDTH))):
        assert not peers.contradicted(histories, len(histories)).any()


def test_a_dispute_that_two_sides_do_not_explain_names_nobody():
    """Three kinds of clients, each against the other two."""
    kinds = np.array([[1.0, 0.0], [-0.5, 0.75**0.5], [-0.5, -(0.75**0.5)]])
    assert not peers.contradicted(np.repeat(kinds, [6, 5, 4], axis=0), 15).any()


def test_the_ranking_of_the_last_round_decides_where_two_groups_are_as_large():
    histories = np.concatenate([spread(8, 2.0), -spread(8, 2.0, seed=1)])
    ranking = np.repeat([0.5, -0.5], 8)
    for sign in (1.0, -1.0):
        found = peers.agreement(histories, np.full(16, True), sign * ranking, 8)
        assert found.reference[:8].all() == (sign > 0)
        assert found.reference[8:].all() == (sign < 0)


def test_only_candidates_enter_the_reference():
    candidates = np.arange(30) >= 5
    found = peers.agreement(spread(30, 1.0), candidates, np.full(30, np.nan), 28)
    assert found.reference.sum() == 25
    assert not found.reference[:5].any()


def test_direction_has_no_opinion_where_peers_do_not_agree():
    found = peers.Agreement(np.array([-0.2, -0.1, -0.3]), np.full(3, True), np.zeros(WIDTH, np.float32))
    evidence, _ = peers.direction_evidence(found)
    assert not evidence.any()


def test_noise_contradicts_itself_and_a_newcomer_does_not():
    evidence, bar = peers.consistency_evidence(np.array([0.9, 0.95, 0.92, 0.0, -0.9, np.nan]))
    assert bar == pytest.approx(0.45)
    assert (evidence > 1).tolist() == [False, False, False, True, True, False]
    assert evidence[5] == 0


def test_consistency_has_no_opinion_before_there_are_histories():
    evidence, _ = peers.consistency_evidence(np.full(4, np.nan))
    assert not evidence.any()


def test_jittered_copies_are_seen_and_honest_neighbours_are_not():
    rng = np.random.default_rng(3)
    histories = spread(40, 1.0)
    jitter = peers.unit_rows(rng.normal(size=(10, WIDTH)))
    histories[:10] = peers.unit_rows(histories[0] + 0.05 * jitter)
    evidence, cosines, bar = peers.collusion_evidence(histories, everyone(histories, 27).centre)
    assert bar == peers.COPY_BAR
    assert evidence[:10].min() > 1
    assert evidence[10:].max() < 1
    assert cosines[:10].min() > bar


def test_where_everybody_is_close_only_a_copy_is_a_copy():
    """Few classes leave honest clients little to differ in: two thirds within a cosine of 0.97 or so of each other."""
    rng = np.random.default_rng(4)
    kinds = rng.normal(size=(2, WIDTH))
    histories = peers.unit_rows(kinds[np.arange(30) % 2] + 0.15 * rng.normal(size=(30, WIDTH)))
    copies = histories.copy()
    copies[:9] = peers.unit_rows(histories[0] + 1e-3 * rng.normal(size=(9, WIDTH)))
    centre = np.zeros(WIDTH, np.float32)
    honest, cosines, bar = peers.collusion_evidence(histories, centre)
    assert cosines.min() > peers.COPY_BAR
    assert bar > cosines.max()
    assert honest.max() < 1
    assert peers.collusion_evidence(copies, centre)[0][:9].min() > 1


def test_what_all_share_is_not_collusion():
    histories = spread(40, 20.0)
    assert (histories @ histories.T).min() > 0.99
    evidence, _, _ = peers.collusion_evidence(histories, everyone(histories, 27).centre)
    assert evidence.max() < 1


def test_a_tenfold_update_shouts_and_a_short_one_does_not():
    evidence, bar = peers.norm_evidence(np.log([1.0, 1.1, 0.9, 1.0, 10.0, 0.01, 2.0]))
    assert bar == pytest.approx(peers.NORM_BAR)
    assert (evidence > 1).tolist() == [False, False, False, False, True, False, False]


def test_the_norm_bar_widens_where_honest_norms_differ_much():
    _, bar = peers.norm_evidence(np.log([0.1, 0.3, 1.0, 3.0, 10.0]))
    assert bar > 100


def test_a_history_is_capped_by_the_median_norm():
    direction = np.eye(3, WIDTH)
    updates = {"a": 1000.0 * direction[0], "b": direction[1], "c": direction[2]}
    book = book_after([updates], np.zeros(WIDTH, np.float32))
    assert np.allclose(np.linalg.norm(book.histories, axis=1), 1.0)


def test_a_suspect_improves_its_record_but_does_not_rewrite_it():
    forth = np.eye(1, WIDTH)[0]
    others = {"b": forth, "c": forth}
    centre = forth.astype(np.float32)
    turned = book_after([{"a": forth, **others}, {"a": -forth, **others}], centre, suspicion=1.0)
    assert turned.histories[0, 0] == pytest.approx(1.0)
    free = book_after([{"a": forth, **others}, {"a": -forth, **others}], centre, suspicion=0.0)
    assert free.histories[0, 0] == pytest.approx(peers.MEMORY - 1.0)
    mended = book_after([{"a": -forth, **others}, {"a": forth, **others}], centre, suspicion=1.0)
    assert mended.histories[0, 0] == pytest.approx(1.0 - peers.MEMORY)


def test_agreement_with_the_past_fades():
    forth, up = np.eye(2, WIDTH)
    book = book_after([{"a": forth}, {"a": forth}, {"a": up}], np.zeros(WIDTH, np.float32))
    # cosines 1 then 0, the later one with twice the weight of the earlier
    assert peers.faded_mean(book.agreeing)[0] == pytest.approx(1 / 3)


def test_an_empty_update_says_nothing():
    forth = np.eye(1, WIDTH)[0]
    book = book_after([{"a": forth, "b": forth}, {"a": 0 * forth, "b": forth}], np.zeros(WIDTH, np.float32))
    assert book.seen.tolist() == [1, 2]
    assert book.last.tolist() == [1, 1]
    assert np.isnan(peers.faded_mean(book.agreeing)[0])
    silent = book_after([{"a": 0 * forth}], np.zeros(WIDTH, np.float32))
    assert silent.seen.tolist() == [0]


def test_absent_clients_are_forgotten_unless_they_are_suspects():
    book = PeerBook.empty(WIDTH).opened(["gone", "here", "suspect"])
    book.last[1] = peers.FORGOTTEN
    book.suspicion[2] = 0.4
    assert book.closed(peers.FORGOTTEN).ids == ("here", "suspect")
    assert book.closed(peers.FORGOTTEN - 1).ids == ("gone", "here", "suspect")


def test_a_book_survives_the_codec_exactly():
    rng = np.random.default_rng(5)
    rounds = [{name: rng.normal(size=WIDTH) for name in names} for names in ("ab", "bc", "abc")]
    book = book_after(rounds, np.zeros(WIDTH, np.float32))
    back = PeerBook.of_state(unpack(pack(book.as_state())))
    assert pack(back.as_state()) == pack(book.as_state())
    assert back.ids == book.ids == ("a", "b", "c")


def test_a_foreign_state_is_refused():
    with pytest.raises(StateError, match="histories"):
        PeerBook.of_state({"ids": []})
