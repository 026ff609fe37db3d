"""Mode 1 on small federations of Gaussian classes; published figures come from the evaluation, not from here."""

from dataclasses import replace
from functools import cache

import numpy as np
import pytest

from matl.errors import InvalidValueError, StateError, UndecidedError
from matl.learning.datasets import Dataset
from matl.learning.local import LocalTraining, train_locally
from matl.learning.oracle import RootOracle
from matl.learning.tasks import MLPTask
from matl.modes.mode1 import Mode1
from matl.params import ParamLayout
from matl.records import Cohort, Status
from matl.state import pack, unpack
from matl.trust.calibration import Shadows
from matl.trust.composite import Composite

CLASSES, FEATURES, CLIENTS = 5, 12, 20
BAD = 8  # the first 8 of 20 clients attack
RECIPE = LocalTraining(learning_rate=0.1, batch_size=16, steps=5)
TASK = MLPTask(FEATURES, CLASSES, hidden=(16,))
CENTRES = np.random.default_rng(99).normal(size=(CLASSES, FEATURES)) * 1.5


def blobs(y, rng):
    X = CENTRES[y] + rng.normal(size=(len(y), FEATURES))
    return Dataset("blobs", X.astype(np.float32), y.astype(np.int64), CLASSES)


@cache
def world(seed=0):
    rng = np.random.default_rng(seed)
    root = blobs(np.repeat(np.arange(CLASSES), 10), rng)
    clients = tuple(
        blobs(rng.choice(CLASSES, size=30, p=rng.dirichlet(np.full(CLASSES, 0.5))), rng) for _ in range(CLIENTS)
    )
    return Mode1(RootOracle(TASK, root, RECIPE)), clients


def train(clients, params, round_index):
    rngs = [np.random.default_rng([round_index, client]) for client in range(len(clients))]
    return train_locally(TASK, params, clients, RECIPE, rngs)


def cohort_of(updates, params, round_index, ids=None, held=30):
    weights = np.full(len(updates), float(held))
    return Cohort.of(updates, params=params, round=round_index, seed=1000 + round_index, ids=ids, weights=weights)


def play(attack, rounds=8, seed=0):
    """Judgements of a federation in which the first clients attack, and the state after it."""
    mode, clients = world(seed)
    params, state, judgements = TASK.init(np.random.default_rng(seed)), mode.init(TASK.layout), []
    for t in range(rounds):
        updates = train(clients, params, t)
        attack(updates, t)
        judgement, state = mode.judge(cohort_of(updates, params, t), state)
        params = params + judgement.aggregate
        judgements.append(judgement)
    return judgements, state, params


def quarantined(judgement):
    return {int(v.unit[-3:]) for v in judgement.verdicts if v.status is Status.QUARANTINED}


def assert_caught(judgement):
    """All that attack are, and at most one other."""
    found = quarantined(judgement)
    assert found >= set(range(BAD))
    assert len(found) <= BAD + 1


def honest(updates, t):
    pass


def sign_flip(updates, t):
    updates[:BAD] *= -1


def noise(updates, t):
    rng = np.random.default_rng(t)
    drawn = rng.normal(size=updates[:BAD].shape)
    scale = np.linalg.norm(updates[:BAD], axis=1) / np.linalg.norm(drawn, axis=1)
    updates[:BAD] = drawn * (3 * scale[:, None])


def scaling(updates, t):
    updates[:BAD] *= 20


def copies(updates, t):
    updates[:BAD] = updates[BAD:].mean(axis=0) - updates[BAD:].std(axis=0)


def sleeper(updates, t):
    if t >= 6:
        updates[:BAD] *= -1


def test_hardly_an_honest_client_is_ever_quarantined():
    ever = [set().union(*map(quarantined, play(honest, seed=seed)[0])) for seed in (0, 1, 2)]
    assert sum(map(len, ever)) <= 1  # of 60, whose validators own ten samples of each class


def test_a_cohort_of_simulated_honest_clients_is_not_quarantined():
    mode, _ = world()
    params, state = TASK.init(np.random.default_rng(0)), mode.init(TASK.layout)
    mixes = np.random.default_rng(5).dirichlet(np.full(CLASSES, 0.5), size=CLIENTS)
    simulated = Shadows(mixes, np.full(CLIENTS, 80))
    for t in range(4):
        updates = mode.oracle.honest(params, simulated, seed=50 + t, fold=1)
        judgement, state = mode.judge(cohort_of(updates, params, t), state)
        params = params + judgement.aggregate
        assert not quarantined(judgement)


