"""What a simulated round leaves behind, and how it is scored against the truth only a simulation has."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass

from matl.records import Status

__all__ = ["EXCLUDED", "RoundRecord", "RoundReport", "VerdictRow", "share"]

EXCLUDED = frozenset({Status.QUARANTINED, Status.REJECTED})
"""Statuses that count as *detected*."""


@dataclass(frozen=True, slots=True)
class VerdictRow:
    """One unit in one round: a verdict of the judge, or a rejection by screening."""

    client: str
    status: Status
    weight: float
    reason: str
    evidence: Mapping[str, float]


@dataclass(frozen=True, slots=True)
class RoundRecord:
    """The figures of one round.

    Parameters
    ----------
    round : int
        Index, from 0.
    accuracy : float
        Of the model after the round, on the test set, in [0, 1].
    accepted, clipped, suspected, quarantined, rejected : int
        How many clients got each status.
    true_positive_rate, false_positive_rate : float or None
        Share of the round's malicious / honest clients that were quarantined or rejected; ``None`` without any, or
        when the judge gives no verdicts.
    aggregate_norm : float
        L2 norm of the aggregate; 0 if the round failed.
    seconds : float
        Wall time of the round.
    failure : str
        Why the round failed, in words; empty if it did not.
    """

    round: int
    accuracy: float
    accepted: int
    clipped: int
    suspected: int
    quarantined: int
    rejected: int
    true_positive_rate: float | None
    false_positive_rate: float | None
    aggregate_norm: float
    seconds: float
    failure: str = ""


@dataclass(frozen=True, slots=True)
class RoundReport:
    """One round: its figures, and a row per participant."""

    record: RoundRecord
    verdicts: tuple[VerdictRow, ...]


def share(members: Collection[str], group: Collection[str]) -> float | None:
    """Share of a group that is among the members; ``None`` for an empty group."""
    return sum(one in members for one in group) / len(group) if group else None


def count_statuses(rows: Sequence[VerdictRow]) -> dict[str, int]:
    """How many rows have each status, by its name."""
    return {status.value: sum(row.status is status for row in rows) for status in Status}
