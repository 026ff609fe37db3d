"""What diversity (TCDM) and entropy add to the proof of gradient quality, each alone and in the composite.

::

    python benchmarks/composite.py      # digits, writes benchmarks/results/composite.{json,md}; about 5 minutes

Mode 1 judges and tells the calibrated components; the raw ones are made of what it remembers.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from common import markdown, write
from numpy.typing import NDArray

from matl.campaigns.statistics import mean_interval
from matl.records import Cohort, Judgement, Mode
from matl.simulation.build import build_simulation
from matl.simulation.config import load_config
from matl.simulation.scoring import FALSE_POSITIVE_RATES, auroc, roc
from matl.state import State
from matl.trust.diversity import diversity
from matl.trust.entropy import entropy
from matl.trust.oracle import FOLDS
from matl.trust.standing import Standing

SEEDS = tuple(range(5))
"""Development seeds: the components were designed on the first three of them, with the first five attacks."""
ATTACKS: dict[str, Any] = {
    "sign flip": "sign_flip",
    "label flip": "label_flip",
    "noise of 1 norm": {"name": "gaussian_noise", "scale": 1.0},
    "ALIE": "alie",
    "sleeper": "sleeper",
    "IPM": "ipm",
    "min-max": "min_max",
    "targeted flip": "targeted_flip",
    "backdoor": "backdoor",
    "none": "none",
}
ALPHAS = (0.5, 0.1)
ROUNDS_RUN, FIRST = 20, 3  # client-rounds count from the fourth round on
CLIENTS, BYZANTINE = 50, 0.4

# How suspicious each component is; what is not calibrated is taken as it was meant: diverse and varied is good.
COMPONENTS = ("PoGQ", "raw TCDM", "TCDM", "raw entropy", "entropy", "composite")
CALIBRATED = ("PoGQ", "TCDM", "entropy")
TOLD = {"PoGQ": "pogq", "TCDM": "tcdm", "entropy": "entropy", "composite": "trust"}
ALARM = 0.05
_RATE = 0.01


class Observed:
    """Mode 1, and beside it every component of every client in every round: a list of arrays (n,) by name."""

    def __init__(self, mode: Mode) -> None:
        self.mode = mode
        self.rounds: list[dict[str, NDArray[np.float64]]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.mode, name)

    def judge(self, cohort: Cohort, state: State) -> tuple[Judgement, State]:
        """See `Mode`. Everybody takes part in every round, so row i is the same client throughout."""
        judgement, after = self.mode.judge(cohort, state)
        told = {name: np.array([verdict.evidence[name] for verdict in judgement.verdicts]) for name in TOLD.values()}
        memory, fold = after["standing"], cohort.spec.round % FOLDS
        book = Standing.of_state(memory["clients"])
        company = diversity(book.residuals[:, fold], memory["shadow_residuals"][:, fold], book.arrivals)
        present = ~np.isnan(book.compositions[0, :, 0])
        raw = {"raw TCDM": company.community, "raw entropy": entropy(book.compositions[:, present])}
        self.rounds.append({name: told[channel] for name, channel in TOLD.items()} | raw)
        return judgement, after


def run(case: str, alpha: float, seed: int) -> dict[str, Any]:
    """One federation: how well each component tells client-rounds under attack from honest ones."""
    settings = {"attack": ATTACKS[case], "alpha": alpha, "seed": seed, "clients": CLIENTS, "byzantine": BYZANTINE}
    config = load_config(None, {**settings, "dataset": "digits", "rounds": ROUNDS_RUN, "mode": "mode1"}, source=case)
    observed = Observed(build_simulation(config).workload.mode)
    simulation = build_simulation(config, mode=observed)
    for _ in simulation.run(simulation.init()):
        pass
    malicious = np.isin(simulation.population.ids, list(simulation.population.malicious_ids))
    row: dict[str, Any] = {"case": case, "alpha": alpha, "seed": seed}
    for name in COMPONENTS:
        honest, lies = [], []
        for number in range(FIRST, ROUNDS_RUN):
            values = 1.0 - observed.rounds[number][name]
            honest.append(values[~malicious])
            if simulation.attack is not None and simulation.attack.at(number) is not None:
                lies.append(values[malicious])
        row[f"{name}, alarms"] = float((np.concatenate(honest) > 1.0 - ALARM).mean())
        if lies:
            row[name] = auroc(np.concatenate(honest), np.concatenate(lies))
            caught = roc(np.concatenate(honest), np.concatenate(lies))
            row[f"{name}, caught"] = dict(zip(FALSE_POSITIVE_RATES, caught, strict=True))[_RATE]
    return row


def table(rows: Sequence[dict[str, Any]]) -> str:
    """A line per attack and skew: AUROC of every component, and what PoGQ and the composite catch at one rate."""
    lines = []
    for case in ATTACKS:
        for alpha in ALPHAS:
            picked = [row for row in rows if (row["case"], row["alpha"]) == (case, alpha) and "PoGQ" in row]
            if picked:
                shown = [_interval([row[name] for row in picked]) for name in COMPONENTS]
                shown += [f"{_mean(picked, f'{name}, caught'):.0%}" for name in ("PoGQ", "composite")]
                lines.append([f"{case}, alpha {alpha:g}", *shown])
    return markdown(["AUROC", *COMPONENTS, "caught by PoGQ", "by composite"], lines)


def alarms(rows: Sequence[dict[str, Any]]) -> str:
    """A line per skew: how many client-rounds each calibrated component calls atypical where nobody attacks."""
    lines = []
    for alpha in ALPHAS:
        picked = [row for row in rows if (row["case"], row["alpha"]) == ("none", alpha)]
        shown = [f"{_mean(picked, f'{name}, alarms'):.1%}" for name in CALIBRATED]
        lines.append([f"no attack, alpha {alpha:g}", *shown])
    return markdown([f"client-rounds under {ALARM:g}", *CALIBRATED], lines)


def _interval(values: Sequence[float]) -> str:
    interval = mean_interval(values)
    assert interval is not None
    return f"{interval.mean:.2f}" + (f" ± {interval.half_width:.2f}" if interval.half_width is not None else "")


def _mean(rows: Sequence[dict[str, Any]], key: str) -> float:
    return statistics.fmean(row[key] for row in rows)


def main() -> None:
    """Run all, print the tables, write them with the raw rows beside them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "composite")
    given = parser.parse_args()
    rows, started = [], time.perf_counter()
    for case in ATTACKS:
        for alpha in ALPHAS:
            rows += [run(case, alpha, seed) for seed in given.seeds]
            print(f"{case}, alpha {alpha:g}", file=sys.stderr, flush=True)
    seeds = ", ".join(map(str, given.seeds))
    remarks = (
        f"AUROC over client-rounds from round {FIRST} on (a malicious client counts while its attack acts), mean and "
        f"95 % interval over seeds {seeds}, which are development seeds; digits, {CLIENTS} clients, "
        f"{BYZANTINE:.0%} malicious, {ROUNDS_RUN} rounds under Mode 1. *Caught*: share of the malicious client-rounds "
        f"below a threshold that {_RATE:.0%} of the honest ones are below."
    )
    print(write(given.out, f"{table(rows)}\n\n{alarms(rows)}", remarks, rows, time.perf_counter() - started))


if __name__ == "__main__":
    main()
