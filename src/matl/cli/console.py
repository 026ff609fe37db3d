"""What the commands share: live progress, result tables, and the way errors are shown."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from matl.errors import RunInterrupted
from matl.events import Event, EventSink

__all__ = ["Reporter", "percent", "print_json", "stderr", "stdout", "stop_on_interrupt", "table_of_rules"]

stdout = Console(highlight=False)
stderr = Console(stderr=True, highlight=False)

# Without a terminal there is no line to redraw; every so many rounds a line is printed instead.
_PLAIN_EVERY = 10


class Reporter:
    """Shows the rounds of one or more runs as they go.

    Parameters
    ----------
    rounds : int
        Rounds per run.
    verbosity : int
        Below 0 nothing is shown; above 0 also every quarantine, release and rejection with its reason.
    """

    def __init__(self, rounds: int, verbosity: int = 0) -> None:
        self._rounds, self._verbosity = rounds, verbosity
        self._live = verbosity >= 0 and stderr.is_terminal
        self._progress = Progress(
            TextColumn("{task.description:<12}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeElapsedColumn(),
            console=stderr,
            disable=not self._live,
        )

    def __enter__(self) -> Reporter:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def sink_for(self, name: str) -> EventSink:
        """An event sink that shows a run under a name."""
        task = self._progress.add_task(name, total=self._rounds, figures="")

        def sink(event: Event) -> None:
            if event.kind == "round_committed":
                figures = _figures(event)
                self._progress.update(task, completed=event.round + 1, figures=figures)
                last = event.round + 1 == self._rounds
                if not self._live and self._verbosity >= 0 and (last or (event.round + 1) % _PLAIN_EVERY == 0):
                    stderr.print(f"{name:<12} round {event.round + 1:>3}/{self._rounds}  {figures}")
            elif self._verbosity > 0:
                what = event.kind.replace("_", " ")
                detail = ": ".join(str(event.data[key]) for key in ("client", "reason") if event.data.get(key))
                stderr.print(f"{name:<12} round {event.round + 1:>3}  {what}: {detail}", markup=False, soft_wrap=True)

        return sink


def _figures(event: Event) -> str:
    data = event.data
    return f"accuracy {percent(data['accuracy'])}  flagged {data['quarantined'] + data['rejected']:>3}"


@contextmanager
def stop_on_interrupt() -> Iterator[Callable[[], bool]]:
    """Turn the first Ctrl-C into a request to stop after the round, the second into an immediate stop."""
    asked = False

    def ask(signum: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            raise RunInterrupted("stopped at once; the last whole round is checkpointed")
        asked = True
        stderr.print("\nfinishing the round, then stopping (Ctrl-C again stops at once)")

    before = signal.signal(signal.SIGINT, ask)
    try:
        yield lambda: asked
    finally:
        signal.signal(signal.SIGINT, before)


def percent(share: float | None, digits: int = 1) -> str:
    """A share as a percentage, or a dash.

    Examples
    --------
    >>> percent(0.9214), percent(None)
    ('92.1 %', '-')
    """
    return "-" if share is None else f"{100 * share:.{digits}f} %"


def print_json(value: Any) -> None:
    """One JSON object on standard output."""
    sys.stdout.write(json.dumps(value, indent=2, allow_nan=False) + "\n")


def table_of_rules(comparison: dict[str, Any]) -> Table:
    """The table of ``matl compare``."""
    table = Table(box=None, header_style="bold", pad_edge=False)
    for name in ("rule", "accuracy", "caught", "accused", "seconds", ""):
        table.add_column(name, justify="left" if name in ("rule", "") else "right", no_wrap=True)
    for row in comparison["rules"]:
        verdicts = (percent(row["tpr"]), percent(row["fpr"])) if row["bound"] is not None else ("-", "-")
        table.add_row(row["rule"], percent(row["accuracy"]), *verdicts, f"{row['seconds']:.1f}", _note(row))
    return table


def _note(row: dict[str, Any]) -> str:
    if row["rule"] == "honest_only":
        return "ceiling: no malicious clients"
    if row["bound"] is None:
        return "gives no verdicts"
    return f"outside its {percent(row['bound'], 0)} bound" if row["outside_bound"] else ""
