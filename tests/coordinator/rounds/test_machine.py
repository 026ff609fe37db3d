"""The round machine: against a model that remembers everything, and rule by rule."""

import json
import math
from dataclasses import replace

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from matl.coordinator.rounds.machine import (
    Answer,
    Closed,
    Failed,
    Machine,
    Received,
    Reduced,
    Resumed,
    Rules,
    Stopped,
    Ticked,
    due,
    open_round,
    step,
)
from matl.coordinator.storage.rows import RoundStatus
from matl.errors import InvalidValueError, StateError

CLIENTS = [f"c{i}" for i in range(7)]
PHASES = [("collect",), ("keys", "shares", "masked"), ("keys", "shares", "masked", "consistency", "unmask")]
OVER = (RoundStatus.COMMITTED, RoundStatus.FAILED)


class Round(RuleBasedStateMachine):
    """Any inputs in any order, of plain, masked and buffered rounds; beside the machine, what was answered."""

    @initialize(
        phases=st.sampled_from(PHASES),
        wanted=st.integers(1, 6),
        quorum=st.integers(1, 6),
        deadline=st.sampled_from([None, 10.0]),
        selected=st.sampled_from([None, tuple(CLIENTS[:4]), tuple(CLIENTS)]),
    )
    def begin(self, phases, wanted, quorum, deadline, selected):
        quorum = min(quorum, wanted, len(CLIENTS if selected is None else selected))
        rules = Rules(target=wanted, quorum=quorum, deadline=deadline, phases=phases)
        self.at = 100.0
        self.machine = open_round(rules, at=self.at, selected=selected)
        self.accepted = [{} for _ in phases]  # what was acknowledged, by phase
        self.committed = 0
        self.end = None

    def feed(self, entry):
        before = self.machine
        self.machine, answer = step(before, entry)
        assert step(before, entry) == (self.machine, answer)  # a function
        if before.status in OVER:
            assert self.machine is before
        if before.status is not RoundStatus.COMMITTED and self.machine.status is RoundStatus.COMMITTED:
            self.committed += 1
        return before, answer

    @rule(client=st.sampled_from(CLIENTS), digest=st.sampled_from(["x", "y"]), late=st.integers(0, 4))
    def receive(self, client, digest, late):
        self.at += late
        index = self.machine.phase
        name = self.machine.rules.phases[index]
        before, answer = self.feed(Received(client, digest, self.at, name))
        mine = self.accepted[index].get(client)
        if mine is not None:
            assert answer is (Answer.DUPLICATE if mine == digest else Answer.CONFLICT)
            return
        assert answer in (Answer.ACCEPTED, Answer.LATE, Answer.NOT_SELECTED)
        limit = due(before)
        in_time = before.collecting and (limit is None or self.at < limit)
        allowed = client in self.accepted[index - 1] if index else before.selected is None or client in before.selected
        assert (answer is Answer.ACCEPTED) == (in_time and allowed)
        if answer is Answer.ACCEPTED:
            self.accepted[index][client] = digest

    @rule(client=st.sampled_from(CLIENTS), phase=st.integers(0, 5))
    def receive_for_another_phase(self, client, phase):
        phases = self.machine.rules.phases
        name = phases[phase] if phase < len(phases) else "nothing"
        if phase == self.machine.phase:
            return
        before, answer = self.feed(Received(client, "x", self.at, name))
        if phase > before.phase and name not in phases[: self.machine.phase + 1]:
            assert answer is Answer.IGNORED
        else:
            assert answer in (Answer.DUPLICATE, Answer.CONFLICT, Answer.LATE, Answer.NOT_SELECTED, Answer.ACCEPTED)
            if answer is Answer.ACCEPTED:  # the deadline passed at this very moment, and the phase began
                self.accepted[phase][client] = "x"

    @rule(seconds=st.integers(0, 12))
    def tick(self, seconds):
        self.at += seconds
        limit = due(self.machine)
        before, answer = self.feed(Ticked(self.at))
        passed = limit is not None and self.at >= limit
        assert (answer is Answer.ACCEPTED) == passed == (self.machine is not before)
        if passed and len(before.senders) < before.rules.quorum:
            assert self.machine.status is RoundStatus.FAILED
            assert f"{len(before.senders)} of {before.rules.quorum} updates in 10 seconds" in self.machine.reason

    @rule()
    def wait_and_go_on(self):
        self.at += 50
        before, answer = self.feed(Resumed(self.at))
        assert (answer is Answer.ACCEPTED) == before.collecting

    @rule(seed=st.integers(0, 2**63 - 1), excluded=st.sets(st.sampled_from(CLIENTS)))
    def close(self, seed, excluded):
        before, answer = self.feed(Closed(seed, tuple(excluded)))
        assert (answer is Answer.ACCEPTED) == before.ready
        if before.ready:
            assert (self.machine.status, self.machine.seed) == (RoundStatus.JUDGING, seed)
            assert set(self.machine.excluded) == excluded & set(before.senders)

    @rule()
    def reduce(self):
        before, answer = self.feed(Reduced("ab"))
        assert (answer is Answer.ACCEPTED) == (before.status is RoundStatus.JUDGING)

    @precondition(lambda self: self.machine.status not in OVER)
    @rule(entry=st.sampled_from([Failed("no yardstick"), Stopped()]), really=st.integers(0, 5))
    def fail(self, entry, really):
        if really == 0:  # or nothing else would ever happen
            self.feed(entry)
            assert self.machine.status is RoundStatus.FAILED

    @invariant()
    def nothing_is_lost_or_counted_twice(self):
        received = self.machine.received
        assert [dict(phase) for phase in received] == self.accepted[: len(received)]
        assert not any(self.accepted[len(received) :])

    @invariant()
    def whoever_is_silent_has_no_part_in_the_next_phase(self):
        for earlier, later in zip(self.machine.received, self.machine.received[1:], strict=False):
            assert later.keys() <= earlier.keys()

    @invariant()
    def it_commits_once_and_only_with_enough(self):
        assert self.committed <= 1
        if self.machine.status in (RoundStatus.JUDGING, RoundStatus.COMMITTED):
            assert self.machine.seed is not None
            assert len(self.machine.senders) >= self.machine.rules.quorum
        if self.machine.status is RoundStatus.COMMITTED:
            self.end = self.end or self.machine
            assert self.machine == self.end

    @invariant()
    def it_survives_being_written_down(self):
        written = json.loads(json.dumps(self.machine.to_dict(), allow_nan=False))
        assert Machine.of_dict(written) == self.machine

    @invariant()
    def ready_or_collecting_or_neither(self):
        assert self.machine.ready + self.machine.collecting + self.machine.ended <= 1
        if not self.machine.collecting:
            assert due(self.machine) is None


