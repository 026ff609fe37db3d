"""What calibrates a client is the validator's own: no other client can move its yardstick, and no name counts."""

from dataclasses import fields, is_dataclass, replace
from functools import cache

import numpy as np
import pytest

from matl.matrix import UpdateMatrix
from matl.modes import Mode0, Mode1
from matl.records import Unit
from matl.simulation import build_simulation, load_config
from matl.state import pack
from matl.trust.levels import DRIFT_COHORT

N, FEW, ROUNDS = 20, DRIFT_COHORT - 1, 5  # in the fifth round there is a past to turn from
PEER_BASED = {"collusion", "campaign", "strongest", "suspicion", "tcdm", "trust", "trust_low", "trust_high", "share"}
"""Channels of Mode 1 that depend on other clients, by their definition; every other one must not, in cohorts too small
for a drift (`matl.trust.levels.drift`), which is the one thing that clients as a whole may move, and only downwards."""
CALIBRATION = ("shadow_scores", "shadow_mix", "shadow_past")


class Recorder:
    """A judge that keeps the cohorts it is shown."""

    def __init__(self, mode):
        self.mode, self.cohorts = mode, []

    def __getattr__(self, name):
        return getattr(self.mode, name)

    def judge(self, cohort, state):
        self.cohorts.append(cohort)
        return self.mode.judge(cohort, state)


def comparable(value):
    """An array, a record of arrays, or a number as something that can be compared."""
    parts = [getattr(value, item.name) for item in fields(value)] if is_dataclass(value) else [value]
    return [(np.asarray(part).dtype.str, np.asarray(part).tobytes()) for part in parts]


class Listener:
    """An oracle that keeps what it is asked."""

    def __init__(self, oracle):
        self.oracle, self.asked = oracle, []
        self.digest, self.num_classes = oracle.digest, oracle.num_classes

    def steps(self, samples):
        return self.oracle.steps(samples)

    def atoms(self, *given):
        self.asked.append(given)
        return self.oracle.atoms(*given)

    def honest(self, *given):
        self.asked.append(given)
        return self.oracle.honest(*given)

    def root_update(self, *given):
        self.asked.append(given)
        return self.oracle.root_update(*given)


@cache
def played(kind, clients=N):
    """A mode and the cohorts of a federation with sign flippers that it judged."""
    config = load_config(None, {"dataset": "synthetic", "clients": clients, "rounds": ROUNDS, "mode": kind, "seed": 4})
    recorder = Recorder(build_simulation(config).workload.mode)
    simulation = build_simulation(config, mode=recorder)
    for _ in simulation.run(simulation.init()):
        pass
    return recorder.mode, simulation.task.layout, tuple(recorder.cohorts)


def judged(mode, layout, cohorts):
    """Judgements of cohorts one after the other, and the state after the last."""
    state, judgements = mode.init(layout), []
    for cohort in cohorts:
        judgement, state = mode.judge(cohort, state)
        judgements.append(judgement)
    return judgements, state


def with_other_updates(cohort, keep):
    """The cohort with every update but one replaced by another vector of a similar length."""
    X = cohort.X.dense().copy()
    rng = np.random.default_rng(cohort.seed)
    others = np.arange(len(X)) != keep
    mixed = rng.dirichlet(np.ones(len(X)), size=len(X)).astype(np.float32) @ X
    X[others] = -mixed[others] + 0.5 * X[others]
    return replace(cohort, X=UpdateMatrix(X))


@pytest.mark.parametrize("clients", [FEW, N])
def test_the_updates_of_others_move_no_shadow(clients):
    mode, layout, cohorts = played("mode1", clients)
    _, state = judged(mode, layout, cohorts)
    _, after = judged(mode, layout, [with_other_updates(cohort, 7) for cohort in cohorts])
    calibration = [name for name in state if name.startswith("shadow_")]
    assert len(calibration) >= 2
    for name in calibration:
        assert state[name].tobytes() == after[name].tobytes()
    for name in ("shadow_residuals", "shadow_compositions"):
        assert state["standing"][name].any()
        assert state["standing"][name].tobytes() == after["standing"][name].tobytes()


