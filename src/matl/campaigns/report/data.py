"""What a report is made of: clients, rounds and verdicts of runs, and the rules that are compared."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from matl.campaigns.compare import CEILING
from matl.records import Status
from matl.simulation.scoring import EXCLUDED

__all__ = ["SEVERITY", "Clients", "Entry", "Floats", "History", "Ints", "Report", "Rounds", "Run", "Verdicts"]

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

SEVERITY = tuple(Status)
"""Statuses from best to worst; a status code is an index into this."""

_OUT = [code for code, status in enumerate(SEVERITY) if status in EXCLUDED]


@dataclass(frozen=True, slots=True)
class Clients:
    """Ground truth and data of the simulated clients.

    Parameters
    ----------
    ids : tuple of str
        The n clients.
    malicious : bool array of shape (n,)
        Who lies.
    samples : int64 array of shape (n,)
        Examples each client holds.
    counts : int64 array of shape (n, K)
        The same by class; K is 0 for a task without classes.
    names : tuple of K str
        What the classes are called.
    """

    ids: tuple[str, ...]
    malicious: NDArray[np.bool_]
    samples: Ints
    counts: Ints
    names: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Rounds:
    """One value per round of each measured quantity; NaN where it is not defined."""

    index: Ints
    columns: Mapping[str, Floats]

    def column(self, name: str) -> Floats:
        """Values of ``name``, shape (rounds,)."""
        return self.columns.get(name, np.full(self.index.size, np.nan))


@dataclass(frozen=True, slots=True)
class History:
    """What became of one unit over a run.

    Parameters
    ----------
    unit : int
        Index into `Verdicts.units`.
    malicious : bool or None
        Ground truth; ``None`` for a sender the simulation does not know.
    first_out : int or None
        Round in which it was first quarantined or rejected.
    rounds_out, rounds_seen : int
        Rounds in which it was quarantined or rejected, and in which it was judged at all.
    last : Status
        Its last status.
    reason : str
        The last reason given for keeping it out, or else the last reason given.
    trust : tuple of float
        Its last composite trust and the ends of its 95 % interval; NaN where the judge keeps none.
    """

    unit: int
    malicious: bool | None
    first_out: int | None
    rounds_out: int
    rounds_seen: int
    last: Status
    reason: str
    trust: tuple[float, float, float]

    @property
    def out(self) -> bool:
        """Whether its last status keeps it out."""
        return self.last in EXCLUDED


@dataclass(frozen=True)
class Verdicts:
    """All verdicts of a run as m records, by round.

    Parameters
    ----------
    units : tuple of str
        Every unit that was judged.
    round, unit, status : int64 arrays of shape (m,)
        The round, the index into ``units`` and the index into `SEVERITY`.
    weight : float64 array of shape (m,)
        Share of its own weight with which the unit counted.
    reasons : sequence of str
        In words; empty where nothing was to say.
    evidence : mapping of str to float64 array of shape (m,)
        Channel values; NaN where the channel had no opinion.
    """

    units: tuple[str, ...]
    round: Ints
    unit: Ints
    status: Ints
    weight: Floats
    reasons: Sequence[str]
    evidence: Mapping[str, Floats]

    @cached_property
    def rounds(self) -> Ints:
        """The rounds that were judged, in order."""
        return np.unique(self.round)

    def truth(self, clients: Clients | None) -> list[bool | None]:
        """Whether each unit is malicious; ``None`` where it is not known."""
        known = dict(zip(clients.ids, clients.malicious.tolist(), strict=True)) if clients else {}
        return [known.get(unit) for unit in self.units]

    def histories(self, clients: Clients | None) -> list[History]:
        """One history per unit, in the order of ``units``."""
        truth = self.truth(clients)
        order = np.argsort(self.unit, kind="stable")
        starts = np.searchsorted(self.unit[order], np.arange(len(self.units) + 1))
        return [
            self._history(unit, truth[unit], order[start:end])
            for unit, (start, end) in enumerate(itertools.pairwise(starts.tolist()))
        ]

    def _history(self, unit: int, malicious: bool | None, records: Ints) -> History:
        out = records[np.isin(self.status[records], _OUT)]
        spoken = [self.reasons[i] for i in (out if out.size else records) if self.reasons[i]]
        return History(
            unit=unit,
            malicious=malicious,
            first_out=int(self.round[out[0]]) if out.size else None,
            rounds_out=int(out.size),
            rounds_seen=int(records.size),
            last=SEVERITY[self.status[records[-1]]],
            reason=spoken[-1] if spoken else "",
            trust=self._trust(int(records[-1])),
        )

    def _trust(self, record: int) -> tuple[float, float, float]:
        known = [self.evidence.get(name) for name in ("trust", "trust_low", "trust_high")]
        score, low, high = (math.nan if values is None else float(values[record]) for values in known)
        return score, low, high


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One finished run; what it did not record is ``None`` or empty."""

    directory: Path
    result: Mapping[str, Any]
    config: Mapping[str, Any]
    config_text: str
    clients: Clients | None
    rounds: Rounds | None
    verdicts: Verdicts | None


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One rule of a report: its figures, and its run where that is at hand.

    Shares are in [0, 1]; ``None`` means not defined. ``bound`` is the largest malicious fraction the rule is made for.
    """

    rule: str
    label: str
    accuracy: float | None
    tpr: float | None
    fpr: float | None
    zero_weight_tpr: float | None
    zero_weight_fpr: float | None
    seconds: float | None
    bound: float | None
    outside_bound: bool
    failed_rounds: int
    last_failure: str
    run: Run | None

    @property
    def is_ceiling(self) -> bool:
        """Whether this is the run of the honest clients alone."""
        return self.rule == CEILING

    @property
    def gives_verdicts(self) -> bool:
        """Whether the rule says who lied, rather than only weighing updates."""
        if self.is_ceiling:
            return False
        if self.run is not None and "gives_verdicts" in self.run.result:
            return bool(self.run.result["gives_verdicts"])
        return self.tpr is not None or self.fpr is not None


@dataclass(frozen=True, slots=True, kw_only=True)
class Report:
    """Everything a report shows: a run is a comparison of one rule with its ceiling."""

    directory: Path
    kind: str
    facts: Mapping[str, Any]
    entries: tuple[Entry, ...]
    ceiling: float | None

    @property
    def judged(self) -> list[Entry]:
        """The rules that give verdicts, with those verdicts at hand."""
        return [e for e in self.entries if e.gives_verdicts and e.run is not None and e.run.verdicts is not None]

    @property
    def contenders(self) -> list[Entry]:
        """All rules but the ceiling."""
        return [e for e in self.entries if not e.is_ceiling]

    def fact(self, name: str) -> Any:
        """A setting by name; of a component given as a table, its name."""
        value = self.facts.get(name)
        return value.get("name") if isinstance(value, Mapping) else value
