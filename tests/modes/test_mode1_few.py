"""Mode 1 with a handful of clients that bring samples of their own, as a first federation has them."""

import numpy as np
import pytest

from matl.learning.datasets import load_dataset
from matl.learning.local import LocalTraining, train_locally
from matl.learning.oracle import RootOracle
from matl.learning.tasks import SoftmaxTask
from matl.modes import Mode1
from matl.records import Cohort, Status
from matl.trust.levels import DRIFT_COHORT

RECIPE, TASK = LocalTraining(), SoftmaxTask(64, 10)


def honest(updates):
    pass


def sign_flip(updates):
    updates[0] *= -1


def played(clients, rounds=14, held=300, attack=honest, late=()):
    """Judgements of a federation whose clients hold so many digits each; who is late misses the first half."""
    rng = np.random.default_rng(0)
    digits = load_dataset("digits").train
    rows = rng.permutation(len(digits))
    by_class = [rows[digits.y[rows] == label] for label in range(10)]
    root = np.concatenate([own[:10] for own in by_class])
    pool = np.setdiff1d(rows, root)
    holdings = [digits.take(rng.choice(pool, held, replace=False)) for _ in range(clients)]
    mode = Mode1(RootOracle(TASK, digits.take(root), RECIPE))
    state, params, judgements = mode.init(TASK.layout), TASK.init(np.random.default_rng(0)), []
    for t in range(rounds):
        present = [i for i in range(clients) if t >= rounds // 2 or i not in late]
        rngs = [np.random.default_rng([t, i]) for i in present]
        updates = train_locally(TASK, params, [holdings[i] for i in present], RECIPE, rngs)
        attack(updates)
        weights = np.full(len(present), float(held))
        ids = [f"c{i:02d}" for i in present]
        cohort = Cohort.of(updates, params=params, round=t, seed=1000 + t, ids=ids, weights=weights)
        judgement, state = mode.judge(cohort, state)
        judgements.append(judgement)
        params = params + judgement.aggregate
    return judgements


@pytest.mark.parametrize("clients", [1, 3])
def test_a_few_honest_clients_with_samples_of_their_own_are_believed(clients):
    for judgement in played(clients):
        for verdict in judgement.verdicts:
            assert verdict.status in (Status.ACCEPTED, Status.CLIPPED), verdict
            assert "alien" not in verdict.evidence
            assert verdict.evidence["strongest"] < 0.5


def test_what_was_said_without_a_drift_is_not_held_against_a_client_later():
    rounds = played(DRIFT_COHORT, rounds=28, late=(DRIFT_COHORT - 1,))
    assert ["alien" in one.verdicts[0].evidence for one in rounds] == [False] * 14 + [True] * 14
    assert max(verdict.evidence["alien"] for verdict in rounds[14].verdicts[:-1]) < 0.5
    assert all(verdict.status != Status.QUARANTINED for one in rounds for verdict in one.verdicts)


def test_a_liar_among_three_is_found_at_once():
    for judgement in played(3, rounds=5, attack=sign_flip):
        assert [verdict.status == Status.QUARANTINED for verdict in judgement.verdicts] == [True, False, False]