Round.TestCase.settings = settings(max_examples=150, stateful_step_count=30, deadline=None)
TestRound = Round.TestCase


def fed(machine, *entries):
    answers = []
    for entry in entries:
        machine, answer = step(machine, entry)
        answers.append(answer)
    return machine, answers


def test_a_masked_round_goes_on_with_those_who_stay():
    rules = Rules(target=3, quorum=2, deadline=10.0, phases=("keys", "shares", "masked"))
    machine = open_round(rules, at=0.0)
    machine, answers = fed(machine, *(Received(name, "k", 1.0) for name in "abc"))
    assert (machine.phase, machine.phase_began_at, set(answers)) == (1, 1.0, {Answer.ACCEPTED})
    machine, answers = fed(machine, Received("d", "s", 2.0), Received("a", "s", 2.0), Received("b", "s", 3.0))
    assert answers == [Answer.NOT_SELECTED, Answer.ACCEPTED, Answer.ACCEPTED]
    assert due(machine) == 11.0
    machine, _ = step(machine, Ticked(11.0))  # c fell silent
    assert (machine.phase, set(machine.received[1])) == (2, {"a", "b"})
    machine, answers = fed(
        machine,
        Received("c", "m", 12.0),
        Received("c", "k", 12.0, "keys"),
        Received("c", "s", 12.0, "shares"),
        Received("a", "m", 12.0),
        Received("b", "m", 13.0),
    )
    assert answers == [Answer.NOT_SELECTED, Answer.DUPLICATE, Answer.LATE, Answer.ACCEPTED, Answer.ACCEPTED]
    assert machine.ready


