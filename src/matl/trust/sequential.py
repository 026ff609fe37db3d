"""Evidence over rounds: a window of figures per client, two speeds of memory, and a bank of suspicion.

All of it is plain data keyed by client id. A client that never came has no row; one that stays away for a whole window
without being under suspicion loses it, so the state is bounded by the clients that matter.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from matl import validate
from matl.params import Float32
from matl.trust.oracle import FOLDS
from matl.trust.table import ClientTable, column

__all__ = ["WINDOW", "Bank", "Book", "matched_rounds", "moved", "smooth"]

WINDOW = 16
"""Rounds of figures that are kept. At the slower memory the seventeenth would weigh 7 %."""


@dataclass(frozen=True, slots=True)
class Bank:
    """Suspicion that evidence pays into and good conduct wears off: fast to lose trust, slow to earn it back.

    A one-sided cumulative sum: evidence above 1 adds ``deposit`` plus the excess, at most ``most`` a round; a round of
    good conduct takes ``recovery`` away; any other changes nothing; the sum stays in [0, ``limit``]. A client is
    quarantined while it is above 0, so a single slip costs about ``deposit / recovery`` rounds of good conduct, a
    proven attack ``limit / recovery``, and nobody is banned for ever. Rounds a client misses change nothing.

    Parameters
    ----------
    deposit, most, recovery, limit : float
        As above, all > 0. Chosen on development seeds 0-4.

    References
    ----------
    Page, "Continuous Inspection Schemes", Biometrika 1954.
    """

    deposit: float = 0.4
    most: float = 1.5
    recovery: float = 0.1
    limit: float = 3.0

    def __post_init__(self) -> None:
        validate.positive(deposit=self.deposit, most=self.most, recovery=self.recovery, limit=self.limit)

    def after(
        self, suspicion: NDArray[np.float64], evidence: NDArray[np.float64], good: NDArray[np.bool_] | bool = True
    ) -> NDArray[np.float64]:
        """Suspicion (n,) after a round in which units showed ``evidence`` (n,), in units of its bar.

        ``good``, (n,) or one for all, says whose evidence, if not above 1, shows good conduct rather than nothing.

        Examples
        --------
        >>> Bank().after(np.array([0.0, 0.0, 1.0, 1.0]), np.array([0.7, 1.2, 0.7, 0.7]), np.array([1, 1, 1, 0], bool))
        array([0. , 0.6, 0.9, 1. ])
        """
        paid = np.minimum(self.deposit + evidence - 1.0, self.most)
        # Rounding keeps "0.4 less four times 0.1" at exactly 0.
        earned = np.where(good, -self.recovery, 0.0)
        balance = np.clip(suspicion + np.where(evidence > 1.0, paid, earned), 0.0, self.limit)
        return np.asarray(np.round(balance, 9), np.float64)

    def rounds_left(self, suspicion: float) -> int:
        """Rounds of good conduct until the quarantine ends."""
        return int(np.ceil(round(suspicion / self.recovery, 6)))


@dataclass(frozen=True)
class Book(ClientTable):
    """What Mode 1 remembers of each client.

    Parameters
    ----------
    ids : tuple of str
        Clients in sorted order; row i of every array is ``ids[i]``.
    scores : float32 array of shape (N, W, C)
        What each of the last W judged rounds said on C channels, the newest last; NaN where the client was absent.
    mix : float32 array of shape (N, K)
        Faded sum of the client's estimated label mixes.
    past : float32 array of shape (N, 2, k)
        Faded sum of the client's earlier directions, for rounds on each fold of the root.
    seen : int64 array of shape (N, 2)
        How many directions each of those holds.
    agreement : float64 array of shape (N,)
        Collusion evidence of the last round the client came to; 0 before.
    stood : float64 array of shape (N,)
        Where the client stood in divided cohorts, faded (`matl.trust.spectral`); 0 before.
    leaned : float64 array of shape (N,)
        How far it has leaned to the far part of divided cohorts, faded; 0 before.
    otherwise : bool array of shape (N,)
        Whether the client was accused, and is under suspicion since, of what it does by itself.
    foreign : bool array of shape (N,)
        The same of being foreign, by itself or in company.
    suspicion : float64 array of shape (N,)
        Balance of the `Bank`.
    reasons : tuple of str
        Why the client was last quarantined; empty if never.
    """

    scores: Float32 = column(np.nan)
    mix: Float32 = column(0.0)
    past: Float32 = column(0.0)
    seen: NDArray[np.int64] = column(0)
    agreement: NDArray[np.float64] = column(0.0)
    stood: NDArray[np.float64] = column(0.0)
    leaned: NDArray[np.float64] = column(0.0)
    otherwise: NDArray[np.bool_] = column(False)
    foreign: NDArray[np.bool_] = column(False)
    suspicion: NDArray[np.float64] = column(0.0)
    reasons: tuple[str, ...] = column("")

    @classmethod
    def empty(cls, channels: int, classes: int, width: int) -> Book:
        """A book without clients."""
        return cls(
            (),
            np.empty((0, WINDOW, channels), np.float32),
            np.empty((0, classes), np.float32),
            np.empty((0, FOLDS, width), np.float32),
            np.empty((0, FOLDS), np.int64),
            np.empty(0),
            np.empty(0),
            np.empty(0),
            np.empty(0, np.bool_),
            np.empty(0, np.bool_),
            np.empty(0),
            (),
        )

    def begun(self, ids: Sequence[str]) -> Book:
        """The book at the start of a round: one empty round more, and a row for everyone in ``ids``."""
        return replace(self, scores=moved(self.scores)).opened(ids)

    def closed(self) -> Book:
        """The book at the end of a round, without clients that are neither active nor under suspicion."""
        active = ~np.isnan(self.scores[:, :, 0]).all(axis=1)
        return self.kept(active | (self.suspicion > 0))


def moved(window: NDArray[Any]) -> NDArray[Any]:
    """The window, of shape (m, W, ...), one round on: its oldest is gone, and its newest is empty, all NaN."""
    after = np.roll(window, -1, axis=1)
    after[:, -1] = np.nan
    return after


def smooth(window: NDArray[np.float64], present: NDArray[np.bool_], memory: float) -> NDArray[np.float64]:
    """Faded mean over the rounds that are present.

    Parameters
    ----------
    window : array of shape (m, W, C)
        Figures, the newest round last.
    present : bool array of shape (W,)
        Which rounds count, the same for all rows.
    memory : float
        Factor by which a round's weight fades per round of age, in (0, 1).

    Returns
    -------
    array of shape (m, C)
    """
    age = np.arange(len(present))[::-1]
    weights = np.where(present, memory**age, 0.0)
    chosen = np.flatnonzero(present)
    return np.asarray(np.tensordot(window[:, chosen], weights[chosen] / weights[chosen].sum(), axes=(1, 0)))


def matched_rounds(window: NDArray[np.float64]) -> Iterator[tuple[NDArray[np.intp], NDArray[np.bool_]]]:
    """Groups of clients that were present in the same rounds: their rows, and those rounds.

    A client is compared with shadows over exactly its own rounds. One that came twice is judged against the spread of
    two rounds, not against the far narrower spread of sixteen.

    Parameters
    ----------
    window : array of shape (n, W, C)
        Figures with NaN for absence.
    """
    present = ~np.isnan(window[:, :, 0])
    patterns, group = np.unique(present, axis=0, return_inverse=True)
    for index, pattern in enumerate(patterns):
        yield np.flatnonzero(group.reshape(-1) == index), pattern