@pytest.mark.parametrize(
    ("attack", "channel", "words"),
    [
        (sign_flip, "relabelling", "pushes against its own classes: false labels raise the cosine"),
        (noise, "alien", "looks like no training on these classes"),
        (scaling, "norm", "times as long as 95 % of simulated honest updates"),
        (sleeper, "turn", "turned against its own past: cosine -0."),
    ],
)
def test_attackers_are_quarantined_with_a_reason(attack, channel, words):
    judgements, _, _ = play(attack)
    assert_caught(judgements[-1])
    accused = judgements[-1].verdicts[:BAD]
    assert all(v.weight == 0 and v.reason for v in accused)
    loudest = [
        max(("relabelling", "alien", "norm", "turn", "collusion"), key=lambda c: v.evidence.get(c, -9)) for v in accused
    ]
    assert channel in loudest  # others hear a sleeper too
    assert any(words in v.reason for v in accused)


def test_sign_flippers_among_few_overlapping_classes_are_caught_and_kept():
    """Channels hardly speak up alone here, and the signal fades as the model learns."""
    rng = np.random.default_rng(0)

    def drawn(y):
        X = rng.normal(size=(len(y), FEATURES)) + 1.5 * np.eye(3, FEATURES)[y]
        return Dataset("overlapping", X.astype(np.float32), y.astype(np.int64), 3)

    mixes = rng.dirichlet(np.full(3, 0.5), size=CLIENTS)
    clients = [drawn(rng.choice(3, size=50, p=mix)) for mix in mixes]
    task = MLPTask(FEATURES, 3, hidden=(32,))
    recipe = LocalTraining(learning_rate=0.1, batch_size=32, steps=10)
    mode = Mode1(RootOracle(task, drawn(np.repeat(np.arange(3), 20)), recipe))
    params, state, caught, released = task.init(rng), mode.init(task.layout), set(), set()
    for t in range(20):
        rngs = [np.random.default_rng([t, client]) for client in range(CLIENTS)]
        updates = train_locally(task, params, clients, recipe, rngs)
        updates[:6] *= -1
        judgement, state = mode.judge(cohort_of(updates, params, t, held=50), state)
        params = params + judgement.aggregate
        now = quarantined(judgement)
        caught, released = caught | now, released | ((caught - now) & set(range(6)))
    assert len(now - set(range(6))) <= 1
    assert len(now & set(range(6))) >= 5
    assert len(released) <= 1


def test_copies_are_heard_by_the_collusion_channel():
    judgements, _, _ = play(copies)
    agreement = [v.evidence["collusion"] for v in judgements[-1].verdicts]
    assert min(agreement[:BAD]) > 1.0 > max(agreement[BAD:])
    assert quarantined(judgements[-1]) == set(range(BAD))


def test_a_campaign_is_heard_where_its_clients_are_not(monkeypatch):
    direction = np.random.default_rng(3).normal(size=TASK.layout.size)
    direction /= np.linalg.norm(direction)

    def campaigners(updates, t):
        lengths = np.linalg.norm(updates[:BAD], axis=1, keepdims=True)
        updates[:BAD] += (0.8 * lengths * direction).astype(np.float32)

    judgements, _, _ = play(campaigners)
    evidence = [v.evidence for v in judgements[-1].verdicts]
    assert max(e["campaign"] for e in evidence[BAD:]) < 0.75
    assert max(e["alien"] for e in evidence) < 1.0
    assert quarantined(judgements[-1]) == set(range(BAD))
    reasons = [v.reason for v in judgements[-1].verdicts[:BAD]]
    assert any("and so do others in the same way" in reason for reason in reasons)
    mode, clients = world()
    monkeypatch.setitem(globals(), "world", lambda seed: (replace(mode, campaign_bar=1e9), clients))
    deaf, _, _ = play(campaigners)
    assert len(quarantined(deaf[-1])) < BAD - 2


