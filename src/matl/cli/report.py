"""``matl report``: write the report of a finished run or comparison again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from matl.campaigns.report import write_report
from matl.cli.console import show

__all__ = ["report"]


def report(directory: Annotated[Path, typer.Argument(help="Folder of a finished run or comparison.")]) -> None:
    """Write report.html for a finished run or comparison."""
    show(f"report: {write_report(directory)}", markup=False)
