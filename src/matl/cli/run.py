"""``matl run``: one federation under one judge."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Annotated

import typer

from matl.campaigns.compare import CEILING, run_with_ceiling
from matl.campaigns.report import write_report
from matl.cli import options
from matl.cli.console import Reporter, failed_rounds, percent, print_json, show, stderr, stop_on_interrupt
from matl.errors import InvalidValueError
from matl.simulation import RunDirectory, RunResult, load_config

__all__ = ["run"]


def run(
    config: options.ConfigFile = None,
    dataset: options.Dataset = None,
    clients: options.Clients = None,
    byzantine: options.Byzantine = None,
    attack: options.Attack = None,
    mode: options.Mode = None,
    aggregator: options.Aggregator = None,
    alpha: options.Alpha = None,
    rounds: options.Rounds = None,
    participation: options.Participation = None,
    task: options.TaskName = None,
    root_size: options.RootSize = None,
    max_norm: options.MaxNorm = None,
    seed: options.Seed = None,
    ceiling: Annotated[
        bool | None,
        typer.Option(help="Also train without the malicious clients, to know what was attainable. [default: yes]"),
    ] = None,
    out: options.Out = None,
    resume: options.Resume = None,
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
) -> None:
    """Train a model while some clients lie, and say who lied and why.

    This is a simulation: data, clients and attackers live in this process.
    """
    given = options.given(locals())
    if resume is not None:
        refuse_settings_on_resume(config, [*given, *(["ceiling"] if ceiling is not None else [])], out)
        chosen = RunDirectory(resume).read_config()
        with_ceiling = (resume / CEILING).is_dir()
    else:
        chosen = load_config(config, given)
        with_ceiling = ceiling is not False
    verbosity = -1 if quiet or (as_json and not verbose) else int(verbose)
    with (
        options.folder(resume or out, chosen.label, chosen) as target,
        stop_on_interrupt() as stop,
        Reporter(chosen.rounds, verbosity) as reporter,
    ):
        result = run_with_ceiling(
            chosen,
            out=target,
            ceiling=with_ceiling,
            resume=resume is not None,
            sink_for=reporter.sink_for,
            stop=stop,
        )
    report = write_report(target)
    if as_json:
        print_json(RunDirectory(target).read_result())
    else:
        _show(result)
        show(f"\nreport: {report}", markup=False)


def refuse_settings_on_resume(config: Path | None, given: Iterable[str], out: Path | None) -> None:
    """A resumed run keeps its configuration; saying otherwise is a mistake worth stopping for."""
    extra = [f"--{key.replace('_', '-')}" for key in given]
    if out is not None:
        extra.append("--out")
    if config is not None:
        extra.insert(0, str(config))
    if extra:
        raise InvalidValueError(f"--resume goes on with the configuration of the run, got also {', '.join(extra)}")


def _show(result: RunResult) -> None:
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
