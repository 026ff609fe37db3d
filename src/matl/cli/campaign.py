"""``matl campaign``: a run that comes with MATL, by its number."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any

import typer

from matl.campaigns.compare import CEILING, run_with_ceiling
from matl.campaigns.presets import CAMPAIGNS, CSV_COLUMNS, MARK, campaign, progress_rows
from matl.campaigns.report import write_report
from matl.campaigns.results import write_csv
from matl.cli import options
from matl.cli.console import percent, print_json, show, stderr, stop_on_interrupt, verbosity
from matl.cli.run import show_result
from matl.cli.tables import table
from matl.cli.watch import observing
from matl.events import Event
from matl.simulation import RunDirectory

__all__ = ["run_campaign"]


@options.configuration()
def run_campaign(
    number: Annotated[
        int | None, typer.Argument(help="Which one; without it, all are listed.", show_default=False)
    ] = None,
    *,
    given: dict[str, Any],
    ceiling: Annotated[
        bool, typer.Option("--ceiling", help="Also train without the malicious clients, to know what was attainable.")
    ] = False,
    out: options.Out = None,
    resume: options.Resume = None,
    workers: options.Workers = 1,
    log: options.Log = None,
    watch: options.Watch = False,
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
) -> None:
    """Run one of the campaigns that come with MATL, and write its progress as CSV.

    Every round it shows the active nodes, the epoch, how many were detected, the accuracy and the average round time.
    Options of the configuration win over those of the campaign.
    """
    if number is None and resume is None:
        _list()
        return
    if resume is not None:
        options.refuse(options.RESUMED, config=number, **given, out=out)
        chosen = RunDirectory(resume).read_config()
    else:
        chosen = campaign(number or 0, given)
    with_ceiling = (resume / CEILING).is_dir() if resume is not None else ceiling
    shown = verbosity(quiet, False, as_json=as_json)
    if shown >= 0 and number in CAMPAIGNS and (reduced := CAMPAIGNS[number].reduced(chosen.clients)):
        stderr.print(f"{CAMPAIGNS[number].title}: {reduced}", markup=False)
    with (
        options.folder(resume or out, f"campaign-{number}-seed{chosen.seed}") as target,
        stop_on_interrupt() as stop,
        observing(chosen, target, log=log or (), watch=watch, verbosity=shown, figures=_live()) as sink_for,
    ):
        result = run_with_ceiling(
            chosen,
            out=target,
            ceiling=with_ceiling,
            mark=(MARK, f"campaign = {number}\n"),
            resume=resume is not None,
            workers=workers,
            sink_for=sink_for,
            stop=stop,
        )
    write_csv(target / "campaign.csv", CSV_COLUMNS, progress_rows(result.history))
    report = write_report(target)
    if as_json:
        print_json(RunDirectory(target).read_result())
        return
    show_result(result)
    show(f"\nprogress: {target / 'campaign.csv'}\nreport: {report}", markup=False)


def _live() -> Callable[[Event], str]:
    """Says of a round what a campaign shows; it remembers the rounds that this process has seen."""
    seen: list[dict[str, Any]] = []

    def figures(event: Event) -> str:
        seen.append({"round": event.round, **event.data})
        row = progress_rows(tuple(seen))[-1]
        return (
            f"active {row['active_nodes']:>3}  detected {row['detected']:>3}  "
            f"accuracy {percent(row['accuracy'])}  {row['average_seconds']:.2f} s a round"
        )

    return figures


def _list() -> None:
    rows = [
        [
            str(number),
            one.title,
            str(one.values["dataset"]),
            str(one.values.get("task", "mlp")),
            str(one.clients),
            str(one.full_clients),
            str(one.values["rounds"]),
        ]
        for number, one in CAMPAIGNS.items()
    ]
    header = ("campaign", "", "data", "model", "nodes", "in full", "epochs")
    show(table(header, rows, left=("", "data", "model")), soft_wrap=True)
    show("\nrun one: matl campaign NUMBER; in full: --clients, with a machine that holds it", style="dim")
