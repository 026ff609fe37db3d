"""The report of a run: one HTML page that explains itself, needs no network and can be printed."""

from __future__ import annotations

from pathlib import Path

from matl.campaigns.report.page import render
from matl.campaigns.report.reading import load
from matl.files import write_atomic

__all__ = ["write_report"]


def write_report(directory: Path) -> Path:
    """Write ``report.html`` into the directory of a finished run or comparison and return its path.

    The page holds everything it shows: accuracy by round, every verdict with its reason, the evidence of honest and of
    malicious clients, the data they hold, and how to repeat the run. The same directory gives the same page.

    Parameters
    ----------
    directory : Path
        Where ``matl run`` or ``matl compare`` wrote its files.

    Raises
    ------
    StateError
        The directory holds neither a finished run nor a comparison, or a file in it is damaged.
    StorageError
        The page cannot be written.

    Examples
    --------
    >>> write_report(Path("no-such-run"))
    Traceback (most recent call last):
        ...
    matl.errors.StateError: expected a finished run (result.json) or comparison (compare.json) in no-such-run, but there
    is no such directory; both files are written last, when all rounds are done
    """
    path = directory / "report.html"
    write_atomic(path, render(load(directory)))
    return path
