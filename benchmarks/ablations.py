"""What each part of Mode 1 is worth: channels off, fewer shadows, and roots of every kind, on seeds never tuned on.

::

    python benchmarks/ablations.py --jobs 2      # writes benchmarks/results/ablations.{json,md}; an hour or two
                                                 # stopped, the same command goes on
    python benchmarks/ablations.py --seeds 0 --alphas 0.5 --attacks none backdoor --variants full "no spectral"
"""

from __future__ import annotations

import argparse
import dataclasses
import functools
import multiprocessing
import statistics
import sys
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
from common import commit, markdown, run, write

from matl.campaigns.matrix.journal import Journal
from matl.files import make_directory
from matl.learning.datasets import Dataset
from matl.learning.partition import FederatedData
from matl.simulation import RunConfig, build_simulation, execute, honest_only
from matl.simulation.federation import federate

SEEDS = (10, 11, 12)
CLIENTS, ROUNDS, ROOT, BYZANTINE = 50, 30, 100, 0.45
SETTINGS: dict[str, Any] = {
    "rounds": ROUNDS,
    "task": {"name": "mlp", "hidden": [64]},
    "local": {"steps": 10, "batch_size": 32, "learning_rate": 0.1},
}
ATTACKS: dict[str, Any] = {
    "none": "none",
    "sign flip": "sign_flip",
    "label flip": "label_flip",
    "targeted flip": "targeted_flip",
    "backdoor": "backdoor",
    "backdoor in a tenth": {"name": "backdoor", "share": 0.1},
    "noise of 1 norm": {"name": "gaussian_noise", "scale": 1.0},
    "collusion": "collusion",
    "sleeper": "sleeper",
}
OFF = 1e9  # a bar that no evidence reaches
Wanted = tuple[str, str, float, int]  # variant, attack, alpha, seed
Root = Callable[[Dataset, np.random.Generator], Dataset]


def biased(root: Dataset, rng: np.random.Generator) -> Dataset:
    """Four samples of every class of the first half to one of the others; as many in all."""
    del rng
    half, each = root.num_classes // 2, len(root) // (2 * root.num_classes)
    often, seldom = 8 * each // 5, 2 * each // 5
    kept = [np.flatnonzero(root.y == k)[: often if k < half else seldom] for k in range(root.num_classes)]
    return root.take(np.concatenate(kept))


