"""``--watch``: a run on one screen, redrawn as it goes. Also what decides how a command is watched at all."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rich.console import Console, ConsoleOptions, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from matl.campaigns.compare import SinkFor
from matl.campaigns.trackers import track
from matl.cli import console
from matl.cli.console import in_time, percent
from matl.events import Event, EventSink, fan_out
from matl.simulation import RunConfig

__all__ = ["Watch", "bars", "observing"]

_STATUSES = {"accepted": "green", "clipped": "cyan", "suspected": "yellow", "quarantined": "red", "rejected": "magenta"}
_NEWS = {
    "client_quarantined": ("quarantined", "red"),
    "client_released": ("released", "green"),
    "round_failed": ("round failed", "yellow"),
    "workers_lost": ("workers lost, started again", "yellow"),
}
_CHART_ROWS, _NEWS_ROWS = 6, 8
_OTHER_ROWS = 9  # title, headings, axis, statuses, and the lines between
_EIGHTHS = " ▁▂▃▄▅▆▇█"


@contextmanager
def observing(
    config: RunConfig,
    target: Path,
    *,
    log: Sequence[str],
    watch: bool,
    verbosity: int,
    figures: Callable[[Event], str] | None = None,
) -> Iterator[SinkFor]:
    """Show rounds on the terminal and log them where asked; yields what gives each rule its event sink."""
    if watch and not console.stderr.is_terminal:
        console.stderr.print("--watch needs a terminal; showing plain lines instead")
    live = watch and console.stderr.is_terminal
    shown = Watch(config) if live else console.Reporter(config.rounds, verbosity, figures)
    with shown, track(log, target, config) as tracked:
        yield lambda rule: fan_out(shown.sink_for(rule), tracked(rule))


@dataclass
class _Run:
    """What is known of one rule so far."""

    name: str
    started: float
    first: int | None = None  # the round that was the first in this process
    accuracy: dict[int, float] = field(default_factory=dict)
    latest: dict[str, Any] = field(default_factory=dict)

    def seconds_left(self, rounds: int, now: float) -> float | None:
        """Time the rounds that are left will take if they take as long as those so far."""
        if self.first is None:
            return None
        done = max(self.accuracy) + 1
        return (now - self.started) / (done - self.first) * (rounds - done)


class Watch:
    """Draws the runs of a command: accuracy by round, what the judge says, and its latest verdicts with reasons.

    Parameters
    ----------
    config : RunConfig
        What is run.
    """

    def __init__(self, config: RunConfig) -> None:
        self._config = config
        self._runs: list[_Run] = []
        self._news: list[Text] = []
        self._live = Live(console=console.stderr, get_renderable=lambda: self, refresh_per_second=8)

    def __enter__(self) -> Watch:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def sink_for(self, name: str) -> EventSink:
        """An event sink that draws a run under a name."""
        run = _Run(name, time.monotonic())
        self._runs.append(run)

        def sink(event: Event) -> None:
            if event.kind == "round_committed":
                run.first = event.round if run.first is None else run.first
                run.accuracy[event.round] = event.data["accuracy"]
                run.latest = dict(event.data)
            elif event.kind in _NEWS:
                self._news = [*self._news, _news(name, event)][-_NEWS_ROWS:]

        return sink

    def __rich_console__(self, _: Console, options: ConsoleOptions) -> Iterator[RenderableType]:
        """Draw everything at the width there is."""
        width = options.max_width
        yield Text(_title(self._config), style="bold", no_wrap=True, overflow="ellipsis")
        yield self._table(width)
        if self._runs and self._runs[-1].accuracy:
            current = self._runs[-1]
            yield Text()
            yield _chart(current, self._config.rounds, width)
            yield Text()
            yield _statuses(current.latest, width)
        room = min(_NEWS_ROWS, console.stderr.height - len(self._runs) - _CHART_ROWS - _OTHER_ROWS)
        if self._news and room > 0:
            yield Text()
            yield Group(*self._news[-room:])

    def _table(self, width: int) -> Table:
        table = Table(box=None, pad_edge=False, header_style="dim", expand=True)
        names = ("rule", "accuracy by round", "now", "caught", "accused", "round", "left")
        for name in names:
            table.add_column(name, justify="left" if name in names[:2] else "right", no_wrap=True)
        rounds = self._config.rounds
        longest = max((len(run.name) for run in self._runs), default=0)
        room = width - max(longest, 4) - 48
        for run in self._runs:
            done = max(run.accuracy, default=-1) + 1
            left = run.seconds_left(rounds, time.monotonic())
            table.add_row(
                run.name,
                Text(bars(run.accuracy, rounds, max(room, 8), 1)[0], style="cyan"),
                percent(run.latest.get("accuracy")),
                percent(run.latest.get("true_positive_rate"), 0),
                percent(run.latest.get("false_positive_rate"), 0),
                f"{done}/{rounds}",
                "" if left is None or done == rounds else in_time(left),
            )
        return table


def bars(values: dict[int, float], rounds: int, width: int, height: int) -> list[str]:
    """Values in [0, 1] by round as lines of text, the top one first; nothing where there is no value yet.

    Examples
    --------
    >>> bars({0: 0.25, 1: 0.5, 2: 1.0}, rounds=4, width=8, height=1)
    ['▂▂▄▄██  ']
    >>> bars({0: 0.25, 1: 0.5, 2: 1.0}, rounds=4, width=4, height=2)
    ['  █ ', '▄██ ']
    """
    shown = [values.get(column * rounds // width) for column in range(width)]
    eighths = [0 if value is None else max(1, round(value * height * 8)) for value in shown]
    return [
        "".join(_EIGHTHS[min(8, max(0, filled - 8 * row))] for filled in eighths) for row in reversed(range(height))
    ]


def _chart(run: _Run, rounds: int, width: int) -> Group:
    lines = bars(run.accuracy, rounds, width - 7, _CHART_ROWS)
    labels = ["100 % ", *["      "] * (_CHART_ROWS - 2), "  0 % "]
    rows = [Text(label, style="dim").append(line, style="cyan") for label, line in zip(labels, lines, strict=True)]
    axis = f"      round 1{'accuracy of ' + run.name:^{max(0, width - 26)}}{rounds:>6}"
    return Group(*rows, Text(axis[: width - 1], style="dim"))


def _statuses(latest: dict[str, Any], width: int) -> Group:
    """How many clients have each status, in numbers and as a bar."""
    counts = {status: int(latest.get(status, 0)) for status in _STATUSES}
    total = max(1, sum(counts.values()))
    words, bar, before, filled = Text("clients  "), Text(), 0, 0
    for status, count in counts.items():
        words.append(f"{count} {status}", style=_STATUSES[status] if count else "dim").append("  ")
        before += count
        end = round(before / total * (width - 1))
        bar.append("█" * (end - filled), style=_STATUSES[status])
        filled = end
    words.no_wrap, words.overflow = True, "ellipsis"
    return Group(words, bar)


def _news(name: str, event: Event) -> Text:
    what, style = _NEWS[event.kind]
    text = Text(f"round {event.round:>3}  ", style="dim", no_wrap=True, overflow="ellipsis")
    text.append(f"{name}  ", style="dim")
    text.append(f"{event.data['client']} " if event.data.get("client") else "", style="default")
    text.append(what, style=style)
    return text.append(f": {event.data['reason']}" if event.data.get("reason") else "", style="default")


def _title(config: RunConfig) -> str:
    dataset, attack = (part if isinstance(part, str) else part["name"] for part in (config.dataset, config.attack))
    liars = int(config.byzantine * config.clients + 1e-9) if attack != "none" else 0
    against = f", {liars} malicious ({attack})" if liars else ", nobody attacks"
    return f"MATL  {dataset}, {config.clients} clients{against}, seed {config.seed} (a simulation)"
