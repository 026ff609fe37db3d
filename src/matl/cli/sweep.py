"""``matl sweep``: every setting of an experiment file on every seed."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

from matl.campaigns.experiment import Experiment, read_experiment
from matl.campaigns.results import markdown
from matl.campaigns.sweep import Outcome, SweepResult, resume_sweep, sweep
from matl.cli import console, options
from matl.cli.console import in_time, percent, print_json, show, stop_on_interrupt
from matl.cli.tables import settings_rows, table
from matl.errors import CellsFailedError, InvalidValueError
from matl.files import write_atomic

__all__ = ["sweep_cells"]

_NOTES = (
    "Means over the seeds with 95 % confidence intervals (Student's t); n is the number of seeds. ",
    "Caught: malicious clients quarantined or rejected at the end; accused: honest ones. Simulated runs.",
)


def sweep_cells(
    experiment: Annotated[
        Path | None, typer.Argument(help="Experiment file, TOML or YAML.", show_default=False, metavar="FILE")
    ] = None,
    out: options.Out = None,
    resume: options.Resume = None,
    jobs: Annotated[int, typer.Option("--jobs", "-j", min=1, help="Cells to run at once, each in a process.")] = 1,
    parquet: Annotated[bool, typer.Option("--parquet", help="Also write results.parquet.")] = False,
    log: options.Log = None,
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
) -> None:
    """Run every setting of an experiment file on every seed, and sum up what came of it.

    Each cell has its own folder, and results.csv a row for each. An interrupted sweep is gone on with to the same
    results, and they are the same for any number of jobs.
    """
    if resume is not None:
        options.refuse(options.RESUMED, config=experiment, out=out)
        chosen = resume_sweep(resume)
    elif experiment is None:
        raise InvalidValueError("expected an experiment file, or --resume with the folder of a sweep, got neither")
    else:
        chosen = read_experiment(experiment)
    with (
        options.folder(resume or out, f"sweep-{chosen.name}") as target,
        stop_on_interrupt() as stop,
        _Progress(chosen, shown=not (quiet or as_json)) as progress,
    ):
        result = sweep(
            chosen,
            out=target,
            resume=resume is not None,
            jobs=jobs,
            parquet=parquet,
            trackers=log or (),
            notify=progress.notify,
            stop=stop,
        )
    _report(result, target, as_json=as_json)
    if result.failures:
        total = len(chosen.cells)
        first, reason = next(iter(result.failures.items()))
        raise CellsFailedError(
            f"{len(result.failures)} of {total} cells failed, the first being {first}: {reason}; results.csv has all "
            f"reasons, and matl sweep --resume {target} tries them again"
        )


def _report(result: SweepResult, target: Path, *, as_json: bool) -> None:
    content = result.as_dict()
    header, rows = settings_rows(content["swept"], content["settings"])
    write_atomic(target / "summary.md", markdown(result.experiment.name, header, rows, _NOTES))
    if as_json:
        print_json(content)
        return
    show(table(header, rows, left=content["swept"]), soft_wrap=True)
    show("\n" + "".join(_NOTES), markup=False, style="dim")
    show(f"\nresults: {target / 'results.csv'}", markup=False)


class _Progress:
    """How many cells are done, how many failed, and how long the others may take."""

    def __init__(self, experiment: Experiment, *, shown: bool) -> None:
        self._total, self._shown = len(experiment.cells), shown
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

    def __enter__(self) -> _Progress:
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
            end = f"failed: {outcome.failure}" if outcome.failure else f"accuracy {percent(outcome.row['accuracy'])}"
            line = f"cell {self._done:>{len(str(self._total))}}/{self._total}  {outcome.name}  {end}"
            console.stderr.print(line, markup=False, soft_wrap=True, style="red" if outcome.failure else None)
