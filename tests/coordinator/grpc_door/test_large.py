from __future__ import annotations

import asyncio
import mmap
import re
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
from tests.coordinator.grpc_door.fake import HASH, FakeService, message_of, opened, piece
from tests.coordinator.grpc_door.raw import chunk, head, raw

from matl.client.grpc import GrpcTransport
from matl.client.transport import Message
from matl.coordinator.grpc_door import GrpcDoor
from matl.errors import ServiceError
from matl.protocol.messages import Acknowledgement
from matl.protocol.pb.methods import LARGEST_PIECE

MEGABYTE = 1 << 20
LARGE = 64 * MEGABYTE


def anonymous() -> int:
    """Bytes of this process that no file holds."""
    (kilobytes,) = re.findall(r"RssAnon:\s+(\d+) kB", Path("/proc/self/status").read_text())
    return 1024 * int(kilobytes)


def test_a_large_update_passes_in_little_memory(tmp_path: Path) -> None:
    most = 0

    class Watching(FakeService):
        async def submit(self, caller: Any, run: str, number: int, message: AsyncIterator[bytes]) -> Any:
            async def watched() -> AsyncIterator[bytes]:
                nonlocal most
                async for each in message:
                    most = max(most, anonymous())
                    yield each

            return await super().submit(caller, run, number, watched())

    async def main() -> int:
        file = tmp_path / "payload"
        file.write_bytes(piece(0, LARGE))
        announced = message_of(piece(0, LARGE)).head
        service = Watching()
        async with GrpcDoor(service) as door:
            transport = GrpcTransport(f"grpc://localhost:{door.port}")
            with file.open("rb") as stream, mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as content:
                before = anonymous()
                view = memoryview(content)
                await transport.submit("demo", 3, Message(announced, view))
                view.release()
            await transport.aclose()
        assert service.received == LARGE
        return before

    before = asyncio.run(main())
    assert most - before < LARGE / 2


def test_a_large_model_passes_in_little_memory_and_from_where_it_broke() -> None:
    async def main() -> None:
        async with opened() as (service, transport, _):
            service.model_size = LARGE
            before, most, there = anonymous(), 0, 0
            async with aclosing(transport.model(HASH)) as pieces:  # type: ignore[type-var]
                async for each in pieces:
                    assert len(each) <= LARGEST_PIECE
                    assert each == piece(there, there + len(each))
                    there += len(each)
                    most = max(most, anonymous())
                    if there > LARGE / 2:
                        break
            async for each in transport.model(HASH, offset=there):
                assert each == piece(there, there + len(each))
                there += len(each)
                most = max(most, anonymous())
            assert there == LARGE
            assert most - before < LARGE / 2
            while service.opened:  # the half that nobody wanted is let go of
                await asyncio.sleep(0.01)

    asyncio.run(main())


def test_an_empty_rest_of_a_model_is_no_fault() -> None:
    async def main() -> None:
        async with opened() as (service, transport, _):
            service.model_size = 10
            assert [each async for each in transport.model(HASH, offset=10)] == []

    asyncio.run(main())


def test_the_payload_stays_at_home_where_the_head_is_refused() -> None:
    class Counting(Message):
        sent = 0

        def pieces(self, offset: int = 0) -> Iterator[bytes]:
            for each in super().pieces(offset):
                Counting.sent += len(each)
                yield each

    async def main() -> None:
        async with opened() as (service, transport, _):
            message = message_of(bytes(LARGE), "mallory")
            with pytest.raises(ServiceError, match="was there already"):
                await transport.submit("demo", 3, Counting(message.head, message.payload))
            assert service.received == 0
            assert Counting.sent == 0
            await transport.submit("demo", 3, Counting(message_of(b"abc").head, b"abc"))
            assert Counting.sent == 3

    asyncio.run(main())


def test_an_update_that_was_there_already_is_not_sent_again() -> None:
    class Knowing(FakeService):
        async def submit(self, caller: Any, run: str, number: int, message: AsyncIterator[bytes]) -> Any:
            await anext(message)
            return Acknowledgement(run=run, round=number, client_id="alice", payload_sha256=HASH, duplicate=True)

    class Kept(Message):
        def pieces(self, offset: int = 0) -> Iterator[bytes]:
            raise AssertionError("nobody asked for it")

    async def main() -> None:
        async with GrpcDoor(Knowing()) as door:
            transport = GrpcTransport(f"grpc://localhost:{door.port}")
            assert (await transport.submit("demo", 3, Kept(message_of(b"abc").head, b"abc"))).duplicate
            await transport.aclose()

    asyncio.run(main())


def test_a_client_may_send_on_without_waiting() -> None:
    async def main() -> None:
        async with raw() as (service, ask):
            await ask("Submit", head(json=message_of(bytes(LARGEST_PIECE)).head), chunk(bytes(LARGEST_PIECE)))
            assert service.received == LARGEST_PIECE

    asyncio.run(main())
