"""What is done about suspicious groups: graded, reversible, and on the record."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, fields
from enum import IntEnum

import numpy as np
from numpy.typing import NDArray

from matl.errors import InvalidValueError, StateError
from matl.state import State
from matl.trust.cartels.groups import Group

__all__ = ["THRESHOLDS", "Action", "Level", "respond", "standing", "undo", "weight_factors"]


class Level(IntEnum):
    """How far a member is restricted."""

    FREE = 0
    WATCH = 1  # named, nothing else
    DAMPEN = 2  # its voting weight counts half
    SUSPEND = 3  # it has no voting weight


THRESHOLDS = {Level.WATCH: 0.3, Level.DAMPEN: 0.6, Level.SUSPEND: 0.8}
"""Risk from which a level is called for. Vouching alone gives at most 0.4: votes alone cost nobody its weight."""

_FACTORS = np.array([1.0, 1.0, 0.5, 0.0])  # of the voting weight, by level


@dataclass(frozen=True, slots=True)
class Action:
    """One entry of the log.

    Parameters
    ----------
    kind : str
        ``"watch"``, ``"dampen"``, ``"suspend"`` or ``"undo"``.
    members : tuple of str
        Whom it concerns.
    round : int
        When it was taken.
    reason : str
        Why, in words and numbers.
    evidence : mapping of str to float
        The risk and the tail probabilities it rests on; empty for ``"undo"``.
    undoes : int or None
        Position in the log of what an ``"undo"`` takes back.
    """

    kind: str
    members: tuple[str, ...]
    round: int
    reason: str
    evidence: Mapping[str, float] = field(default_factory=dict)
    undoes: int | None = None

    def as_state(self) -> State:
        """The action as plain data."""
        return {**asdict(self), "members": list(self.members), "evidence": dict(self.evidence)}

    @classmethod
    def of_state(cls, state: State) -> Action:
        """What `as_state` gave.

        Raises
        ------
        StateError
            Something is missing.
        """
        try:
            values = {item.name: state[item.name] for item in fields(cls)}
        except KeyError as error:
            raise StateError(f"the record of the action lacks {error}; it was not written by this version") from error
        return cls(**{**values, "members": tuple(values["members"])})


Log = tuple[Action, ...]


def respond(log: Log, groups: Iterable[Group], round: int) -> Log:  # noqa: A002
    """The log with what the risks of groups call for: each member rises by at most one level.

    To be called once per period, with groups found in that period's votes: two levels need two periods of evidence.

    Parameters
    ----------
    log : tuple of Action
        What was done so far.
    groups : iterable of Group
        As `matl.trust.cartels.find_groups` gives them.
    round : int
        When this is decided; after the last action of the log, an ``"undo"`` excepted.

    Examples
    --------
    >>> group = Group(("a", "b", "c"), 0.9, {"vouching": 0.001}, "vouched for each other")
    >>> log = respond((), [group], round=50)
    >>> log[0].kind, log[0].reason
    ('watch', 'risk 0.90 (watch from 0.30): vouched for each other')
    >>> log = respond(log, [group], round=100)
    >>> [action.kind for action in log], weight_factors(log, ["a", "z"])
    (['watch', 'dampen'], array([0.5, 1. ]))
    """
    taken = [action.round for action in log if action.kind != "undo"]
    if taken and round <= max(taken):
        raise InvalidValueError(
            f"expected a round after {max(taken)}, when the log's last action was taken, got round={round}; "
            "levels rise once per period"
        )
    levels, added = standing(log), []
    for group in groups:
        called = max((level for level, least in THRESHOLDS.items() if group.risk >= least), default=Level.FREE)
        for level in THRESHOLDS:
            rising = tuple(name for name in group.members if levels.get(name, Level.FREE) == level - 1)
            if rising and level <= called:
                reason = f"risk {group.risk:.2f} ({level.name.lower()} from {THRESHOLDS[level]:.2f}): {group.reason}"
                added.append(Action(level.name.lower(), rising, round, reason, {"risk": group.risk, **group.tails}))
    return (*log, *added)


def undo(log: Log, number: int, round: int, reason: str) -> Log:  # noqa: A002
    """The log with one action taken back. The action stays in it; it is no longer in force.

    Parameters
    ----------
    log : tuple of Action
        What was done so far.
    number : int
        Position of the action in the log.
    round : int
        When this is decided.
    reason : str
        Why; not empty.
    """
    if not 0 <= number < len(log) or log[number].kind == "undo":
        raise InvalidValueError(
            f"expected the number of an action in a log of {len(log)} that can be undone, got {number}"
        )
    if number in _undone(log):
        raise InvalidValueError(f"expected an action in force, got number={number}, which is undone already")
    if not reason.strip():
        raise InvalidValueError("expected a reason, got none; whoever reads the log must learn why")
    return (*log, Action("undo", log[number].members, round, reason, undoes=number))


def standing(log: Log) -> dict[str, Level]:
    """The level of every member that is not free: that of its last action in force."""
    undone, levels = _undone(log), dict[str, Level]()
    for number, action in enumerate(log):
        if action.kind != "undo" and number not in undone:
            levels.update(dict.fromkeys(action.members, Level[action.kind.upper()]))
    return levels


def weight_factors(log: Log, ids: Sequence[str]) -> NDArray[np.float64]:
    """What the voting weight of each member is multiplied by, for `matl.trust.reputation.voting_shares`."""
    levels = standing(log)
    return _FACTORS[[levels.get(name, Level.FREE) for name in ids]]


def _undone(log: Log) -> set[int]:
    return {action.undoes for action in log if action.undoes is not None}
