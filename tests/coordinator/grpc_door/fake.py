"""A service that knows one run, and a door to it."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

from matl.client.grpc import GrpcTransport
from matl.client.transport import Message
from matl.coordinator.access import Caller
from matl.coordinator.grpc_door import DoorSettings, GrpcDoor
from matl.coordinator.service import ModelBlob
from matl.protocol.envelope import LENGTH, Head, read_head
from matl.protocol.messages import (
    Acknowledgement,
    ChallengeView,
    Enrolled,
    EnrolRequest,
    EventView,
    Health,
    RoundView,
    RunView,
    SessionRequest,
    SessionView,
    SpecView,
    UpdateView,
)
from matl.protocol.problems import Code, refusal
from matl.records import RoundSpec

NOW = datetime(2030, 1, 1, tzinfo=UTC)
HASH = "ab" * 32
SESSION = SessionView(token="matl_cl_alice", expires_at=NOW)
SPEC = SpecView.of(RoundSpec(run="demo", round=3, model_hash=HASH, layout_hash=HASH))
RUN = RunView(
    id="demo", status="running", rounds=9, round=3, visibility="clear", mode="Mode1", model_hash=HASH, layout=[],
    config_digest=HASH, created_at=NOW, receipts_key="", oracle=None,
)  # fmt: skip
ROUND = RoundView(
    run="demo", number=3, status="open", spec=SPEC, opened_at=NOW, deadline_at=None, ended_at=None, target=5, quorum=3,
    accepted=0, rejected=0, model_hash=HASH,
)  # fmt: skip


class FakeService:
    """What the door calls, as far as tests go."""

    def __init__(self) -> None:
        self.asked: list[tuple[str | None, bytes | None, str]] = []  # what was shown, and from where
        self.seen: list[tuple[Any, ...]] = []
        self.model_size = 0
        self.received = 0  # bytes of payloads that were read
        self.opened = 0  # streams
        self.new_event = asyncio.Event()

    async def authenticate(
        self, authorization: str | None, *, certificate: bytes | None = None, address: str = ""
    ) -> Caller:
        self.asked.append((authorization, certificate, address))
        if authorization == "Bearer wrong":
            raise refusal(Code.UNAUTHENTICATED, "this token is nobody's", reason="token")
        return Caller("client" if authorization else "anonymous", "alice" if authorization else "")

    async def health(self) -> Health:
        return Health(version="1.0", time=NOW)

    async def challenge(self) -> ChallengeView:
        return ChallengeView(challenge="cd" * 56)

    async def enrol(self, request: EnrolRequest) -> Enrolled:
        self.seen.append((request,))
        return Enrolled(client_id=request.client_id, fingerprint=HASH, session=SESSION)

    async def session(self, request: SessionRequest) -> SessionView:
        self.seen.append((request,))
        return SESSION

    async def runs(self, caller: Caller) -> list[RunView]:
        self.seen.append((caller,))
        return [RUN, RUN]

    async def run(self, caller: Caller, run: str) -> RunView:
        if run == "broken":
            raise ZeroDivisionError("a secret of the house")
        if run != "demo":
            raise refusal(Code.NOT_FOUND, f"no run {run!r} \N{CHECK MARK}", reason="no run\n\N{CHECK MARK}")
        return RUN

    async def current_round(
        self, caller: Caller, run: str, *, after: int | None = None, wait: float = 0.0
    ) -> RoundView:
        self.seen.append((run, after, wait))
        if after is not None and after >= 3:
            await asyncio.sleep(wait)
        return ROUND

    async def round(self, caller: Caller, run: str, number: int) -> RoundView:
        return ROUND.model_copy(update={"number": number})

    async def model(self, caller: Caller, model_hash: str) -> ModelBlob:
        async def stream(start: int, stop: int) -> AsyncIterator[bytes]:
            self.opened += 1
            try:
                for begin in range(start, stop, 3 << 20):
                    yield piece(begin, min(begin + (3 << 20), stop))
            finally:
                self.opened -= 1

        return ModelBlob(sha256=HASH, size=self.model_size, stream=stream)

    async def submit(
        self, caller: Caller | None, run: str, number: int, message: AsyncIterator[bytes]
    ) -> Acknowledgement:
        begin = await anext(message)
        assert int.from_bytes(begin[:LENGTH], "big") == len(begin) - LENGTH
        head = read_head(begin[LENGTH:])
        if head.client_id == "mallory":
            raise refusal(Code.CONFLICT, "was there already", reason="replay", retry_after=1.5)
        hashed = hashlib.sha256()
        async for chunk in message:
            self.received += len(chunk)
            hashed.update(chunk)
        assert hashed.hexdigest() == head.payload_sha256
        self.seen.append((run, number))
        return Acknowledgement(
            run=run, round=number, client_id=head.client_id, payload_sha256=hashed.hexdigest(), duplicate=False
        )

    async def update(self, caller: Caller, run: str, number: int, client: str) -> UpdateView:
        return UpdateView(
            run=run, round=number, client_id=client, status="received", received_at=NOW, payload_sha256=HASH
        )

    async def receipt(self, caller: Caller, run: str, number: int, client: str) -> bytes:
        return f"{run} {number} {client}".encode()

    async def subscribe(self, caller: Caller, *, after: int) -> AsyncIterator[EventView]:
        self.opened += 1
        try:
            while True:
                after += 1
                run = "demo" if after % 2 else "other"
                yield EventView(seq=after, time=NOW, kind="round_opened", run=run, round=0, data={})
                if after >= 4:
                    await self.new_event.wait()
        finally:
            self.opened -= 1


def piece(start: int, stop: int) -> bytes:
    """Bytes of a model that tell where they lie."""
    pattern = bytes(range(251))
    first = start % len(pattern)
    return (pattern * ((stop - start) // len(pattern) + 2))[first : first + stop - start]


def message_of(payload: bytes, client: str = "alice") -> Message:
    """An update of this payload."""
    head = Head(
        client_id=client, run="demo", round=3, base_version=3, model_hash=HASH, payload_bytes=len(payload),
        payload_sha256=hashlib.sha256(payload).hexdigest(), nonce="01" * 16, created_at=1.0,
    )  # fmt: skip
    return Message(head.to_bytes(), payload)


@asynccontextmanager
async def opened(settings: DoorSettings | None = None, **client: Any) -> AsyncIterator[tuple[Any, Any, Any]]:
    """A service, its door, and a transport to it."""
    service = FakeService()
    async with GrpcDoor(service, settings or DoorSettings(grace=0.5)) as door:
        scheme = "grpcs" if settings and settings.tls else "grpc"
        transport = GrpcTransport(f"{scheme}://localhost:{door.port}", **client)
        try:
            yield service, transport, door
        finally:
            await transport.aclose()
