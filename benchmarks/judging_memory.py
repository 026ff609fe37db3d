"""Anonymous memory that judging a round takes, as a coordinator does it: payloads one by one, the rest in files.

::

    make bench-judging-memory                             # writes benchmarks/results/judging_memory.{json,md}
    python benchmarks/judging_memory.py --cases 40x8      # clients x megabytes of a model
    TMPDIR=/mnt python benchmarks/judging_memory.py       # where there are 20 GB for files, which are deleted

Clients send mixes of updates that were really trained, with noise; a fifth of them send theirs backwards, and in the
first round one sends a thousand times as much. Every row comes from a process of its own. Linux alone tells the memory.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import re
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from common import markdown, write
from threadpoolctl import threadpool_limits

import matl
from matl.coordinator.rounds.judge import JudgeRequest
from matl.coordinator.rounds.judging import in_file, judge_here
from matl.params import Float32
from matl.protocol.envelope import Head
from matl.records import RoundSpec, Update
from matl.screening import encode_payload
from matl.state import State, pack, unpack
from matl.workloads import TrainingWorkload

MODES = {"mode0": "Mode 0", "mode1": "Mode 1"}
ROUNDS = {"mode0": 3, "mode1": 2}
"""Mode 0 has an opinion from its third round on; Mode 1 looks at the two halves of the root in turn."""
FEATURES, CLASSES, TRAINED = 20, 10, 8
BOUND = 2e9  # bytes that a judge of 200 clients and 40 MB is to stay under


class Federation:
    """A network of about that many megabytes, and clients whose updates are made when they are asked for."""

    def __init__(self, mode: str, clients: int, megabytes: float, folder: Path) -> None:
        self.clients = clients
        width = int(math.sqrt(megabytes * 1e6 / 4)) - 16
        self.data = matl.federate("synthetic", clients=TRAINED, seed=1)
        self.task = matl.MLPTask(FEATURES, CLASSES, hidden=(width, width))
        self.recipe = matl.LocalTraining(learning_rate=0.02, batch_size=16)
        judge: Any = matl.Mode0()
        if mode == "mode1":
            judge = matl.Mode1(oracle=matl.RootOracle(self.task, self.data.root, self.recipe))
        self.workload = TrainingWorkload(
            mode=judge, layout=self.task.layout, run="r", clients=clients, recipe=self.recipe
        )
        self.trained = in_file(folder, (TRAINED + 1, self.task.layout.size))
        self.trained[-1] = np.random.default_rng(0).standard_normal(self.task.layout.size, np.float32)
        self.making = 0.0  # seconds

    def train(self, params: Float32, number: int) -> None:
        """Updates of some clients from the model of a round."""
        for index, client in enumerate(self.data.clients):
            rng = np.random.default_rng([number, index])
            self.trained[index] = matl.train_locally(self.task, params, [client], self.recipe, [rng])[0]
        self.trained[-1] *= 0.3 * np.linalg.norm(self.trained[0]) / np.linalg.norm(self.trained[-1])

    def payload(self, number: int, client: str) -> bytes:
        """What a client sends in a round, the same however often it is asked for."""
        started, index = time.perf_counter(), int(client[1:])
        rng = np.random.default_rng([number, index])
        update = rng.dirichlet(np.ones(TRAINED)).astype(np.float32) @ self.trained[:-1]
        update += np.roll(self.trained[-1], int(rng.integers(update.size)))
        if index % 5 == 0:
            update *= -1
        if index == 1 and number == 0:
            update *= 1000
        content = encode_payload(self.task.layout.unflatten(update))[0]
        self.making += time.perf_counter() - started
        return content

    def request(self, state: State, spec: RoundSpec) -> JudgeRequest:
        """A round to judge."""
        self.train(self.workload.held(state), spec.round)
        names = [f"c{index:03d}" for index in range(self.clients)]
        payload = partial(self.payload, spec.round)
        heads = tuple(head(name, payload(name), spec) for name in names)
        return JudgeRequest(spec=spec, state=state, seed=5 + spec.round, heads=heads, payload=payload)


def head(name: str, content: bytes, spec: RoundSpec) -> Update:
    """The message of an update without its payload."""
    update = Update(
        client_id=name,
        run="r",
        round=spec.round,
        base_version=spec.round,
        model_hash=spec.model_hash,
        kind=spec.kind,
        payload=content,
        payload_sha256=hashlib.sha256(content).hexdigest(),
        num_examples=100,
        nonce="00" * 16,
    )
    return Head.of(update).update()


def anonymous() -> int:
    """Bytes of this process that no file backs."""
    found = re.search(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


@contextmanager
def watched(peaks: list[int]) -> Iterator[None]:
    """Append the largest `anonymous` of the block, looked at a hundred times a second."""
    done, peak = threading.Event(), anonymous()

    def watch() -> None:
        nonlocal peak
        while not done.wait(0.01):
            peak = max(peak, anonymous())

    thread = threading.Thread(target=watch)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()
        peaks.append(peak)


def judge(mode: str, clients: int, megabytes: float) -> None:
    """Judge some rounds in this process, and print what each took."""
    # One thread, or payloads made within and without the judge would differ in their last bits.
    with threadpool_limits(1), tempfile.TemporaryDirectory(prefix="judging-") as folder:
        federation = Federation(mode, clients, megabytes, Path(folder))
        workload, rounds, peaks = federation.workload, [], []
        state = workload.init(federation.task.init(np.random.default_rng(0)))
        for _ in range(ROUNDS[mode]):
            request = federation.request(state, workload.plan(state))
            before, federation.making, started = anonymous(), 0.0, time.perf_counter()
            with watched(peaks):
                answer = judge_here(workload, request, scratch=Path(folder))
                packed = pack(answer.state)
            rounds.append(
                {
                    "seconds": round(time.perf_counter() - started - federation.making, 1),
                    "before_mib": round(before / 2**20),
                    "peak_mib": round(peaks[-1] / 2**20),
                    "statuses": Counter(verdict.status.value for verdict in answer.verdicts),
                    "failure": answer.failure,
                }
            )
            print(rounds[-1], file=sys.stderr, flush=True)
            state = unpack(packed)
    size = 4 * federation.task.layout.size
    print(json.dumps({"mode": mode, "clients": clients, "model_mb": size / 1e6, "rounds": rounds}))


def main() -> None:
    """Measure all, print the table, write it with the raw rows beside it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", nargs="+", default=["40x8", "40x40", "200x40"], metavar="CLIENTSxMB")
    parser.add_argument("--modes", nargs="+", choices=list(MODES), default=list(MODES))
    parser.add_argument("--one", nargs=3, metavar=("MODE", "CLIENTS", "MB"), help="judge in this process")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "judging_memory")
    given = parser.parse_args()
    if given.one:
        judge(given.one[0], int(given.one[1]), float(given.one[2]))
        return
    started, rows = time.perf_counter(), []
    for case in given.cases:
        for mode in given.modes:
            command = [sys.executable, __file__, "--one", mode, *case.split("x")]
            done = subprocess.run(command, stdout=subprocess.PIPE, check=True, text=True)
            rows.append(json.loads(done.stdout.strip().rsplit("\n", 1)[-1]))
    lines = [line(row) for row in rows]
    remarks = (
        "Anonymous memory of the process at its largest while rounds are judged and their states packed, all that it "
        "held before included; what lies in files is not. *Files*: the updates and, in Mode 1, 100 class gradients and "
        "120 simulated clients. Synthetic clients, a network with two hidden layers, ten classes, one core; three "
        "rounds in Mode 0, two in Mode 1, time and verdicts of the last, while other work had the machine too."
    )
    columns = ["clients", "model", "judge", "peak anonymous", "under 2 GB", "files", "seconds", "verdicts"]
    print(write(given.out, markdown(columns, lines), remarks, rows, time.perf_counter() - started))


def line(row: dict[str, Any]) -> list[str]:
    """A row of the table."""
    last, peak = row["rounds"][-1], max(item["peak_mib"] for item in row["rounds"])
    files = row["clients"] + (CLASSES**2 + 120 if row["mode"] == "mode1" else 0)
    told = ", ".join(f"{count} {status}" for status, count in sorted(last["statuses"].items()))
    return [
        str(row["clients"]),
        f"{row['model_mb']:.1f} MB",
        MODES[row["mode"]],
        f"{peak} MiB",
        "yes" if peak * 2**20 < BOUND else "**no**",
        f"{files * row['model_mb'] / 1e3:.1f} GB",
        f"{last['seconds']:.0f}",
        told or last["failure"],
    ]


if __name__ == "__main__":
    main()
