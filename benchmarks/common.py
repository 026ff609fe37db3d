"""What the benchmarks of judges share: one run as a row, counts in words, and files with their origin."""

from __future__ import annotations

import json
import statistics
from collections.abc import Sequence
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
        "malicious": len(malicious),
        "honest": result.clients - len(malicious),
        "caught": len(malicious.intersection(result.quarantined)) if result.gives_verdicts else None,
        "accused": len(set(result.quarantined) - malicious) if result.gives_verdicts else None,
        "outside_bound": result.outside_bound,
        "seconds": round(result.seconds, 2),
    }


def cell(rows: Sequence[dict[str, Any]]) -> str:
    """Mean accuracy of some rows, and how many clients were caught and accused in all of them."""
    text = f"{statistics.fmean(row['accuracy'] for row in rows):.1%}"
    if rows[0]["accused"] is None:
        return text
    caught, malicious, accused, honest = (
        sum(row[k] for row in rows) for k in ("caught", "malicious", "accused", "honest")
    )
    words = f"{caught}/{malicious} caught, " if malicious else ""
    worst = f", at most {max(row['accused'] for row in rows)}" if len(rows) > 1 and accused else ""
    return f"{text} ({words}{accused}/{honest} accused{worst})" + (" *" if rows[0]["outside_bound"] else "")


def write(out: Path, table: str, remarks: str, rows: list[dict[str, Any]], seconds: float) -> str:
    """Write the table with its footer, and the raw rows beside it; return the text."""
    origin = provenance()
    versions = ", ".join(f"{name} {version}" for name, version in origin["versions"].items())
    commit = (origin["commit"] or "unknown")[:12]
    text = (
        f"{table}\n\n{remarks} Commit {commit}; {versions}; {seconds:.0f} s. `*`: outside the mode's declared bound.\n"
    )
    make_directory(out.parent)
    write_atomic(out.with_suffix(".md"), text)
    write_atomic(out.with_suffix(".json"), json.dumps({**origin, "rows": rows}, indent=1) + "\n")
    return text
