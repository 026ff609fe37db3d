"""A coordinator's run in one process, on a real database, and clients that sign."""

from __future__ import annotations

import asyncio
import dataclasses
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import numpy as np

from matl.attest.enrolment import Identity
from matl.attest.keys import SigningKey
from matl.attest.replay import ReplayCache
from matl.attest.signing import sign_update
from matl.attest.verifying import SignatureVerifier
from matl.coordinator.keys import Keys
from matl.coordinator.rounds.live import Host, LiveRun, RunPlan
from matl.coordinator.rounds.machine import Rules
from matl.coordinator.rounds.overrides import Overrides
from matl.coordinator.storage.blobs import Blobs
from matl.coordinator.storage.rows import RoundStatus, RunRow, RunStatus
from matl.coordinator.storage.store import Store
from matl.params import ParamLayout
from matl.protocol.envelope import Head
from matl.records import Judgement, Status, Update, Verdict
from matl.screening import encode_payload
from matl.workloads import TrainingWorkload

D = 6
LAYOUT = ParamLayout.of({"w": np.zeros(D, np.float32)})
NAMES = ("ann", "bob", "cid", "dan", "eve")


@dataclass(frozen=True)
class Wavering:
    """A judge whose verdicts and aggregate hang on the seed and on every bit of the cohort and the state."""

    digest: str = "ab" * 32
    bound: float = 0.0
    gives_verdicts: bool = True
    channels: tuple[str, ...] = ("luck",)

    def init(self, layout):
        return {"version": 1, "sum": np.zeros(layout.size, np.float32)}

    def judge(self, cohort, state):
        X = cohort.X.dense()
        rng = np.random.default_rng(cohort.seed)
        luck = rng.uniform(size=len(X))
        weights = cohort.weights * luck
        aggregate = (weights @ X / weights.sum() + rng.normal(size=X.shape[1])).astype(np.float32)
        statuses = [Status.QUARANTINED if value < 0.3 else Status.ACCEPTED for value in luck]
        verdicts = tuple(
            Verdict(unit, float(value), status, {"luck": float(value)}, "" if status is Status.ACCEPTED else "no luck")
            for unit, value, status in zip(cohort.ids, luck, statuses, strict=True)
        )
        return Judgement(aggregate, verdicts), {**state, "sum": state["sum"] + X.sum(axis=0)}


@dataclass
class Clock:
    """Time that stands still unless it is moved."""

    now: float = 1_700_000_000.0

    def __call__(self):
        return datetime.fromtimestamp(self.now, UTC)


@dataclass
class Place:
    """What outlives a process: folder, keys, who is enrolled; and a clock."""

    folder: Path
    clock: Clock = field(default_factory=Clock)
    clients: dict[str, SigningKey] = field(default_factory=lambda: {name: SigningKey.generate() for name in NAMES})
    overrides: list[Overrides] = field(default_factory=lambda: [Overrides()])
    blobs_url: str = ""
    database_url: str = ""

    @asynccontextmanager
    async def host(self, wrap=lambda store: store) -> AsyncIterator[Host]:
        """A coordinator's process."""
        scratch = self.folder / "scratch"
        scratch.mkdir(exist_ok=True)
        async with await Store.open(self.database_url or f"sqlite:///{self.folder}/matl.sqlite") as store:
            replays = ReplayCache()
            replays.restore(await store.nonces())
            enrolled = {
                name: Identity(client_id=name, key=key.public, enrolled_at=0) for name, key in self.clients.items()
            }
            yield Host(
                store=wrap(store),
                blobs=Blobs(self.blobs_url or self.folder / "blobs"),
                keys=Keys.of(self.folder / "keys"),
                verifier=SignatureVerifier(enrolled.get, replays, self.clock),
                replays=replays,
                scratch=scratch,
                ledgers=self.folder / "privacy",
                clock=self.clock,
                steady=lambda: self.clock.now,
                overrides=lambda: self.overrides[0],
            )

    def signed(self, client, run, value=1.0, /, **changes):
        """Head and payload of an update for the latest round."""
        payload = changes.pop("payload", None)
        spec = changes.pop("spec", run.spec)
        key = changes.pop("key", self.clients[client])
        if payload is None:
            payload = encoded(value)
        update = Update(
            client_id=client,
            run=spec.run,
            round=spec.round,
            base_version=spec.round,
            model_hash=spec.model_hash,
            payload=payload,
            num_examples=10,
        )
        return Head.of(sign_update(dataclasses.replace(update, **changes), key, spec, clock=self.clock)), payload

    async def send(self, client, run, value=1.0, /, **changes):
        """An update on its way, and what is said to it."""
        head, payload = self.signed(client, run, value, **changes)
        return await run.take(head, pieces(payload))


def encoded(value):
    """The payload of an update that is the same everywhere."""
    return encode_payload({"w": np.full(D, value, np.float32)})[0]


async def pieces(payload, size=64):
    """A payload as it comes over a wire."""
    for start in range(0, len(payload), size):
        await asyncio.sleep(0)
        yield payload[start : start + size]


def plan(**changes) -> RunPlan:
    """A run of five clients."""
    workload = {"mode": Wavering(), "layout": LAYOUT, "run": "r", "config_digest": "c", **changes.pop("workload", {})}
    return RunPlan(**{
        "workload": TrainingWorkload(**workload),
        "params": np.arange(D, dtype=np.float32),
        "rounds": 3,
        "seed": 7,
        "rules": Rules(target=3, quorum=2, deadline=60.0),
        "mode": "wavering",
        "judge_seed": lambda number: 1000 + number,
        **changes,
    })  # fmt: skip


def row(run="r") -> RunRow:
    """A run that is to be created."""
    return RunRow(id=run, status=RunStatus.RUNNING, settings={}, config_digest="", created_at=0.0, rounds=None)


@asynccontextmanager
async def living(place: Place, host: Host, the_plan: RunPlan) -> AsyncIterator[LiveRun]:
    """The run, begun or taken up again."""
    stored = await host.store.run("r")
    run = await (LiveRun.create(row(), the_plan, host) if stored is None else LiveRun.restore(stored, the_plan, host))
    try:
        yield run
    finally:
        await run.close()


async def ended(run: LiveRun, number: int):
    """A round, when it has ended and the run knows."""
    async with asyncio.timeout(10):
        while True:
            found = await run._host.store.round("r", number)
            stored = found is not None and found.status in (RoundStatus.COMMITTED, RoundStatus.FAILED)
            if stored and (run.round.number > number or run.row.status is not RunStatus.RUNNING):
                return found
            await asyncio.sleep(0.005)
