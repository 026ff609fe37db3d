"""A real service with a small run, and clients that sign, for the tests of everything that stands in front of it.

async with serving(tmp_path) as kit:                    # or: Kit(tmp_path) and kit.open() twice, for restarts
    ann = await kit.enrol("ann")                        # Client: id, key, caller, token; ann.bearer is the header
    await kit.start()                                   # run "demo": six parameters, three rounds, target 3
    head, payload = await ann.signed(1.0)               # or ann.message(1.0): head and payload framed
    await ann.send(1.0)                                 # straight to the service
    await kit.round_of(["ann", "bob", "cid"])           # everybody sends, and the round is waited for
kit.admin                                               # Caller of scope admin; kit.bearer is its header
"""

from __future__ import annotations

import asyncio
import base64
import dataclasses
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

from matl.attest.enrolment import EnrolmentRequest
from matl.attest.keys import SigningKey
from matl.attest.signing import sign_update
from matl.attest.tokens import Scope
from matl.coordinator.access import Caller
from matl.coordinator.limits import Limits
from matl.coordinator.rounds.machine import Rules
from matl.coordinator.rounds.plan import RunPlan
from matl.coordinator.service import ADMIN_TOKEN, Service, ServiceSettings
from matl.params import ParamLayout
from matl.protocol.envelope import Head, frame
from matl.protocol.messages import Acknowledgement, EnrolRequest, InviteRequest, RoundView, RunView, StartRequest
from matl.records import Judgement, Status, Update, Verdict
from matl.screening import encode_payload
from matl.workloads import TrainingWorkload

D = 6
LAYOUT = ParamLayout.of({"w": np.zeros((2, 2), np.float32), "b": np.zeros(2, np.float32)})
RUN = "demo"
NAMES = ("ann", "bob", "cid")


@dataclass(frozen=True)
class Sceptic:
    """A judge that puts whoever moves the first parameter down into quarantine, and takes the mean of the others."""

    digest: str = "5c" * 32
    bound: float = 0.0
    gives_verdicts: bool = True
    channels: tuple[str, ...] = ("push",)

    def init(self, layout: ParamLayout) -> dict[str, Any]:
        return {"version": 1, "rounds": 0}

    def judge(self, cohort: Any, state: dict[str, Any]) -> tuple[Judgement, dict[str, Any]]:
        X = cohort.X.dense()
        good = X[:, 0] >= 0
        aggregate = X[good].mean(axis=0) if good.any() else np.zeros(X.shape[1])
        verdicts = tuple(
            Verdict(
                unit,
                float(kept),
                Status.ACCEPTED if kept else Status.QUARANTINED,
                {"push": float(row[0])},
                "" if kept else "it pushes the first parameter down",
            )
            for unit, kept, row in zip(cohort.ids, good, X, strict=True)
        )
        return Judgement(aggregate.astype(np.float32), verdicts), {**state, "rounds": state["rounds"] + 1}


def planner(run: str, settings: Any) -> RunPlan:
    """The plan of a small run. Settings: rounds, those of its rules, and anything of the workload."""
    settings = dict(settings)
    given = [name for name in ("target", "quorum", "deadline", "over_selection") if name in settings]
    rules = {"target": 3, "quorum": 2, "deadline": None, **{name: settings.pop(name) for name in given}}
    rounds = settings.pop("rounds", 3)
    workload = TrainingWorkload(
        **{"mode": Sceptic(), "layout": LAYOUT, "run": run, "config_digest": "cd" * 32, "max_norm": 1e3, **settings}
    )
    return RunPlan(
        workload=workload,
        params=np.arange(D, dtype=np.float32),
        rounds=rounds,
        seed=0,
        rules=Rules(**rules),
        mode="sceptic",
        judge_seed=lambda number: 1000 + number,
    )


async def pieces(data: bytes, size: int = 64) -> AsyncIterator[bytes]:
    """Bytes as they come over a wire."""
    for start in range(0, len(data), size):
        await asyncio.sleep(0)
        yield data[start : start + size]