def test_the_model_learns_as_if_the_attackers_were_not_there():
    _, clients = world()
    _, _, params = play(sign_flip, rounds=15)
    alone = TASK.init(np.random.default_rng(0))
    for t in range(15):
        alone = alone + train(clients[BAD:], alone, t).mean(axis=0)
    test = blobs(np.repeat(np.arange(CLASSES), 100), np.random.default_rng(77))
    accuracy = [float(np.mean(TASK.predict(w, test.X) == test.y)) for w in (params, alone)]
    assert accuracy[0] > 0.8
    assert accuracy[0] > accuracy[1] - 0.05


def test_sleepers_are_believed_until_they_turn():
    judgements, _, _ = play(sleeper)
    assert not any(quarantined(judgement) & set(range(BAD)) for judgement in judgements[:6])
    assert len(quarantined(judgements[6]) & set(range(BAD))) >= BAD - 1
    assert_caught(judgements[7])


def test_quarantine_ends_with_good_conduct():
    def briefly(updates, t):
        if t == 6:
            updates[0] *= -1

    judgements, _, _ = play(briefly, rounds=30)
    served = [t for t, judgement in enumerate(judgements) if 0 in quarantined(judgement)]
    assert served[0] == 6
    assert served == list(range(6, served[-1] + 1))
    assert served[-1] < 29
    assert "more rounds of good conduct" in judgements[served[-1]].verdicts[0].reason


def test_judging_twice_gives_the_same_bits_and_changes_no_input():
    mode, clients = world()
    _, state, params = play(sign_flip, rounds=3)
    cohort = cohort_of(train(clients, params, 3), params, 3)
    before = pack(state)
    (first, after), (second, again) = mode.judge(cohort, state), mode.judge(cohort, unpack(before))
    assert first.aggregate.tobytes() == second.aggregate.tobytes()
    assert first.verdicts == second.verdicts
    assert pack(after) == pack(again)
    assert pack(state) == before


def test_permuting_clients_permutes_verdicts():
    mode, clients = world()
    _, state, params = play(sign_flip, rounds=3)
    updates = train(clients, params, 3)
    updates[0] *= -1
    order = np.random.default_rng(0).permutation(CLIENTS)
    ids = cohort_of(updates, params, 3).ids
    straight, after = mode.judge(cohort_of(updates, params, 3), state)
    shuffled, after_shuffled = mode.judge(cohort_of(updates[order], params, 3, ids=[ids[i] for i in order]), state)
    assert [v.unit for v in shuffled.verdicts] == [ids[i] for i in order]
    assert {v.unit: v for v in shuffled.verdicts} == {v.unit: v for v in straight.verdicts}
    assert shuffled.aggregate.tobytes() == straight.aggregate.tobytes()
    assert pack(after) == pack(after_shuffled)


def test_a_name_carries_no_weight():
    """Two clients that swap names from the start swap everything that is said about them."""
    mode, clients = world()
    params = TASK.init(np.random.default_rng(0))
    updates = train(clients, params, 0)
    sign_flip(updates, 0)
    ids = list(cohort_of(updates, params, 0).ids)
    swapped = [ids[-1], *ids[1:-1], ids[0]]
    plain, _ = mode.judge(cohort_of(updates, params, 0, ids), mode.init(TASK.layout))
    other, _ = mode.judge(cohort_of(updates, params, 0, swapped), mode.init(TASK.layout))
    for mine, theirs in zip(plain.verdicts, other.verdicts, strict=True):
        assert mine.status == theirs.status
        assert mine.evidence == pytest.approx(theirs.evidence, abs=1e-4)


def test_a_newcomer_starts_with_no_opinion():
    mode, clients = world()
    _, state, params = play(sign_flip, rounds=6)
    updates = train((*clients, clients[-1]), params, 6)
    ids = [*cohort_of(updates[:-1], params, 6).ids, "newcomer"]
    assert "newcomer" not in state["clients"]["ids"]
    judgement, _ = mode.judge(cohort_of(updates, params, 6, ids), state)
    verdict = judgement.verdicts[-1]
    assert verdict.unit == "newcomer"
    assert verdict.status in (Status.ACCEPTED, Status.CLIPPED)
    assert verdict.evidence["suspicion"] == 0.0
    assert "turn" not in verdict.evidence  # it has no past to turn from
    assert all("turn" in v.evidence for v in judgement.verdicts[BAD:-1])


