"""Who vouched for whom against the majority of the others, and when everyone sent its results."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from matl import validate
from matl.errors import StateError
from matl.state import State

__all__ = ["Ledger"]

_OTHERS = 3  # a majority of fewer other judges says nothing
_HALF = 0.5  # added to yes and no, so that what three judges agree on is not taken for certain


@dataclass(frozen=True)
class Ledger:
    """Votes and times of one period, such as the rounds since the last look.

    Only *contested* votes are counted: those on a unit that most of its other judges rejected. Whether members of one
    region judge each other often, or have data that others find odd, does not matter until a majority rejects it; and
    fewer than half of a unit's judges cannot make it contested.

    Counts are kept apart by the parity of the round: groups are looked for in one half and tested in the other.

    Parameters
    ----------
    ids : tuple of str
        The n members that ever voted, in sorted order.
    contested : float64 array of shape (2, n, n)
        Votes by row on units of column that most of the other judges rejected, in even and in odd rounds.
    vouched : float64 array of shape (2, n, n)
        How many of those accepted the unit.
    expected : float64 array of shape (2, n, n)
        How many would have, had the judge accepted each as often as its other judges did.
    times : float64 array of shape (R, n)
        When each member's message of each round arrived, in seconds after the round opened; NaN where none did.

    Examples
    --------
    >>> others = {f"v{i}": {"a": False, "b": True} for i in range(4)}
    >>> ledger = Ledger.empty().recorded({**others, "a": {"b": True}, "b": {"a": True}}, {"a": 1.0, "b": 1.2})
    >>> ledger.ids[:2], ledger.vouched[0, 1, :2], ledger.expected[0, 1, :2]
    (('a', 'b'), array([1., 0.]), array([0.1, 0. ]))
    """

    ids: tuple[str, ...]
    contested: NDArray[np.float64]
    vouched: NDArray[np.float64]
    expected: NDArray[np.float64]
    times: NDArray[np.float64]

    @classmethod
    def empty(cls) -> Ledger:
        """A ledger without rounds."""
        return cls((), np.zeros((2, 0, 0)), np.zeros((2, 0, 0)), np.zeros((2, 0, 0)), np.empty((0, 0)))

    @property
    def rounds(self) -> int:
        """How many rounds it holds."""
        return len(self.times)

    def recorded(self, votes: Mapping[str, Mapping[str, bool]], times: Mapping[str, float]) -> Ledger:
        """The ledger after a round.

        Parameters
        ----------
        votes : mapping of str to mapping of str to bool
            Votes by member and unit, as in `matl.trust.voting.Election`. A unit counts if it carries the id of a
            member; votes on one's own do not.
        times : mapping of str to float
            When the members' messages arrived, in seconds after the round opened.
        """
        validate.non_negative(**{f"times[{name!r}]": value for name, value in times.items()})
        grown = self._grown(votes)
        row = {name: index for index, name in enumerate(grown.ids)}
        n = len(row)
        judged, accepted = np.zeros((n, n)), np.zeros((n, n))
        for judge, ballot in votes.items():
            for unit, vote in ballot.items():
                if unit in row and unit != judge:
                    judged[row[judge], row[unit]] = 1.0
                    accepted[row[judge], row[unit]] = vote
        others, agreeing = judged.sum(axis=0) - judged, accepted.sum(axis=0) - accepted
        contested = judged * ((others >= _OTHERS) & (2.0 * agreeing < others))
        share = (agreeing + _HALF) / (others + 2.0 * _HALF)
        half = (np.arange(2) == grown.rounds % 2)[:, None, None]
        newest = np.array([times.get(name, np.nan) for name in grown.ids]).reshape(1, n)
        return Ledger(
            ids=grown.ids,
            contested=grown.contested + half * contested,
            vouched=grown.vouched + half * contested * accepted,
            expected=grown.expected + half * contested * share,
            times=np.concatenate([grown.times, newest]),
        )

    def as_state(self) -> State:
        """The ledger as plain data."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        return {**values, "ids": list(self.ids)}

    @classmethod
    def of_state(cls, state: State) -> Ledger:
        """What `as_state` gave.

        Raises
        ------
        StateError
            Something is missing.
        """
        try:
            values = {item.name: state[item.name] for item in fields(cls)}
        except KeyError as error:
            raise StateError(f"the state of the ledger lacks {error}; it was not written by this version") from error
        return cls(**{**values, "ids": tuple(values["ids"])})

    def _grown(self, votes: Mapping[str, Any]) -> Ledger:
        ids = tuple(sorted({*self.ids, *votes}))
        if ids == self.ids:
            return self
        where = np.searchsorted(np.array(ids), np.array(self.ids)) if self.ids else np.empty(0, np.intp)

        def spread(old: NDArray[np.float64]) -> NDArray[np.float64]:
            table = np.zeros((2, len(ids), len(ids)))
            table[:, where[:, None], where] = old
            return table

        times = np.full((self.rounds, len(ids)), np.nan)
        times[:, where] = self.times
        return Ledger(ids, spread(self.contested), spread(self.vouched), spread(self.expected), times)