@dataclass
class Client:
    """A client that is enrolled."""

    id: str
    key: SigningKey
    kit: Kit
    token: str = ""

    @property
    def caller(self) -> Caller:
        return Caller("client", self.id, key=self.key.public.fingerprint)

    @property
    def bearer(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}

    async def update(self, value: float = 1.0, *, run: str = RUN, **changes: Any) -> Update:
        """A signed update for the latest round, all of whose values are one number."""
        spec = (await self.kit.service.current_round(self.caller, run)).spec.spec()
        payload = changes.pop("payload", None)
        if payload is None:
            values = LAYOUT.unflatten(np.full(D, value, np.float32))
            payload, _ = encode_payload(values)  # type: ignore[arg-type]
        update = Update(
            client_id=self.id,
            run=run,
            round=spec.round,
            base_version=spec.round,
            model_hash=spec.model_hash,
            payload=payload,
            num_examples=10,
        )
        signer = changes.pop("key", self.key)
        changes = {name: changes[name] for name in changes}
        return sign_update(dataclasses.replace(update, **changes), signer, spec, clock=self.kit.clock)

    async def signed(self, value: float = 1.0, **changes: Any) -> tuple[Head, bytes]:
        update = await self.update(value, **changes)
        assert isinstance(update.payload, bytes)
        return Head.of(update), update.payload

    async def message(self, value: float = 1.0, **changes: Any) -> bytes:
        return frame(await self.update(value, **changes))

    async def send(self, value: float = 1.0, **changes: Any) -> Acknowledgement:
        update = await self.update(value, **changes)
        return await self.kit.service.submit(self.caller, update.run, update.round, pieces(frame(update)))


@dataclass
class Clock:
    """The time, as it is, or moved on by some seconds."""

    ahead: float = 0.0

    def __call__(self) -> datetime:
        return datetime.fromtimestamp(datetime.now(UTC).timestamp() + self.ahead, UTC)


@dataclass
class Kit:
    """What outlives a process, and the service while it is open."""

    folder: Path
    changes: dict[str, Any] = field(default_factory=dict)  # of the ServiceSettings
    clock: Clock = field(default_factory=Clock)
    clients: dict[str, Client] = field(default_factory=dict)
    _service: Service | None = None

    admin = Caller("operator", "admin", Scope.ADMIN)

    @property
    def service(self) -> Service:
        assert self._service is not None, "open the kit first"
        return self._service

    @property
    def settings(self) -> ServiceSettings:
        return ServiceSettings(**{
            "database": f"sqlite:///{self.folder}/matl.sqlite",
            "blobs": str(self.folder / "blobs"),
            "folder": self.folder / "keep",
            "planner": planner,
            "clock": self.clock,
            **self.changes,
        })  # fmt: skip

    @property
    def bearer(self) -> dict[str, str]:
        """The header of the first operator."""
        return {"Authorization": f"Bearer {(self.settings.folder / ADMIN_TOKEN).read_text().strip()}"}

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Kit]:
        async with Service.open(self.settings) as self._service:
            yield self
        self._service = None

    async def start(self, run: str = RUN, **settings: Any) -> RunView:
        return await self.service.start(self.admin, StartRequest(id=run, settings=settings))

    async def enrol(self, client: str, key: SigningKey | None = None, **invitation: Any) -> Client:
        """A new client, by an invitation and all."""
        key = key or SigningKey.generate()
        token = (await self.service.invite(self.admin, InviteRequest(**invitation))).token
        request = await self.request(client, key, token)
        enrolled = await self.service.enrol(request)
        self.clients[client] = Client(client, key, self, enrolled.session.token)
        return self.clients[client]

    async def request(self, client: str, key: SigningKey, token: str) -> EnrolRequest:
        challenge = (await self.service.challenge()).challenge
        asked = EnrolmentRequest.signed(client, key, token, challenge)
        return EnrolRequest(
            client_id=client,
            key=base64.b64encode(asked.key).decode(),
            token=token,
            challenge=challenge,
            signature=base64.b64encode(asked.signature).decode(),
        )

    async def round_of(self, clients: list[str], run: str = RUN, **values: float) -> RoundView:
        """These clients send for the open round, which is then waited for; the round as it ended."""
        number = (await self.service.current_round(self.admin, run)).number
        for client in clients:
            await self.clients[client].send(values.get(client, 1.0), run=run)
        return await self.ended(number, run)

    async def ended(self, number: int, run: str = RUN) -> RoundView:
        async with asyncio.timeout(20):
            while (found := await self.service.round(self.admin, run, number)).status in ("open", "judging"):
                await self.service.current_round(self.admin, run, after=number, wait=0.2)
        return found


@asynccontextmanager
async def serving(folder: Path, limits: Limits | None = None, **changes: Any) -> AsyncIterator[Kit]:
    """A service in a folder, open."""
    if limits is not None:
        changes["limits"] = limits
    async with Kit(folder, changes).open() as kit:
        yield kit


async def network(kit: Kit, **settings: Any) -> list[Client]:
    """Three clients and a run."""
    clients = [await kit.enrol(name) for name in NAMES]
    await kit.start(**settings)
    return clients
