"""What can happen to a round, and what is said to it; see `matl.coordinator.rounds.machine`."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias

__all__ = ["Answer", "Closed", "Failed", "Input", "Received", "Reduced", "Resumed", "Stopped", "Ticked"]


class Answer(StrEnum):
    """What an input came to."""

    ACCEPTED = "accepted"
    DUPLICATE = "duplicate"  # this client said the same before; it counts once
    CONFLICT = "conflict"  # this client said something else before, and that counts
    LATE = "late"  # the phase is over
    NOT_SELECTED = "not_selected"  # the client was not invited, or was silent in an earlier phase
    IGNORED = "ignored"  # it has no meaning as the round stands, and changed nothing


@dataclass(frozen=True, slots=True)
class Received:
    """A client's message for a phase, the current one if none is named, known by its digest."""

    client: str
    digest: str
    at: float
    phase: str | None = None


@dataclass(frozen=True, slots=True)
class Ticked:
    """Time went on."""

    at: float


@dataclass(frozen=True, slots=True)
class Resumed:
    """The round waited and goes on: the clock of its phase begins anew."""

    at: float


@dataclass(frozen=True, slots=True)
class Closed:
    """The host drew the judge's seed, after collection ended; and who is left out of the round by an operator."""

    seed: int
    excluded: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Reduced:
    """The round was judged; the digest is that of the model after it."""

    digest: str


@dataclass(frozen=True, slots=True)
class Failed:
    """The round cannot be judged."""

    reason: str


@dataclass(frozen=True, slots=True)
class Stopped:
    """The run ends here."""


Input: TypeAlias = Received | Ticked | Resumed | Closed | Reduced | Failed | Stopped
