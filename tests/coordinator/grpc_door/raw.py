"""Calls of whatever bytes, past the SDK."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import grpc
import grpc.aio
import pytest
from tests.coordinator.grpc_door.fake import FakeService, message_of

from matl.coordinator.grpc_door import DoorSettings, GrpcDoor
from matl.protocol.pb import training as pb
from matl.protocol.pb.methods import METHODS


class Raw:
    """Sends whatever bytes to a method."""

    def __init__(self, channel: Any) -> None:
        self._channel = channel

    async def __call__(self, name: str, *requests: bytes, hold: float = 0.0) -> Any:
        method = METHODS[name]
        kind = f"{'stream' if method.asks else 'unary'}_{'stream' if method.answers else 'unary'}"
        call = getattr(self._channel, kind)(method.path)

        async def parts() -> AsyncIterator[bytes]:
            for request in requests:
                yield request
            await asyncio.sleep(hold)

        answer = call(parts() if method.asks else requests[0], timeout=10)
        return [each async for each in answer] if method.answers else await answer

    async def silent(self, name: str, *, hold: float = 10.0) -> None:
        """Call a method and send no request, whatever it wants."""

        async def nothing() -> AsyncIterator[bytes]:
            await asyncio.sleep(hold)
            for none in ():
                yield none

        async for _ in self._channel.stream_stream(METHODS[name].path)(nothing(), timeout=10):
            pass


@asynccontextmanager
async def raw(settings: DoorSettings | None = None) -> AsyncIterator[tuple[FakeService, Raw]]:
    service = FakeService()
    async with (
        GrpcDoor(service, settings or DoorSettings(grace=0.5)) as door,
        grpc.aio.insecure_channel(f"localhost:{door.port}", options=[("grpc.max_send_message_length", -1)]) as channel,
    ):
        yield service, Raw(channel)


async def refused(call: Coroutine[Any, Any, Any]) -> tuple[str, str, str]:
    """Status, code and words of a call that is refused."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    code = dict(caught.value.trailing_metadata()).get("matl-code", "")
    return caught.value.code().name, code, caught.value.details()


def head(**changes: Any) -> bytes:
    fields = {"run": "demo", "round": 3, "json": message_of(b"abc").head, **changes}
    return pb.UpdatePart(head=pb.UpdateHead(**fields)).SerializeToString()


def chunk(data: bytes) -> bytes:
    return pb.UpdatePart(chunk=data).SerializeToString()
