"""Reputation: what conduct adds up to over rounds; slow to earn, fast to lose, never worth more than a capped share."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from matl import validate
from matl.errors import InvalidValueError
from matl.records import Status, Verdict
from matl.trust.table import ClientTable, column

__all__ = [
    "CAP",
    "NEWCOMER",
    "POWER",
    "RATES",
    "Conduct",
    "Rates",
    "Reputations",
    "capped_shares",
    "conduct_of_verdicts",
    "voting_shares",
]

NEWCOMER = 0.2
"""Score of a member nobody knows: 4 % of the voting weight of one with a full score."""

POWER = 2.0
"""Voting weight is the score to this power."""

CAP = 0.1
"""Largest share of all voting weight that one member can have: three members at the cap are less than a third."""

_TINY = 1e-12


@dataclass(frozen=True, slots=True)
class Conduct:
    """What one round showed of a member that was there.

    Parameters
    ----------
    good, bad : float
        Shares of the round's evidence that speak for and against it; each >= 0, together at most 1. What is left
        says nothing.
    lied : bool
        Whether it is held to have lied, beyond an error that an honest member may make.
    """

    good: float = 0.0
    bad: float = 0.0
    lied: bool = False

    def __post_init__(self) -> None:
        validate.non_negative(good=self.good, bad=self.bad)
        if self.good + self.bad > 1.0 + 1e-9:  # shares of one whole, but for rounding
            raise InvalidValueError(f"expected good + bad <= 1, got good={self.good} and bad={self.bad}")


@dataclass(frozen=True, slots=True)
class Rates:
    """How fast a score moves.

    A member that was there moves by ``gain * good - loss * bad`` and stays in [0, 1]; one that lied has at most
    ``fallen`` left; one that was asked and stayed away loses ``decay``, down to a newcomer's score. Absence never
    raises a score: who is below a newcomer gets out by good conduct alone.

    Parameters
    ----------
    gain, loss : float
        Per round, 0 < ``gain`` < ``loss``. A member whose evidence goes against it in more than the share
        ``gain / (gain + loss)`` falls, one below that rises: a sixth with the defaults.
    decay : float
        Per round, >= 0.
    fallen : float
        In [0, `NEWCOMER`).

    Notes
    -----
    Policy, not estimates: a full score takes 40 rounds from a newcomer's and is lost in ten of being wrong throughout;
    being away costs what being there earns. The break-even must lie well above what honest validators err, or luck
    decides their scores: with a loss of 0.18 (a tenth) and honest errors of 8 %, careful liars outgrew them on
    development seeds.
    """

    gain: float = 0.02
    loss: float = 0.1
    decay: float = 0.02
    fallen: float = 0.1

    def __post_init__(self) -> None:
        validate.positive(gain=self.gain)
        validate.non_negative(decay=self.decay, fallen=self.fallen)
        if not self.gain < self.loss < np.inf:
            raise InvalidValueError(f"expected gain < loss, got gain={self.gain} and loss={self.loss}")
        if not self.fallen < NEWCOMER:
            raise InvalidValueError(
                f"expected fallen < {NEWCOMER}, a newcomer's score, got fallen={self.fallen}; "
                "otherwise a liar would stand no lower than someone unknown"
            )

    def after(self, score: float, conduct: Conduct | None) -> float:
        """Score after a round; ``None`` for a member that was asked and stayed away.

        Examples
        --------
        >>> rates = Rates()
        >>> rates.after(0.5, Conduct(good=1.0)), rates.after(0.5, Conduct(good=0.5, bad=0.5))
        (0.52, 0.46)
        >>> rates.after(0.5, Conduct(lied=True)), rates.after(0.5, None)
        (0.1, 0.48)
        """
        if conduct is None:
            moved = max(score - self.decay, min(score, NEWCOMER))
        else:
            moved = min(max(score + self.gain * conduct.good - self.loss * conduct.bad, 0.0), 1.0)
            if conduct.lied:
                moved = min(moved, self.fallen)
        return round(moved, 9)  # keeps "0.2 and forty times 0.02" at exactly 1


RATES = Rates()
"""The rates that are used where none are given."""


@dataclass(frozen=True)
class Reputations(ClientTable):
    """The score of everyone who is not a newcomer.

    Parameters
    ----------
    ids : tuple of str
        Members in sorted order.
    score : float64 array of shape (N,)
        In [0, 1]; see `Rates`.

    Examples
    --------
    >>> table = Reputations.empty().after({"a": Conduct(good=1.0), "b": Conduct(lied=True), "c": None})
    >>> table.of(["a", "b", "c"])
    array([0.22, 0.1 , 0.2 ])
    >>> table.ids
    ('a', 'b')
    """

    score: NDArray[np.float64] = column(NEWCOMER)

    @classmethod
    def empty(cls) -> Reputations:
        """A table in which all are newcomers."""
        return cls((), np.empty(0))

    def of(self, ids: Sequence[str]) -> NDArray[np.float64]:
        """Scores of these members, (len(ids),); a newcomer's for those who have no row."""
        known = dict(zip(self.ids, self.score.tolist(), strict=True))
        return np.array([known.get(name, NEWCOMER) for name in ids])

    def after(self, conduct: Mapping[str, Conduct | None], rates: Rates = RATES) -> Reputations:
        """The table after a round.

        Parameters
        ----------
        conduct : mapping of str to Conduct or None
            What the round showed of everyone who was asked; ``None`` for those who stayed away. Members that are not in
            it keep their score.
        rates : Rates
            How fast scores move.
        """
        table = self.opened(list(conduct))
        scores = table.score.copy()
        for row, name in zip(table.rows(list(conduct)), conduct, strict=True):
            scores[row] = rates.after(float(scores[row]), conduct[name])
        return replace(table, score=scores).kept(scores != NEWCOMER)


