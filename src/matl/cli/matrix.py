"""``matl matrix``: every attack at every strength under every rule, on many seeds."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from matl.aggregators import AGGREGATORS
from matl.attacks import ATTACKS
from matl.campaigns.matrix import PRESETS, Matrix, read_matrix, resume_matrix, run_matrix, write_matrix_report
from matl.campaigns.matrix.files import Summary
from matl.campaigns.matrix.tables import Grid
from matl.cli import options
from matl.cli.console import print_json, show, stop_on_interrupt
from matl.cli.progress import CellProgress
from matl.cli.tables import table
from matl.errors import CellsFailedError, InvalidValueError, RunInterrupted
from matl.modes import MODES

__all__ = ["attack_matrix"]

_SHOWN = ("overview", "accuracy")


@options.configuration("attack", "byzantine", "alpha", "mode", "aggregator", "seed")
def attack_matrix(
    source: Annotated[
        str | None,
        typer.Argument(
            metavar="FILE | NAME",
            help=f"TOML or YAML file, or a matrix that comes with MATL: {', '.join(PRESETS)}.",
            show_default=False,
        ),
    ] = None,
    *,
    attacks: Annotated[
        str | None,
        typer.Option(
            help="Attacks, separated by commas, each as name or name:key=value.",
            show_default=False,
            autocompletion=options.names_of(ATTACKS),
        ),
    ] = None,
    fractions: Annotated[
        str | None, typer.Option(help="Shares of malicious clients, separated by commas.", show_default=False)
    ] = None,
    alphas: Annotated[
        str | None, typer.Option(help="Concentrations of the label skew, separated by commas.", show_default=False)
    ] = None,
    rules: Annotated[
        str | None,
        typer.Option(
            help="Modes and rules, separated by commas, each as name or name:key=value.",
            show_default=False,
            autocompletion=options.names_of(MODES, AGGREGATORS),
        ),
    ] = None,
    seeds: Annotated[
        str | None, typer.Option(help="Seeds, separated by commas, or from-to.", show_default=False)
    ] = None,
    given: dict[str, Any],
    out: options.Out = None,
    resume: options.Resume = None,
    jobs: Annotated[int, typer.Option("--jobs", "-j", min=1, help="Cells to run at once, each in a process.")] = 1,
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
) -> None:
    """Run every attack at every strength against every rule, and say how each of them fares.

    Rows without an attack and the ceiling, the honest clients alone, are part of every matrix. Rules that need to know
    how many clients are malicious are told the true number; modes are not. An interrupted matrix is gone on with.
    """
    lists = {"attacks": attacks, "fractions": fractions, "alphas": alphas, "rules": rules, "seeds": seeds}
    if resume is not None:
        options.refuse(options.RESUMED, config=source, **given, **lists, out=out)
        chosen = resume_matrix(resume)
    else:
        axes: dict[str, Any] = {key: _axis(key, text) for key, text in lists.items() if text is not None}
        chosen = Matrix("matrix", given, **axes) if source is None else read_matrix(source, **axes, **given)
    with (
        options.folder(resume or out, f"matrix-{chosen.name}") as target,
        stop_on_interrupt() as stop,
        CellProgress(len(chosen.cells), shown=not (quiet or as_json)) as progress,
    ):
        try:
            run_matrix(chosen, out=target, resume=resume is not None, jobs=jobs, notify=progress.notify, stop=stop)
        except RunInterrupted:
            write_matrix_report(target)
            raise
    _report(write_matrix_report(target), target, as_json=as_json)


def _axis(key: str, text: str) -> tuple[Any, ...]:
    items = [item.strip() for item in text.split(",") if item.strip()]
    if key in ("attacks", "rules"):
        return tuple(map(options.parse_spec, _specs(items)))
    try:
        return tuple(float(item) for item in items) if key != "seeds" else tuple(_seeds(items))
    except ValueError as error:
        wanted = "whole numbers or from-to" if key == "seeds" else "numbers"
        raise InvalidValueError(f"--{key}: expected {wanted} separated by commas, got {text!r}") from error


def _specs(items: list[str]) -> list[str]:
    """Names with options, put together again where the comma was between options.

    Examples
    --------
    >>> _specs(["sleeper:attack=alie", "wake_round=10", "sign_flip"])
    ['sleeper:attack=alie,wake_round=10', 'sign_flip']
    """
    specs: list[str] = []
    for item in items:
        if specs and "=" in item and ":" not in item.split("=", 1)[0]:
            specs[-1] += f",{item}"
        else:
            specs.append(item)
    return specs


def _seeds(items: list[str]) -> list[int]:
    """Seeds with ranges written out.

    Examples
    --------
    >>> _seeds(["3", "10-12"])
    [3, 10, 11, 12]
    """
    seeds = []
    for item in items:
        first, dash, last = item.partition("-")
        seeds += list(range(int(first), int(last if dash else first) + 1))
    return seeds


def _report(summary: Summary, target: Path, *, as_json: bool) -> None:
    if as_json:
        print_json(summary.as_dict())
    else:
        for grid in summary.grids:
            if grid.topic in _SHOWN:
                _show(grid)
        for line in (*summary.notes, *summary.footer):
            show(line, markup=False, style="dim")
        show(f"\nreport: {target / 'report.html'}", markup=False)
    if summary.failures:
        first, reason = next(iter(summary.failures.items()))
        raise CellsFailedError(
            f"{len(summary.failures)} of {summary.origin['cells']} cells failed, the first being {first}: {reason}; "
            f"cells.csv has all reasons, and matl matrix --resume {target} tries them again"
        )


def _show(grid: Grid) -> None:
    rows = [[name, *(f"{cell.text} {cell.detail}".strip() for cell in cells)] for name, cells in grid.rows]
    show(f"\n[bold]{grid.title}[/]")
    show(table(grid.header, rows, left=(grid.header[0], "under")), soft_wrap=True)
