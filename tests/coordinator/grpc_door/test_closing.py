from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import grpc
import grpc.aio
import pytest
from tests.coordinator.grpc_door.fake import FakeService, opened
from tests.coordinator.grpc_door.raw import chunk, head

from matl.client.grpc import GrpcTransport
from matl.coordinator.grpc_door import DoorSettings, GrpcDoor
from matl.errors import InvalidValueError, ServiceError


def test_who_stops_listening_is_forgotten() -> None:
    async def main() -> None:
        async with opened() as (service, transport, _):
            async with aclosing(transport.events(after=2)) as events:  # type: ignore[type-var]
                assert [(await anext(events)).seq, (await anext(events)).seq] == [3, 4]
                assert service.opened == 1
            while service.opened:
                await asyncio.sleep(0.01)

    asyncio.run(main())


def test_events_of_one_run_alone() -> None:
    async def main() -> None:
        async with opened() as (_, transport, _), aclosing(transport.events(run="demo")) as events:  # type: ignore[type-var]
            assert [(await anext(events)).seq, (await anext(events)).seq] == [1, 3]

    asyncio.run(main())


def test_a_deadline_ends_the_call_on_both_sides() -> None:
    ended = asyncio.Event()

    class Patient(FakeService):
        async def current_round(self, caller: Any, run: str, **_: Any) -> Any:
            try:
                await asyncio.sleep(20)
            finally:
                ended.set()

    async def main() -> None:
        async with GrpcDoor(Patient()) as door:
            transport = GrpcTransport(f"grpc://localhost:{door.port}", timeout=0.2)
            with pytest.raises(ServiceError, match="did not answer in time") as caught:
                await transport.current_round("demo")
            assert (caught.value.code, caught.value.reason) == ("busy", "timeout")
            await asyncio.wait_for(ended.wait(), 2)
            await transport.aclose()

    asyncio.run(main())


def test_closing_sends_those_away_who_wait_and_lets_an_update_arrive() -> None:
    async def main() -> None:
        async with opened(DoorSettings(grace=10)) as (service, transport, door):
            polling = asyncio.create_task(transport.current_round("demo", after=3, wait=20))
            events = transport.events(after=3)
            await anext(events)
            listening = asyncio.create_task(anext(events))
            gate = asyncio.Event()

            async def parts() -> AsyncIterator[bytes]:
                yield head()
                await gate.wait()
                yield chunk(b"abc")

            async with grpc.aio.insecure_channel(f"localhost:{door.port}") as channel:
                sending = asyncio.create_task(_result(channel.stream_unary("/matl.v1.Training/Submit")(parts())))
                while not (service.seen and len(service.asked) == 3):
                    await asyncio.sleep(0.01)
                began = time.monotonic()
                closing = asyncio.create_task(door.stop())
                for task in (polling, listening):
                    with pytest.raises(ServiceError, match="shutting down") as caught:
                        await task
                    assert (caught.value.code, caught.value.retry_after) == ("busy", 1.0)
                assert not sending.done()
                gate.set()
                await sending
                await closing
            assert service.received == 3
            assert service.opened == 0
            assert time.monotonic() - began < 5
            with pytest.raises(ServiceError, match="cannot be reached"):
                await transport.health()

    asyncio.run(main())


async def _result(call: Any) -> Any:
    return await call


def test_grace_ends() -> None:
    class Stuck(FakeService):
        async def round(self, caller: Any, run: str, number: int) -> Any:
            await asyncio.sleep(20)

    async def main() -> None:
        service = Stuck()
        async with GrpcDoor(service, DoorSettings(grace=0.2)) as door:
            transport = GrpcTransport(f"grpc://localhost:{door.port}")
            held = asyncio.create_task(transport.round("demo", 3))
            while not service.asked:
                await asyncio.sleep(0.01)
            began = time.monotonic()
            await door.stop()
            assert time.monotonic() - began < 3
            with pytest.raises(ServiceError, match="cannot be reached"):
                await held
            await transport.aclose()

    asyncio.run(main())


def test_a_port_that_is_taken() -> None:
    async def main() -> None:
        async with GrpcDoor(FakeService()) as door:
            with pytest.raises(InvalidValueError, match=f"cannot listen at 127.0.0.1:{door.port}"):
                await GrpcDoor(FakeService(), DoorSettings(port=door.port)).start()

    asyncio.run(main())


def test_stopping_twice_or_before_the_start_does_nothing() -> None:
    async def main() -> None:
        door = GrpcDoor(FakeService())
        await door.stop()
        async with GrpcDoor(FakeService()) as door:
            await door.stop()

    asyncio.run(main())
