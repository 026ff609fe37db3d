"""What the cells of a matrix say, looked up by what they were run with and paired by seed."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from matl.campaigns.compare import CEILING
from matl.campaigns.matrix.design import NOBODY, Matrix
from matl.campaigns.statistics import Interval, mean_interval
from matl.simulation.scoring import rounds_to

__all__ = ["COLUMNS", "Against", "Results", "Worst"]

Row = Mapping[str, Any]
Against = tuple[str, float]
"""An attack in words and the share of malicious clients."""

_NEARLY = 0.9  # of the ceiling

COLUMNS = (
    *("cell", "attack", "byzantine", "alpha", "rule", "seed", "accuracy", "ceiling_accuracy", "rounds_to_90"),
    *("worst_class_accuracy", "minority_accuracy", "attack_success_rate", "gives_verdicts", "tpr", "fpr"),
    *("round_tpr", "round_fpr", "auroc", "tpr_at_fpr_1", "tpr_at_fpr_5", "rounds_to_detection", "lost_weight"),
    *("zero_weight_tpr", "zero_weight_fpr", "outside_bound", "clients", "malicious", "failed_rounds", "last_failure"),
    *("model_hash", "not_applicable", "failure", "judge", "commit", "roc", "curve", "seconds"),
)
"""Columns of ``cells.csv``. What differs between two runs of the same matrix, the time, stands last."""


@dataclass(frozen=True, slots=True)
class Worst:
    """The row of a rule in which its mean accuracy is lowest."""

    against: Against
    accuracy: Interval


class Results:
    """The rows of a matrix.

    Parameters
    ----------
    matrix : Matrix
        What was to be run.
    rows : sequence of mapping
        The rows of the cells that have run; of those that ran again after a failure, the last counts.
    """

    def __init__(self, matrix: Matrix, rows: Iterable[Row]) -> None:
        self.matrix = matrix
        latest = {row["cell"]: row for row in rows}
        ceilings = {
            (row["alpha"], row["byzantine"], row["seed"]): row.get("accuracy")
            for row in latest.values()
            if row["rule"] == CEILING
        }
        chosen = [latest[cell.name] for cell in matrix.cells if cell.name in latest]
        self.rows = [_whole(row, ceilings.get((row["alpha"], row["byzantine"], row["seed"]))) for row in chosen]

    @property
    def judges(self) -> list[str]:
        """The rules that give verdicts, in words."""
        found = {row["rule"] for row in self.rows if row.get("gives_verdicts")}
        return [rule for rule in self.matrix.rule_names if rule in found]

    def cells(self, alpha: float, against: Against, rule: str) -> list[Row]:
        """The rows of one cell of the tables, by seed."""
        return self._by_setting.get((alpha, *against, rule), [])

    def values(self, alpha: float, against: Against, rule: str, key: str) -> dict[int, float]:
        """A figure by seed, where it is defined."""
        return {row["seed"]: row[key] for row in self.cells(alpha, against, rule) if row.get(key) is not None}

    def mean(self, alpha: float, against: Against, rule: str, key: str) -> Interval | None:
        """A figure's mean over the seeds."""
        return mean_interval(list(self.values(alpha, against, rule, key).values()))

    def pooled(self, alpha: float, against: Against, rule: str, key: str) -> tuple[int, int]:
        """Behind ``"tpr"`` or ``"fpr"``: how many malicious or honest clients of all seeds are counted, of how many."""
        cells = [one for one in self.cells(alpha, against, rule) if one.get(key) is not None]
        sizes = [one["malicious"] if key == "tpr" else one["clients"] - one["malicious"] for one in cells]
        return sum(round(one[key] * size) for one, size in zip(cells, sizes, strict=True)), sum(sizes)

    def differences(self, alpha: float, first: tuple[Against, str], second: tuple[Against, str]) -> list[float]:
        """Accuracy of the first less that of the second, seed by seed; each is a row and a rule."""
        a, b = (self.values(alpha, against, rule, "accuracy") for against, rule in (first, second))
        return [a[seed] - b[seed] for seed in a if seed in b]

    def gaps(self, alpha: float, against: Against, rule: str) -> list[float]:
        """Accuracy of a rule less that of the honest clients alone, seed by seed."""
        return self.differences(alpha, (against, rule), ((NOBODY, against[1]), CEILING))

    def ran(self, alpha: float, rule: str) -> list[Against]:
        """The rows with an attack for which a rule has an accuracy."""
        return [row for row in self.matrix.rows if row[0] != NOBODY and self.values(alpha, row, rule, "accuracy")]

    def outside_bound(self, alpha: float, against: Against, rule: str) -> bool:
        """Whether a judge faced more malicious clients in a row than it declares to bear."""
        return any(row["outside_bound"] for row in self.cells(alpha, against, rule))

    def within_bound(self, alpha: float, rule: str) -> list[Against]:
        """The rows with an attack in which a rule faced no more malicious clients than it declares to bear."""
        return [row for row in self.ran(alpha, rule) if not self.outside_bound(alpha, row, rule)]

    def worst(self, alpha: float, rule: str, rows: Sequence[Against] | None = None) -> Worst | None:
        """Where a rule's mean accuracy is lowest, over all rows with an attack or over some of them."""
        means = {
            row: self.mean(alpha, row, rule, "accuracy") for row in (self.ran(alpha, rule) if rows is None else rows)
        }
        found = [Worst(row, mean) for row, mean in means.items() if mean is not None]
        return min(found, key=lambda worst: worst.accuracy.mean, default=None)

    def rounds_to_90(self, alpha: float, against: Against, rule: str) -> float | None:
        """Median over the seeds of the rounds to 90 % of the ceiling, infinite for who never gets there."""
        known = [row for row in self.cells(alpha, against, rule) if row.get("ceiling_accuracy") is not None]
        counts = [
            float("inf") if row["rounds_to_90"] is None else row["rounds_to_90"] for row in known if row.get("curve")
        ]
        return statistics.median(counts) if counts else None

    @cached_property
    def _by_setting(self) -> dict[tuple[float, str, float, str], list[Row]]:
        found: dict[tuple[float, str, float, str], list[Row]] = {}
        for row in self.rows:
            found.setdefault((row["alpha"], row["attack"], row["byzantine"], row["rule"]), []).append(row)
        return found


def _whole(row: Row, ceiling: float | None) -> dict[str, Any]:
    """A row with every column, and what it says only beside its ceiling."""
    reached = None if ceiling is None else rounds_to(row.get("curve") or [], _NEARLY * ceiling)
    return {**dict.fromkeys(COLUMNS), **row, "ceiling_accuracy": ceiling, "rounds_to_90": reached}
