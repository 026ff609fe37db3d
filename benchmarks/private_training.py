"""Training under differential privacy: what ours costs beside central noise at the same epsilon, and beside none.

::

    make bench-private-training          # writes benchmarks/results/private_training.{json,md}; a quarter of an hour
    python benchmarks/private_training.py --tune --jobs 2      # the search on development seeds that chose `CHOSEN`

Clipping norm and server momentum are chosen for central noise, on seeds that the table does not use, and both
mechanisms get them; runs without privacy get the momentum that is best for them.
"""

from __future__ import annotations

import argparse
import itertools
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

from common import markdown, write

import matl
from matl.campaigns.statistics import mean_interval

SEEDS, TUNING_SEEDS = (10, 11, 12, 13, 14), (0, 1)
EPSILONS = (2.0, 4.0, 8.0)
CASES: dict[str, dict[str, Any]] = {
    "digits, 100 clients": {"dataset": "digits", "clients": 100},
    "MNIST, 100 clients": {"dataset": {"name": "mnist", "pool": 2}, "clients": 100},
    "MNIST, 1000 clients": {"dataset": {"name": "mnist", "pool": 2}, "clients": 1000},
}
BUDGETS = {"MNIST, 1000 clients": 8.1}  # for so many clients a sketch of 13,000 numbers costs too much
BUDGET = 3.05  # bits per parameter
SETTINGS: dict[str, Any] = {
    "task": {"name": "mlp", "hidden": [64]},
    "local": {"steps": 10, "batch_size": 32, "learning_rate": 0.1},
    "rounds": 30,
    "mode": "plain",
    "attack": "none",
}
CLIPS, MOMENTA = (0.1, 0.2, 0.4, 0.8), (0.0, 0.5, 0.8, 0.9)
# Clipping norm and server momentum by case and epsilon, from `--tune`; without privacy there is no epsilon and no norm.
CHOSEN: dict[str, dict[float, tuple[float, float]]] = {
    "digits, 100 clients": {0.0: (0.0, 0.8), 2.0: (0.4, 0.0), 4.0: (0.2, 0.8), 8.0: (0.2, 0.9)},
    "MNIST, 100 clients": {0.0: (0.0, 0.8), 2.0: (0.2, 0.5), 4.0: (0.2, 0.5), 8.0: (0.2, 0.8)},
    "MNIST, 1000 clients": {0.0: (0.0, 0.8), 2.0: (0.4, 0.8), 4.0: (0.4, 0.9), 8.0: (0.8, 0.8)},
}
WAYS: dict[str, dict[str, Any]] = {
    "ours": {"mechanism": "distributed", "alignment": 0.6},
    "central, float32": {"mechanism": "central", "budget_bits": 32.0},
}
NONE = "no privacy"


def cell(case: str, way: str, epsilon: float, clip: float, momentum: float, seed: int) -> dict[str, Any]:
    """One run as a row."""
    privacy = None
    if way != NONE:
        budget = BUDGETS.get(case, BUDGET)
        privacy = {"epsilon": epsilon, "delta": 1e-5, "clip": clip, "budget_bits": budget, **WAYS[way]}
    server = {"name": "fedavgm", "momentum": momentum}
    result = matl.simulate(**CASES[case], **SETTINGS, server_optimizer=server, privacy=privacy, seed=seed).as_dict()
    told = result["privacy"]
    return {
        "case": case,
        "way": way,
        "epsilon": epsilon,
        "clip": clip,
        "momentum": momentum,
        "seed": seed,
        "accuracy": result["accuracy"],
        "certified": None if told is None else told["epsilon"],
        "predicted_mse_ratio": None if told is None else told["predicted_mse_ratio"],
        "payload_bytes": result["payload_bytes"],
        "seconds": result["seconds"],
    }


def map_cells(
    make: Callable[..., dict[str, Any]], wanted: Sequence[tuple[Any, ...]], jobs: int
) -> list[dict[str, Any]]:
    """All rows, in order, with progress."""
    rows, started = [], time.perf_counter()
    with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
        for done, (told, row) in enumerate(zip(wanted, pool.map(make, *zip(*wanted, strict=True)), strict=True), 1):
            rows.append(row)
            left = (time.perf_counter() - started) / done * (len(wanted) - done)
            print(
                f"{done}/{len(wanted)} {', '.join(map(str, told))}: {row['accuracy']:.1%}; {left / 60:.0f} min left",
                file=sys.stderr,
            )
    return rows


