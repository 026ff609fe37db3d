"""The main job on six seeds that were never used for tuning: every seed, every rule, with and without an attack.

::

    python benchmarks/main_job.py                # digits, writes benchmarks/results/main_job.{json,md}
    python benchmarks/main_job.py --dataset mnist --clients 100 --byzantine 0.45 --seeds 10 11 --out results/mnist
"""

from __future__ import annotations

import argparse
import sys
import time
from pathlib import Path
from typing import Any

from common import SEEDS, cells, headings, markdown, run, write

RULES: dict[str, dict[str, Any]] = {
    "FedAvg": {"mode": "plain"},
    "Krum": {"aggregator": "krum"},
    "FLTrust": {"aggregator": "fltrust"},
    "Raw PoGQ": {"aggregator": "raw_pogq"},
    "Mode 0": {"mode": "mode0"},
    "Mode 1": {"mode": "mode1"},
}


def table(rows: list[dict[str, Any]]) -> str:
    """A line per seed, then the mean over all of them."""
    seeds = list(dict.fromkeys(row["seed"] for row in rows))
    lines = []
    for name, chosen in [*((str(seed), [seed]) for seed in seeds), ("**all**", seeds)]:
        picked = [row for row in rows if row["seed"] in chosen]
        ceilings = [row["ceiling"] for row in picked if row["ceiling"] is not None]
        shown = [text for rule in RULES for text in cells([row for row in picked if row["rule"] == rule])]
        lines.append([name, f"{sum(ceilings) / len(ceilings):.1%}", *shown])
    return markdown(["seed", "ceiling", *headings(RULES, rows)], lines)


def main() -> None:
    """Run all, print the tables, write them with the raw rows beside them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="digits")
    parser.add_argument("--attack", default="sign_flip")
    parser.add_argument("--byzantine", type=float, default=0.4)
    parser.add_argument("--clients", type=int, default=50)
    parser.add_argument("--alpha", type=float, default=0.5)
    parser.add_argument("--rounds", type=int, default=30)
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "main_job")
    given = vars(parser.parse_args())
    settings = {key: given[key] for key in ("dataset", "byzantine", "clients", "alpha", "rounds")}
    rows, started = [], time.perf_counter()
    for attack in (given["attack"], "none"):
        for seed in given["seeds"]:
            for rule, choice in RULES.items():
                rows.append(run(attack, rule, seed, ceiling=rule == "FedAvg", attack=attack, **choice, **settings))
                print(f"{attack} seed {seed} {rule}: {' '.join(cells(rows[-1:]))}", file=sys.stderr, flush=True)
    tables = [
        f"**attack: {attack}**\n\n{table([row for row in rows if row['case'] == attack])}"
        for attack in (given["attack"], "none")
    ]
    remarks = f"{', '.join(f'{key} {value}' for key, value in settings.items())}."
    print(write(given["out"], "\n\n".join(tables), remarks, rows, time.perf_counter() - started))


if __name__ == "__main__":
    main()
