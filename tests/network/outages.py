"""A coordinator behind its real doors that things happen to, clients of the SDK, and a ledger of what they were told.

town = Town(tmp_path, rounds=3)          # a run of five clients, each of which sends what anybody can work out again

async def story():
    async with town.open():              # the service, and HTTP under uvicorn
        async with town.clients():       # they take part until the run is over, whatever happens meanwhile
            await town.round_of(0)       # something is broken here, and mended
            await town.over()
asyncio.run(story())
town.check()                             # every round replayed from the ledger
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
from tests.coordinator.service_kit import Client, Clock, Kit

from matl.attest.signing import sign_update
from matl.client import AsyncMATLClient
from matl.client.retrying import Retrying, passing
from matl.coordinator.service import Service
from matl.errors import ServiceError
from matl.network.planner import planner
from matl.network.serving import open_doors
from matl.network.settings import NetworkSettings, RunSettings
from matl.protocol.envelope import frame
from matl.protocol.messages import Acknowledgement, InviteRequest, RoundView, StartRequest
from matl.records import Update
from matl.screening import encode_payload

ROOT = Path(__file__).parents[2]
SIZE = 16 * 64 + 16 + 16 * 10 + 10  # parameters of the run's model
PATIENCE = 40.0  # seconds in which anything here is over, on a machine that is busy


def _benchmark(name: str) -> Any:
    """A module of the folder of benchmarks, which is no package."""
    spec = importlib.util.spec_from_file_location(name, ROOT / "benchmarks" / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


case = _benchmark("network_case")
RUN: str = case.RUN


class Member(AsyncMATLClient):
    """A client of the SDK that writes down in a ledger what is acknowledged, at once or from its queue."""

    def __init__(self, ledger: Any, url: str, **options: Any) -> None:
        options = {"retrying": Retrying(base=0.05, cap=0.5), **options}
        super().__init__(url, run=RUN, **options)
        self._ledger, self.sent = ledger, 0

    async def submit_payload(self, *args: Any, **kwargs: Any) -> Acknowledgement:
        return self._noted(await super().submit_payload(*args, **kwargs))

    async def flush(self) -> list[Acknowledgement]:
        return [self._noted(each) for each in await super().flush()]

    def _noted(self, told: Acknowledgement) -> Acknowledgement:
        self._ledger.note(told.round, told.client_id, told.payload_sha256)
        self.sent += 1
        return told

    async def take_part(self, invitation: str) -> None:
        """As `fit_loop` does, with updates that need no training: through outages, until the run is over."""
        while True:
            try:
                await self.join(invitation)
                break
            except ServiceError as error:
                if not passing(error):
                    raise
        async for current in self.rounds(patience=PATIENCE):
            update = case.delta(self.client_id, current.number, SIZE)
            try:
                await self.submit_gradient(update, round=current, metadata={"num_examples": case.EXAMPLES})
            except ServiceError as error:
                if not passing(error) and not await self._went_on(current, error):
                    raise


def settings_of(clients: int = 5, rounds: int = 3, **terms: Any) -> dict[str, Any]:
    """Of a run that averages what it gets."""
    terms = {"target": clients, "quorum": 3, "deadline": 3.0, **terms}
    settings: dict[str, Any] = case.run_settings(clients=clients, hidden=16, rounds=rounds, **terms)
    return settings


@dataclass
class Town:
    """A run, and everybody who has to do with it."""

    folder: Path
    terms: dict[str, Any]
    kit: Kit
    ledger: Any = field(default_factory=case.Ledger)
    url: str = ""
    grpc_url: str = ""

    @classmethod
    def of(
        cls, folder: Path, *, changes: dict[str, Any] | None = None, clock: Clock | None = None, **terms: Any
    ) -> Town:
        kit = Kit(folder, {"planner": planner, **(changes or {})}, clock or Clock())
        return cls(folder, settings_of(**terms), kit)

    @property
    def service(self) -> Service:
        return self.kit.service

    @property
    def names(self) -> list[str]:
        return [f"client-{index}" for index in range(self.terms["network"]["target"])]

    @asynccontextmanager
    async def open(self, **doors: Any) -> AsyncIterator[Town]:
        """The coordinator, with the run begun or taken up again."""
        async with self.kit.open():
            settings = NetworkSettings(folder=self.folder / "unused", port=0, **doors)
            async with open_doors(self.service, settings) as opened:
                self.url, self.grpc_url = opened.url, opened.grpc_url or ""
                if not await self.service.runs(self.kit.admin):
                    settled = RunSettings.of(self.terms).as_settings()
                    await self.service.start(self.kit.admin, StartRequest(id=RUN, settings=settled))
                yield self

    async def invitation(self) -> str:
        """For all clients."""
        return (await self.service.invite(self.kit.admin, InviteRequest(uses=len(self.names)))).token

    @asynccontextmanager
    async def clients(self, **options: Any) -> AsyncIterator[list[Member]]:
        """All clients at work. One that ends before the run is over ends the test."""
        invitation = await self.invitation()
        async with contextlib.AsyncExitStack() as stack:
            members = [
                await stack.enter_async_context(
                    Member(self.ledger, self.url, client_id=name, folder=self.folder / name, **options)
                )
                for name in self.names
            ]
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(member.take_part(invitation)) for member in members]
                yield members
                for task in tasks:
                    task.cancel()

    async def round_of(self, number: int) -> RoundView:
        """A round, when it has ended."""
        async with asyncio.timeout(PATIENCE):
            while True:
                with contextlib.suppress(ServiceError):
                    found = await self.service.round(self.kit.admin, RUN, number)
                    if found.status in ("committed", "failed"):
                        return found
                await asyncio.sleep(0.02)

    async def open_round(self) -> int:
        """The number of the round that takes updates, when there is one."""
        async with asyncio.timeout(PATIENCE):
            while (view := await self.service.current_round(self.kit.admin, RUN)).status != "open":
                await asyncio.sleep(0.02)
        return view.number

    async def over(self) -> None:
        """Return when the run has ended."""
        await self.round_of(self.terms["rounds"] - 1)

    def check(self) -> Any:
        """Replay every round; nothing is lost, and nothing counts twice."""
        found = case.check(self.kit.settings.database, self.terms, self.ledger)
        assert found.problems == []
        assert found.rounds == found.committed + found.failed == self.terms["rounds"]
        return found

    # One update by hand, for what exactly is said to it ---------------------------------------------------------

    async def message(self, client: Client, **changes: Any) -> bytes:
        """A signed update of a client that was enrolled by the kit, for the round as it is."""
        view = await self.service.current_round(client.caller, RUN)
        spec = view.spec.spec()
        layout = self.service.live(RUN).plan.workload.layout
        payload, digest = encode_payload(layout.unflatten(case.delta(client.id, spec.round, SIZE)))
        update = Update(
            client_id=client.id,
            run=RUN,
            round=spec.round,
            base_version=spec.round,
            model_hash=spec.model_hash,
            payload=payload,
            payload_sha256=digest,
            num_examples=case.EXAMPLES,
        )
        return frame(sign_update(update, client.key, spec, **changes))

    async def post(self, message: bytes, number: int) -> httpx.Response:
        """Send it, and see the answer itself."""
        async with httpx.AsyncClient(base_url=self.url, timeout=PATIENCE, trust_env=False) as line:
            kind = {"Content-Type": "application/vnd.matl.update"}
            return await line.post(f"/v1/runs/{RUN}/rounds/{number}/updates", content=message, headers=kind)

    async def acknowledged(self, message: bytes, client: Client, number: int) -> bool:
        """Send an update again and again until it is acknowledged; whether it was known already."""
        async with asyncio.timeout(PATIENCE):
            while (answer := await self.post(message, number)).status_code == 503:
                await asyncio.sleep(0.1)
        assert answer.status_code == 202, answer.text
        told = Acknowledgement.model_validate_json(answer.content)
        self.ledger.note(told.round, client.id, told.payload_sha256)
        return told.duplicate


def busy(answer: httpx.Response) -> dict[str, Any]:
    """What a 503 says, which has everything that a client needs to go on."""
    assert answer.status_code == 503, answer.text
    assert int(answer.headers["Retry-After"]) >= 1
    told: dict[str, Any] = answer.json()
    assert told["code"] == "busy"
    return told