def test_the_updates_of_others_move_no_calibrated_channel():
    mode, layout, cohorts = played("mode1", FEW)
    plain, _ = judged(mode, layout, cohorts)
    keep = next(row for row, verdict in enumerate(plain[-1].verdicts) if verdict.weight == 1.0)
    other, _ = judged(mode, layout, [with_other_updates(cohort, keep) for cohort in cohorts])
    for one, two in zip(plain, other, strict=True):
        mine, theirs = one.verdicts[keep].evidence, two.verdicts[keep].evidence
        own = set(mode.channels) - PEER_BASED
        assert {name: mine[name] for name in own & mine.keys()} == {name: theirs[name] for name in own & theirs.keys()}
        assert own & mine.keys() >= {"relabelling", "pogq", "entropy"}
        moved = [v.evidence["pogq"] for v in one.verdicts] != [v.evidence["pogq"] for v in two.verdicts]
        assert moved, "the other updates were meant to be different ones"
    assert "turn" in plain[-1].verdicts[keep].evidence


def test_who_else_is_there_moves_a_calibrated_channel_by_rounding_alone():
    mode, layout, cohorts = played("mode1", FEW)
    few = [
        replace(
            cohort,
            units=cohort.units[:3],
            X=cohort.X.take(np.arange(3)),
            max_byzantine=1,
            **{name: getattr(cohort, name)[:3] for name in ("weights", "examples", "staleness", "received_at")},
        )
        for cohort in cohorts
    ]
    (plain, _), (alone, _) = judged(mode, layout, cohorts), judged(mode, layout, few)
    for one, two in zip(plain, alone, strict=True):
        for mine, theirs in zip(one.verdicts[:3], two.verdicts, strict=True):
            own = set(mode.channels) - PEER_BASED
            told = {name: mine.evidence[name] for name in own & mine.evidence.keys()}
            assert told == pytest.approx({name: theirs.evidence[name] for name in told}, abs=1e-4)


def test_the_oracle_is_asked_the_same_whatever_clients_send():
    mode, layout, cohorts = played("mode1")
    asked = []
    for shown in (cohorts, [with_other_updates(cohort, 0) for cohort in cohorts]):
        listener = Listener(mode.oracle)
        judged(replace(mode, oracle=listener), layout, shown)
        asked.append(listener.asked)
    assert len(asked[0]) == 2 * ROUNDS
    for one, two in zip(*asked, strict=True):
        for mine, theirs in zip(one, two, strict=True):
            assert comparable(mine) == comparable(theirs)


@pytest.mark.parametrize("kind", ["mode0", "mode1"])
def test_permuting_the_ids_permutes_the_judgement(kind):
    """Every client goes by another's name from the start: what is said of it is what was said before."""
    mode, layout, cohorts = played(kind)
    assert isinstance(mode, Mode0 | Mode1)
    order = np.random.default_rng(1).permutation(N)
    ids = cohorts[0].ids
    renamed = [replace(cohort, units=tuple(Unit.of(ids[i]) for i in order)) for cohort in cohorts]
    (plain, state), (other, after) = judged(mode, layout, cohorts), judged(mode, layout, renamed)
    assert 0 < sum(verdict.status == "quarantined" for verdict in plain[-1].verdicts) < N
    for one, two in zip(plain, other, strict=True):
        for row, (mine, theirs) in enumerate(zip(one.verdicts, two.verdicts, strict=True)):
            assert (mine.unit, theirs.unit) == (ids[row], ids[order[row]])
            assert mine.status == theirs.status
            assert mine.weight == pytest.approx(theirs.weight, abs=1e-6)
            assert mine.evidence == pytest.approx(theirs.evidence, abs=1e-3)
        np.testing.assert_allclose(one.aggregate, two.aggregate, atol=1e-5)
    assert len(pack(state)) == pytest.approx(len(pack(after)), rel=0.01)
