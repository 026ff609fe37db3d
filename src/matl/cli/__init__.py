"""The command line: ``matl`` and its commands."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

import matl
from matl.cli.backup import backup, restore
from matl.cli.campaign import run_campaign
from matl.cli.catalogue import catalogue
from matl.cli.compare import compare_rules
from matl.cli.console import stderr, write
from matl.cli.db import database
from matl.cli.doctor import doctor
from matl.cli.exit_codes import ExitCode, exit_code
from matl.cli.invite import invite
from matl.cli.matrix import attack_matrix
from matl.cli.oracle import oracle
from matl.cli.plan import planning
from matl.cli.report import report
from matl.cli.run import run
from matl.cli.serve import serve
from matl.cli.status import status
from matl.cli.sweep import sweep_cells
from matl.cli.token import token
from matl.cli.tune import tune_settings
from matl.cli.up import up
from matl.cli.verify import verify
from matl.errors import MatlError, RunInterrupted
from matl.simulation.directory import resume_command

__all__ = ["app", "main"]

app = typer.Typer(
    name="matl",
    help="The trust layer for federated learning: judge every update, name who lied and why.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.command()(run)
app.command("compare")(compare_rules)
app.command("sweep")(sweep_cells)
app.command("matrix")(attack_matrix)
app.command("campaign")(run_campaign)
app.command("tune")(tune_settings)
app.command()(report)
app.command()(up)
app.command()(serve)
app.command()(status)
app.command()(invite)
app.add_typer(token, name="token")
app.command()(backup)
app.command()(restore)
app.add_typer(database, name="db")
app.add_typer(planning, name="plan")
app.add_typer(verify, name="verify")
app.add_typer(oracle, name="oracle")
app.command("list")(catalogue)
app.command()(doctor)


def _print_version(wanted: bool) -> None:
    if wanted:
        write(f"matl {matl.__version__}\n")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool, typer.Option("--version", callback=_print_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    """The trust layer for federated learning: judge every update, name who lied and why."""


def main() -> None:
    """Entry point: run a command; turn MATL's errors into one message and an exit code."""
    try:
        app()
    except RunInterrupted as error:
        advice = f"; go on with: {resume_command(Path(error.directory))}" if error.directory is not None else ""
        stderr.print(f"{error}{advice}", markup=False, soft_wrap=True)
        sys.exit(ExitCode.INTERRUPTED)
    except MatlError as error:
        stderr.print(f"error: {error}", markup=False, soft_wrap=True, style="red")
        sys.exit(exit_code(error))
