"""What judging costs beside plain averaging: round time, rounds to an accuracy, judging itself, and memory.

::

    make bench-trust     # writes benchmarks/results/trust.{json,md}; needs MNIST and a quarter of an hour

Every client trains one epoch on 600 images of MNIST in batches of 32, an MLP of 101,770 parameters; nobody attacks.
MNIST is dealt to a hundred clients; of more, each holds a window of 600 images over what the hundred hold, side by
side. Every run has a process of its own, and the rules take turns, so that what else the machine does falls on all.
"""

from __future__ import annotations

import argparse
import itertools
import json
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from common import markdown, write
from process_tree import measure

import matl
from matl.aggregators import NNM
from matl.learning.datasets import Dataset
from matl.learning.local import LocalTraining
from matl.learning.oracle import RootOracle
from matl.learning.partition import FederatedData
from matl.learning.tasks import MLPTask
from matl.modes import Mode0, Mode1, Plain
from matl.simulation.federation import federate
from matl.simulation.result import peak_memory_mib

RULES = {"fedavg": "FedAvg", "mode0": "Mode 0", "mode1": "Mode 1"}
ROUNDS = {10: 20, 100: 20, 1000: 6}
"""Rounds by number of clients: as many as the accuracy takes, and for a thousand clients as few as the times take."""
SEED = 10
SAMPLES = 600
ENOUGH = 0.95  # of plain averaging's final accuracy
QUIET = {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


class Timed:
    """Any part, whose calls of one method are timed."""

    def __init__(self, part: Any, method: str) -> None:
        self._part, self.seconds = part, []
        setattr(self, method, self._timed(getattr(part, method)))

    def __getattr__(self, name: str) -> Any:
        return getattr(self._part, name)

    def _timed(self, call: Any) -> Any:
        def timed(*given: Any) -> Any:
            started = time.perf_counter()
            result = call(*given)
            self.seconds.append(time.perf_counter() - started)
            return result

        return timed


def write_samples(folder: Path) -> None:
    """Deal MNIST out and write it where every process can map it: reading it would take more memory than the runs."""
    dealt = federate("mnist", clients=100, alpha=0.5, root_size=100, seed=SEED)
    for name, parts in {"clients": dealt.clients, "root": [dealt.root], "test": [dealt.test]}.items():
        np.save(folder / f"{name}-X.npy", np.concatenate([part.X for part in parts]))
        np.save(folder / f"{name}-y.npy", np.concatenate([part.y for part in parts]))


def federation(clients: int, folder: Path) -> tuple[FederatedData, float]:
    """Clients with 600 images each, as views of one array, and how many MiB all samples take."""

    def mapped(name: str, *rows: slice) -> list[Dataset]:
        X, y = (np.asarray(np.load(folder / f"{name}-{kind}.npy", mmap_mode="r")) for kind in "Xy")
        return [Dataset("mnist", X[chosen], y[chosen], 10) for chosen in rows]

    whole = len(np.load(folder / "clients-y.npy", mmap_mode="r"))
    starts = np.linspace(0, whole - SAMPLES, max(clients, 100)).astype(int)[:clients]
    parts = mapped("clients", *(slice(start, start + SAMPLES) for start in starts))
    (root,), (test,) = mapped("root", slice(None)), mapped("test", slice(None))
    touched = starts[-1] + SAMPLES + len(root) + len(test)
    return FederatedData(root, test, tuple(parts)), 4 * test.X.shape[1] * touched / 2**20


def simulate(rule: str, clients: int, rounds: int, folder: Path) -> None:
    """One simulation in this process, told as a line of JSON."""
    data, samples = federation(clients, folder)
    task, recipe = MLPTask(784, 10, hidden=(128,)), LocalTraining(steps=None, epochs=1)
    aggregator = Timed(NNM(), "aggregate")
    judge = Timed(
        {
            "fedavg": lambda: Plain(),
            "mode0": lambda: Mode0(aggregator),
            "mode1": lambda: Mode1(RootOracle(task, data.root, recipe)),
        }[rule](),
        "judge",
    )
    result = matl.simulate(
        dataset=data, task=task, mode=judge, attack=None, local={"epochs": 1}, rounds=rounds, seed=SEED
    )
    print(
        json.dumps(
            {
                "round_seconds": [row["seconds"] for row in result.history],
                "judge_seconds": judge.seconds,
                "rule_seconds": aggregator.seconds,
                "accuracies": [row["accuracy"] for row in result.history],
                "accused": len(result.quarantined) if result.gives_verdicts else None,
                "peak_mib": peak_memory_mib(),
                "samples_mib": samples,
            }
        )
    )


def run(rule: str, clients: int, rounds: int, folder: str) -> dict[str, Any]:
    """One simulation in a process of its own, as a row."""
    command = [sys.executable, __file__, "--one", rule, str(clients), str(rounds), folder]
    measured = measure(command, env=QUIET, timeout=3600)
    return {"rule": rule, "clients": clients, **json.loads(measured.output.strip().rsplit("\n", 1)[-1])}


def crossing(accuracies: list[float], target: float) -> float | None:
    """Rounds to an accuracy, with the fraction of the last one that a straight line would need."""
    before = 0.0
    for count, accuracy in enumerate(accuracies):
        if accuracy >= target:
            return count + (target - before) / (accuracy - before)
        before = accuracy
    return None


def line(clients: int, rule: str, rows: list[dict[str, Any]]) -> list[str]:
    """A line of the table: the median of every figure over the runs, and its ratio to plain averaging's."""
    plain, own = (
        [row for row in rows if (row["clients"], row["rule"]) == (clients, name)] for name in ("fedavg", rule)
    )
    target = ENOUGH * statistics.median(row["accuracies"][-1] for row in plain)

    def seconds(runs: list[dict[str, Any]], key: str) -> float:
        return statistics.median(value for row in runs for value in row[key][1:])  # the first round also warms up

    def held(runs: list[dict[str, Any]]) -> float:
        return statistics.median(row["peak_mib"] - row["samples_mib"] for row in runs)

    judging = seconds(own, "judge_seconds") - (seconds(own, "rule_seconds") if own[0]["rule_seconds"] else 0.0)
    needed = [crossing(runs[0]["accuracies"], target) for runs in (plain, own)]
    ratio = "never" if needed[1] is None else f"{needed[1]:.2f} ({needed[1] / needed[0]:.2f})"
    accused = "-" if own[0]["accused"] is None else f"{own[0]['accused']}"
    peak, other = (statistics.median(row["peak_mib"] for row in runs) for runs in (own, plain))
    a_round = seconds(own, "round_seconds")
    return [
        str(clients),
        RULES[rule],
        f"{a_round:.2f} s ({a_round / seconds(plain, 'round_seconds'):.2f})",
        ratio,
        f"{1000 * judging:.0f} ms",
        f"{peak:.0f} MiB ({peak / other:.2f})",
        f"{held(own):.0f} MiB ({held(own) / held(plain):.2f})",
        f"{own[0]['accuracies'][-1]:.1%}",
        accused,
    ]


def main() -> None:
    """Measure all, print the table, write it with the raw rows beside it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, nargs="+", default=list(ROUNDS))
    parser.add_argument("--rounds", type=int, help="instead of those that suit the number of clients")
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--deal", type=Path, metavar="FOLDER", help="write the samples and end")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "trust")
    parser.add_argument(
        "--one", nargs=4, metavar=("RULE", "CLIENTS", "ROUNDS", "FOLDER"), help="run one in this process"
    )
    given = parser.parse_args()
    if given.deal:
        write_samples(given.deal)
        return
    if given.one:
        simulate(given.one[0], int(given.one[1]), int(given.one[2]), Path(given.one[3]))
        return
    started, rows = time.perf_counter(), []
    with tempfile.TemporaryDirectory() as folder:
        # Not here: a process passes the memory that it once held on to those that it starts, as their peak.
        measure([sys.executable, __file__, "--deal", folder], env=QUIET, timeout=600)
        for clients, _, rule in itertools.product(given.clients, range(given.repeats), RULES):
            rows.append(run(rule, clients, given.rounds or ROUNDS.get(clients, 10), folder))
            typical = statistics.median(rows[-1]["round_seconds"])
            print(f"{clients} clients, {RULES[rule]}: {typical:.2f} s a round", file=sys.stderr, flush=True)
    lines = [line(clients, rule, rows) for clients in given.clients for rule in RULES]
    remarks = (
        f"One process on one thread; medians of {given.repeats} runs, in brackets the ratio to FedAvg. *Rounds*: to "
        f"{ENOUGH:.0%} of FedAvg's final accuracy, with fractions by a straight line. *Judging*: the judge alone, "
        "less its aggregation rule where it has one. *Beyond samples*: peak memory less the "
        "samples. *Accused*: honest clients quarantined at the end."
    )
    head = ["clients", "rule", "round", "rounds", "judging", "peak memory", "beyond samples", "accuracy", "accused"]
    print(write(given.out, markdown(head, lines), remarks, rows, time.perf_counter() - started))


if __name__ == "__main__":
    main()
