"""How many rounds server optimisers need, and whether the default adaptive one also holds under attack and noise.

::

    python benchmarks/convergence.py      # digits, writes benchmarks/results/convergence.{json,md}; under 10 minutes
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from common import markdown, write

from matl.learning.server import SERVER_OPTIMIZERS, RoundSummary, ServerOptimizer
from matl.params import Float32, ParamLayout
from matl.simulation.build import build_simulation
from matl.simulation.config import load_config
from matl.simulation.randomness import stream
from matl.state import State

SEEDS = tuple(range(10, 20))
"""Never used to choose a constant."""

SETTINGS: dict[str, dict[str, Any]] = {
    "20 clients, alpha 0.1": {"clients": 20, "alpha": 0.1},
    "50 clients, 20 % take part": {"clients": 50, "alpha": 0.5, "participation": 0.2},
    "10 clients, alpha 0.5": {"clients": 10, "alpha": 0.5},
}
OPTIMIZERS = {
    "FedAvg": "sgd",
    "FedAvgM": "fedavgm",
    "FedAdam": "fedadam",
    "FedYogi": "fedyogi",
    "FedExP": "fedexp",
    "SCAFFOLD": "scaffold",
    "FedDyn": "feddyn",
    "auto": "auto",
}
TARGET = 0.9
CAP = 150

HARD: dict[str, dict[str, Any]] = {
    "20 % sign flip, Mode 1": {"attack": "sign_flip", "byzantine": 0.2, "mode": "mode1"},
    "noise on the aggregate": {"attack": "none", "mode": "plain"},
}
SHORT, LONG = 10, 30
"""Rounds after which accuracy is compared under attack and noise."""
NOISE = 0.3
"""Noise multiplier: standard deviation of the noise on a sum of updates, in typical update norms."""


@dataclass(frozen=True)
class Noisy(ServerOptimizer):
    """Adds Gaussian noise to aggregates, as central differential privacy over ``participants`` clients would."""

    inner: ServerOptimizer
    participants: int
    seed: int

    def init(self, layout: ParamLayout) -> State:
        """The noise is measured in the norms of the first round."""
        return {"round": 0, "norm": None, **self.inner.init(layout)}

    def step(self, params: Float32, aggregate: Float32, state: State, summary: RoundSummary) -> tuple[Float32, State]:
        """See `ServerOptimizer.step`."""
        inner = {key: value for key, value in state.items() if key not in ("round", "norm")}
        number, norm = state["round"], state["norm"] or float(np.sqrt(summary.mean_square_norm))
        noise = stream(self.seed, "noise", number).normal(scale=NOISE * norm / self.participants, size=aggregate.size)
        params, after = self.inner.step(params, aggregate + noise.astype(np.float32), inner, summary)
        return params, {"round": number + 1, "norm": norm, **after}


def rounds_to_target(setting: str, optimizer: str, seed: int) -> dict[str, Any]:
    """First round whose test accuracy reaches the target; one more than the cap if none does."""
    settings = {**SETTINGS[setting], "attack": "none", "mode": "plain", "rounds": CAP, "seed": seed}
    simulation = build_simulation(
        load_config(None, {**settings, "server_optimizer": OPTIMIZERS[optimizer]}, source="settings")
    )
    needed = CAP + 1
    for report, _ in simulation.run(simulation.init()):
        if report.record.accuracy >= TARGET:
            needed = report.record.round + 1
            break
    return {"case": setting, "optimizer": optimizer, "seed": seed, "rounds": needed}


def under(case: str, setting: str, optimizer: str, seed: int) -> dict[str, Any]:
    """Accuracy after few and many rounds under attack or noise, and who was caught and accused in the end."""
    settings = {**SETTINGS[setting], **HARD[case], "rounds": LONG, "seed": seed}
    chosen = SERVER_OPTIMIZERS.create(OPTIMIZERS[optimizer])
    if HARD[case]["mode"] == "plain":
        count = round(settings["clients"] * settings.get("participation", 1.0))
        chosen = Noisy(chosen, count, seed)
    simulation = build_simulation(load_config(None, settings, source="settings"), server_optimizer=chosen)
    played = list(simulation.run(simulation.init()))
    malicious = simulation.population.malicious_ids
    held = {client for client, status in played[-1][1]["statuses"].items() if status in ("quarantined", "rejected")}
    return {
        "case": f"{setting}; {case}",
        "optimizer": optimizer,
        "seed": seed,
        "curve": [round(report.record.accuracy, 4) for report, _ in played],
        "malicious": len(malicious),
        "caught": len(held & malicious),
        "accused": len(held - malicious),
    }


def interval(rounds: Sequence[int], baseline: Sequence[int]) -> tuple[float, float]:
    """Bootstrap 95 % interval of the ratio of medians, resampling seeds as pairs."""
    pairs = np.array([rounds, baseline])
    drawn = pairs[:, np.random.default_rng(0).integers(pairs.shape[1], size=(10_000, pairs.shape[1]))]
    ratios = np.median(drawn[0], axis=1) / np.median(drawn[1], axis=1)
    low, high = np.quantile(ratios, [0.025, 0.975])
    return float(low), float(high)


def rounds_table(rows: list[dict[str, Any]]) -> str:
    """A line per optimiser: median and quartiles of the rounds in each setting, and their ratio to FedAvg's."""
    lines = []
    for optimizer in OPTIMIZERS:
        line = [f"**{optimizer}**" if optimizer == "auto" else optimizer]
        for setting in SETTINGS:
            mine, baseline = (_rounds(rows, setting, name) for name in (optimizer, "FedAvg"))
            low, middle, high = np.quantile(mine, [0.25, 0.5, 0.75])
            line.append(f"{_count(middle)} ({_count(low)}-{_count(high)})")
            between = "{:.2f}-{:.2f}".format(*interval(mine, baseline))
            line.append("1" if optimizer == "FedAvg" else f"{middle / np.median(baseline):.2f} ({between})")
        lines.append(line)
    return markdown(["optimiser", *(head for setting in SETTINGS for head in (setting, "/ FedAvg"))], lines)


