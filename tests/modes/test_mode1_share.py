"""What Mode 1 makes of the updates it keeps: copies, silence, and classes that are taught too much."""

import numpy as np
import pytest
from tests.modes.test_mode1 import BAD, CLASSES, CLIENTS, TASK, cohort_of, honest, play, quarantined, train, world

from matl.errors import StateError
from matl.learning.local import LocalTraining
from matl.records import Status

VICTIM = BAD  # the first honest client


def evidence(judgement, name):
    return np.array([verdict.evidence[name] for verdict in judgement.verdicts])


def test_whoever_is_copied_later_on_is_not_accused_and_loses_no_weight():
    def wander(updates, t):
        if t >= 3:
            updates[:BAD] = updates[VICTIM + t % 3]

    judgements, _, _ = play(wander, rounds=10)
    assert quarantined(judgements[-1]) >= set(range(BAD))
    for judgement in judgements[5:]:
        assert not quarantined(judgement) & {VICTIM, VICTIM + 1, VICTIM + 2}
        for victim in (VICTIM, VICTIM + 1, VICTIM + 2):
            assert judgement.verdicts[victim].status is Status.ACCEPTED
            assert "moved as one" not in judgement.verdicts[victim].reason  # classes are balanced, as with anybody


def test_those_who_move_as_one_count_as_one_and_are_accused_only_the_second_time():
    def copy(updates, t):
        if t == 4:
            updates[:BAD] = updates[0]

    judgements, _, _ = play(copy, rounds=6)
    verdicts = judgements[4].verdicts[:BAD]
    assert not quarantined(judgements[4]) & set(range(1, BAD))
    assert sum(v.weight for v in verdicts[1:]) < 1.5
    assert all(v.status is Status.SUSPECTED and v.weight < 0.3 for v in verdicts[1:])
    assert any("moved as one with it" in v.reason for v in verdicts[1:])


def test_the_share_of_each_client_is_told_and_sums_to_one():
    judgements, _, _ = play(honest, rounds=3)
    for judgement in judgements:
        assert evidence(judgement, "share").sum() == pytest.approx(1.0)


def test_false_label_mixes_get_smaller_shares_than_their_claims():
    mode, _ = world()
    params = TASK.init(np.random.default_rng(0))
    atoms = mode.oracle.atoms(params, 0)
    directions = atoms.honest / np.linalg.norm(atoms.honest, axis=1, keepdims=True)
    rng = np.random.default_rng(1)
    mixes = rng.dirichlet(np.full(CLASSES, 2.0), size=CLIENTS)
    mixes[:9] = 0.02 * mixes[:9] + 0.98 * np.eye(CLASSES)[0]  # nine teach next to nothing but class 0
    noise = rng.normal(size=(CLIENTS, params.size))
    updates = mixes @ directions + 0.3 * noise / np.linalg.norm(noise, axis=1, keepdims=True)
    judgement, _ = mode.judge(cohort_of(updates.astype(np.float32), params, 0), mode.init(TASK.layout))
    kept = [i for i in range(9) if judgement.verdicts[i].status is Status.ACCEPTED]
    assert len(kept) > 4
    share = evidence(judgement, "share")
    assert share[kept].mean() < 0.6 * share[9:].mean()
    outweighed = [judgement.verdicts[i] for i in kept if judgement.verdicts[i].weight < 0.5]
    assert outweighed
    assert all("of its share: what it teaches" in verdict.reason for verdict in outweighed)
    given = np.array([verdict.status is not Status.QUARANTINED for verdict in judgement.verdicts]) / CLIENTS
    given /= given.sum()
    assert (share <= 4 * given + 1e-9).all()


def test_clients_that_send_nothing_do_not_stop_the_others():
    _, clients = world()
    start = TASK.init(np.random.default_rng(0))

    def silent(updates, t):
        updates[: CLIENTS // 2 + 1] = 0.0

    judgements, _, params = play(silent, rounds=4)
    assert np.linalg.norm(params - start) > 0.5
    assert judgements[-1].diagnostics["clip_norm"] > 0
    assert all(v.status is not Status.CLIPPED for v in judgements[-1].verdicts[: CLIENTS // 2 + 1])
    assert len(clients) == CLIENTS


def test_silence_is_no_good_conduct():
    def flip_then_rest(updates, t):
        updates[:BAD] *= -1.0 if t < 3 else 1e-9

    judgements, _, _ = play(flip_then_rest, rounds=8)
    suspicion = [evidence(judgement, "suspicion")[:BAD] for judgement in judgements]
    assert (suspicion[2] > 0).all()
    assert (suspicion[-1] >= suspicion[2]).all()


def test_silence_every_other_round_does_not_hide_enormous_updates():
    def alternate(updates, t):
        updates[:BAD] *= 1e4 if t % 2 else 0.0

    judgements, _, _ = play(alternate, rounds=8)
    assert quarantined(judgements[-1]) >= set(range(BAD))


def test_shadows_train_as_long_as_clients_that_hold_more():
    mode, clients = world()
    mode.oracle.recipe = LocalTraining(learning_rate=0.1, batch_size=16, steps=None, epochs=1)
    try:
        params, state = TASK.init(np.random.default_rng(0)), mode.init(TASK.layout)
        cohort = cohort_of(train(clients, params, 0), params, 0, held=4000)
        _, state = mode.judge(cohort, state)
        assert max(state["sizes"]) == 4000
        _, state = mode.judge(cohort_of(train(clients, params, 1), params, 1, held=2500), state)
        assert max(state["sizes"]) == 4000  # it stays, or past rounds could not be compared
        _, state = mode.judge(cohort_of(train(clients, params, 2), params, 2, held=40), state)
        assert max(state["sizes"]) == 40  # but a first cohort does not decide for good
    finally:
        mode.oracle.recipe = LocalTraining(learning_rate=0.1, batch_size=16, steps=5)


def test_a_state_without_a_table_is_refused_before_anything_is_trained():
    mode, clients = world()
    params = TASK.init(np.random.default_rng(0))
    state = mode.init(TASK.layout)
    del state["standing"]
    with pytest.raises(StateError, match="the state lacks standing"):
        mode.judge(cohort_of(train(clients, params, 0), params, 0), state)
