"""A coordinator with a masked run, and real clients of it, in one event loop."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from fractions import Fraction

import numpy as np

from matl.attest.tokens import Scope
from matl.client import AsyncMATLClient
from matl.client.masked import MaskedRounds
from matl.client.retrying import Retrying
from matl.coordinator.access import Caller
from matl.coordinator.limits import Limits, Rate
from matl.coordinator.rounds.machine import Rules
from matl.coordinator.rounds.plan import PHASES, RunPlan
from matl.coordinator.service import Service, ServiceSettings
from matl.modes import Plain
from matl.network.serving import free_socket, open_doors
from matl.network.settings import NetworkSettings
from matl.params import ParamLayout
from matl.privacy.certificate import Instance
from matl.privacy.manifest import Manifest
from matl.privacy.mechanism import Distributed
from matl.privacy.table import skellam_table
from matl.protocol.messages import InviteRequest, StartRequest
from matl.workloads import Private, TrainingWorkload

LAYOUT = ParamLayout.of({"w": np.zeros((10, 8), np.float32), "b": np.zeros(8, np.float32)})
D = LAYOUT.size
INSTANCE = Instance(
    4, skellam_table("1/2").counts, 40, 5, Fraction(1, 4), Fraction(4), 30, Fraction(1, 1000), ((1, 8),), 1, 1
)
MANIFEST = Manifest(INSTANCE, block=64, kept=64, clip_norm=Fraction(1))
NAMES = tuple(f"client-{index:02d}" for index in range(12))
ADMIN = Caller("operator", "admin", Scope.ADMIN)


def plan(run, settings, manifest=MANIFEST):
    """A masked run. Settings: target, quorum, deadline, rounds."""
    rules = {"target": len(NAMES), "quorum": 6, "deadline": 30.0, **settings}
    rounds = rules.pop("rounds", 3)
    mechanism = Distributed(manifest.encoder(D))
    return RunPlan(
        workload=TrainingWorkload(Plain(), LAYOUT, run=run, channel=Private(mechanism), config_digest="cd" * 32),
        params=np.zeros(D, np.float32),
        rounds=rounds,
        seed=0,
        rules=Rules(**rules, phases=PHASES, later=1),
        mode="plain",
        manifest=manifest,
    )


class Kit:
    """A folder with a coordinator, opened as often as it takes, and its clients.

    With ``late`` the run begins once they have joined, so that the clock of its first round does not run before.
    """

    def __init__(self, folder, scheme="http", names=NAMES, database_url=None, late=False, **settings):
        self.folder, self.scheme, self.names, self.settings = folder, scheme, names, settings
        self.database_url = database_url or f"sqlite:///{folder}/matl.sqlite"
        self.service, self.url, self.port, self.invitation = None, "", 0, ""
        self.planner = plan
        self.late = late

    @asynccontextmanager
    async def open(self) -> AsyncIterator[Kit]:
        """A process of the coordinator; where it listens stays the same."""
        settings = ServiceSettings(
            database=self.database_url,
            blobs=str(self.folder / "blobs"),
            folder=self.folder / "keep",
            planner=self.planner,
            limits=Limits(address=Rate(1000, 10_000), sender=Rate(1000, 1000), refused=Rate(100, 1000)),
        )
        grpc_port = 0 if self.scheme == "grpc" else None
        doors_at = NetworkSettings(folder=self.folder, port=self.port, grpc_port=grpc_port)
        async with Service.open(settings) as self.service:
            listener = free_socket("127.0.0.1", self.port)
            self.port = listener.getsockname()[1]
            async with open_doors(self.service, doors_at, listener=listener) as doors:
                self.url = doors.grpc_url if self.scheme == "grpc" else doors.url.replace("http", self.scheme)
                if not self.invitation:
                    invited = await self.service.invite(ADMIN, InviteRequest(uses=1000))
                    self.invitation = invited.token
                if not self.late:
                    await self.begin()
                yield self

    async def begin(self) -> None:
        """Start the run, unless it was."""
        if not self.service.running:
            await self.service.start(ADMIN, StartRequest(id="demo", settings=self.settings))

    @asynccontextmanager
    async def clients(self, **options) -> AsyncIterator[dict[str, AsyncMATLClient]]:
        """Everybody, enrolled."""
        async with AsyncExitStack() as stack:
            made = {name: await stack.enter_async_context(self.client(name, **options)) for name in self.names}
            for client in made.values():
                await client.join(self.invitation)
            await self.begin()
            yield made

    def client(self, name, **options) -> AsyncMATLClient:
        """A client that asks again soon."""
        retrying = Retrying(attempts=40, base=0.02, cap=0.2, share=1.0, burst=10_000, rng=random.Random(1))
        return AsyncMATLClient(self.url, client_id=name, folder=self.folder / name, retrying=retrying, **options)

    async def ended(self, number):
        """A round, when it has ended."""
        async with asyncio.timeout(60):
            while (found := await self.service.round(ADMIN, "demo", number)).status in ("open", "judging"):
                await asyncio.sleep(0.02)
        return found

    async def params(self, number):
        """The model that a round starts from."""
        live = self.service.live("demo")
        async with asyncio.timeout(20):
            while live.round.number < number and live.row.round < number:
                await asyncio.sleep(0.02)
        return live.state["params"]


def updates(names=NAMES, seed=0):
    """An update of each client."""
    rng = np.random.default_rng(seed)
    made = (rng.normal(size=D) + 0.5 * rng.normal(size=(len(names), D))).astype(np.float32)
    made *= 0.9 / np.linalg.norm(made, axis=1, keepdims=True)
    return dict(zip(names, made, strict=True))


async def take_part(client, update):
    """One round of one client."""
    found = await client.next_round(wait=20)
    return await client.submit_gradient(LAYOUT.unflatten(update), round=found, metadata={"num_examples": 3})


def at(client, phase, act):
    """Have something done before a client says what it has to say in a phase; it may raise, or return other bytes."""
    say = client._masked._say

    async def acted(target, now, message):
        if now.value == phase:
            message = await act(target, message) or message
        return await say(target, now, message)

    client._masked._say = acted


class GoneError(Exception):
    """A client went away."""


async def leave(target, message):
    """Go away."""
    raise GoneError


class Spy:
    """Words that clients handed to the masks, before they were masked."""

    def __init__(self, monkeypatch):
        self.words = {}
        masked = MaskedRounds._masked

        def spied(one, client, manifest, target, request, update):
            plain = client.mask

            def mask(asked, vector):
                self.words[target.number, client.client_id] = vector.copy()
                return plain(asked, vector)

            client.mask = mask
            return masked(one, client, manifest, target, request, update)

        monkeypatch.setattr(MaskedRounds, "_masked", spied)

    def decoded(self, number, names, seed):
        """The mean update of some clients as their words say, added by hand."""
        total = sum(self.words[number, name].astype(np.int64) for name in names) % (1 << INSTANCE.bits)
        return MANIFEST.encoder(D).decode_sum(total.astype(np.uint8), seed) / np.float32(len(names))
