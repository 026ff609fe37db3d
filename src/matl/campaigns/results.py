"""The results of a sweep: a row per cell, a line per setting over its seeds, and the files they go to."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from matl.campaigns.experiment import Cell, Experiment, in_words
from matl.campaigns.statistics import mean_interval
from matl.errors import MissingExtraError
from matl.files import write_atomic

__all__ = ["columns", "markdown", "require_pyarrow", "row", "summary", "write_csv", "write_parquet"]

_MEASURES = ("tpr", "fpr", "zero_weight_tpr", "zero_weight_fpr", "outside_bound", "failed_rounds", "last_failure")
_AVERAGED = ("accuracy", "ceiling_accuracy", "tpr", "fpr")

Row = Mapping[str, Any]


def columns(experiment: Experiment) -> list[str]:
    """Columns of ``results.csv``. What differs between two runs of the same sweep, the time, stands last."""
    ceiling = ["ceiling_accuracy"] if experiment.ceiling else []
    return ["cell", *experiment.swept, "seed", "accuracy", *ceiling, *_MEASURES, "model_hash", "failure", "seconds"]


def row(cell: Cell, result: Mapping[str, Any], failure: str = "") -> dict[str, Any]:
    """What ``results.csv`` says of a cell, given its ``result.json``, or why it has none."""
    measured = ("accuracy", "ceiling_accuracy", *_MEASURES, "model_hash", "seconds")
    return {
        "cell": cell.name,
        **cell.settings,
        "seed": cell.config.seed,
        **{key: result.get(key) for key in measured},
        "failure": failure,
    }


def summary(experiment: Experiment, rows: Sequence[Row]) -> list[dict[str, Any]]:
    """A line per setting, in the order of the cells: means over its seeds with 95 % confidence intervals."""
    settings: dict[str, list[Row]] = {}
    for item in rows:
        settings.setdefault(repr([item[key] for key in experiment.swept]), []).append(item)
    return [
        {
            **{key: group[0][key] for key in experiment.swept},
            **{key: _interval([item[key] for item in group]) for key in _AVERAGED},
            "failed": sum(bool(item["failure"]) for item in group),
        }
        for group in settings.values()
    ]


def _interval(values: Sequence[float | None]) -> dict[str, Any] | None:
    found = mean_interval([value for value in values if value is not None])
    return None if found is None else asdict(found)


def markdown(title: str, header: Sequence[str], rows: Sequence[Sequence[str]], notes: Sequence[str]) -> str:
    """A Markdown page of one table."""
    lines = [f"# {title}", "", _line(header), _line(["---"] * len(header)), *map(_line, rows), "", *notes]
    return "\n".join(lines) + "\n"


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cell.replace('|', chr(92) + '|') for cell in cells)} |"


def write_csv(path: Path, header: Sequence[str], rows: Sequence[Row]) -> None:
    """Write rows as CSV, in one step."""
    buffer = io.StringIO()
    writer = csv.writer(buffer, lineterminator="\n")
    writer.writerow(header)
    writer.writerows([in_words(item.get(name)) for name in header] for item in rows)
    write_atomic(path, buffer.getvalue())


def write_parquet(path: Path, header: Sequence[str], rows: Sequence[Row]) -> None:
    """Write rows as Parquet, in one step. Columns that hold anything but numbers or truth values are text.

    Raises
    ------
    MissingExtraError
        PyArrow is not installed.
    """
    arrow, parquet = require_pyarrow()
    table = arrow.table({name: _typed([item.get(name) for item in rows]) for name in header})
    sink = io.BytesIO()
    parquet.write_table(table, sink)
    write_atomic(path, sink.getvalue())


def require_pyarrow() -> tuple[Any, Any]:
    """The modules that write Parquet.

    Raises
    ------
    MissingExtraError
        They are not installed.
    """
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise MissingExtraError("pyarrow", extra="data") from error
    return pyarrow, pyarrow.parquet


def _typed(values: list[Any]) -> list[Any]:
    present = [value for value in values if value is not None]
    if all(isinstance(value, bool) for value in present):
        return values
    if all(isinstance(value, int | float) and not isinstance(value, bool) for value in present):
        return values
    return [None if value is None else in_words(value) for value in values]
