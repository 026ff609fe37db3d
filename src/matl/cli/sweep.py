"""``matl sweep``: every setting of an experiment file on every seed."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from matl.campaigns.experiment import read_experiment
from matl.campaigns.results import markdown
from matl.campaigns.sweep import SweepResult, resume_sweep, sweep
from matl.cli import options
from matl.cli.console import print_json, show, stop_on_interrupt
from matl.cli.progress import CellProgress
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
        CellProgress(len(chosen.cells), shown=not (quiet or as_json)) as progress,
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
