"""A service that says what it was asked, where only the door in front of it is tested; and servers for either."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime

import httpx
import uvicorn
from fastapi import FastAPI

from matl.attest.tokens import Scope
from matl.coordinator.access import Caller
from matl.coordinator.http.app import SERVER, create_app
from matl.coordinator.http.examples import EXAMPLES
from matl.coordinator.service import ModelBlob
from matl.protocol.messages import Acknowledgement, EventView, Health, RunView, UploadView, ValidateAnswer
from matl.protocol.problems import Code, refusal

MODEL = bytes(range(256)) * 40
MODEL_HASH = "ab" * 32
ADMIN = {"Authorization": "Bearer admin"}


class Echo:
    """The methods of a service that these tests need."""

    max_message = 1 << 20

    def __init__(self) -> None:
        self.calls: list[tuple[object, ...]] = []
        self.received = 0
        self.sizes: list[int | None] = []
        self.streams_closed = 0
        self.revoked = False
        self.published: asyncio.Queue[int] = asyncio.Queue()

    async def authenticate(self, authorization, *, certificate=None, address=""):
        self.calls.append(("authenticate", authorization, certificate, address))
        if authorization is None:
            return Caller()
        if authorization != "Bearer admin" or self.revoked:
            raise refusal(Code.UNAUTHENTICATED, "the token is unknown")
        return Caller("operator", "admin", Scope.ADMIN)

    async def health(self):
        return Health(version="1", time=datetime(2030, 1, 1, tzinfo=UTC))

    async def ready(self):
        raise refusal(Code.BUSY, "the database is locked", retry_after=1.2)

    async def run(self, caller, run):
        if run == "broken":
            raise RuntimeError("secret of the inside")
        if run == "fast":
            raise refusal(Code.RATE, "too many requests", retry_after=0.1)
        return RunView.model_validate(EXAMPLES["RunView"] | {"id": run})

    async def pause(self, caller, run, reason=""):
        self.calls.append(("pause", run, reason))
        return await self.run(caller, run)

    async def start(self, caller, request):
        self.calls.append(("start", request))
        return await self.run(caller, request.id)

    async def model(self, caller, model_hash):
        async def stream(start, stop):
            try:
                for position in range(start, stop, 1000):
                    yield MODEL[position : min(position + 1000, stop)]
            finally:
                self.streams_closed += 1

        return ModelBlob(hashlib.sha256(MODEL).hexdigest(), len(MODEL), stream)

    async def submit(self, caller, run, number, message):
        async for piece in message:
            self.received += len(piece)
        if run == "full":
            raise refusal(Code.BUSY, "too many updates are arriving")
        return Acknowledgement(run=run, round=number, client_id="alice", payload_sha256="cd" * 32, duplicate=False)

    async def append(self, upload, offset, data, *, size=None):
        self.sizes.append(size)
        async for piece in data:
            self.received += len(piece)
        return UploadView(
            id=upload, offset=offset + self.received, size=1000, expires_at=datetime(2030, 1, 1, tzinfo=UTC)
        )

    async def validate(self, caller, run, messages):
        self.calls.append(("validate", messages))
        return ValidateAnswer(receipts=[])

    async def subscribe(self, caller, *, after):
        if caller.kind == "anonymous":
            raise refusal(Code.UNAUTHENTICATED, "events are for those who show a token")
        for seq in range(after + 1, 4):
            yield self._event(seq)
        while True:
            yield self._event(await self.published.get())

    def _event(self, seq):
        return EventView.model_validate(EXAMPLES["EventView"] | {"seq": seq})


@asynccontextmanager
async def serving(app: FastAPI) -> AsyncIterator[str]:
    """A real server of an application, on a free port."""
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_config=None, **SERVER))
    task = asyncio.create_task(server.serve())
    while not server.started:
        await asyncio.sleep(0.005)
    try:
        yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    finally:
        server.should_exit = True
        await task


@asynccontextmanager
async def asking(service: object) -> AsyncIterator[httpx.AsyncClient]:
    """A client of an application, without a network. It shows an admin's token of an `Echo`."""
    transport = httpx.ASGITransport(create_app(service), raise_app_exceptions=False)
    async with httpx.AsyncClient(transport=transport, base_url="http://matl", headers=ADMIN) as client:
        yield client


def ask(test: Callable[[httpx.AsyncClient, Echo], Awaitable[None]]) -> None:
    """Run a test with such a client of an `Echo`."""

    async def main() -> None:
        service = Echo()
        async with asking(service) as client:
            await test(client, service)

    asyncio.run(main())


@asynccontextmanager
async def connected(url: str) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A bare connection, for requests that no client library would send."""
    host, _, port = url.removeprefix("http://").partition(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    try:
        yield reader, writer
    finally:
        writer.close()
        with suppress(OSError):
            await writer.wait_closed()


def update_head(length: int) -> bytes:
    """The beginning of a request that sends an update."""
    return (
        b"POST /v1/runs/demo/rounds/0/updates HTTP/1.1\r\nHost: matl\r\n"
        b"Content-Type: application/vnd.matl.update\r\nContent-Length: %d\r\n\r\n" % length
    )
