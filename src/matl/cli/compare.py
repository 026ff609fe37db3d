"""``matl compare``: the same federation under several rules, on one seed."""

from __future__ import annotations

from typing import Annotated

import typer

from matl.campaigns.compare import DEFAULT_RULES, compare, resume_comparison
from matl.campaigns.report import write_report
from matl.cli import options
from matl.cli.console import Reporter, failed_rounds, print_json, show, stderr, stop_on_interrupt, table_of_rules
from matl.cli.run import refuse_settings_on_resume
from matl.simulation import load_config

__all__ = ["compare_rules"]

_DEFAULT = ",".join(DEFAULT_RULES)


def compare_rules(
    config: options.ConfigFile = None,
    rules: Annotated[
        str | None,
        typer.Option(help=f"Modes and rules, separated by commas. [default: {_DEFAULT}]", show_default=False),
    ] = None,
    dataset: options.Dataset = None,
    clients: options.Clients = None,
    byzantine: options.Byzantine = None,
    attack: options.Attack = None,
    alpha: options.Alpha = None,
    rounds: options.Rounds = None,
    participation: options.Participation = None,
    task: options.TaskName = None,
    root_size: options.RootSize = None,
    max_norm: options.MaxNorm = None,
    seed: options.Seed = None,
    out: options.Out = None,
    resume: options.Resume = None,
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
    verbose: options.Verbose = False,
) -> None:
    """Train the same federation under several rules and compare them.

    All rules see the same data, clients, attackers and seed. Rules that need to know how many clients are malicious are
    told the true number; modes are not.
    """
    given = options.given(locals())
    if resume is not None:
        refuse_settings_on_resume(config, [*given, *(["rules"] if rules is not None else [])], out)
        chosen, names = resume_comparison(resume)
    else:
        chosen, names = load_config(config, given), _names(_DEFAULT if rules is None else rules)
    verbosity = -1 if quiet or (as_json and not verbose) else int(verbose)
    with (
        options.folder(resume or out, "compare", chosen) as target,
        stop_on_interrupt() as stop,
        Reporter(chosen.rounds, verbosity) as reporter,
    ):
        comparison = compare(
            chosen, names, out=target, resume=resume is not None, sink_for=reporter.sink_for, stop=stop
        ).as_dict()
    report = write_report(target)
    if as_json:
        print_json(comparison)
        return
    stderr.print()
    show(
        f"{chosen.dataset}: {comparison['clients']} clients, {comparison['malicious']} malicious "
        f"({chosen.attack}), alpha {chosen.alpha:g}, {chosen.rounds} rounds, seed {chosen.seed} (a simulation)\n",
        markup=False,
    )
    show(table_of_rules(comparison), soft_wrap=True)
    reasons = [
        f"{row['rule']}: {failed_rounds(row['failed_rounds'], chosen.rounds)}: {row['last_failure']}"
        for row in comparison["rules"]
        if row["failed_rounds"]
    ]
    if reasons:
        show("\n" + "\n".join(reasons), markup=False, style="yellow")
    show("\ncaught: malicious clients quarantined or rejected at the end; accused: honest ones", style="dim")
    show(f"\nreport: {report}", markup=False)


def _names(rules: str) -> list[str]:
    return [name.strip() for name in rules.split(",") if name.strip()]
