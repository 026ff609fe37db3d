"""Mode 0: who is named, who is not, and that the decision depends on nothing but cohort and state."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest

from matl.aggregators import FLTrust, Mean, RawPoGQ
from matl.errors import InvalidValueError, StateError
from matl.matrix import UpdateMatrix
from matl.modes.mode0 import Mode0, _candidates, _heard
from matl.params import ParamLayout
from matl.records import Cohort, Judgement, Status
from matl.state import State, pack, unpack
from matl.trust.peers import unit_rows
from matl.trust.sketch import Sketch

D, N = 300, 20
LAYOUT = ParamLayout.of({"w": np.zeros(D, np.float32)})
Craft = Callable[[np.ndarray, int, np.random.Generator], np.ndarray]


def updates(number: int, n: int = N, seed: int = 0) -> np.ndarray:
    """Honest updates of one round: a common part, a part of each client's own data, and mini-batch noise."""
    fixed = np.random.default_rng(seed)
    common, own = fixed.normal(size=D), fixed.normal(size=(n, D))
    noise = np.random.default_rng([seed, number]).normal(size=(n, D))
    return (common + 1.2 * own + 0.6 * noise).astype(np.float32) * np.float32(0.95**number)


def cohort(X: np.ndarray, number: int, ids: list[str] | None = None, max_byzantine: int | None = None) -> Cohort:
    bound = len(X) // 3 if max_byzantine is None else max_byzantine
    return Cohort.of(X, ids=ids, max_byzantine=bound, round=number, seed=100 + number)


def train(
    craft: Craft | None = None, rounds: int = 6, f: int = 6, seed: int = 0, mode: Mode0 | None = None
) -> tuple[list[Judgement], State]:
    """Judge some rounds in which the first f clients send what ``craft`` makes of their updates."""
    mode = Mode0() if mode is None else mode
    state, judgements = mode.init(LAYOUT), []
    for number in range(rounds):
        X = updates(number, seed=seed)
        if craft is not None:
            X[:f] = craft(X[:f], number, np.random.default_rng([7, seed, number]))
        judgement, state = mode.judge(cohort(X, number), state)
        judgements.append(judgement)
    return judgements, state


def statuses(judgement: Judgement) -> list[str]:
    return [verdict.status.value for verdict in judgement.verdicts]


def noise(X: np.ndarray, number: int, rng: np.random.Generator) -> np.ndarray:
    Z = rng.normal(size=X.shape)
    return Z / np.linalg.norm(Z, axis=1, keepdims=True) * np.linalg.norm(X, axis=1, keepdims=True)


ATTACKS = {
    "sign_flip": (lambda X, number, rng: -X, "points against its peers"),
    "noise": (noise, "contradicts its own history"),
    "copies": (lambda X, number, rng: np.repeat(X[:1], len(X), axis=0), "copies others"),
    "scaling": (lambda X, number, rng: 10 * X, "times as long as the median"),
    "turncoat": (lambda X, number, rng: -X if number >= 4 else X, "contradicts its own history"),
}


@pytest.mark.parametrize("name", ATTACKS)
def test_thirty_percent_of_attackers_are_quarantined_with_a_reason_and_nobody_else(name):
    craft, words = ATTACKS[name]
    judgement = train(craft)[0][-1]
    assert statuses(judgement)[:6] == ["quarantined"] * 6
    assert "quarantined" not in statuses(judgement)[6:]
    for verdict in judgement.verdicts[:6]:
        assert verdict.weight == 0
        assert words in verdict.reason
        assert max(verdict.evidence.values()) > 1
    assert judgement.diagnostics["within_bound"]


@pytest.mark.parametrize("seed", range(5))
def test_nobody_is_accused_in_an_honest_cohort(seed):
    for judgement in train(rounds=8, seed=seed)[0]:
        assert "quarantined" not in statuses(judgement)