def test_absent_clients_keep_their_suspicion():
    mode, clients = world()
    _, state, params = play(sign_flip, rounds=5)
    ids = cohort_of(train(clients, params, 5), params, 5).ids
    present = cohort_of(train(clients, params, 5)[BAD:], params, 5, ids[BAD:])
    _, after = mode.judge(present, state)

    def balance(of):
        return dict(zip(of["clients"]["ids"], of["clients"]["suspicion"], strict=True))

    assert all(balance(after)[ids[i]] == balance(state)[ids[i]] > 0 for i in range(BAD))


def test_state_survives_the_codec_and_judging_goes_on_from_it():
    mode, clients = world()
    _, state, params = play(sign_flip, rounds=3)
    back = unpack(pack(state))
    assert pack(back) == pack(state)
    cohort = cohort_of(train(clients, params, 3), params, 3)
    assert mode.judge(cohort, back)[0].verdicts == mode.judge(cohort, state)[0].verdicts


def test_state_is_bounded_over_rounds():
    sizes = [len(pack(play(honest, rounds=rounds)[1])) for rounds in (3, 9)]
    assert sizes[1] < 1.01 * sizes[0]  # reasons are words of varying length; everything else has a fixed size


def test_evidence_is_named_and_pogq_is_a_probability():
    judgements, _, _ = play(sign_flip, rounds=6)
    mode, _ = world()
    for verdict in judgements[-1].verdicts:
        assert set(verdict.evidence) <= set(mode.channels)
        assert 0.0 <= verdict.evidence["pogq"] <= 1.0
        assert all(np.isfinite(value) for value in verdict.evidence.values())
    pogq = [v.evidence["pogq"] for v in judgements[-1].verdicts]
    assert max(pogq[:BAD]) < min(pogq[BAD:])


def test_every_verdict_holds_the_composite_trust_and_its_interval():
    judgements, _, _ = play(sign_flip, rounds=6)
    for verdict in judgements[-1].verdicts:
        e = verdict.evidence
        assert e["trust"] == pytest.approx(0.4 * e["pogq"] + 0.3 * e["tcdm"] + 0.3 * e["entropy"], abs=1e-9)
        assert 0.0 <= e["trust_low"] <= e["trust"] <= e["trust_high"] <= 1.0
    trust = np.array([v.evidence["trust"] for v in judgements[-1].verdicts])
    assert trust[:BAD].mean() < trust[BAD:].mean() - 0.2


def test_the_weights_of_the_composite_decide_nothing():
    mode, clients = world()
    params = TASK.init(np.random.default_rng(0))
    other = replace(mode, trust=Composite(pogq=1.0, tcdm=0.0, entropy=0.0))
    states = [mode.init(TASK.layout), other.init(TASK.layout)]
    for t in range(3):
        updates = train(clients, params, t)
        sign_flip(updates, t)
        (one, states[0]), (two, states[1]) = (
            each.judge(cohort_of(updates, params, t), state) for each, state in zip((mode, other), states, strict=True)
        )
        assert one.aggregate.tobytes() == two.aggregate.tobytes()
        assert [v.status for v in one.verdicts] == [v.status for v in two.verdicts]
        assert all(v.evidence["trust"] == v.evidence["pogq"] for v in two.verdicts)
    assert mode.digest == other.digest


def test_the_aggregate_is_the_clipped_weighted_mean_of_the_kept():
    mode, clients = world()
    params = TASK.init(np.random.default_rng(0))
    updates = train(clients, params, 0)
    updates[0] *= 50
    updates[1] *= 2.5
    weights = np.arange(1.0, CLIENTS + 1)
    cohort = Cohort.of(updates, params=params, weights=weights, seed=4)
    judgement, _ = mode.judge(cohort, mode.init(TASK.layout))
    trust = np.array([v.weight for v in judgement.verdicts])
    assert trust[0] == 0.0
    norms = np.linalg.norm(updates.astype(np.float64), axis=1)
    limit = 1.5 * np.median(norms[trust > 0])
    assert trust[1] == 1.0 < norms[1] / limit
    share = trust * weights / (trust * weights).sum() * np.minimum(1, limit / norms)
    np.testing.assert_allclose(judgement.aggregate, share @ updates, atol=1e-6)
    for verdict, norm in zip(judgement.verdicts[1:], norms[1:], strict=True):
        assert (verdict.status is Status.CLIPPED) == (norm > limit)


