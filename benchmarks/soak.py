"""A thousand clients, half over HTTP and half over gRPC: whether every update counts once, how fast, in what memory.

::

    make soak                                           # writes benchmarks/results/soak.{json,md}
    python benchmarks/soak.py --clients 50 --rounds 3   # a small one

The coordinator is ``matl serve`` in a process of its own. Every client has a key and an identity, and in each round
asks for it, fetches the model of 100,000 parameters, and sends a signed update of its own; nobody trains. What was
acknowledged goes into a ledger that the coordinator has nothing to do with, from which every round is replayed.

It fails if an update counts other than once, or if the coordinator's memory grows: by more than 2 % per round over the
second half of the rounds, of the least it was once warm.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import json
import random
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from common import markdown, write
from network_case import EXAMPLES, RUN, Coordinator, Ledger, check, delta, run_settings

from matl.attest.enrolment import EnrolmentRequest
from matl.attest.keys import SigningKey
from matl.attest.signing import sign_update
from matl.client.connection import open_transport
from matl.client.transport import Message, Transport
from matl.errors import ServiceError
from matl.params import ParamEntry, ParamLayout, Role
from matl.protocol.envelope import Head
from matl.protocol.messages import EnrolRequest, RunView
from matl.records import RoundSpec, Update
from matl.screening import encode_payload

T = TypeVar("T")
HIDDEN = 1333  # 64 x 1333 + 1333 + 1333 x 10 + 10 = 99,985 parameters
PATIENCE = 600.0
WARM_UP = 2  # rounds in which caches fill and pools of threads and connections grow
LEAST_ROUNDS = 10  # of fewer the second half says nothing
MOST_GROWTH = 0.02  # per round, of the least memory once warm; a round of updates that stay would be far more


@dataclass
class Load:
    """What all clients share."""

    ledger: Ledger
    rounds: int
    submit_seconds: list[float] = field(default_factory=list)
    until_acknowledged: list[float] = field(default_factory=list)
    refused: dict[str, int] = field(default_factory=dict)

    async def patiently(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Ask until the coordinator takes it, as often as it says that it is busy."""
        deadline = time.monotonic() + PATIENCE
        while True:
            try:
                return await ask()
            except ServiceError as error:
                self.refused[error.code] = self.refused.get(error.code, 0) + 1
                if error.code not in ("busy", "rate") or time.monotonic() > deadline:
                    raise
                await asyncio.sleep((error.retry_after or 0.5) * random.uniform(0.5, 1.5))


async def member(load: Load, name: str, url: str, invitation: str) -> None:
    """One client from its enrolment to the end of the run."""
    transport, key = open_transport(url), SigningKey.generate()
    try:
        await load.patiently(lambda: _enrol(transport, name, key, invitation))
        run = await load.patiently(lambda: transport.run(RUN))
        layout, after = _layout(run), -1
        while True:
            view = await load.patiently(
                partial(transport.current_round, RUN, after=after if after >= 0 else None, wait=25)
            )
            if view.status != "open":
                if view.number + 1 >= load.rounds:
                    return
                continue
            if view.number <= after:
                continue
            after = view.number
            await load.patiently(partial(_fetch, transport, view.model_hash))
            spec = view.spec.spec()
            payload, digest = encode_payload(layout.unflatten(delta(name, view.number, layout.size)))
            update = Update(
                client_id=name,
                run=RUN,
                round=view.number,
                base_version=view.number,
                model_hash=spec.model_hash,
                payload=payload,
                payload_sha256=digest,
                num_examples=EXAMPLES,
            )
            began = time.perf_counter()
            acknowledged = await load.patiently(partial(_submit, load, transport, update, key, spec))
            load.until_acknowledged.append(time.perf_counter() - began)
            load.ledger.note(view.number, name, acknowledged.payload_sha256)
    finally:
        await transport.aclose()


async def _enrol(transport: Transport, name: str, key: SigningKey, invitation: str) -> None:
    request = EnrolmentRequest.signed(name, key, invitation, await transport.challenge())
    told = EnrolRequest(
        client_id=name,
        key=base64.b64encode(request.key).decode(),
        token=invitation,
        challenge=request.challenge,
        signature=base64.b64encode(request.signature).decode(),
    )
    transport.set_token((await transport.enrol(told)).session.token)


async def _fetch(transport: Transport, model_hash: str) -> None:
    async for _ in transport.model(model_hash):
        pass


async def _submit(load: Load, transport: Transport, unsigned: Update, key: SigningKey, spec: RoundSpec) -> Any:
    update = sign_update(unsigned, key, spec)  # anew each time: what is signed says when
    assert isinstance(update.payload, bytes)
    began = time.perf_counter()
    told = await transport.submit(RUN, update.round, Message(Head.of(update).to_bytes(), update.payload))
    load.submit_seconds.append(time.perf_counter() - began)
    return told


def _layout(run: RunView) -> ParamLayout:
    return ParamLayout(
        tuple(ParamEntry(each["name"], tuple(each["shape"]), each["dtype"], Role(each["role"])) for each in run.layout)
    )


