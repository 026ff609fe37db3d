"""Both modes against every attack of the suite, on seeds that were never used for tuning.

::

    python benchmarks/attacks.py                # writes benchmarks/results/attacks.{json,md}
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path
from typing import Any

from common import SEEDS, cells, headings, markdown, run, write
from sklearn.datasets import load_breast_cancer, load_iris

# What, the configuration keys that say it, and at which share of malicious clients.
CASES: dict[str, dict[str, Any]] = {
    "label flip, 40 %": {"attack": "label_flip"},
    "noise of 30 norms, 40 %": {"attack": "gaussian_noise"},
    "noise of 1 norm, 40 %": {"attack": {"name": "gaussian_noise", "scale": 1.0}},
    "scaling x10, 40 %": {"attack": "scaling"},
    "ALIE, 40 %": {"attack": "alie"},
    "sleeper from round 10, 40 %": {"attack": "sleeper"},
    "sleeper from round 20, 40 %": {"attack": {"name": "sleeper", "wake_round": 20}},
    "sign flip, 20 %": {"byzantine": 0.2},
    "sign flip, 33 %": {"byzantine": 0.33},
    "sign flip, 45 %": {"byzantine": 0.45},
    "sign flip, 40 %, IID": {"partition": "iid"},
    "sign flip, 40 %, alpha 0.1": {"alpha": 0.1},
    "no attack, IID": {"attack": "none", "partition": "iid"},
    "no attack, alpha 0.1": {"attack": "none", "alpha": 0.1},
    "sign flip, 40 %, half of the clients a round": {"participation": 0.5},
    "no attack, half of the clients a round": {"attack": "none", "participation": 0.5},
    "sign flip, 40 %, synthetic data": {"dataset": "synthetic"},
    "no attack, synthetic data": {"attack": "none", "dataset": "synthetic"},
    "sign flip, 4 of 15, breast cancer (2 classes)": {"dataset": "breast cancer"},
    "no attack, breast cancer (2 classes)": {"dataset": "breast cancer", "attack": "none"},
    "sign flip, 4 of 15, iris (3 classes)": {"dataset": "iris"},
    "no attack, iris (3 classes)": {"dataset": "iris", "attack": "none"},
}
# Few classes and few samples: what a stranger's first try may look like.
SMALL = {"breast cancer": (load_breast_cancer, 40), "iris": (load_iris, 30)}
MODES = {"FedAvg": "plain", "Mode 0": "mode0", "Mode 1": "mode1"}


def prepared(settings: dict[str, Any]) -> dict[str, Any]:
    """The settings with a small data set loaded, standardised and dealt to 15 clients."""
    if settings.get("dataset") not in SMALL:
        return settings
    load, root = SMALL[settings["dataset"]]
    bunch = load()
    X = (bunch.data - bunch.data.mean(axis=0)) / bunch.data.std(axis=0)
    return {**settings, "dataset": (X, bunch.target), "clients": 15, "byzantine": 0.3, "root_size": root}


def table(rows: list[dict[str, Any]]) -> str:
    """A line per case: means and sums over the seeds."""
    lines = []
    for case in CASES:
        picked = [row for row in rows if row["case"] == case]
        ceiling = statistics.fmean(row["ceiling"] for row in picked if row["ceiling"] is not None)
        shown = [text for mode in MODES for text in cells([row for row in picked if row["rule"] == mode])]
        lines.append([case, f"{ceiling:.1%}", *shown])
    return markdown(["case", "ceiling", *headings(MODES, rows)], lines)


def main() -> None:
    """Run all, print the table, write it with the raw rows beside it."""
    started, rows = time.perf_counter(), []
    for case, settings in CASES.items():
        for mode, name in MODES.items():
            rows += [run(case, mode, seed, ceiling=mode == "FedAvg", mode=name, **prepared(settings)) for seed in SEEDS]
            print(f"{case} {mode}: {' '.join(cells(rows[-len(SEEDS) :]))}", file=sys.stderr, flush=True)
    remarks = (
        f"Mean accuracy, and clients summed, over seeds {', '.join(map(str, SEEDS))}; digits, 50 clients, alpha 0.5, "
        "30 rounds unless said otherwise. *Max* is the largest number accused on one seed."
    )
    out = Path(__file__).parent / "results" / "attacks"
    print(write(out, table(rows), remarks, rows, time.perf_counter() - started))


if __name__ == "__main__":
    main()