def test_the_aggregate_is_near_the_honest_mean_from_the_first_round_on():
    judgements, _ = train(lambda X, number, rng: -5 * X, rounds=4)
    for number, judgement in enumerate(judgements):
        honest, naive = updates(number)[6:].mean(axis=0), updates(number)
        naive[:6] *= -5
        assert np.linalg.norm(judgement.aggregate - honest) < 0.5 * np.linalg.norm(naive.mean(axis=0) - honest)


def test_a_turncoat_stays_out_as_long_as_it_keeps_turning():
    judgements, _ = train(lambda X, number, rng: -X if number >= 4 else X, rounds=30)
    for judgement in judgements[5:]:
        assert statuses(judgement)[:6] == ["quarantined"] * 6


def test_good_conduct_ends_a_quarantine_and_the_verdict_says_when():
    judgements, _ = train(lambda X, number, rng: 10 * X if number == 3 else X, rounds=34)
    during = judgements[4].verdicts[0]
    assert during.status is Status.QUARANTINED
    assert "more rounds of good conduct; it sends updates" in during.reason
    assert statuses(judgements[-1])[:6] == ["accepted"] * 6


def test_an_attacker_that_trains_honestly_from_now_on_comes_back():
    judgements, _ = train(lambda X, number, rng: -X if number < 5 else X, rounds=60)
    assert statuses(judgements[8])[:6] == ["quarantined"] * 6
    assert statuses(judgements[-1])[:6] == ["accepted"] * 6


def test_copies_have_no_say_in_the_common_direction():
    mode, X = Mode0(), updates(0)
    X[:6] = X[0]
    _, state = mode.judge(cohort(X, 0), mode.init(LAYOUT))
    sketches = unit_rows(Sketch(D, seed=state["sketch_seed"], width=D)(UpdateMatrix(X)))
    assert state["centre"] == pytest.approx(unit_rows(sketches[6:].sum(axis=0)), abs=1e-5)


