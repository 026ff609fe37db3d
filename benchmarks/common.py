"""What the benchmarks of judges share: one run as a row, counts in words, and files with their origin."""

from __future__ import annotations

import json
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matl
from matl.files import make_directory, write_atomic
from matl.simulation.result import provenance

SEEDS = (10, 11, 12, 13, 14, 15)
"""Never used to choose a constant; those are 0-4."""


def run(case: str, rule: str, seed: int, *, ceiling: bool, **settings: Any) -> dict[str, Any]:
    """Run one federation and return the raw row."""
    result = matl.simulate(seed=seed, ceiling=ceiling, **settings)
    malicious = set(result.malicious)
    return {
        "case": case,
        "rule": rule,
        "seed": seed,
        "accuracy": result.accuracy,
        "ceiling": result.ceiling_accuracy,
        "attack_success_rate": result.attack_success_rate,
        "malicious": len(malicious),
        "honest": result.clients - len(malicious),
        "caught": len(malicious.intersection(result.quarantined)) if result.gives_verdicts else None,
        "accused": len(set(result.quarantined) - malicious) if result.gives_verdicts else None,
        "outside_bound": result.outside_bound,
        "seconds": round(result.seconds, 2),
    }


def headings(rules: Mapping[str, object], rows: Sequence[dict[str, Any]]) -> list[str]:
    """Column names for some rules: the accuracy, and for rules that give verdicts who was caught and accused."""
    judges = {row["rule"] for row in rows if row["accused"] is not None}
    return [name for rule in rules for name in ([rule, "caught", "accused"] if rule in judges else [rule])]


def cells(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Mean accuracy of some rows of one rule and, if it gives verdicts, how many were caught and accused in all."""
    accuracy = f"{statistics.fmean(row['accuracy'] for row in rows):.1%}" + (" *" if rows[0]["outside_bound"] else "")
    if rows[0]["accused"] is None:
        return [accuracy]
    totals = {key: sum(row[key] for row in rows) for key in ("caught", "malicious", "accused", "honest")}
    caught = f"{totals['caught']}/{totals['malicious']}" if totals["malicious"] else "-"
    most = f" (max {max(row['accused'] for row in rows)})" if len(rows) > 1 and totals["accused"] else ""
    return [accuracy, caught, f"{totals['accused']}/{totals['honest']}{most}"]


def markdown(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A Markdown table."""
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, ["---"] * len(head), *lines))


def commit() -> str:
    """The commit that ran, and whether its files had been changed."""
    origin = provenance()
    return (origin["commit"] or "unknown")[:12] + (" with uncommitted changes" if origin["dirty"] else "")


def write(out: Path, table: str, remarks: str, rows: list[dict[str, Any]], seconds: float) -> str:
    """Write the table with its footer, and the raw rows beside it; return the text."""
    origin = provenance()
    versions = ", ".join(f"{name} {version}" for name, version in origin["versions"].items())
    note = " `*`: outside the mode's declared bound." if "% *" in table else ""
    text = f"{table}\n\n{remarks} Commit {commit()}; {versions}; {seconds:.0f} s.{note}\n"
    make_directory(out.parent)
    write_atomic(out.with_suffix(".md"), text)
    write_atomic(out.with_suffix(".json"), json.dumps({**origin, "rows": rows}, indent=1) + "\n")
    return text
