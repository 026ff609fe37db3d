"""A round as a machine: what came, what it means, and what the round becomes, without a clock, a disk or a network.

A host hands it inputs with their times and keeps what comes out. All of it is plain data, so that a round goes on after
a restart where it stood.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields, replace
from typing import Any

from matl import validate
from matl.coordinator.rounds.inputs import Answer, Closed, Failed, Input, Received, Reduced, Resumed, Stopped, Ticked
from matl.coordinator.storage.rows import RoundStatus
from matl.errors import InvalidValueError, StateError

__all__ = [
    "Answer", "Closed", "Failed", "Input", "Machine", "Received", "Reduced", "Resumed", "Rules", "Stopped", "Ticked",
    "due", "open_round", "step",
]  # fmt: skip

_VERSION = 1
STOPPED = "the run was stopped"


@dataclass(frozen=True, slots=True, kw_only=True)
class Rules:
    """When a round ends.

    Parameters
    ----------
    target : int
        Updates after which collection closes at once. For a buffered round, the updates that it waits for.
    quorum : int
        Fewest updates with which a round is judged when its deadline passes.
    deadline : float or None
        Seconds that each phase may take; ``None`` to wait for the target.
    over_selection : float or None
        How many times the target is invited to a round, so that some may fall silent; ``None`` for everybody.
    phases : tuple of str
        Phases that the round walks through. Who is silent in one has no part in the next.
    later : int or None
        Fewest messages of each phase after the first when its deadline passes; as many as the quorum if not given.

    Raises
    ------
    InvalidValueError
        A number is outside what is allowed.

    Examples
    --------
    >>> Rules(target=10, quorum=6, deadline=60, over_selection=1.3).invited
    13
    """

    target: int
    quorum: int
    deadline: float | None = None
    over_selection: float | None = None
    phases: tuple[str, ...] = ("collect",)
    later: int | None = None

    def __post_init__(self) -> None:
        validate.whole(1, target=self.target, quorum=self.quorum)
        if self.later is not None:
            validate.whole(1, later=self.later)
        if self.over_selection is not None:
            validate.at_least(1, over_selection=self.over_selection)
        if self.quorum > self.target:
            raise InvalidValueError(
                f"expected quorum <= target, got quorum={self.quorum} and target={self.target}: a round would close "
                "before it may be judged"
            )
        if self.deadline is not None:
            validate.positive(deadline=self.deadline)
        if not self.phases or len(set(self.phases)) != len(self.phases):
            raise InvalidValueError(f"expected at least one phase, each named once, got phases={self.phases}")

    @property
    def invited(self) -> int | None:
        """How many clients are selected; ``None`` for everybody."""
        return None if self.over_selection is None else math.ceil(self.over_selection * self.target - 1e-9)


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """A round, as far as the machine knows it; made by `open_round`, changed by `step`.

    Attributes
    ----------
    rules : Rules
        When it ends.
    opened_at, phase_began_at, closed_at : float
        Seconds of the host's clock; ``closed_at`` is ``None`` until collection ended.
    status : RoundStatus
        Where it stands.
    phase : int
        Index of its phase.
    selected : tuple of str or None
        Who may take part; ``None`` for everybody.
    received : tuple of mappings of str to str
        For each phase that began, the digest of each client's message.
    excluded : tuple of str
        Clients that sent something and are not judged, by an operator's word.
    seed : int or None
        The judge's.
    result : str
        Digest of the model after the round.
    reason : str
        Why it failed.
    """

    rules: Rules
    opened_at: float
    phase_began_at: float
    closed_at: float | None = None
    status: RoundStatus = RoundStatus.OPEN
    phase: int = 0
    selected: tuple[str, ...] | None = None
    received: tuple[Mapping[str, str], ...] = field(default=({},))
    excluded: tuple[str, ...] = ()
    seed: int | None = None
    result: str = ""
    reason: str = ""

    @property
    def ready(self) -> bool:
        """Whether collection is over and the round waits for the judge's seed."""
        return self.status is RoundStatus.OPEN and self.closed_at is not None

    @property
    def ended(self) -> bool:
        """Whether it is committed or failed; nothing changes it any more."""
        return self.status in (RoundStatus.COMMITTED, RoundStatus.FAILED)

    @property
    def collecting(self) -> bool:
        """Whether messages are taken."""
        return self.status is RoundStatus.OPEN and self.closed_at is None

    @property
    def senders(self) -> Mapping[str, str]:
        """Who is in the current phase, with the digest of what came."""
        return self.received[self.phase]

    def to_dict(self) -> dict[str, Any]:
        """All of it, as JSON has it."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        rules = {item.name: getattr(self.rules, item.name) for item in fields(self.rules)}
        return {
            **values,
            "version": _VERSION,
            "rules": {**rules, "phases": list(self.rules.phases)},
            "status": self.status.value,
            "selected": None if self.selected is None else list(self.selected),
            "received": [dict(phase) for phase in self.received],
            "excluded": list(self.excluded),
        }

    @classmethod
    def of_dict(cls, data: Mapping[str, Any]) -> Machine:
        """What `to_dict` wrote.

        Raises
        ------
        StateError
            It is something else.
        """
        try:
            values = dict(data)
            if (version := values.pop("version")) != _VERSION:
                raise ValueError(f"version {version}, this library reads {_VERSION}")
            rules = dict(values.pop("rules"))
            return cls(
                **{
                    **values,
                    "rules": Rules(**{**rules, "phases": tuple(rules["phases"])}),
                    "status": RoundStatus(values["status"]),
                    "selected": None if values["selected"] is None else tuple(values["selected"]),
                    "received": tuple(dict(phase) for phase in values["received"]),
                    "excluded": tuple(values["excluded"]),
                }
            )
        except (KeyError, TypeError, ValueError) as error:
            raise StateError(f"the state of a round cannot be read: {error!r}") from error


def open_round(rules: Rules, *, at: float, selected: tuple[str, ...] | None = None) -> Machine:
    """A round that begins.

    Raises
    ------
    InvalidValueError
        Fewer clients are selected than the quorum.

    Examples
    --------
    >>> machine = open_round(Rules(target=2, quorum=1, deadline=60), at=1000.0)
    >>> machine, answer = step(machine, Received("ann", "d1", 1001.0))
    >>> answer.value, due(machine), machine.ready
    ('accepted', 1060.0, False)
    >>> machine, answer = step(machine, Received("ann", "d2", 1002.0))
    >>> answer.value
    'conflict'
    >>> machine, _ = step(machine, Ticked(1060.0))
    >>> machine.ready
    True
    >>> machine, _ = step(machine, Closed(seed=7))
    >>> machine, _ = step(machine, Reduced("ab" * 32))
    >>> machine.status.value
    'committed'
    """
    if selected is not None and len(set(selected)) < rules.quorum:
        raise InvalidValueError(f"expected at least quorum={rules.quorum} selected clients, got {len(set(selected))}")
    return Machine(rules=rules, opened_at=at, phase_began_at=at, selected=selected)


def due(machine: Machine) -> float | None:
    """When a `Ticked` changes something next; ``None`` if never."""
    if not machine.collecting or machine.rules.deadline is None:
        return None
    return machine.phase_began_at + machine.rules.deadline


def step(machine: Machine, entry: Input) -> tuple[Machine, Answer]:
    """What becomes of a round, and what is said to whoever made the input.

    An input that has a time lets that time pass first: what comes at the deadline is late, whether or not somebody
    ticked. So a message that is refused may still have moved the round on.

    Parameters
    ----------
    machine : Machine
        The round.
    entry : Input
        What happened.

    Returns
    -------
    (Machine, Answer)
        The round after it, the same object if nothing changed.
    """
    match entry:
        case Received():
            return _receive(_pass(machine, entry.at), entry)
        case Ticked():
            after = _pass(machine, entry.at)
            return after, Answer.IGNORED if after is machine else Answer.ACCEPTED
        case Resumed() if machine.collecting:
            return replace(machine, phase_began_at=entry.at), Answer.ACCEPTED
        case Closed() if machine.ready:
            excluded = tuple(sorted(set(entry.excluded) & set(machine.senders)))
            return replace(machine, status=RoundStatus.JUDGING, seed=entry.seed, excluded=excluded), Answer.ACCEPTED
        case Reduced() if machine.status is RoundStatus.JUDGING:
            return replace(machine, status=RoundStatus.COMMITTED, result=entry.digest), Answer.ACCEPTED
        case Failed() if not machine.ended:
            return replace(machine, status=RoundStatus.FAILED, reason=entry.reason), Answer.ACCEPTED
        case Stopped() if not machine.ended:
            return replace(machine, status=RoundStatus.FAILED, reason=STOPPED), Answer.ACCEPTED
    return machine, Answer.IGNORED


def _receive(machine: Machine, entry: Received) -> tuple[Machine, Answer]:
    phases = machine.rules.phases
    if entry.phase is not None and entry.phase not in phases[: machine.phase + 1]:
        return machine, Answer.IGNORED
    index = machine.phase if entry.phase is None else phases.index(entry.phase)
    # What was acknowledged stays so, whatever the round has become.
    before = machine.received[index].get(entry.client)
    if before is not None:
        return machine, Answer.DUPLICATE if before == entry.digest else Answer.CONFLICT
    if not _may(machine, index, entry.client):
        return machine, Answer.NOT_SELECTED
    if index < machine.phase or not machine.collecting:
        return machine, Answer.LATE
    received = (*machine.received[:index], {**machine.senders, entry.client: entry.digest})
    machine = replace(machine, received=received)
    if len(machine.senders) >= _expected(machine):
        machine = _advance(machine, entry.at)
    return machine, Answer.ACCEPTED


def _may(machine: Machine, index: int, client: str) -> bool:
    """Whether a client has a part in a phase."""
    if index:
        return client in machine.received[index - 1]
    return machine.selected is None or client in machine.selected


def _expected(machine: Machine) -> int:
    """Messages after which a phase is over."""
    if machine.phase:
        return len(machine.received[machine.phase - 1])
    target = machine.rules.target
    return target if machine.selected is None else min(target, len(set(machine.selected)))


def _pass(machine: Machine, at: float) -> Machine:
    """Let time pass; not more than one phase ends by it, as the next begins when somebody looked."""
    end = due(machine)
    if end is None or at < end:
        return machine
    count, rules = len(machine.senders), machine.rules
    needed = rules.quorum if machine.phase == 0 or rules.later is None else rules.later
    if count >= needed:
        return _advance(machine, at)
    where = f" in phase {rules.phases[machine.phase]}" if len(rules.phases) > 1 else ""
    reason = f"{count} of {needed} updates in {rules.deadline:g} seconds{where}"
    return replace(machine, status=RoundStatus.FAILED, reason=reason, closed_at=at)


def _advance(machine: Machine, at: float) -> Machine:
    """End the phase."""
    if machine.phase + 1 == len(machine.rules.phases):
        return replace(machine, closed_at=at)
    return replace(machine, phase=machine.phase + 1, phase_began_at=at, received=(*machine.received, {}))