def test_sign_flippers_are_quarantined_where_honest_clients_have_little_in_common():
    """Clients hold much of one of ten classes and some of another; two classes have cosine -0.05."""
    n, f, mode = 40, 13, Mode0()
    first, classes = np.arange(n), np.linalg.cholesky(1.05 * np.eye(10) - 0.05) @ np.eye(10, D)
    own = classes[first % 10] + 0.5 * classes[(first + 1 + first // 10) % 10]
    own[:f] *= -1
    state = mode.init(LAYOUT)
    for number in range(5):
        X = own + 0.03 * np.random.default_rng(number).normal(size=(n, D))
        judgement, state = mode.judge(cohort(X.astype(np.float32), number), state)
    assert statuses(judgement) == ["quarantined"] * f + ["accepted"] * (n - f)


def test_the_common_direction_is_set_by_known_clients_in_good_standing_while_they_are_half():
    trusted, known = np.array([1, 1, 1, 1, 1, 0], bool), np.array([1, 1, 1, 0, 0, 1], bool)
    assert _candidates(trusted, known).tolist() == (trusted & known).tolist()
    assert _candidates(trusted, np.zeros(6, bool)).tolist() == trusted.tolist()
    assert _candidates(np.zeros(6, bool), known).all(), "somebody has to"


def test_whoever_is_excluded_is_not_heard_unless_too_few_would_be_left():
    candidates, excluded = np.array([1, 1, 1, 1, 1, 0], bool), np.array([1, 0, 0, 0, 0, 0], bool)
    assert _heard(candidates, excluded).tolist() == (candidates & ~excluded).tolist()
    excluded[1] = True
    assert _heard(candidates, excluded).tolist() == candidates.tolist()


def test_there_is_no_opinion_in_the_first_rounds():
    for judgement in train(ATTACKS["sign_flip"][0], rounds=2)[0]:
        assert statuses(judgement) == ["accepted"] * N
        assert all(not verdict.evidence for verdict in judgement.verdicts)
        assert judgement.diagnostics["without_opinion"] == N


def test_a_newcomer_is_accepted_without_an_opinion():
    mode = Mode0()
    _, state = train(rounds=5, mode=mode)
    X = np.concatenate([updates(5), -updates(5)[:1]])
    ids = [*[f"client-{i:03d}" for i in range(N)], "newcomer"]
    judgement, state = mode.judge(cohort(X, 5, ids), state)
    assert judgement.verdicts[-1].status is Status.ACCEPTED
    assert not judgement.verdicts[-1].evidence
    assert all(verdict.evidence for verdict in judgement.verdicts[:-1])


def test_clients_may_stay_away():
    mode, rng = Mode0(), np.random.default_rng(1)
    state, last = mode.init(LAYOUT), {}
    for number in range(14):
        X = updates(number)
        X[:6] *= -1
        here = np.sort(rng.permutation(N)[:14])
        judgement, state = mode.judge(cohort(X[here], number, [f"client-{i:03d}" for i in here]), state)
        last.update({i: verdict.status for i, verdict in zip(here, judgement.verdicts, strict=True)})
    assert [i for i in range(N) if last[i] is Status.QUARANTINED] == list(range(6))


def test_permuting_clients_permutes_verdicts_and_changes_no_bit_of_the_aggregate():
    mode, order = Mode0(), np.random.default_rng(3).permutation(N)
    names = [f"client-{i:03d}" for i in range(N)]
    straight, shuffled = mode.init(LAYOUT), mode.init(LAYOUT)
    for number in range(6):
        X = updates(number)
        X[:6] *= -1
        one, straight = mode.judge(cohort(X, number, names), straight)
        two, shuffled = mode.judge(cohort(X[order], number, [names[i] for i in order]), shuffled)
        assert two.verdicts == tuple(one.verdicts[i] for i in order)
        assert one.aggregate.tobytes() == two.aggregate.tobytes()
        assert pack(straight) == pack(shuffled)


def test_judging_twice_gives_the_same_bits_and_leaves_the_input_alone():
    mode = Mode0()
    _, state = train(ATTACKS["sign_flip"][0], mode=mode)
    before, X = pack(state), updates(6)
    given = cohort(X.copy(), 6)
    (one, after), (two, again) = mode.judge(given, state), mode.judge(given, state)
    assert one.aggregate.tobytes() == two.aggregate.tobytes()
    assert one.verdicts == two.verdicts
    assert pack(after) == pack(again)
    assert pack(state) == before
    assert np.array_equal(given.X.dense(), X)


def test_the_state_survives_the_codec_at_every_round():
    mode = Mode0()
    kept, stored = mode.init(LAYOUT), mode.init(LAYOUT)
    for number in range(6):
        X = updates(number)
        X[:6] *= -1
        one, kept = mode.judge(cohort(X, number), kept)
        two, stored = mode.judge(cohort(X, number), unpack(pack(stored)))
        assert one.aggregate.tobytes() == two.aggregate.tobytes()
        assert pack(kept) == pack(stored)


def test_the_state_is_bounded_by_the_clients_and_not_by_the_rounds():
    assert len(pack(train(rounds=12)[1])) == pytest.approx(len(pack(train(rounds=6)[1])), rel=0.01)


def test_more_accused_than_the_bound_is_said_and_not_hidden():
    judgement = train(ATTACKS["scaling"][0], f=8)[0][-1]
    assert statuses(judgement)[:8] == ["quarantined"] * 8
    assert not judgement.diagnostics["within_bound"]
    assert "8 of 20 clients are quarantined, 6 were allowed for" in judgement.diagnostics["note"]
    mode = Mode0()
    declared, _ = mode.judge(cohort(updates(0), 0, max_byzantine=9), mode.init(LAYOUT))
    assert "outside its bound: 9 of 20" in declared.diagnostics["note"]


@pytest.mark.parametrize("n", [1, 2, 3])
def test_a_handful_of_clients_is_aggregated_without_an_opinion(n):
    mode = Mode0()
    state = mode.init(LAYOUT)
    for number in range(5):
        X = updates(number)[:n]
        judgement, state = mode.judge(cohort(X, number, max_byzantine=0), state)
    assert statuses(judgement) == ["accepted"] * n
    assert judgement.aggregate == pytest.approx(X.mean(axis=0), abs=1e-5)


def test_all_zero_updates_are_judged_without_a_fault():
    mode = Mode0()
    state = mode.init(LAYOUT)
    for number in range(4):
        judgement, state = mode.judge(cohort(np.zeros((6, D), np.float32), number), state)
    assert statuses(judgement) == ["accepted"] * 6
    assert not judgement.aggregate.any()


def test_the_largest_updates_that_pass_screening_do_no_harm():
    huge = np.float32(1e15)
    judgements, _ = train(lambda X, number, rng: np.where(X > 0, huge, -huge), rounds=5)
    for number, judgement in enumerate(judgements):
        honest = updates(number)[6:].mean(axis=0)
        assert np.linalg.norm(judgement.aggregate - honest) < 0.5 * np.linalg.norm(honest)
    first, last = judgements[0].verdicts[0], judgements[-1].verdicts[0]
    assert (first.status, last.status) == (Status.CLIPPED, Status.QUARANTINED)
    assert 0 < first.weight < 1e-10
    assert "100 times" in first.reason


def test_the_model_stays_where_everybody_is_quarantined():
    mode = Mode0()
    _, state = train(rounds=4, mode=mode)
    state["book"]["suspicion"][:] = 3.0
    judgement, _ = mode.judge(cohort(updates(4), 4), state)
    assert statuses(judgement) == ["quarantined"] * N
    assert not judgement.aggregate.any()


def test_a_suspect_counts_half():
    # With a plain mean the weight can be read off the aggregate.
    mode = Mode0(aggregator=Mean())
    # About 2.6 times the median norm: below the bar of 3, above four fifths of it on the logarithmic scale.
    judgements, _ = train(lambda X, number, rng: 2.6 * X, f=1, mode=mode)
    verdict, X = judgements[-1].verdicts[0], updates(5)
    assert (verdict.status, verdict.weight) == (Status.SUSPECTED, 0.5)
    assert "counts half" in verdict.reason
    X[0] *= 2.6 * 0.5
    assert judgements[-1].aggregate == pytest.approx(X.mean(axis=0), abs=1e-5)


def test_the_digest_names_the_configuration():
    assert Mode0().digest == Mode0().digest
    assert len({Mode0().digest, Mode0(aggregator=Mean()).digest, Mode0(bound=0.2).digest}) == 3


def test_a_foreign_state_or_bound_is_refused():
    with pytest.raises(StateError, match="Mode0"):
        Mode0().judge(cohort(updates(0), 0), {"version": 0})
    with pytest.raises(StateError, match="300 parameters"):
        Mode0().judge(cohort(updates(0), 0), Mode0().init(ParamLayout.of([np.zeros(4, np.float32)])))
    with pytest.raises(InvalidValueError, match="bound"):
        Mode0(bound=1.5)
    for rule in (FLTrust(), RawPoGQ()):
        with pytest.raises(InvalidValueError, match=f"no root data, {type(rule).__name__} needs some"):
            Mode0(aggregator=rule)


def test_rounds_in_which_nothing_can_be_seen_release_nobody():
    _, state = train(ATTACKS["sign_flip"][0], rounds=8, f=1)
    for number in range(8, 48):  # it goes on, where two others are too few to compare it with
        X = updates(number)[:3]
        X[0] *= -1
        judgement, state = Mode0().judge(cohort(X, number), state)
    assert statuses(judgement) == ["quarantined", "accepted", "accepted"]


def test_silence_releases_nobody():
    _, state = train(ATTACKS["scaling"][0], rounds=8, f=1)
    for number in range(8, 48):
        X = updates(number)
        X[0] *= np.float32(1e-9)
        judgement, state = Mode0().judge(cohort(X, number), state)
    assert statuses(judgement)[0] == "quarantined"


def test_a_short_update_now_and_then_does_not_hide_enormous_ones():
    judgements, _ = train(lambda X, number, rng: X * np.float32(50.0 if number % 2 else 1e-3), rounds=10, f=2)
    assert statuses(judgements[-1])[:2] == ["quarantined", "quarantined"]
    assert "quarantined" not in statuses(judgements[-1])[2:]
