"""The same simulation in MATL, in Flower and in a plain loop: rounds per second, start-up and memory.

::

    make bench-simulate     # installs Flower in .venv-flower; writes benchmarks/results/simulation_speed.{json,md}

Systems take turns, so that what else the machine does falls on all of them. Every system trains the same clients on the
same batches by the same code (the plain loop by its own), evaluates the model on the test set after every round, and
has to end with the same parameters.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from common import markdown, write
from process_tree import measure
from simulation_case import CASES

HERE = Path(__file__).parent
QUIET = {
    "FLWR_TELEMETRY_ENABLED": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "OMP_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
}
WARM_UP = 3
"""Rounds after start-up that are not counted: caches fill, processes import what they need."""
TOLERANCE = 1e-3
"""Largest difference of a final parameter from the plain loop's; sums in another order differ by rounding alone."""


@dataclass(frozen=True)
class System:
    """A simulator: its name in the tables, and the command that runs it on a case."""

    name: str
    python: str
    script: str
    what: str
    workers: int

    def run(self, case: str, folder: Path) -> dict[str, Any]:
        """One run as a row."""
        command = [self.python, str(HERE / self.script), self.what, case, str(folder), "--workers", str(self.workers)]
        launched = time.time()
        measured = measure(command, env=QUIET, timeout=240)
        said = json.loads(measured.output.strip().rsplit("\n", 1)[-1])
        rounds = np.diff(said["ends"])[WARM_UP:].tolist()
        return {
            "case": case,
            "system": self.name,
            "workers": self.workers,
            "round_seconds": rounds,
            "first_round_after": said["ends"][0] - launched,
            "seconds": measured.seconds,
            "peak_mib": measured.peak_mib,
            "accuracy": said["accuracy"],
            "params": np.load(folder / "params.npy"),
        }


def systems(flower: str, workers: int) -> list[System]:
    """Who is compared; the plain loop comes first, as the others are checked against it."""
    return [
        System("plain loop", sys.executable, "simulation_run.py", "loop", 1),
        System("MATL, 1 worker", sys.executable, "simulation_run.py", "matl", 1),
        System(f"MATL, {workers} workers", sys.executable, "simulation_run.py", "matl", workers),
        System("Flower, run_simulation", flower, "flower/app.py", "message", workers),
        System("Flower, start_simulation", flower, "flower/app.py", "classic", workers),
    ]


def checked(row: dict[str, Any], expected: np.ndarray) -> dict[str, Any]:
    """The row with its distance from the expected model in place of the model itself."""
    distance = float(np.abs(row.pop("params") - expected).max())
    if not distance <= TOLERANCE:
        raise SystemExit(f"{row['case']}: {row['system']} trained another model, parameters differ by {distance:.2g}")
    return {**row, "distance": distance}


def table(rows: list[dict[str, Any]]) -> str:
    """A line per case and system; ratios are to the better of Flower's two ways, in time and in memory each."""
    lines = []
    for case in dict.fromkeys(row["case"] for row in rows):
        names = dict.fromkeys(row["system"] for row in rows if row["case"] == case)
        runs = {name: [row for row in rows if (row["case"], row["system"]) == (case, name)] for name in names}
        speed = {name: [1 / statistics.median(row["round_seconds"]) for row in own] for name, own in runs.items()}
        memory = {name: statistics.median(row["peak_mib"] for row in own) for name, own in runs.items()}
        fastest = max(statistics.median(speed[name]) for name in names if name.startswith("Flower"))
        leanest = min(memory[name] for name in names if name.startswith("Flower"))
        for name, own in runs.items():
            start = statistics.median(row["first_round_after"] for row in own)
            typical = statistics.median(speed[name])
            lines.append(
                [
                    CASES[case].name,
                    name,
                    f"{typical:.2f} ({min(speed[name]):.2f} to {max(speed[name]):.2f})",
                    f"{typical / fastest:.1f}",
                    f"{start:.1f} s",
                    f"{memory[name]:.0f} MiB",
                    f"{memory[name] / leanest:.2f}",
                    f"{own[0]['accuracy']:.1%}",
                ]
            )
    head = ["task", "system", "rounds/s", "x Flower", "first round after", "peak memory", "x Flower", "accuracy"]
    return markdown(head, lines)


def main() -> None:
    """Run all in turns, print the table, write it with the raw rows beside it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flower", default=".venv-flower/bin/python", help="python of the environment with Flower")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="processes, alike for MATL and Flower")
    parser.add_argument("--cases", nargs="+", default=list(CASES), choices=CASES)
    parser.add_argument("--repeats", type=int, default=2)
    parser.add_argument("--out", type=Path, default=HERE / "results" / "simulation_speed")
    given = parser.parse_args()
    started, rows = time.perf_counter(), []
    for case in given.cases:
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            CASES[case].write(folder)
            expected = None
            for _ in range(given.repeats):
                for system in systems(given.flower, given.workers):
                    row = system.run(case, folder)
                    expected = row["params"] if expected is None else expected
                    rows.append(checked(row, expected))
                    typical = statistics.median(row["round_seconds"])
                    print(f"{case}: {system.name}: {typical:.3f} s a round", file=sys.stderr, flush=True)
    packages = json.loads(measure([given.flower, "-c", VERSIONS], env=QUIET, timeout=60).output.strip().split("\n")[-1])
    remarks = (
        f"Median over {given.repeats} runs of the median round after {WARM_UP + 1}, and the range of the runs; "
        f"{given.workers} worker processes on {os.cpu_count()} cores. Every system trains the same clients on the same "
        "batches (5 steps of 32), averages, and measures the model on the test set after every round; the final "
        f"parameters agree within {max(row['distance'] for row in rows):.0e}. MATL also screens every update and keeps "
        "its records. *First round after* counts from launching the process. Memory is the proportional set size of "
        "all processes. *x Flower* compares with the better of Flower's two ways: run_simulation is today's, "
        f"start_simulation the deprecated one. {', '.join(f'{name} {version}' for name, version in packages.items())}."
    )
    print(write(given.out, table(rows), remarks, rows, time.perf_counter() - started))


VERSIONS = (
    "import json; from importlib.metadata import version; "
    "print(json.dumps({name: version(name) for name in ('flwr', 'ray')}))"
)


if __name__ == "__main__":
    main()
