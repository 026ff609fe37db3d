"""What the host tells an adversary, and that nothing it does in rehearsal leaves a trace."""

import numpy as np
import pytest

import matl
from matl.attacks import ATTACKS, Attack, Backdoor, Knowledge, Sleeper, Sybil
from matl.errors import InvalidValueError, UndecidedError
from matl.modes import Plain
from matl.records import Status
from matl.simulation import build_simulation, load_config
from matl.state import pack, unpack

SETTINGS = {"dataset": "synthetic", "clients": 10, "byzantine": 0.4, "rounds": 3, "seed": 4, "alpha": 1.0}


class Curious(Attack):
    """Keeps what it is shown, and flips signs."""

    def __init__(self, knowledge):
        self.views = []
        self._knowledge = knowledge

    @property
    def knowledge(self):
        return self._knowledge

    def craft(self, view, rng):
        self.views.append(view)
        return -view.own


class Rehearsing(Curious):
    """Tries out whatever it is given a recipe for, and sends the honest updates."""

    def __init__(self, *recipes):
        super().__init__(Knowledge.WHITE_BOX)
        self.recipes, self.rehearsals = recipes, []

    def craft(self, view, rng):
        self.views.append(view)
        self.rehearsals.append([view.rehearse(recipe(view.own)) for recipe in self.recipes])
        return view.own


class Noting(Plain):
    """Keeps the seeds it judged with."""

    def judge(self, cohort, state):
        self.__dict__.setdefault("seeds", []).append((cohort.spec.round, cohort.seed))
        return super().judge(cohort, state)


def play(attack, state=None, judge=None, **changes):
    """The simulation, its reports and its last state."""
    settings = {**SETTINGS, "attack": "none", "mode": "plain", **changes}
    parts = {} if judge is None else {"mode": judge}
    sim = build_simulation(load_config(None, settings), attack=attack, **parts)
    reports, state = [], sim.init() if state is None else state
    for report, after in sim.run(state):
        reports.append(report)
        state = after
    return sim, reports, state


def timeless(state):
    return pack({**state, "history": [{**row, "seconds": 0.0} for row in state["history"]]})


@pytest.mark.parametrize("knowledge", Knowledge)
def test_an_adversary_is_shown_what_it_declares_and_no_more(knowledge):
    attack = Curious(knowledge)
    sim, _, _ = play(attack)
    for view in attack.views:
        assert (view.own.shape[0], view.clients, view.params.shape) == (4, 10, (sim.task.layout.size,))
        assert (view.honest is not None) == (knowledge in (Knowledge.OMNISCIENT, Knowledge.WHITE_BOX))
        assert (view.rehearse is not None) == (knowledge is Knowledge.WHITE_BOX)
        assert (view.oracle is not None) == (knowledge is Knowledge.WHITE_BOX)


def test_models_are_shown_as_they_were_sent_and_cannot_be_written_to():
    attack = Curious(Knowledge.DATA)
    sim, _, last = play(attack)
    first, second, third = attack.views
    assert first.previous is None
    np.testing.assert_array_equal(first.params, sim.init()["workload"]["params"])
    np.testing.assert_array_equal(second.previous, second.params - first.params)
    np.testing.assert_array_equal(third.previous, third.params - second.params)
    np.testing.assert_array_equal(last["change"], last["workload"]["params"] - third.params)
    for array in (third.params, third.previous):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1


def test_a_rehearsal_of_what_is_sent_says_what_becomes_of_it():
    attack = Rehearsing(lambda own: own, lambda own: -own)
    _, reports, _ = play(attack)
    for report, (same, flipped), before, after in zip(
        reports, attack.rehearsals, attack.views, attack.views[1:], strict=False
    ):
        np.testing.assert_allclose(same.aggregate, after.params - before.params, atol=1e-6)  # one step of the server
        assert np.linalg.norm(same.aggregate) == pytest.approx(report.record.aggregate_norm)
        assert np.linalg.norm(flipped.aggregate - same.aggregate) > 0.1 * report.record.aggregate_norm
        assert same.statuses == (Status.ACCEPTED,) * 4
        np.testing.assert_array_equal(same.weights, np.ones(4))


