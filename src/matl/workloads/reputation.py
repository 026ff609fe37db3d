"""What clients of a run have earned by the verdicts on them, for hosts, which know nothing of how trust is reckoned."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Self

import numpy as np

from matl.records import Status, Verdict
from matl.trust.reputation import Reputations, conduct_of_verdicts

__all__ = ["Earned"]


@dataclass(frozen=True, slots=True)
class Earned:
    """Reputations after some rounds, see `matl.trust.reputation`.

    Parameters
    ----------
    scores : mapping of str to float
        Of every client that had a verdict, in [0, 1].
    rounds : mapping of str to int
        In how many rounds it had one.

    Notes
    -----
    Nobody is asked by name in an open federation: a client that sends nothing keeps what it has.

    Examples
    --------
    >>> earned = Earned().after([("ann", Status.ACCEPTED), ("bob", Status.QUARANTINED)])
    >>> dict(earned.scores), dict(earned.rounds)
    ({'ann': 0.22, 'bob': 0.1}, {'ann': 1, 'bob': 1})
    """

    scores: Mapping[str, float] = field(default_factory=dict)
    rounds: Mapping[str, int] = field(default_factory=dict)

    def after(self, said: Iterable[tuple[str, Status]]) -> Self:
        """After one more round, in which the judge said this of each client that took part."""
        verdicts = [Verdict(client, 0.0, status) for client, status in said]
        known = sorted(self.scores)
        table = Reputations(tuple(known), np.array([self.scores[client] for client in known]))
        table = table.after(conduct_of_verdicts(verdicts))
        there = sorted({*known, *(verdict.unit for verdict in verdicts)})
        rounds = dict(self.rounds)
        for verdict in verdicts:
            rounds[verdict.unit] = rounds.get(verdict.unit, 0) + 1
        return type(self)(dict(zip(there, table.of(there).tolist(), strict=True)), rounds)
