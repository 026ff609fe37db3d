"""What survives when some lie, sums are private, and a robust rule sees the sums of random groups alone.

::

    make bench-private-attack            # writes benchmarks/results/private_attack.{json,md}; half an hour

Malicious clients send what an attested encoder makes of a bad update, which it clips, or words of their own, which
nobody can clip.
"""

from __future__ import annotations

import argparse
import itertools
import time
from pathlib import Path
from typing import Any

from common import markdown, write
from private_training import SETTINGS, map_cells, shown

import matl

SEEDS = (20, 21, 22)
CLIENTS, MALICIOUS = 1000, 60  # groups of 8 bear 69 of 1000: `matl plan privacy --trade`
EPSILON, CLIP = 8.0, 0.8  # the best norm without momentum, by `private_training.py --tune`
ATTACKS = ("none", "sign_flip", "ipm", "forged_words")
ONE: dict[str, Any] = {"epsilon": EPSILON, "clip": CLIP, "budget_bits": 8.1, "alignment": 0.6}
GROUPS = {**ONE, "group_size": 8, "malicious": MALICIOUS}
MIXED = {"name": "nnm", "rule": "trimmed_mean"}
WAYS: dict[str, dict[str, Any]] = {
    "clear updates, mean": {},
    "clear updates, Mode 1": {"mode": "mode1"},
    "one private sum, mean": {"privacy": ONE},
    "private groups of 8, mean": {"privacy": GROUPS},
    "private groups of 8, median": {"privacy": GROUPS, "aggregator": "median"},
    "private groups of 8, NNM and trimmed mean": {"privacy": GROUPS, "aggregator": MIXED},
}


def cell(way: str, attack: str, seed: int) -> dict[str, Any]:
    """One run as a row."""
    result = matl.simulate(
        **{**SETTINGS, **WAYS[way], "attack": attack},
        dataset={"name": "mnist", "pool": 2},
        clients=CLIENTS,
        byzantine=0.0 if attack == "none" else MALICIOUS / CLIENTS,
        seed=seed,
    ).as_dict()
    row = {"way": way, "attack": attack, "seed": seed, "accuracy": result["accuracy"], "seconds": result["seconds"]}
    return {**row, "privacy": result["privacy"]}


def table(rows: list[dict[str, Any]]) -> str:
    """A line for every way, a column for every attack."""
    lines = []
    for way in WAYS:
        told = next(row["privacy"] for row in rows if row["way"] == way)
        found = [[row["accuracy"] for row in rows if (row["way"], row["attack"]) == (way, one)] for one in ATTACKS]
        epsilon = "none" if told is None else f"{told['epsilon']['zero_out']:.2f}"
        lines.append([way, epsilon, *(shown(values) for values in found)])
    return markdown(["what the judge sees, and its rule", "epsilon", *ATTACKS], lines)


def main() -> None:
    """Run all, print the table, write it with the raw rows beside it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "private_attack")
    given, started = parser.parse_args(), time.perf_counter()
    wanted = list(itertools.product(WAYS, ATTACKS, given.seeds))
    rows = map_cells(cell, wanted, given.jobs)
    remarks = (
        f"Accuracy in % with 95 % confidence intervals over seeds {', '.join(map(str, given.seeds))}. MNIST, {CLIENTS} "
        f"clients, {MALICIOUS} of them malicious except under *none*, MLP with 64 hidden units, 30 rounds, alpha 0.5; "
        "epsilon zero-out, delta 1e-5. *forged_words* are random words in place of an encoded update; without privacy "
        "there are none, and it does nothing."
    )
    print(write(given.out, table(rows), remarks, rows, time.perf_counter() - started))


if __name__ == "__main__":
    main()
