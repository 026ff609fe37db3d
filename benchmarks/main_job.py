"""The main job on six seeds that were never used for tuning: every seed, every rule, with and without an attack.

::

    python benchmarks/main_job.py                # digits, writes benchmarks/results/main_job.{json,md}
    python benchmarks/main_job.py --attack label_flip --out label_flip
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import matl
from matl.files import make_directory, write_atomic
from matl.simulation.result import provenance

SEEDS = (10, 11, 12, 13, 14, 15)
RULES: dict[str, dict[str, Any]] = {
    "FedAvg": {"mode": "plain"},
    "Krum": {"aggregator": "krum"},
    "FLTrust": {"aggregator": "fltrust"},
    "Mode 0": {"mode": "mode0"},
    "Mode 1": {"mode": "mode1"},
}


def one(seed: int, attack: str, rule: str, settings: dict[str, Any]) -> dict[str, Any]:
    """One run, as a row of the table."""
    result = matl.simulate(seed=seed, attack=attack, **RULES[rule], **settings, ceiling=rule == "FedAvg")
    malicious = set(result.malicious)
    return {
        "attack": attack,
        "seed": seed,
        "rule": rule,
        "accuracy": result.accuracy,
        "ceiling": result.ceiling_accuracy,
        "malicious": len(malicious),
        "honest": result.clients - len(malicious),
        "caught": len(malicious.intersection(result.quarantined)) if result.gives_verdicts else None,
        "accused": len(set(result.quarantined) - malicious) if result.gives_verdicts else None,
        "outside_bound": result.outside_bound,
        "seconds": result.seconds,
    }


def table(rows: list[dict[str, Any]], attack: str) -> str:
    """A Markdown table of one attack: a line per seed, then mean and worst."""
    rules = [rule for rule in RULES if any(row["rule"] == rule and row["attack"] == attack for row in rows)]
    picked = {(row["seed"], row["rule"]): row for row in rows if row["attack"] == attack}
    seeds = sorted({seed for seed, _ in picked})
    lines = [
        "| seed | ceiling | " + " | ".join(rules) + " |",
        "|---|---|" + "---|" * len(rules),
    ]
    for seed in seeds:
        ceiling = picked[seed, "FedAvg"]["ceiling"]
        lines.append(f"| {seed} | {ceiling:.1%} | " + " | ".join(_cell(picked[seed, rule]) for rule in rules) + " |")
    means = [statistics.fmean(picked[seed, rule]["accuracy"] for seed in seeds) for rule in rules]
    ceiling = statistics.fmean(picked[seed, "FedAvg"]["ceiling"] for seed in seeds)
    lines.append(f"| **mean** | {ceiling:.1%} | " + " | ".join(f"{mean:.1%}" for mean in means) + " |")
    return "\n".join(lines)


def _cell(row: dict[str, Any]) -> str:
    text = f"{row['accuracy']:.1%}"
    if row["accused"] is None:
        return text
    caught = f"{row['caught']}/{row['malicious']} caught, " if row["malicious"] else ""
    return f"{text} ({caught}{row['accused']}/{row['honest']} accused)" + (" *" if row["outside_bound"] else "")


def main() -> None:
    """Run all, print the tables, write them with the raw rows beside them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="digits")
    parser.add_argument("--attack", default="sign_flip")
    parser.add_argument("--byzantine", type=float, default=0.4)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--alpha", type=float, default=0.5)
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "main_job")
    given = vars(parser.parse_args())
    settings = {key: given[key] for key in ("dataset", "byzantine", "clients", "alpha")}
    rows, started = [], time.perf_counter()
    for attack in (given["attack"], "none"):
        for seed in given["seeds"]:
            for rule in RULES:
                rows.append(one(seed, attack, rule, settings))
                print(f"{attack} seed {seed} {rule}: {_cell(rows[-1])}", file=sys.stderr, flush=True)
    origin = provenance()
    footer = (
        f"{settings}, 30 rounds; seeds {list(given['seeds'])}; commit {(origin['commit'] or 'unknown')[:12]}; "
        f"{origin['versions']}; {time.perf_counter() - started:.0f} s. `*`: outside the mode's declared bound."
    )
    text = "\n\n".join(f"**{attack}**\n\n{table(rows, attack)}" for attack in (given["attack"], "none"))
    text = f"{text}\n\n{footer}\n"
    make_directory(given["out"].parent)
    write_atomic(given["out"].with_suffix(".md"), text)
    raw = json.dumps({"settings": settings, **origin, "rows": rows}, indent=1)
    write_atomic(given["out"].with_suffix(".json"), raw + "\n")
    print(text)


if __name__ == "__main__":
    main()
