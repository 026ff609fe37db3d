"""What the benchmarks of the network share: a coordinator in a process, updates known beforehand, and a ledger.

Nothing here asks the coordinator what it did: `check` replays the run from the updates that the ledger names, and
compares the hash of every model.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from matl.coordinator.storage.rows import RoundStatus
from matl.coordinator.storage.store import Store
from matl.network.planner import planner
from matl.network.settings import RunSettings
from matl.params import Float32
from matl.records import Update
from matl.simulation.config import toml_value
from matl.workloads import Accepted

RUN = "load"
EXAMPLES = 100
MATL = [sys.executable, "-c", "from matl.cli import main; main()"]
QUIET = {"OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1", "MALLOC_ARENA_MAX": "2"}


def delta(client: str, number: int, size: int) -> Float32:
    """The update (d,) of a client in a round, which it does not have to train for."""
    index = int(client.rsplit("-", 1)[-1])
    return np.random.default_rng([index, number]).standard_normal(size, np.float32) * np.float32(1e-3)


def run_settings(*, clients: int, hidden: int, rounds: int, **terms: Any) -> dict[str, Any]:
    """A run that averages what it gets, of a model with one hidden layer over 64 features."""
    return {
        "dataset": "digits",
        "task": {"name": "mlp", "hidden": [hidden]},
        "clients": min(max(clients, 5), 600),  # the coordinator shares its samples out, and has no use for the shares
        "partition": "iid",
        "mode": "plain",
        "rounds": rounds,
        "network": terms,
    }


@dataclass
class Ledger:
    """What was acknowledged, by whom: (round, client) and the hash of the payload."""

    acknowledged: dict[tuple[int, str], str] = field(default_factory=dict)
    twice: list[tuple[int, str]] = field(default_factory=list)

    def note(self, number: int, client: str, payload_sha256: str) -> None:
        """Write an acknowledgement down."""
        before = self.acknowledged.setdefault((number, client), payload_sha256)
        if before != payload_sha256:
            self.twice.append((number, client))


@dataclass
class Coordinator:
    """``matl serve`` in a process of its own."""

    folder: Path
    runs: Mapping[str, Any]
    database: str | None = None
    grpc: bool = False
    settings: Mapping[str, Any] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.port, self.grpc_port = free_port(), free_port()
        lines = [f"folder = {toml_value(str(self.folder / 'state'))}", f"port = {self.port}"]
        lines += [f"grpc_port = {self.grpc_port}"] if self.grpc else []
        lines += [f"{key} = {toml_value(value)}" for key, value in self.settings.items()]
        lines += ["[runs]", *(f"{name} = {toml_value(value)}" for name, value in self.runs.items())]
        self.file = self.folder / "coordinator.toml"
        self.file.write_text("\n".join(lines) + "\n")

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://127.0.0.1:{self.port}"

    @property
    def store_url(self) -> str:
        """Its database."""
        return self.database or f"sqlite:///{self.folder / 'state' / 'matl.db'}"

    def start(self) -> None:
        """Start it, and wait until it answers."""
        log = (self.folder / "coordinator.log").open("ab")
        environment = {**os.environ, **QUIET, **({"MATL_DATABASE": self.database} if self.database else {})}
        self.process = subprocess.Popen([*MATL, "serve", str(self.file)], stdout=log, stderr=log, env=environment)
        log.close()
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                raise RuntimeError(f"the coordinator ended: {self.tail()}")
            try:
                socket.create_connection(("127.0.0.1", self.port), timeout=1).close()
            except OSError:
                time.sleep(0.05)
            else:
                return
        raise RuntimeError(f"the coordinator does not answer: {self.tail()}")

    def tail(self) -> str:
        """The end of its log."""
        return (self.folder / "coordinator.log").read_text()[-2000:]

    def invite(self, uses: int) -> str:
        """An invitation for so many clients."""
        command = [*MATL, "invite", "--uses", str(uses), "--folder", str(self.folder / "state"), "--json"]
        said = subprocess.run([*command, "--url", self.url], check=True, capture_output=True, text=True)
        return str(json.loads(said.stdout)["token"])

    def kill(self) -> None:
        """``kill -9``."""
        assert self.process is not None
        self.process.kill()
        self.process.wait()

    def stop(self) -> None:
        """End it in an orderly way."""
        if self.process is not None and self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            self.process.wait(30)

    def rss_mib(self) -> float:
        """Its resident memory that is not a file's, in MiB."""
        assert self.process is not None
        for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
            if line.startswith("RssAnon:"):
                return int(line.split()[1]) / 1024
        return float("nan")


def free_port() -> int:
    """A port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass(frozen=True)
class Check:
    """What a replay found."""

    rounds: int
    committed: int
    failed: int
    counted: int
    acknowledged: int
    problems: list[str]


def check(url: str, settings: Mapping[str, Any], ledger: Ledger) -> Check:
    """Compare what is stored with the ledger, and replay every round."""
    return asyncio.run(_check(url, settings, ledger))


async def _check(url: str, settings: Mapping[str, Any], ledger: Ledger) -> Check:
    plan = planner(RUN, RunSettings.of(settings).as_settings())
    workload, state = plan.workload, plan.workload.init(plan.params)
    problems = [f"round {number}: two updates of {client} were acknowledged" for number, client in ledger.twice]
    store = await Store.open(url)
    try:
        rows, before = [], None
        while page := await store.rounds(RUN, before=before, limit=200):
            rows += page
            before = page[-1].number
        rows.sort(key=lambda row: row.number)
        if [row.number for row in rows] != list(range(len(rows))):
            problems.append(f"rounds are missing or there twice: {[row.number for row in rows]}")
        counted = 0
        for row in rows:
            stored = {each.client: each for each in await store.updates(RUN, row.number, accepted=True)}
            told = {client: digest for (number, client), digest in ledger.acknowledged.items() if number == row.number}
            for client, digest in told.items():
                if client not in stored:
                    problems.append(f"round {row.number}: the acknowledged update of {client} is lost")
                elif stored[client].payload_sha256 != digest:
                    problems.append(f"round {row.number}: another update of {client} counted than was acknowledged")
            if row.accepted != len(stored):
                problems.append(f"round {row.number}: {row.accepted} are said to be accepted, {len(stored)} are there")
            if row.status not in (RoundStatus.COMMITTED, RoundStatus.FAILED):
                continue
            spec = workload.plan(state)
            if row.status is RoundStatus.FAILED:
                _, state = workload.reduce(None, state)
                continue
            accepted = [_accepted(spec, client, plan.params.size) for client in sorted(stored)]
            cohort = workload.cohort(accepted, spec, state, seed=row.seed or 0)
            _, state = workload.reduce(cohort, state)
            counted += len(stored)
            found = state["model_hashes"][str(row.number + 1)]
            if found != row.next_model_hash:
                problems.append(f"round {row.number}: its model is not that of the {len(stored)} updates it counted")
                break
        committed = sum(row.status is RoundStatus.COMMITTED for row in rows)
        failed = sum(row.status is RoundStatus.FAILED for row in rows)
        return Check(len(rows), committed, failed, counted, len(ledger.acknowledged), problems)
    finally:
        await store.close()


def _accepted(spec: Any, client: str, size: int) -> Accepted:
    update = Update(
        client_id=client,
        run=RUN,
        round=spec.round,
        base_version=spec.round,
        model_hash=spec.model_hash,
        payload=(),
        num_examples=EXAMPLES,
    )
    return Accepted(update, delta(client, spec.round, size), 0)