def mislabelled(root: Dataset, rng: np.random.Generator) -> Dataset:
    """One label in ten is another than it should be."""
    y = root.y.copy()
    wrong = rng.choice(len(y), size=len(y) // 10, replace=False)
    y[wrong] = (y[wrong] + rng.integers(1, root.num_classes, size=len(wrong))) % root.num_classes
    return dataclasses.replace(root, y=y)


def shifted(root: Dataset, rng: np.random.Generator) -> Dataset:
    """Seven tenths of the contrast, and noise of a tenth of the range."""
    noise = rng.normal(scale=0.1, size=root.X.shape)
    return dataclasses.replace(root, X=np.clip(0.7 * root.X + noise, 0, 1).astype(np.float32))


@dataclasses.dataclass(frozen=True)
class Variant:
    """Mode 1 with options, or another rule, on a root, with so many of the clients a round."""

    options: dict[str, Any] = dataclasses.field(default_factory=dict)
    root_size: int = ROOT
    root: Root | None = None
    participation: float = 1.0
    aggregator: str | None = None

    @property
    def judge(self) -> dict[str, Any]:
        """Keys of the configuration that name it."""
        return {"aggregator": self.aggregator} if self.aggregator else {"mode": {"name": "mode1", **self.options}}


VARIANTS: dict[str, Variant] = {
    "full": Variant(),
    "no relabelling": Variant({"bars": {"relabelling": OFF}}),
    "no pair": Variant({"bars": {"pair": OFF}}),
    "no alien, no campaign": Variant({"bars": {"alien": OFF}}),
    "no norm": Variant({"bars": {"norm": OFF}}),
    "no turn": Variant({"turn_bar": OFF}),
    "no collusion": Variant({"collusion_bar": 1 - 1e-9}),
    "no campaign": Variant({"campaign_bar": OFF}),
    "no spectral": Variant({"spectral_bar": OFF}),
    "40 shadows": Variant({"shadows": 40}),
    "no shadows: raw PoGQ": Variant(aggregator="raw_pogq"),
    "root of 50": Variant(root_size=50),
    "root of 200": Variant(root_size=200),
    "root of 500": Variant(root_size=500),
    "root biased 4 : 1": Variant(root_size=2 * ROOT, root=biased),
    "root 10 % mislabelled": Variant(root=mislabelled),
    "root shifted": Variant(root=shifted),
    "one in five drops out": Variant(participation=0.8),
    "participation 20 %": Variant(participation=0.2),
}


@functools.lru_cache(2)
def dealt(alpha: float, seed: int, root_size: int) -> FederatedData:
    """The federation of a seed."""
    dataset = {"name": "mnist", "pool": 2}
    return federate(dataset, clients=CLIENTS, alpha=alpha, root_size=root_size, seed=seed)


@functools.lru_cache
def ceiling(alpha: float, seed: int, root_size: int, participation: float, byzantine: float) -> float:
    """Accuracy of a seed's honest clients alone, to which judge, root and attack are all one."""
    given = {"seed": seed, "clients": CLIENTS, "participation": participation, "byzantine": byzantine}
    config = RunConfig(**SETTINGS, **given, aggregator="mean")
    alone = honest_only(build_simulation(config, data=dealt(alpha, seed, root_size)))
    return execute(alone, config, name="ceiling").accuracy


def cell(name: str, attack: str, alpha: float, seed: int) -> dict[str, Any]:
    """One run as a row."""
    variant = VARIANTS[name]
    data = dealt(alpha, seed, variant.root_size)
    if variant.root is not None:
        data = dataclasses.replace(data, root=variant.root(data.root, np.random.default_rng(seed)))
    against = {"attack": ATTACKS[attack], "byzantine": BYZANTINE if attack != "none" else 0.0}
    settings = {**SETTINGS, **against, **variant.judge, "participation": variant.participation, "dataset": data}
    row = run(attack, name, seed, ceiling=False, **settings)
    row["ceiling"] = ceiling(alpha, seed, variant.root_size, variant.participation, against["byzantine"])
    return {"cell": title(name, attack, alpha, seed), "alpha": alpha, "commit": commit(), **row}


def title(name: str, attack: str, alpha: float, seed: int) -> str:
    """What a run is called."""
    return f"alpha {alpha:g} seed {seed} {name}, {attack}"


def shown(rows: list[dict[str, Any]]) -> str:
    """What a variant makes of an attack: gap to the ceiling in points, who was caught, and who was accused."""
    gap = statistics.fmean(100 * (row["accuracy"] - row["ceiling"]) for row in rows)
    if rows[0]["accused"] is None:
        return f"{gap:+.1f}"
    caught, malicious, accused, honest = (
        sum(row[key] for row in rows) for key in ("caught", "malicious", "accused", "honest")
    )
    found = f"{100 * caught / malicious:.0f} %, " if malicious else ""
    success = [row["attack_success_rate"] for row in rows if row["attack_success_rate"] is not None]
    hit = f"; success {100 * statistics.fmean(success):.0f} %" if success else ""
    return f"{gap:+.1f} ({found}{100 * accused / honest:.1f} %{hit})"


def tables(rows: list[dict[str, Any]], attacks: Iterable[str]) -> str:
    """A table for every alpha, with a line for every variant."""
    parts = []
    for alpha in dict.fromkeys(row["alpha"] for row in rows):
        lines = []
        for name in dict.fromkeys(row["rule"] for row in rows):
            mine = [row for row in rows if row["alpha"] == alpha and row["rule"] == name]
            lines.append([name, *(shown([row for row in mine if row["case"] == attack]) for attack in attacks)])
        parts.append(f"**alpha {alpha:g}**\n\n{markdown(['variant', *attacks], lines)}")
    return "\n\n".join(parts)


def rows_of(wanted: list[Wanted], folder: Path, jobs: int) -> dict[str, dict[str, Any]]:
    """Run what the folder's journal does not hold yet, and return all that it holds then."""
    with Journal(make_directory(folder)) as journal:
        here, theirs = commit(), sorted({row["commit"] for row in journal.rows})
        if theirs and (theirs != [here] or "changes" in here):
            raise SystemExit(f"{folder} holds rows of {', '.join(theirs)}, this is {here}: give another --folder")
        held = {row["cell"] for row in journal.rows}
        left = [one for one in wanted if title(*one) not in held]
        started = time.perf_counter()
        with ProcessPoolExecutor(jobs, multiprocessing.get_context("spawn")) as pool:
            for done, row in enumerate(pool.map(cell, *zip(*left, strict=True)) if left else (), 1):
                journal.append(row)
                minutes = (time.perf_counter() - started) / done * (len(left) - done) / 60
                print(f"{done}/{len(left)} {row['cell']}: {shown([row])}; {minutes:.0f} min left", file=sys.stderr)
        return {row["cell"]: row for row in journal.rows}


def main() -> None:
    """Run all, print the tables, write them with the raw rows beside them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--alphas", type=float, nargs="+", default=(0.5, 0.1))
    parser.add_argument("--attacks", nargs="+", choices=ATTACKS, default=list(ATTACKS))
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--folder", type=Path, default=Path("runs") / "ablations", help="where rows are kept")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "ablations")
    given = parser.parse_args()
    wanted: list[Wanted] = [
        (name, attack, alpha, seed)
        for seed in given.seeds
        for alpha in given.alphas
        for name in given.variants
        for attack in given.attacks
    ]
    found = rows_of(wanted, given.folder, given.jobs)
    rows = [found[title(*one)] for one in wanted]
    remarks = (
        f"MNIST pooled to 14 x 14, {CLIENTS} clients, {BYZANTINE:.0%} malicious, a root of {ROOT} unless it says "
        f"otherwise, {ROUNDS} rounds, seeds {', '.join(map(str, given.seeds))}: gap to the ceiling in points "
        "(malicious clients caught, honest clients accused)."
    )
    print(write(given.out, tables(rows, given.attacks), remarks, rows, sum(row["seconds"] for row in rows)))


if __name__ == "__main__":
    main()