def tune(cases: Sequence[str], jobs: int) -> None:
    """Print the clipping norm and momentum that do best under central noise and without, for every case and epsilon."""
    wanted = [
        *itertools.product(cases, [NONE], [0.0], [0.0], MOMENTA, TUNING_SEEDS),
        *itertools.product(cases, ["central, float32"], EPSILONS, CLIPS, MOMENTA, TUNING_SEEDS),
    ]
    found: dict[tuple[str, float], dict[tuple[float, float], list[float]]] = {}
    for row in map_cells(cell, wanted, jobs):
        settings = found.setdefault((row["case"], row["epsilon"]), {})
        settings.setdefault((row["clip"], row["momentum"]), []).append(row["accuracy"])
    for (case, epsilon), settings in found.items():
        means = {each: statistics.fmean(accuracies) for each, accuracies in settings.items()}
        shown = ", ".join(f"{each}: {mean:.1%}" for each, mean in means.items())
        print(f"{case}, epsilon {epsilon:g}: {max(means, key=means.__getitem__)} ({shown})")


def shown(values: Sequence[float], *, signed: bool = False) -> str:
    """A mean in per cent or points with its confidence interval."""
    interval = mean_interval(values)
    assert interval is not None
    half = "" if interval.half_width is None else f" ± {100 * interval.half_width:.1f}"
    return f"{100 * interval.mean:+.1f}{half}" if signed else f"{100 * interval.mean:.1f}{half}"


def table(rows: list[dict[str, Any]]) -> str:
    """A line for every case and epsilon; differences are paired by seed."""
    lines = []
    for case in dict.fromkeys(row["case"] for row in rows):
        by_seed = {row["seed"]: row["accuracy"] for row in rows if (row["case"], row["way"]) == (case, NONE)}
        for epsilon in EPSILONS:
            found = {
                way: {
                    row["seed"]: row
                    for row in rows
                    if (row["case"], row["way"], row["epsilon"]) == (case, way, epsilon)
                }
                for way in WAYS
            }
            ours, central = ({seed: row["accuracy"] for seed, row in found[way].items()} for way in WAYS)
            some = next(iter(found["ours"].values()))
            lines.append(
                [
                    case,
                    f"{epsilon:g} ({some['certified']['replace_one']:.1f})",
                    shown(list(by_seed.values())),
                    shown(list(central.values())),
                    shown(list(ours.values())),
                    shown([ours[seed] - central[seed] for seed in ours], signed=True),
                    shown([ours[seed] - by_seed[seed] for seed in ours], signed=True),
                    f"{some['predicted_mse_ratio']:.2f}",
                    f"{some['payload_bytes'] / 1024:.1f} KiB",
                ]
            )
    head = ["case", "epsilon", "no privacy", "central", "ours", "ours less central", "ours less none", "MSE", "update"]
    return markdown(head, lines)


def main() -> None:
    """Run all, print the table, write it with the raw rows beside it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--tune", action="store_true", help="search the settings on development seeds instead")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "private_training")
    given, started = parser.parse_args(), time.perf_counter()
    if given.tune:
        tune(given.cases, given.jobs)
        return
    wanted = [
        *((case, NONE, 0.0, *CHOSEN[case][0.0], seed) for case in given.cases for seed in given.seeds),
        *(
            (case, way, epsilon, *CHOSEN[case][epsilon], seed)
            for case, way, epsilon, seed in itertools.product(given.cases, WAYS, EPSILONS, given.seeds)
        ),
    ]
    rows = map_cells(cell, wanted, given.jobs)
    remarks = (
        "Accuracy in %, differences in points, paired by seed, with 95 % confidence intervals. MLP with 64 hidden "
        "units, 10 local steps, 30 rounds, alpha 0.5, everyone takes part; epsilon zero-out (replace-one), delta 1e-5. "
        "*Central*: discrete Gaussian noise on the sum, float32 updates. *MSE*: predicted, over continuous Gaussian "
        "noise. "
        f"Clipping norm and server momentum were chosen on seeds {', '.join(map(str, TUNING_SEEDS))}."
    )
    print(write(given.out, table(rows), remarks, rows, time.perf_counter() - started))


if __name__ == "__main__":
    main()