def test_with_nobody_to_believe_the_model_stays():
    mode, clients = world()
    params = TASK.init(np.random.default_rng(0))
    updates = 50 * train(clients[:3], params, 0)
    judgement, _ = mode.judge(cohort_of(updates, params, 0), mode.init(TASK.layout))
    assert len(quarantined(judgement)) == 3
    assert not judgement.aggregate.any()


def test_a_zero_update_is_judged_without_nan():
    mode, clients = world()
    params = TASK.init(np.random.default_rng(0))
    updates = train(clients, params, 0)
    updates[3] = 0
    judgement, _ = mode.judge(cohort_of(updates, params, 0), mode.init(TASK.layout))
    assert np.isfinite(judgement.aggregate).all()
    assert all(np.isfinite(value) for v in judgement.verdicts for value in v.evidence.values())


def test_the_digest_covers_every_constant():
    mode, _ = world()
    others = [
        replace(mode, shadows=61),
        replace(mode, bars=replace(mode.bars, alien=2.6)),
        replace(mode, turn_bar=9.0),
        replace(mode, collusion_bar=0.8),
        replace(mode, campaign_bar=4.0),
        replace(mode, spectral_bar=0.7),
        replace(mode, bank=replace(mode.bank, limit=4.0)),
        replace(mode, bound=0.4),
        replace(mode, seed=1),
        replace(mode, oracle=RootOracle(TASK, mode.oracle.root, RECIPE, seed=1)),
    ]
    assert len({mode.digest, *(other.digest for other in others)}) == len(others) + 1


def test_a_foreign_state_and_impossible_constants_are_refused():
    mode, clients = world()
    params = np.zeros(TASK.layout.size, np.float32)
    round_ = cohort_of(train(clients, params, 0), params, 0)
    fewer = replace(mode, shadows=mode.shadows - 20).init(ParamLayout.of([params]))
    for foreign in ({"version": 99}, mode.init(ParamLayout.of([params[1:]])), fewer):
        with pytest.raises(StateError, match=r"start from Mode1\.init"):
            mode.judge(round_, foreign)
    with pytest.raises(InvalidValueError, match="shadows"):
        Mode1(mode.oracle, shadows=5)
    assert mode.init(ParamLayout.of([params]))["clients"]["ids"] == []


def test_a_client_that_says_nothing_has_not_turned():
    mode, clients = world()
    params = np.zeros(TASK.layout.size, np.float32)
    state = mode.init(ParamLayout.of([params]))
    for number in range(8):
        updates = train(clients, params, number)
        if number >= 6:
            updates[0] = 0.0
        judgement, state = mode.judge(cohort_of(updates, params, number), state)
        assert judgement.verdicts[0].status != Status.QUARANTINED
        assert ("turn" in judgement.verdicts[0].evidence) == (4 <= number < 6)


def test_without_a_yardstick_the_judge_decides_nothing():
    mode, clients = world()
    params = np.zeros(TASK.layout.size, np.float32)
    state = mode.init(ParamLayout.of([params]))
    diverged = np.full_like(params, 3e38)
    with pytest.raises(UndecidedError, match="standardise the features"), np.errstate(all="ignore"):
        mode.judge(cohort_of(train(clients, params, 0), diverged, 0), state)


def test_a_round_that_is_judged_again_is_simulated_once_and_judged_as_if_for_the_first_time(monkeypatch):
    (mode, clients), trained = (Mode1(world()[0].oracle), world()[1]), []
    simulate = RootOracle.honest
    monkeypatch.setattr(RootOracle, "honest", lambda *arguments: trained.append(arguments[4]) or simulate(*arguments))
    params, state = TASK.init(np.random.default_rng(0)), mode.init(TASK.layout)
    honest_updates = train(clients, params, 0)
    rounds = [
        cohort_of(updates, params, t) for t, updates in ((0, honest_updates), (0, -honest_updates), (1, honest_updates))
    ]
    again = [mode.judge(cohort, state) for cohort in rounds]
    assert len(trained) == 2  # once for each round
    for cohort, (judgement, after) in zip(rounds, again, strict=True):
        fresh, state_of_fresh = Mode1(mode.oracle).judge(cohort, state)
        assert fresh.verdicts == judgement.verdicts
        assert pack(state_of_fresh) == pack(after)
