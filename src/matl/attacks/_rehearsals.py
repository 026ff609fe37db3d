"""What a white-box adversary learns by rehearsing a round."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from matl.attacks._vectors import unit
from matl.attacks.base import AttackView, Rehearsal
from matl.params import Float32

__all__ = ["Rehearsals"]

# How much of the way from the honest to the malicious updates is gone. Blends with sign flips against Mode 1 on digits
# (seeds 1 and 2, 12 rounds): with 1 all attackers are in quarantine at the end, with .9 none, for less damage.
_CAUTION = 0.9


class Rehearsals:
    """The rehearsals of one round: remembers the most harmful updates that get nobody caught whom honesty would not.

    Parameters
    ----------
    view : AttackView
        The round.
    rehearse : callable
        The view's.
    budget : int
        How many rehearsals there are; the first is of honest behaviour.

    Notes
    -----
    Harm is how far the aggregate points against the honest mean. The root's loss after one round, the other candidate,
    steers the search worse: it rewards what overshoots now, not what drifts. Clients that would be caught in any case
    behave: they do not count now, and want to count again.
    """

    def __init__(self, view: AttackView, rehearse: Callable[[Float32], Rehearsal], budget: int) -> None:
        self._rehearse = rehearse
        self._own = view.own
        self._ahead = unit(view.reference.mean(axis=0))
        honest = rehearse(view.own)
        self._lost = honest.caught
        self._harm = -float(honest.aggregate @ self._ahead)
        self.best = view.own
        self.left = budget - 1

    def cautious(self, rows: Float32) -> Float32:
        """What to send of updates (m, d) that pass: a little less, since the judge will have another seed."""
        return self._own + np.float32(_CAUTION) * (self._discreet(rows) - self._own)

    def improves(self, rows: Float32) -> bool:
        """Whether updates (m, d) get by and do more harm than any before."""
        found = self.best
        return self.passes(rows) and self.best is not found

    def passes(self, rows: Float32) -> bool:
        """Whether updates (m, d) get by; they become the best if they also do the most harm so far."""
        self.left -= 1
        rows = self._discreet(rows)
        rehearsal = self._rehearse(rows)
        if (rehearsal.caught > self._lost).any():
            return False
        harm = -float(rehearsal.aggregate @ self._ahead)
        if harm > self._harm:
            self.best, self._harm = rows, harm
        return True

    def _discreet(self, rows: Float32) -> Float32:
        return np.where(self._lost[:, None], self._own, rows)
