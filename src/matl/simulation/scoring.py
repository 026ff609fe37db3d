"""What a simulated round leaves behind, and how it is scored against the truth only a simulation has."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from matl.records import Status

__all__ = [
    "EXCLUDED",
    "FALSE_POSITIVE_RATES",
    "Detection",
    "RoundRecord",
    "RoundReport",
    "VerdictRow",
    "auroc",
    "class_accuracies",
    "minority_accuracy",
    "roc",
    "rounds_to",
    "score",
    "share",
]

Floats = NDArray[np.float64]

EXCLUDED = frozenset({Status.QUARANTINED, Status.REJECTED})
"""Statuses that count as *detected*."""

FALSE_POSITIVE_RATES = (0.0, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7, 1.0)
"""Where the ROC curve of a run is read off; the same for all runs, so that curves can be averaged over seeds."""

_SUMMARY = "strongest"
"""The channel in which a judge sums its evidence up, if it does."""

_LEAST_SERVED = 0.1
"""Share of the honest clients that the minority accuracy is about: those the model serves worst."""


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
    payload_bytes : float
        Mean length of the payloads that were accepted; of named arrays, what they hold. 0 without any.
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
    payload_bytes: float
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


def score(row: VerdictRow, channels: Sequence[str]) -> float:
    """How suspicious a verdict finds a unit: one number to rank all client-rounds by, larger is worse.

    It is the evidence that the judge sums up as ``strongest``, or else the largest of its channels; infinite for an
    update that screening rejected, and minus infinity where the judge has no opinion.

    Examples
    --------
    >>> verdict = VerdictRow("a", Status.ACCEPTED, 1.0, "", {"norm": 0.2, "direction": 0.7})
    >>> score(verdict, ("direction", "norm"))
    0.7
    """
    if row.status is Status.REJECTED:
        return math.inf
    if _SUMMARY in row.evidence:
        return float(row.evidence[_SUMMARY])
    return max((float(row.evidence[name]) for name in channels if name in row.evidence), default=-math.inf)


@dataclass(frozen=True, slots=True)
class Detection:
    """How well verdicts told malicious clients from honest ones, over client-rounds.

    A malicious client counts in the rounds in which its attack acts, an honest one in all of its rounds.

    Parameters
    ----------
    round_tpr, round_fpr : float or None
        Share of the malicious / honest client-rounds that were quarantined or rejected; ``None`` without any.
    auroc : float or None
        Chance that a malicious client-round has a larger `score` than an honest one, ties counted half.
    roc : tuple of float
        True-positive rates at `FALSE_POSITIVE_RATES`; empty without malicious or without honest client-rounds.
    rounds_to_detection : float or None
        Median over malicious clients of the rounds from the first in which it attacked to the first from then on in
        which it was kept out; ``None`` if at least half of them never were, or nobody attacked.
    """

    round_tpr: float | None
    round_fpr: float | None
    auroc: float | None
    roc: tuple[float, ...]
    rounds_to_detection: float | None

    @classmethod
    def of(
        cls, scores: Floats, excluded: NDArray[np.bool_], malicious: NDArray[np.bool_], acting: NDArray[np.bool_]
    ) -> Detection:
        """Figures of T rounds with n clients.

        Parameters
        ----------
        scores : float array of shape (T, n)
            The `score` of every verdict; NaN where a client did not take part.
        excluded : bool array of shape (T, n)
            Who was quarantined or rejected.
        malicious : bool array of shape (n,)
            Who is malicious.
        acting : bool array of shape (T,)
            In which rounds the attack acts.
        """
        seen = ~np.isnan(scores)
        lies, honest = seen & malicious & acting[:, None], seen & ~malicious
        positive, negative = scores[lies], scores[honest]
        both = bool(positive.size and negative.size)
        return cls(
            round_tpr=float(excluded[lies].mean()) if positive.size else None,
            round_fpr=float(excluded[honest].mean()) if negative.size else None,
            auroc=auroc(negative, positive) if both else None,
            roc=roc(negative, positive) if both else (),
            rounds_to_detection=_rounds_to_detection(lies, excluded & seen),
        )

    def as_dict(self) -> dict[str, Any]:
        """As plain data, with the true-positive rates at 1 and at 5 % false positives by name."""
        rates = dict(zip(FALSE_POSITIVE_RATES, self.roc, strict=True)) if self.roc else {}
        return {
            "round_tpr": self.round_tpr,
            "round_fpr": self.round_fpr,
            "auroc": self.auroc,
            "tpr_at_fpr_1": rates.get(0.01),
            "tpr_at_fpr_5": rates.get(0.05),
            "rounds_to_detection": self.rounds_to_detection,
            "roc": list(self.roc),
        }


def auroc(honest: Floats, malicious: Floats) -> float:
    """Chance that a malicious value exceeds an honest one, ties counted half; NaN where a group is empty.

    Examples
    --------
    >>> auroc(np.array([1.0, 2.0]), np.array([2.0, 3.0]))
    0.875
    """
    if not honest.size or not malicious.size:
        return math.nan
    ordered = np.sort(honest)
    below = np.searchsorted(ordered, malicious, side="left")
    not_above = np.searchsorted(ordered, malicious, side="right")
    return float((below + not_above).mean() / (2 * honest.size))


def roc(honest: Floats, malicious: Floats) -> tuple[float, ...]:
    """Largest true-positive rates that a threshold reaches at no more than each of `FALSE_POSITIVE_RATES`.

    Examples
    --------
    >>> roc(np.array([0.0, 1.0]), np.array([0.5, 2.0, 3.0, 4.0]))
    (0.75, 0.75, 0.75, 0.75, 0.75, 0.75, 0.75, 0.75, 1.0, 1.0, 1.0)
    """
    falling = -np.sort(-honest)
    allowed = [int(rate * honest.size + 1e-9) for rate in FALSE_POSITIVE_RATES]
    return tuple(1.0 if k >= honest.size else float((malicious > falling[k]).mean()) for k in allowed)


def rounds_to(accuracies: Sequence[float], target: float) -> int | None:
    """How many rounds it takes until the accuracy after a round reaches a target; ``None`` if it never does.

    Examples
    --------
    >>> rounds_to([0.2, 0.6, 0.5], 0.5), rounds_to([0.2], 0.5)
    (2, None)
    """
    return next((number for number, accuracy in enumerate(accuracies, start=1) if accuracy >= target), None)


def class_accuracies(predicted: NDArray[np.int64], y: NDArray[np.int64], num_classes: int) -> Floats:
    """Share of each class's samples that was labelled correctly, shape (num_classes,); NaN for a class without any.

    Examples
    --------
    >>> class_accuracies(np.array([0, 1, 1]), np.array([0, 0, 1]), 3)
    array([0.5, 1. , nan])
    """
    counts = np.bincount(y, minlength=num_classes)
    right = np.bincount(y[predicted == y], minlength=num_classes)
    shares: Floats = np.divide(right, counts, out=np.full(num_classes, np.nan), where=counts > 0)
    return shares


def minority_accuracy(by_class: Floats, counts: NDArray[np.int64]) -> float | None:
    """Accuracy for the clients that the model serves worst.

    A client's accuracy is that on the test set with the classes in the shares in which the client holds them. This is
    its mean over the tenth of the clients, rounded up, for which it is lowest.

    Parameters
    ----------
    by_class : float array of shape (K,)
        Accuracy on each class; NaN where the test set has none of it.
    counts : int64 array of shape (n, K)
        Samples of each client by class.

    Examples
    --------
    >>> minority_accuracy(np.array([1.0, 0.0]), np.array([[9, 1], [5, 5], [2, 8]]))
    0.2
    """
    tested = counts * np.isfinite(by_class)
    tested = tested[tested.sum(axis=1) > 0]
    if not len(tested):
        return None
    accuracies = np.sort(tested @ np.nan_to_num(by_class) / tested.sum(axis=1))
    return float(accuracies[: math.ceil(_LEAST_SERVED * len(accuracies) - 1e-9)].mean())


def _rounds_to_detection(lies: NDArray[np.bool_], excluded: NDArray[np.bool_]) -> float | None:
    """See `Detection`; both of shape (T, n)."""
    attackers = np.flatnonzero(lies.any(axis=0))
    if not attackers.size:
        return None
    first = lies[:, attackers].argmax(axis=0)
    caught = excluded[:, attackers] & (np.arange(len(lies))[:, None] >= first)
    waited = np.where(caught.any(axis=0), caught.argmax(axis=0) - first, np.inf)
    median = float(np.median(waited))
    return median if math.isfinite(median) else None
