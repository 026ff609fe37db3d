"""Peak memory of a simulation against the number of clients, for a model of 100 thousand parameters.

::

    python benchmarks/memory.py               # writes benchmarks/results/memory.{json,md}

Every figure comes from a process of its own.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from common import markdown, write
from process_tree import measure
from simulation_case import CASES, SEED, Case

import matl
from matl.learning.partition import FederatedData
from matl.simulation.result import peak_memory_mib

MODES = {"plain": "FedAvg", "mode0": "Mode 0", "mode1": "Mode 1"}
ROUNDS = 3


def case(clients: int) -> Case:
    """An MLP 784-128-10 (101,770 parameters) and clients that hold little, so that updates are what fills memory."""
    return replace(CASES["mlp"], clients=clients, samples=20, test_samples=600, rounds=ROUNDS)


def simulate(mode: str, clients: int, folder: Path) -> None:
    """One simulation in this process."""
    federation = case(clients)
    held = federation.test(folder)
    root = np.concatenate([np.flatnonzero(held.y == label)[:10] for label in range(held.num_classes)])
    result = matl.simulate(
        dataset=FederatedData(
            root=held.take(root),
            test=held.take(np.setdiff1d(np.arange(len(held)), root)),
            clients=tuple(federation.client(folder, index) for index in range(clients)),
        ),
        task=federation.task,
        mode=mode,
        attack="none",
        local={"steps": 5},
        rounds=ROUNDS,
        seed=SEED,
    )
    figures = {"peak_mib": peak_memory_mib(), "accuracy": result.accuracy, "seconds_per_round": result.seconds / ROUNDS}
    print(json.dumps(figures))


def main() -> None:
    """Measure all, print the table, write it with the raw rows beside it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--clients", type=int, nargs="+", default=[100, 300, 1000])
    parser.add_argument("--one", nargs=3, metavar=("MODE", "CLIENTS", "FOLDER"), help="run one in this process")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "memory")
    given = parser.parse_args()
    if given.one:
        simulate(given.one[0], int(given.one[1]), Path(given.one[2]))
        return
    started, rows = time.perf_counter(), []
    for clients in given.clients:
        with tempfile.TemporaryDirectory() as folder:
            case(clients).write(Path(folder))
            for mode in MODES:
                rows.append(row(mode, clients, folder))
                print(f"{clients} clients, {MODES[mode]}: {rows[-1]['peak_mib']:.0f} MiB", file=sys.stderr, flush=True)
    lines = []
    for clients in given.clients:
        own = {item["mode"]: item for item in rows if item["clients"] == clients}
        updates = clients * case(clients).task.layout.size * 4 / 2**20
        lines.append([str(clients), f"{updates:.0f} MiB", *(f"{own[mode]['peak_mib']:.0f} MiB" for mode in MODES)])
    remarks = (
        f"Resident memory at its largest, one process, {ROUNDS} rounds, MLP 784-128-10 (101,770 parameters), "
        "20 samples a client. *Updates* is what one update per client takes by itself."
    )
    head = ["clients", "updates", *MODES.values()]
    print(write(given.out, markdown(head, lines), remarks, rows, time.perf_counter() - started))


def row(mode: str, clients: int, folder: str) -> dict[str, Any]:
    """One simulation in a process of its own."""
    command = [sys.executable, __file__, "--one", mode, str(clients), folder]
    measured = measure(command, env={"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}, timeout=600)
    return {"mode": mode, "clients": clients, **json.loads(measured.output.strip().rsplit("\n", 1)[-1])}


if __name__ == "__main__":
    main()
