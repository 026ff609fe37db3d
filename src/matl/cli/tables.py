"""The tables of the command line."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from matl.campaigns.experiment import in_words
from matl.cli.console import percent, widest

__all__ = ["failed_rounds", "settings_rows", "table", "table_of_finished", "table_of_rules"]

_TEXT = ("rule", "directory", "case", "")


def table(header: Sequence[str], rows: Sequence[Sequence[str]], *, left: Sequence[str] = _TEXT) -> Table:
    """A plain table as wide as it has to be; columns but those named are aligned to the right."""
    made = Table(box=None, header_style="bold", pad_edge=False)
    for name in header:
        made.add_column(name, justify="left" if name in left else "right", no_wrap=True)
    for row in rows:
        made.add_row(*row)
    return widest(made)


def table_of_rules(comparison: Mapping[str, Any]) -> Table:
    """The table of ``matl compare``."""
    rows = [
        (
            row["rule"],
            percent(row["accuracy"]),
            *_verdicts(row),
            f"{row['seconds']:.1f}",
            _note(row, comparison["rounds"]),
        )
        for row in comparison["rules"]
    ]
    return table(("rule", "accuracy", "caught", "accused", "seconds", ""), rows)


def table_of_finished(rows: Sequence[Mapping[str, Any]], settings: Sequence[str]) -> Table:
    """The table of ``matl compare DIR...``: where each run lies, in what the runs differ, and what came of them."""
    body = [
        (
            row["directory"],
            row["rule"],
            *(in_words(row[key]) for key in settings),
            percent(row["accuracy"]),
            percent(row["ceiling_accuracy"]),
            *_verdicts(row),
            f"{row['seconds']:.1f}",
            _note(row, row["rounds"]),
        )
        for row in rows
    ]
    header = ("directory", "rule", *settings, "accuracy", "ceiling", "caught", "accused", "seconds", "")
    return table(header, body, left=(*_TEXT, *settings))


def settings_rows(swept: Sequence[str], settings: Sequence[Mapping[str, Any]]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of the summary of a sweep: a line per setting, with means over its seeds."""
    ceiling = any(setting["ceiling_accuracy"] is not None for setting in settings)
    failed = any(setting["failed"] for setting in settings)
    measures = {"accuracy": "accuracy", **({"ceiling_accuracy": "ceiling"} if ceiling else {}), "tpr": "caught"}
    measures["fpr"] = "accused"
    header = [*swept, *measures.values(), "n", *(["failed"] if failed else [])]
    rows = [
        [
            *(in_words(setting[key]) for key in swept),
            *(_interval(setting[key]) for key in measures),
            str(setting["accuracy"]["n"] if setting["accuracy"] is not None else 0),
            *([str(setting["failed"])] if failed else []),
        ]
        for setting in settings
    ]
    return header, rows


def failed_rounds(failed: int, rounds: int) -> str:
    """How many rounds failed, in words.

    Examples
    --------
    >>> failed_rounds(12, 30), failed_rounds(1, 1)
    ('12 of 30 rounds failed', '1 of 1 round failed')
    """
    return f"{failed} of {rounds} round{'' if rounds == 1 else 's'} failed"


def _interval(interval: Mapping[str, Any] | None) -> str:
    if interval is None:
        return "-"
    half = interval["half_width"]
    return percent(interval["mean"]) + (f" ± {100 * half:.1f}" if half is not None else "")


def _verdicts(row: Mapping[str, Any]) -> tuple[str, str]:
    return (percent(row["tpr"]), percent(row["fpr"])) if row["bound"] is not None else ("-", "-")


def _note(row: Mapping[str, Any], rounds: int) -> str:
    notes = [failed_rounds(row["failed_rounds"], rounds)] if row["failed_rounds"] else []
    if row["rule"] == "honest_only":
        notes.append("ceiling: no malicious clients")
    elif row["bound"] is None:
        notes.append("gives no verdicts")
    elif row["outside_bound"]:
        notes.append(f"outside its {percent(row['bound'], 0)} bound")
    return "; ".join(notes)