async def watch(coordinator: Coordinator, load: Load, clients: int) -> list[float]:
    """The coordinator's memory after every round, until this is cancelled."""
    memory: list[float] = []
    try:
        while True:
            done = len(load.ledger.acknowledged) // clients
            if done > len(memory):
                memory.append(coordinator.rss_mib())
                print(f"round {done}: {memory[-1]:.0f} MiB, {len(load.submit_seconds)} updates", file=sys.stderr)
            await asyncio.sleep(0.2)
    except asyncio.CancelledError:
        return memory


@dataclass(frozen=True)
class Growth:
    """What became of the memory (MiB) after the first rounds, and by how much it grew per round in the second half."""

    least: float
    most: float
    slope: float
    allowed: float

    @classmethod
    def of(cls, memory: list[float]) -> Growth | None:
        """That of the memory after each round; ``None`` of too few rounds."""
        if len(memory) < LEAST_ROUNDS:
            return None
        warm, half = memory[WARM_UP:], memory[len(memory) // 2 :]
        slope = float(np.polyfit(np.arange(len(half)), half, 1)[0])
        return cls(min(warm), max(warm), slope, MOST_GROWTH * min(warm))

    @property
    def problem(self) -> str:
        """What is wrong with it; empty if nothing is."""
        if self.slope <= self.allowed:
            return ""
        return f"memory grows by {self.slope:.2f} MiB per round over the second half, allowed are {self.allowed:.2f}"

    def __str__(self) -> str:
        return f"{self.least:.0f} to {self.most:.0f}, {self.slope:+.1f}"


async def _attack(coordinator: Coordinator, load: Load, clients: int) -> tuple[list[float], float]:
    invitation = await asyncio.to_thread(coordinator.invite, clients)
    watching = asyncio.create_task(watch(coordinator, load, clients))
    urls = [coordinator.url, f"grpc://127.0.0.1:{coordinator.grpc_port}"]
    began = time.perf_counter()
    async with asyncio.TaskGroup() as group:
        for index in range(clients):
            group.create_task(member(load, f"client-{index}", urls[index % 2], invitation))
    seconds = time.perf_counter() - began
    watching.cancel()
    return await watching, seconds


def main() -> None:
    """Run it, check it, and write what it came to."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n", 1)[0])
    parser.add_argument("--clients", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--hidden", type=int, default=HIDDEN, help="units of the hidden layer; 75 parameters each")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "soak")
    parser.add_argument("--json", action="store_true", help="print the row, and write nothing")
    options = parser.parse_args()
    began = time.perf_counter()
    settings = run_settings(
        clients=options.clients, hidden=options.hidden, rounds=options.rounds, target=options.clients, deadline=600.0
    )
    load = Load(Ledger(), options.rounds)
    with tempfile.TemporaryDirectory(prefix="matl-soak-") as folder:
        coordinator = Coordinator(Path(folder) / "coordinator", {RUN: settings}, grpc=True)
        coordinator.start()
        try:
            memory, seconds = asyncio.run(_attack(coordinator, load, options.clients))
        finally:
            coordinator.stop()
        found = check(coordinator.store_url, settings, load.ledger)
    wanted, told, counted = options.clients * options.rounds, found.acknowledged, found.counted
    problems = list(found.problems)
    if told != wanted or counted != wanted:
        problems.append(f"expected {wanted} updates, {told} were acknowledged and {counted} counted")
    growth = Growth.of(memory)
    if growth is not None and growth.problem:
        problems.append(growth.problem)
    row = {
        "clients": options.clients,
        "rounds": options.rounds,
        "acknowledged": found.acknowledged,
        "counted": found.counted,
        "seconds": round(seconds, 1),
        "updates_per_second": round(found.acknowledged / seconds, 1),
        "submit_p50_ms": round(1e3 * float(np.percentile(load.submit_seconds, 50)), 1),
        "submit_p99_ms": round(1e3 * float(np.percentile(load.submit_seconds, 99)), 1),
        "acknowledged_p99_ms": round(1e3 * float(np.percentile(load.until_acknowledged, 99)), 1),
        "told_to_come_back": load.refused,
        "memory_mib": [round(value, 1) for value in memory],
        "memory_growth": None if growth is None else {name: round(value, 2) for name, value in vars(growth).items()},
        "problems": problems,
    }
    if options.json:
        print(json.dumps(row, indent=1))
    else:
        head = ["clients", "rounds", "acknowledged", "counted", "updates/s", "submit p50", "p99"]
        head.append(f"memory in MiB after round {WARM_UP}; per round, second half")
        line = [
            str(row["clients"]), str(row["rounds"]), str(row["acknowledged"]), str(row["counted"]),
            str(row["updates_per_second"]), f"{row['submit_p50_ms']} ms", f"{row['submit_p99_ms']} ms",
            "too few rounds" if growth is None else str(growth),
        ]  # fmt: skip
        remarks = (
            f"{options.hidden * 75 + 10:,} parameters; clients and coordinator share the machine. Updates per second "
            "are over everything, enrolment and fetching the model included. Clients that are told to come back later "
            f"do; with that, 99 % were acknowledged within {row['acknowledged_p99_ms'] / 1e3:.1f} s. Memory is the "
            f"coordinator's own after a round, files apart; growth of {MOST_GROWTH:.0%} of the least per round fails."
        )
        print(write(options.out, markdown(head, [line]), remarks, [row], time.perf_counter() - began))
    if problems:
        sys.exit("\n".join(problems[:20]))


if __name__ == "__main__":
    main()