def test_a_masked_round_fails_where_too_few_stay():
    rules = Rules(target=3, quorum=2, deadline=10.0, phases=("keys", "shares"))
    machine, _ = fed(open_round(rules, at=0.0), *(Received(name, "k", 1.0) for name in "abc"))
    machine, _ = fed(machine, Received("a", "s", 2.0), Ticked(99.0))
    assert machine.reason == "1 of 2 updates in 10 seconds in phase shares"


def test_later_phases_may_need_fewer_than_the_first():
    rules = Rules(target=3, quorum=2, deadline=10.0, phases=("keys", "shares"), later=1)
    machine, _ = fed(open_round(rules, at=0.0), Received("a", "k", 1.0), Ticked(10.0))
    assert machine.reason == "1 of 2 updates in 10 seconds in phase keys"
    machine, _ = fed(open_round(rules, at=0.0), *(Received(name, "k", 1.0) for name in "abc"))
    assert fed(machine, Received("a", "s", 2.0), Ticked(11.0))[0].ready
    assert fed(machine, Ticked(11.0))[0].reason == "0 of 1 updates in 10 seconds in phase shares"
    assert Machine.of_dict(machine.to_dict()) == machine
    with pytest.raises(InvalidValueError, match="later"):
        replace(rules, later=0)


def test_of_selected_clients_all_may_be_fewer_than_the_target():
    machine = open_round(Rules(target=5, quorum=1), at=0.0, selected=("a", "b"))
    machine, answers = fed(machine, Received("x", "1", 0.0), Received("a", "1", 0.0), Received("b", "1", 0.0))
    assert answers == [Answer.NOT_SELECTED, Answer.ACCEPTED, Answer.ACCEPTED]
    assert machine.ready
    with pytest.raises(InvalidValueError, match="expected at least quorum=2 selected clients, got 1"):
        open_round(Rules(target=5, quorum=2), at=0.0, selected=("a", "a"))


@pytest.mark.parametrize(
    ("target", "factor", "invited"), [(10, 1.3, 13), (10, 1.1, 11), (3, 1.3, 4), (7, 1.0, 7), (7, None, None)]
)
def test_more_are_invited_than_needed(target, factor, invited):
    assert Rules(target=target, quorum=1, over_selection=factor).invited == invited


@pytest.mark.parametrize(
    "wrong",
    [
        {"target": 0},
        {"quorum": 0},
        {"quorum": 4},
        {"deadline": 0.0},
        {"deadline": math.inf},
        {"over_selection": 0.9},
        {"phases": ()},
        {"phases": ("a", "a")},
    ],
)
def test_rules_that_make_no_sense_are_refused(wrong):
    with pytest.raises(InvalidValueError):
        Rules(**{"target": 3, "quorum": 2, **wrong})


@pytest.mark.parametrize("damage", [{"version": 2}, {"rules": {}}, {"status": "odd"}, {"more": 1}, {"received": 3}])
def test_what_was_not_written_by_a_machine_is_not_read(damage):
    written = open_round(Rules(target=1, quorum=1), at=0.0).to_dict()
    with pytest.raises(StateError, match="the state of a round cannot be read"):
        Machine.of_dict({**written, **damage})
    with pytest.raises(StateError):
        Machine.of_dict({})