def hard_table(rows: list[dict[str, Any]]) -> str:
    """A line per case: accuracy of FedAvg and auto after few and many rounds, and who was caught and accused."""
    lines = []
    for case in dict.fromkeys(row["case"] for row in rows if "curve" in row):
        line = [case]
        for optimizer in ("FedAvg", "auto"):
            picked = [row for row in rows if row["case"] == case and row["optimizer"] == optimizer]
            for number in (SHORT, LONG):
                line.append(f"{statistics.fmean(row['curve'][number - 1] for row in picked):.1%}")
            totals = {key: sum(row[key] for row in picked) for key in ("caught", "malicious", "accused")}
            line.append(
                f"{totals['caught']}/{totals['malicious']}, {totals['accused']}" if totals["malicious"] else "-"
            )
        lines.append(line)
    figures = (f"after {SHORT}", f"after {LONG}", "caught, accused")
    return markdown(["case", *(f"{name} {figure}" for name in ("FedAvg", "auto") for figure in figures)], lines)


def _rounds(rows: Iterable[dict[str, Any]], setting: str, optimizer: str) -> list[int]:
    return [row["rounds"] for row in rows if row["case"] == setting and row["optimizer"] == optimizer]


def _count(rounds: float) -> str:
    return f"> {CAP}" if rounds > CAP else f"{rounds:g}"


def main() -> None:
    """Run all, print the tables, write them with the raw rows beside them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--hard-seeds", type=int, default=5, help="how many of the seeds run under attack and noise")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "convergence")
    given = parser.parse_args()
    rows, started = [], time.perf_counter()
    hard_seeds = given.seeds[: given.hard_seeds]
    for setting in SETTINGS:
        for optimizer in OPTIMIZERS:
            rows += [rounds_to_target(setting, optimizer, seed) for seed in given.seeds]
            print(f"{setting} {optimizer}: {_rounds(rows, setting, optimizer)}", file=sys.stderr, flush=True)
    for case in HARD:
        for setting in SETTINGS:
            for optimizer in ("FedAvg", "auto"):
                rows += [under(case, setting, optimizer, seed) for seed in hard_seeds]
            print(f"{setting}; {case}", file=sys.stderr, flush=True)
    table = (
        f"**Rounds to {TARGET:.0%} test accuracy** (median and quartiles), and the ratio of medians to FedAvg's with "
        f"its bootstrap 95 % interval, paired by seed\n\n{rounds_table(rows)}\n\n"
        f"**Under attack and noise**: mean accuracy after {SHORT} and {LONG} rounds; malicious clients caught, honest "
        f"clients accused\n\n{hard_table(rows)}"
    )
    remarks = (
        f"digits, no tuning; seeds {given.seeds[0]}-{given.seeds[-1]}, the first {len(hard_seeds)} under attack and "
        f"noise (multiplier {NOISE:g} on the sum of updates)."
    )
    print(write(given.out, table, remarks, rows, time.perf_counter() - started))


if __name__ == "__main__":
    main()
