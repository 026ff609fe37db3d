"""``matl run``: one federation under one judge."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from matl.campaigns.compare import CEILING, run_with_ceiling
from matl.campaigns.report import write_report
from matl.cli import options
from matl.cli.console import percent, print_json, show, stderr, stop_on_interrupt, verbosity
from matl.cli.tables import failed_rounds
from matl.cli.watch import observing
from matl.simulation import RunDirectory, RunResult, load_config

__all__ = ["run", "show_result"]


@options.configuration()
def run(
    config: options.ConfigFile = None,
    *,
    given: dict[str, Any],
    ceiling: Annotated[
        bool | None,
        typer.Option(help="Also train without the malicious clients, to know what was attainable. \\[default: yes]"),
    ] = None,
    out: options.Out = None,
    resume: options.Resume = None,
    workers: options.Workers = 1,
    log: options.Log = None,
    watch: options.Watch = False,
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
) -> None:
    """Train a model while some clients lie, and say who lied and why.

    This is a simulation: data, clients and attackers live in this process.
    """
    if resume is not None:
        options.refuse(options.RESUMED, config=config, **given, ceiling=ceiling, out=out)
        chosen = RunDirectory(resume).read_config()
        with_ceiling = (resume / CEILING).is_dir()
    else:
        chosen = load_config(config, given)
        with_ceiling = ceiling is not False
    shown = verbosity(quiet, verbose, as_json=as_json)
    with (
        options.folder(resume or out, options.run_name(chosen.label, chosen)) as target,
        stop_on_interrupt() as stop,
        observing(chosen, target, log=log or (), watch=watch, verbosity=shown) as sink_for,
    ):
        result = run_with_ceiling(
            chosen,
            out=target,
            ceiling=with_ceiling,
            resume=resume is not None,
            workers=workers,
            sink_for=sink_for,
            stop=stop,
        )
    report = write_report(target)
    if as_json:
        print_json(RunDirectory(target).read_result())
    else:
        show_result(result)
        show(f"\nreport: {report}", markup=False)


def show_result(result: RunResult) -> None:
    """Print what came of a run."""
    liars, honest = set(result.malicious), result.clients - len(result.malicious)
    excluded = set(result.quarantined)
    show(
        f"[bold]{result.name}[/]: accuracy {percent(result.accuracy)}"
        + (
            f", ceiling without malicious clients {percent(result.ceiling_accuracy)}"
            if result.ceiling_accuracy is not None
            else ""
        )
        + f", {len(result.history)} rounds, {result.clients} clients, {len(liars)} malicious"
    )
    if result.failures:
        failed = failed_rounds(result.failed_rounds, len(result.history))
        show(f"{failed}: {result.failures[-1]}", markup=False, style="yellow")
    if result.outside_bound and result.bound is not None:
        show(f"[yellow]outside its bound[/]: {result.name} is designed for at most {percent(result.bound, 0)}")
    if not result.gives_verdicts:
        show("this rule gives no verdicts; it only weighs updates")
        return
    show(
        f"quarantined at the end: {len(excluded & liars)} of {len(liars)} malicious, "
        f"{len(excluded - liars)} of {honest} honest clients"
    )
    if excluded - liars:
        stderr.print(f"honest but quarantined: {', '.join(sorted(excluded - liars))}", markup=False, soft_wrap=True)
