"""``matl report``: write the report of a finished run or comparison, or of a matrix, again."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from matl.campaigns.matrix import FILE, write_matrix_report
from matl.campaigns.report import write_report
from matl.cli.console import show

__all__ = ["report"]


def report(
    directory: Annotated[Path, typer.Argument(help="Folder of a finished run or comparison, or of a matrix.")],
) -> None:
    """Write report.html for a finished run or comparison, or for what a matrix has so far."""
    if (directory / FILE).is_file():
        write_matrix_report(directory)
        show(f"report: {directory / 'report.html'}", markup=False)
    else:
        show(f"report: {write_report(directory)}", markup=False)
