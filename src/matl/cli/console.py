"""What the commands share: live progress, result tables, and the way errors are shown."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import signal
import sys
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table

from matl.cli.exit_codes import ExitCode
from matl.errors import RunInterrupted, StorageError
from matl.events import Event, EventSink

__all__ = [
    "Reporter",
    "in_time",
    "percent",
    "print_json",
    "show",
    "stderr",
    "stop_on_interrupt",
    "verbosity",
    "widest",
    "write",
]


class _Stdout(Console):
    def on_broken_pipe(self) -> None:
        """Leave it to `show`, as any other failure to write; rich would end the process."""
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


_stdout = _Stdout(highlight=False, emoji=False)
# Without emoji: :names: are text here, and their table would be loaded wherever a signal handler finds the program.
stderr = Console(stderr=True, highlight=False, emoji=False)

# Without a terminal there is no line to redraw; every so many rounds a line is printed instead.
_PLAIN_EVERY = 10
_WIDEST = 1000


class Reporter:
    """Shows the rounds of one or more runs as they go.

    Parameters
    ----------
    rounds : int
        Rounds per run.
    verbosity : int
        Below 0 nothing is shown; above 0 also every quarantine, release and rejection with its reason.
    figures : callable
        Says in words what to show of a round, given the event that tells of it.
    """

    def __init__(self, rounds: int, verbosity: int = 0, figures: Callable[[Event], str] | None = None) -> None:
        self._rounds, self._verbosity, self._figures = rounds, verbosity, figures or _figures
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
                figures = self._figures(event)
                self._progress.update(task, completed=event.round + 1, figures=figures)
                last = event.round + 1 == self._rounds
                if not self._live and self._verbosity >= 0 and (last or (event.round + 1) % _PLAIN_EVERY == 0):
                    stderr.print(f"{name:<12} {event.round + 1:>3} of {self._rounds} rounds  {figures}", soft_wrap=True)
            elif self._verbosity > 0:
                what, detail = event.kind.replace("_", " "), _detail(event)
                stderr.print(f"{name:<12} round {event.round:>3}  {what}: {detail}", markup=False, soft_wrap=True)

        return sink


def _detail(event: Event) -> str:
    if event.kind == "latency":
        so_far = event.data["so_far"]
        quantiles = ", ".join(f"{name} {value / 1e3:.3g} us" for name, value in so_far["wall_ns"].items())
        return f"{event.data['span']} {quantiles} of {so_far['count']} so far"
    return ": ".join(str(event.data[key]) for key in ("client", "reason") if event.data.get(key))


def _figures(event: Event) -> str:
    data = event.data
    return f"accuracy {percent(data['accuracy'])}  flagged {data['quarantined'] + data['rejected']:>3}"


@contextlib.contextmanager
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


def in_time(seconds: float) -> str:
    """Seconds as a reader takes them in.

    Examples
    --------
    >>> in_time(7), in_time(75), in_time(7300)
    ('7 s', '1:15', '2:01:40')
    """
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def print_json(value: Any) -> None:
    """One JSON object on standard output."""
    write(json.dumps(value, indent=2, allow_nan=False) + "\n")


def show(*objects: Any, **how: Any) -> None:
    """Print on standard output as rich does, but never break a line of text that the reader may want to search."""
    with _standard_output():
        _stdout.print(*objects, **{"soft_wrap": not any(isinstance(item, Table) for item in objects), **how})


def write(text: str) -> None:
    """Write text to standard output as it is."""
    with _standard_output():
        sys.stdout.write(text)


@contextlib.contextmanager
def _standard_output() -> Iterator[None]:
    """See that what is written within arrives; raises StorageError if standard output is closed or full.

    A reader who has read enough, such as ``head``, is no failure that anybody needs to be told of.
    """
    if sys.stdout is None:
        raise StorageError("cannot write to standard output: it is closed")
    try:
        yield
        sys.stdout.flush()
    except BrokenPipeError as error:
        # What is left in the buffer would be written once more when the process ends, and fail again.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        raise typer.Exit(ExitCode.STORAGE) from error
    except OSError as error:
        raise StorageError(f"cannot write to standard output: {error.strerror or error}") from error


def verbosity(quiet: bool, verbose: bool, *, as_json: bool) -> int:
    """How much a `Reporter` shows: nothing beside JSON unless it is asked for."""
    return -1 if quiet or (as_json and not verbose) else int(verbose)


def widest(table: Table) -> Table:
    """Give a table its natural width, in a pipe or a narrow terminal too: a figure that is cut is none."""
    table.width = _stdout.measure(table, options=_stdout.options.update(max_width=_WIDEST)).maximum
    return table