_SHOWN: dict[Status, Conduct | None] = {
    Status.ACCEPTED: Conduct(good=1.0),
    Status.CLIPPED: Conduct(),
    Status.SUSPECTED: Conduct(),
    Status.QUARANTINED: Conduct(lied=True),
    Status.REJECTED: None,  # whose name a message carries that screening refused is not proven
}


def conduct_of_verdicts(verdicts: Iterable[Verdict]) -> dict[str, Conduct | None]:
    """What a judge's verdicts of one round show of its units.

    An accepted update is good conduct; a clipped or suspected one shows nothing either way; a quarantine is a lie; a
    message that screening rejected counts as absence.

    Examples
    --------
    >>> conduct_of_verdicts([Verdict("a", 1.0, Status.ACCEPTED)])
    {'a': Conduct(good=1.0, bad=0.0, lied=False)}
    """
    return {verdict.unit: _SHOWN[verdict.status] for verdict in verdicts}


def voting_shares(
    scores: NDArray[np.float64], factors: NDArray[np.float64] | None = None, *, power: float = POWER, cap: float = CAP
) -> NDArray[np.float64]:
    """Share of the voting weight that each member of a committee has.

    Parameters
    ----------
    scores : array of shape (n,)
        Reputation scores, in [0, 1].
    factors : array of shape (n,), optional
        What each weight is multiplied by before the cap, in [0, 1]: 0 for members that are suspended. All 1 if not
        given.
    power : float
        Weight is ``scores ** power``; 0 gives everyone the same.
    cap : float
        See `capped_shares`.

    Returns
    -------
    float64 array of shape (n,)
        Sums to 1; all zeros if nobody has any weight.

    Examples
    --------
    >>> voting_shares(np.array([1.0, 0.5, 0.5, 0.0]), cap=0.5)
    array([0.5 , 0.25, 0.25, 0.  ])
    """
    validate.vector(scores=scores)
    validate.non_negative(power=power)
    factor = np.ones(len(scores)) if factors is None else factors
    validate.vector(len(scores), factors=factor)
    for name, values in (("scores", scores), ("factors", factor)):
        if ((values < 0) | (values > 1)).any():
            raise InvalidValueError(f"expected 0 <= {name} <= 1, got values from {values.min():g} to {values.max():g}")
    return capped_shares(scores**power * factor, cap)


def capped_shares(weights: NDArray[np.float64], cap: float) -> NDArray[np.float64]:
    """Weights as shares of their sum, the largest cut so that none is above ``cap`` of what is left.

    Parameters
    ----------
    weights : array of shape (n,)
        All >= 0. One below 1e-12 of the largest is taken for 0.
    cap : float
        In (0, 1]. With fewer than ``1 / cap`` members of positive weight it cannot be met; they then get equal shares.

    Returns
    -------
    float64 array of shape (n,)
        Sums to 1, in the order of the weights; all zeros if the weights are.

    Notes
    -----
    With the k largest weights cut to t and the others adding up to s, t is the cap's share of the whole when
    ``t = cap * (k * t + s)``; k is the smallest number for which no other weight is above t.

    Examples
    --------
    >>> capped_shares(np.array([6.0, 2.0, 1.0, 1.0]), 0.4).round(3)
    array([0.4 , 0.3 , 0.15, 0.15])
    """
    validate.vector(weights=weights)
    validate.fraction(cap=cap)
    if cap == 0:
        raise InvalidValueError("expected 0 < cap <= 1, got cap=0.0; nobody could vote")
    if (weights < 0).any():
        raise InvalidValueError(f"expected weights >= 0, got a minimum of {weights.min()}")
    if not weights.any():
        return np.zeros(len(weights))
    scaled = weights / weights.max()
    scaled[scaled < _TINY] = 0.0
    positive = int((scaled > 0).sum())
    if positive * cap <= 1.0:
        return np.where(scaled > 0, 1.0 / positive, 0.0)
    ordered = np.sort(scaled)[::-1]
    rest = np.cumsum(ordered[::-1])[::-1]  # from the smallest up: what remains under giants is not rounded away
    most = math.ceil(1.0 / cap)  # fewer than this many can be cut
    ceilings = cap * rest[:most] / np.maximum(1.0 - np.arange(len(rest[:most])) * cap, _TINY)
    cut = np.minimum(scaled, ceilings[np.argmax(ordered[:most] <= ceilings * (1.0 + _TINY))])
    return np.asarray(cut / cut.sum())
