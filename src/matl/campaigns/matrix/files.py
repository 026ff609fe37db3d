"""What a matrix leaves beside its journal: every cell as CSV, the tables as Markdown and JSON, and a page."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matl.campaigns.experiment import flat_settings, in_words
from matl.campaigns.matrix.design import resume_matrix
from matl.campaigns.matrix.journal import read_rows
from matl.campaigns.matrix.results import COLUMNS, Results
from matl.campaigns.matrix.tables import Grid, markdown_grid, not_applicable, tables
from matl.campaigns.report.markup import duration, plural
from matl.campaigns.results import write_csv
from matl.files import write_atomic
from matl.simulation.result import SCHEMA_VERSION, provenance

__all__ = ["Summary", "summarise_matrix"]


@dataclass(frozen=True)
class Summary:
    """A matrix, finished or not, as it is reported.

    Parameters
    ----------
    results : Results
        Its rows.
    grids : list of Grid
        Its tables.
    notes : list of str
        Why rules have no figure in some rows.
    origin : mapping
        Where it comes from: seeds, cells, commits, versions, times, constants.
    """

    results: Results
    grids: list[Grid]
    notes: list[str]
    origin: dict[str, Any]

    @property
    def failures(self) -> dict[str, str]:
        """Why cells failed, by name."""
        return {row["cell"]: row["failure"] for row in self.results.rows if row["failure"]}

    def as_dict(self) -> dict[str, Any]:
        """The object of ``matrix.json``."""
        return {
            "schema_version": SCHEMA_VERSION,
            "kind": "matrix",
            "simulation": True,
            "matrix": self.results.matrix.name,
            **self.origin,
            "settings": flat_settings(self.results.matrix.values),
            "tables": [
                {
                    "title": grid.title,
                    "caption": grid.caption,
                    "header": list(grid.header),
                    "rows": [
                        [name, *(f"{cell.text} {cell.detail}".strip() for cell in cells)] for name, cells in grid.rows
                    ],
                }
                for grid in self.grids
            ],
            "notes": self.notes,
        }

    def as_markdown(self) -> str:
        """The tables with their footer."""
        head = f"# {self.results.matrix.name}\n\nSimulated runs: {_told(self.results)}\n"
        return "\n".join([head, *map(markdown_grid, self.grids), *self.notes, "", *self.footer]) + "\n"

    @property
    def footer(self) -> list[str]:
        """How to check the tables, in lines."""
        origin = self.origin
        versions = ", ".join(f"{name} {version}" for name, version in origin["versions"].items())
        constants = ", ".join(f"{rule} {digest[:12]}" for rule, digest in origin["judges"].items())
        return [
            f"Seeds {', '.join(map(str, origin['seeds']))}; {origin['done']} of {origin['cells']} cells, "
            f"{origin['failed']} failed, {origin['not_applicable']} not applicable; "
            f"{duration(origin['wall_seconds'])} of wall time in {plural(origin['sittings'], 'sitting')}, "
            f"{duration(origin['cell_seconds'])} of computing.",
            f"Commit {', '.join(origin['commits']) or 'unknown'} (* with uncommitted changes); {versions}.",
            f"Digests of the rules' constants: {constants}.",
        ]


def summarise_matrix(folder: Path) -> Summary:
    """Read what a matrix has so far and write ``cells.csv``, ``summary.md`` and ``matrix.json``.

    Raises
    ------
    StateError
        The folder holds no matrix, or its journal is damaged.
    StorageError
        A file cannot be written.
    """
    matrix = resume_matrix(folder)
    rows = read_rows(folder)
    results = Results(matrix, rows)
    summary = Summary(results, tables(results), not_applicable(results), _origin(results, rows))
    write_csv(folder / "cells.csv", [name for name in COLUMNS if name != "curve"], results.rows)
    write_atomic(folder / "summary.md", summary.as_markdown())
    write_atomic(folder / "matrix.json", json.dumps(summary.as_dict(), indent=2, allow_nan=False) + "\n")
    return summary


def _origin(results: Results, rows: list[dict[str, Any]]) -> dict[str, Any]:
    sittings: dict[int, float] = {}
    for row in rows:
        sittings[row["sitting"]] = max(sittings.get(row["sitting"], 0.0), row["elapsed"])
    return {
        "seeds": list(results.matrix.seeds),
        "cells": len(results.matrix.cells),
        "done": len(results.rows),
        "failed": sum(bool(row["failure"]) for row in results.rows),
        "not_applicable": sum(bool(row["not_applicable"]) for row in results.rows),
        "wall_seconds": round(sum(sittings.values()), 1),
        "sittings": len(sittings),
        "cell_seconds": round(sum(row.get("seconds") or 0.0 for row in rows), 1),
        "commits": sorted({row["commit"] for row in rows if row["commit"]}),
        "versions": provenance()["versions"],
        # What judged the cells, which may be another version than is installed now.
        "judges": results.matrix.judges | {row["rule"]: row["judge"] for row in results.rows if row["judge"]},
    }


def _told(results: Results) -> str:
    settings = flat_settings(results.matrix.values)
    return ", ".join(f"{key} {in_words(value)}" for key, value in settings.items()) or "the default configuration"