@pytest.mark.parametrize("mode", ["mode0", {"name": "mode1", "shadows": 20}], ids=["mode0", "mode1"])
def test_rehearsals_leave_no_trace(mode):
    wild = Rehearsing(lambda own: -30 * own, lambda own: own)
    _, rehearsed, after = play(wild, mode=mode)
    _, quiet, expected = play(Rehearsing(), mode=mode)
    assert timeless(after) == timeless(expected)
    assert [report.verdicts for report in rehearsed] == [report.verdicts for report in quiet]
    caught = [flipped.caught.sum() for flipped, _ in wild.rehearsals]
    assert caught[-1] > 0  # it learned something by it
    assert all(len(one.evidence) == 4 for one, _ in wild.rehearsals)


def test_rehearsals_never_know_the_seed_of_the_judgement():
    judge = Noting()
    attack = Rehearsing(lambda own: own, lambda own: -own)
    play(attack, judge=judge)
    alone = Noting()
    play(None, judge=alone)
    judged = [seeds for seeds in judge.seeds if seeds in alone.seeds]
    assert judged == alone.seeds
    rehearsed = [seeds for seeds in judge.seeds if seeds not in alone.seeds]
    assert [number for number, _ in rehearsed] == [0, 0, 1, 1, 2, 2]
    assert len({seed for _, seed in rehearsed}) == 3  # the same twice, so that its attempts can be compared


def test_what_screening_would_refuse_is_refused_in_rehearsal():
    attack = Rehearsing(lambda own: np.full_like(own, np.nan), lambda own: own)
    _, reports, _ = play(attack)
    for (broken, _), report in zip(attack.rehearsals, reports, strict=True):
        assert broken.statuses == (Status.REJECTED,) * 4
        assert broken.caught.sum() == 4
        assert report.record.rejected == 0


def test_a_round_that_could_not_be_judged_has_no_aggregate():
    class Undecided(Plain):
        def judge(self, cohort, state):
            raise UndecidedError("no yardstick")

    attack = Rehearsing(lambda own: own)
    play(attack, judge=Undecided(), rounds=1)
    ((rehearsal,),) = attack.rehearsals
    assert not rehearsal.aggregate.any()
    assert not rehearsal.weights.any()


@pytest.mark.parametrize("recipe", [lambda own: own[:2], lambda own: own[:, :-1], lambda own: own[0]])
def test_a_rehearsal_needs_a_row_per_malicious_client(recipe):
    with pytest.raises(InvalidValueError, match=r"one row per malicious client, shape \(4, \d+\), got"):
        play(Rehearsing(recipe))


def test_a_baseline_without_verdicts_can_be_rehearsed_too():
    attack = Rehearsing(lambda own: -100 * own)
    play(attack, aggregator="krum", byzantine=0.3)
    assert not np.concatenate([rehearsal.weights for (rehearsal,) in attack.rehearsals]).any()


@pytest.mark.parametrize("name", [*ATTACKS])
def test_a_run_can_be_stopped_and_resumed_under_every_attack(name):
    attack = ATTACKS.create(name)
    sim, _, whole = play(attack, mode="mode0")
    _, state = next(iter(sim.run(sim.init())))
    _, _, resumed = play(attack, unpack(pack(state)), mode="mode0")
    assert timeless(resumed) == timeless(whole)


def test_attacks_are_told_the_shape_of_an_image_however_they_are_wrapped():
    wrapped = Sleeper(Sybil(Backdoor()), wake_round=1)
    sim = build_simulation(
        load_config(None, {**SETTINGS, "dataset": "digits", "attack": "none", "mode": "plain"}), attack=wrapped
    )
    assert sim.attack == Sleeper(Sybil(Backdoor(shape=(1, 8, 8))), wake_round=1)


def test_who_wants_something_misread_is_told_how_often_it_was():
    result = matl.simulate(**SETTINGS, attack={"name": "targeted_flip", "pairs": [[0, 1]]}, mode="plain")
    assert 0.0 <= result.attack_success_rate <= 1.0
    assert matl.simulate(**SETTINGS, attack="sign_flip", mode="plain").attack_success_rate is None
