"""``matl compare``: the same federation under several rules, on one seed; or finished runs side by side."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from matl.aggregators import AGGREGATORS
from matl.campaigns.compare import DEFAULT_RULES, compare, resume_comparison
from matl.campaigns.experiment import in_words
from matl.campaigns.finished import as_rows, differing, read_finished
from matl.campaigns.report import write_report
from matl.campaigns.results import write_csv
from matl.cli import options
from matl.cli.console import print_json, show, stderr, stop_on_interrupt, verbosity
from matl.cli.tables import failed_rounds, table_of_finished, table_of_rules
from matl.cli.watch import observing
from matl.files import make_directory, write_atomic
from matl.modes import MODES
from matl.simulation import load_config
from matl.simulation.result import SCHEMA_VERSION

__all__ = ["compare_rules"]

_DEFAULT = ", ".join(DEFAULT_RULES)
_LEGEND = "\ncaught: malicious clients quarantined or rejected at the end; accused: honest ones"


@options.configuration("mode", "aggregator")
def compare_rules(
    paths: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="CONFIG.toml | DIR",
            help="TOML file with any of the options below as keys; or folders of finished runs, comparisons and "
            "sweeps, to put side by side.",
            show_default=False,
        ),
    ] = None,
    *,
    rules: Annotated[
        str | None,
        typer.Option(
            help=f"Modes and rules, separated by commas. \\[default: {_DEFAULT}]",
            show_default=False,
            autocompletion=options.names_of(MODES, AGGREGATORS),
        ),
    ] = None,
    given: dict[str, Any],
    out: options.Out = None,
    resume: options.Resume = None,
    workers: options.Workers = 1,
    log: options.Log = None,
    watch: options.Watch = False,
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
) -> None:
    """Train the same federation under several rules and compare them, or compare finished runs.

    All rules see the same data, clients, attackers and seed. Rules that need to know how many clients are malicious are
    told the true number; modes are not.
    """
    if paths and (len(paths) > 1 or paths[0].is_dir()):
        options.refuse("finished runs have their settings", **given, rules=rules, resume=resume)
        _compare_finished(paths, out, as_json=as_json)
        return
    config = paths[0] if paths else None
    if resume is not None:
        options.refuse(options.RESUMED, config=config, **given, rules=rules, out=out)
        chosen, names = resume_comparison(resume)
    else:
        chosen, names = load_config(config, given), _names(_DEFAULT if rules is None else rules)
    shown = verbosity(quiet, verbose, as_json=as_json)
    neutral = chosen.model_copy(update={"mode": None, "aggregator": None})  # each rule has its own
    with (
        options.folder(resume or out, options.run_name("compare", chosen)) as target,
        stop_on_interrupt() as stop,
        observing(neutral, target, log=log or (), watch=watch, verbosity=shown) as sink_for,
    ):
        comparison = compare(
            chosen, names, out=target, resume=resume is not None, workers=workers, sink_for=sink_for, stop=stop
        ).as_dict()
    report = write_report(target)
    if as_json:
        print_json(comparison)
    else:
        _show(comparison)
        show(f"\nreport: {report}", markup=False)


def _compare_finished(directories: Sequence[Path], out: Path | None, *, as_json: bool) -> None:
    runs = read_finished(directories)
    rows, settings = as_rows(runs), differing(runs)
    content = {
        "schema_version": SCHEMA_VERSION,
        "kind": "finished runs",
        "simulation": True,
        "differing": settings,
        "runs": rows,
    }
    if out is not None:
        make_directory(out)
        write_csv(out / "comparison.csv", list(rows[0]), rows)
        write_atomic(out / "comparison.json", json.dumps(content, indent=2, allow_nan=False) + "\n")
    if as_json:
        print_json(content)
        return
    show(table_of_finished(rows, settings), soft_wrap=True)
    show(_LEGEND, style="dim")
    if out is not None:
        show(f"\ntable: {out / 'comparison.csv'}", markup=False)


def _show(comparison: dict[str, Any]) -> None:
    stderr.print()
    show(
        f"{comparison['dataset']}: {comparison['clients']} clients, {comparison['malicious']} malicious "
        f"({in_words(comparison['attack'])}), alpha {comparison['alpha']:g}, {comparison['rounds']} rounds, "
        f"seed {comparison['seed']} (a simulation)\n",
        markup=False,
    )
    show(table_of_rules(comparison), soft_wrap=True)
    reasons = [
        f"{row['rule']}: {failed_rounds(row['failed_rounds'], comparison['rounds'])}: {row['last_failure']}"
        for row in comparison["rules"]
        if row["failed_rounds"]
    ]
    if reasons:
        show("\n" + "\n".join(reasons), markup=False, style="yellow")
    show(_LEGEND, style="dim")


def _names(rules: str) -> list[str]:
    return [name.strip() for name in rules.split(",") if name.strip()]
