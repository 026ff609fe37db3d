"""Progress of commands that run many cells."""

from __future__ import annotations

import time

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from matl.campaigns.sweep import Outcome
from matl.cli import console
from matl.cli.console import in_time, percent

__all__ = ["CellProgress"]


class CellProgress:
    """How many cells are done, how many failed, and how long the others may take.

    Parameters
    ----------
    total : int
        How many cells there are.
    shown : bool
        Whether to show it at all; without a terminal, as a line per cell.
    """

    def __init__(self, total: int, *, shown: bool) -> None:
        self._total, self._shown = total, shown
        self._done = self._now = self._failed = 0
        self._started = time.monotonic()
        self._bar = Progress(
            TextColumn("cells"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[told]}"),
            console=console.stderr,
            disable=not (shown and console.stderr.is_terminal),
        )
        self._task = self._bar.add_task("", total=self._total, told="")

    def __enter__(self) -> CellProgress:
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def notify(self, outcome: Outcome) -> None:
        """Take note of a cell that is done."""
        self._done += 1
        self._failed += bool(outcome.failure)
        self._now += not outcome.earlier
        told = f"{self._failed} failed  " if self._failed else ""
        if self._now and self._done < self._total:
            pace = (time.monotonic() - self._started) / self._now
            told += f"{in_time(pace * (self._total - self._done))} left"
        self._bar.update(self._task, completed=self._done, told=told)
        if self._shown and not outcome.earlier and (outcome.failure or self._bar.disable):
            line = f"cell {self._done:>{len(str(self._total))}}/{self._total}  {outcome.name}  {_end(outcome)}  {told}"
            console.stderr.print(line.rstrip(), markup=False, soft_wrap=True, style="red" if outcome.failure else None)


def _end(outcome: Outcome) -> str:
    if outcome.failure:
        return f"failed: {outcome.failure}"
    reason = outcome.row.get("not_applicable")
    return f"n/a: {reason}" if reason else f"accuracy {percent(outcome.row['accuracy'])}"
