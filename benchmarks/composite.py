"""What diversity (TCDM) and entropy add to the proof of gradient quality, each alone and in the composite.

::

    python benchmarks/composite.py      # digits, writes benchmarks/results/composite.{json,md}; about 5 minutes

Mode 1 judges; what the components need is measured beside it, on the same rounds, and decides nothing.
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
from matl.matrix import UpdateMatrix
from matl.modes import Mode1
from matl.params import Float32, ParamLayout
from matl.records import Cohort, Judgement
from matl.simulation.build import build_simulation
from matl.simulation.config import load_config
from matl.simulation.scoring import FALSE_POSITIVE_RATES, auroc, roc
from matl.state import State
from matl.trust.attribution import attribute
from matl.trust.calibration import Shadows
from matl.trust.composite import Composite
from matl.trust.consistency import MEMORY
from matl.trust.diversity import diversity
from matl.trust.entropy import ROUNDS, behaviour, composition
from matl.trust.oracle import Atoms, Oracle
from matl.trust.sequential import WINDOW
from matl.trust.sketch import Sketch

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
ALARM = 0.05
_RATE = 0.01


class Remembering:
    """An oracle that answers the same question of a round once."""

    def __init__(self, oracle: Oracle) -> None:
        self.oracle, self.answers = oracle, dict[str, tuple[Any, Any]]()
        self.digest, self.num_classes = oracle.digest, oracle.num_classes

    def atoms(self, params: Float32, fold: int) -> Atoms:
        """See `Oracle`."""
        return self._answer("atoms", params, fold)

    def honest(self, params: Float32, shadows: Shadows, seed: int, fold: int) -> Float32:
        """See `Oracle`; the shadows are always the same."""
        return self._answer("honest", params, shadows, seed, fold)

    def _answer(self, name: str, params: Float32, *question: Any) -> Any:
        key = params.tobytes(), question[-1]
        if self.answers.get(name, (None,))[0] != key:
            self.answers[name] = key, getattr(self.oracle, name)(params, *question)
        return self.answers[name][1]


class Observed:
    """Mode 1, and beside it every component of every client in every round: a list of arrays (n,) by name."""

    def __init__(self, oracle: Oracle) -> None:
        self.mode = Mode1(Remembering(oracle))
        self.rounds: list[dict[str, NDArray[np.float64]]] = []
        self._histories: list[Float32 | float] = [0.0, 0.0]  # clients, then shadows, by fold
        self._compositions: list[NDArray[np.float64]] = []
        self._arrivals: list[NDArray[np.float64]] = []

    def __getattr__(self, name: str) -> Any:
        return getattr(self.mode, name)

    def init(self, layout: ParamLayout) -> State:
        """See `Mode`."""
        return self.mode.init(layout)

    def judge(self, cohort: Cohort, state: State) -> tuple[Judgement, State]:
        """See `Mode`. Everybody takes part in every round, so row i is the same client throughout."""
        judgement, after = self.mode.judge(cohort, state)
        n, fold = len(cohort.ids), cohort.spec.round % 2
        shares, residuals = self._measured(cohort, fold, after["sketch_seed"])
        self._histories[fold] = history = MEMORY * self._histories[fold] + (1.0 - MEMORY) * residuals
        self._compositions.append(shares)
        self._arrivals.append(cohort.received_at)
        window = np.stack(self._compositions[-ROUNDS:], axis=1)
        found = diversity(history[:n], history[n:], np.stack(self._arrivals[-WINDOW:], axis=1))
        behaved = behaviour(window[:n], window[n:])
        pogq = np.array([verdict.evidence["pogq"] for verdict in judgement.verdicts])
        parts = {"pogq": pogq, "tcdm": found.typical, "entropy": behaved.typical}
        self.rounds.append(
            {
                "PoGQ": pogq,
                "raw TCDM": found.community,
                "TCDM": found.typical,
                "raw entropy": behaved.entropy,
                "entropy": behaved.typical,
                "composite": Composite().score(parts, self.mode.shadows).score,
            }
        )
        return judgement, after

    def _measured(self, cohort: Cohort, fold: int, seed: int) -> tuple[NDArray[np.float64], Float32]:
        """Compositions (n + M, K + 2) and sketched residuals (n + M, k), clients before shadows."""
        oracle, size = self.mode.oracle, cohort.params.size
        atoms = oracle.atoms(cohort.params, fold)
        shadows = Shadows.draw(oracle.num_classes, self.mode.shadows, self.mode.seed)
        X = UpdateMatrix([cohort.X.dense(), oracle.honest(cohort.params, shadows, cohort.seed, 1 - fold)])
        attribution, sketch = attribute(X, atoms), Sketch(size, seed)
        clean = sketch(UpdateMatrix(atoms.honest)) / np.linalg.norm(atoms.honest, axis=1, keepdims=True)
        directions = sketch(X) / np.maximum(attribution.norms, 1e-30)[:, None]
        return composition(attribution), (directions - attribution.honest @ clean).astype(np.float32)


def run(case: str, alpha: float, seed: int) -> dict[str, Any]:
    """One federation: how well each component tells client-rounds under attack from honest ones."""
    settings = {"attack": ATTACKS[case], "alpha": alpha, "seed": seed, "clients": CLIENTS, "byzantine": BYZANTINE}
    config = load_config(None, {**settings, "dataset": "digits", "rounds": ROUNDS_RUN, "mode": "mode1"}, source=case)
    observed = Observed(build_simulation(config).workload.mode.oracle)
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
