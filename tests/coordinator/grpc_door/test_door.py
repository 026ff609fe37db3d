from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import grpc
import grpc.aio
import pytest
from tests.coordinator.grpc_door.fake import HASH, message_of, opened
from tests.coordinator.grpc_door.raw import chunk, head, raw, refused

from matl.coordinator.grpc_door import DoorSettings
from matl.errors import ServiceError
from matl.protocol.pb import training as pb
from matl.protocol.pb.methods import LARGEST_MESSAGE, LARGEST_PIECE, METHODS

# What is asked arrives --------------------------------------------------------------------------------------------


def test_every_call_shows_its_token_and_address() -> None:
    async def main() -> None:
        async with opened() as (service, transport, _):
            await transport.health()
            assert service.asked == []  # whoever watches over the coordinator is not counted
            transport.set_token("matl_cl_alice")
            await transport.challenge()
            await transport.runs()
            await transport.current_round("demo")
            await transport.submit("demo", 3, message_of(b"abc"))
            assert service.asked == [("Bearer matl_cl_alice", None, "127.0.0.1")] * 4

    asyncio.run(main())


def test_a_token_that_is_nobodys_ends_every_call_but_health() -> None:
    async def main() -> None:
        async with opened() as (_, transport, _):
            transport.set_token("wrong")
            await transport.health()
            for call in (transport.challenge(), transport.runs(), transport.submit("demo", 3, message_of(b"abc"))):
                with pytest.raises(ServiceError, match="nobody's") as caught:
                    await call
                assert (caught.value.code, caught.value.reason) == ("unauthenticated", "token")
            with pytest.raises(ServiceError, match="nobody's"):
                await anext(transport.events())

    asyncio.run(main())


def test_two_tokens_in_one_call_are_refused() -> None:
    async def main() -> None:
        async with opened() as (service, transport, _):
            transport.set_token("matl_cl_alice")
            transport._metadata *= 2
            for call in (transport.challenge(), transport.submit("demo", 3, message_of(b"abc"))):
                with pytest.raises(ServiceError, match="authorization once in the metadata, got it 2") as caught:
                    await call
                assert caught.value.code == "malformed"
            assert service.asked == []

    asyncio.run(main())


def test_a_refusal_is_a_status_with_metadata() -> None:
    async def main() -> None:
        async with raw() as (_, ask):
            with pytest.raises(grpc.aio.AioRpcError) as caught:
                await ask("Submit", head(json=message_of(b"abc", "mallory").head))
            assert caught.value.code() is grpc.StatusCode.ALREADY_EXISTS
            assert caught.value.details() == "was there already"
            metadata = dict(caught.value.trailing_metadata())
            assert (metadata["matl-code"], metadata["matl-reason"], metadata["retry-after"]) == (
                "conflict",
                "replay",
                "1.5",
            )

    asyncio.run(main())


# What cannot be taken is refused, and never breaks the door ---------------------------------------------------------


@pytest.mark.parametrize("name", [name for name, method in METHODS.items() if method.request.DESCRIPTOR.fields])
def test_bytes_that_are_no_message_are_malformed(name: str) -> None:
    async def main() -> None:
        async with raw() as (_, ask):
            assert (await refused(ask(name, b"\xff\xff\xff\xff")))[:2] == ("INVALID_ARGUMENT", "malformed")

    asyncio.run(main())


@pytest.mark.parametrize(
    ("name", "request_"),
    [
        ("GetRun", pb.RunRequest(run="")),
        ("GetRun", pb.RunRequest(run="a\0b")),
        ("GetRun", pb.RunRequest(run="x" * 200_000)),
        ("GetRound", pb.RoundRequest(run="demo", round=2**53)),
        ("GetRound", pb.RoundRequest(run="demo", round=2**64 - 1)),
        ("CurrentRound", pb.CurrentRoundRequest(run="demo", after=2**63)),
        ("CurrentRound", pb.CurrentRoundRequest(run="demo", wait_seconds=30.5)),
        ("CurrentRound", pb.CurrentRoundRequest(run="demo", wait_seconds=-1)),
        ("CurrentRound", pb.CurrentRoundRequest(run="demo", wait_seconds=float("nan"))),
        ("GetModel", pb.ModelRequest(model_hash="../etc/passwd")),
        ("GetModel", pb.ModelRequest(model_hash=HASH, offset=1)),
        ("GetUpdate", pb.UpdateRequest(run="demo", round=1, client_id="")),
        ("GetReceipt", pb.UpdateRequest(run="demo", round=2**53, client_id="a")),
        ("Events", pb.EventsRequest(after=2**53)),
        ("Events", pb.EventsRequest(run="a b")),
        ("Enrol", pb.JsonRequest(json=b"{}")),
    ],
)
def test_values_that_are_not_allowed_are_invalid(name: str, request_: Any) -> None:
    async def main() -> None:
        async with raw() as (service, ask):
            status, code, words = await refused(ask(name, request_.SerializeToString()))
            assert (status, code) == ("FAILED_PRECONDITION", "invalid")
            assert len(words) < 500
            assert service.seen == []

    asyncio.run(main())


@pytest.mark.parametrize(
    ("parts", "code"),
    [
        ((), "malformed"),
        ((b"",), "malformed"),
        ((chunk(b"abc"),), "malformed"),
        ((head(json=b""),), "too_large"),
        ((head(json=b"x" * 16385),), "too_large"),
        ((head(run="a b"),), "invalid"),
        ((head(round=2**53),), "invalid"),
        ((head(), head()), "malformed"),
        ((head(), b"\xff"), "malformed"),
        ((head(), chunk(b"")), "malformed"),
        ((head(), chunk(b"x" * (LARGEST_PIECE + 1))), "malformed"),
    ],
    ids=range(11),
)
def test_updates_out_of_order_are_refused(parts: tuple[bytes, ...], code: str) -> None:
    async def main() -> None:
        async with raw() as (service, ask):
            assert (await refused(ask("Submit", *parts)))[1] == code
            assert service.received == 0
            await ask("Submit", head(), chunk(b"abc"))  # the door is as it was
            assert service.received == 3

    asyncio.run(main())


def test_a_message_has_a_largest_size() -> None:
    async def main() -> None:
        async with raw() as (service, ask):
            with pytest.raises(grpc.aio.AioRpcError):
                await ask("Submit", head(), chunk(b"x" * LARGEST_MESSAGE))
            assert service.received == 0
            status, _, words = await refused(ask("Enrol", b"x" * (LARGEST_MESSAGE + 1)))
            assert status == "RESOURCE_EXHAUSTED"
            assert "larger than max" in words

    asyncio.run(main())


def test_a_client_that_sends_nothing_is_not_waited_for() -> None:
    async def main() -> None:
        async with raw(DoorSettings(head_seconds=0.2, idle_seconds=0.2, grace=0.5)) as (_, ask):
            for parts in ((), (head(),), (head(), chunk(b"a"))):
                status, _, words = await refused(ask("Submit", *parts, hold=5))
                assert (status, words) == ("UNAVAILABLE", "nothing of the update came for 0.2 s")

    asyncio.run(main())


@pytest.mark.parametrize("name", sorted(METHODS))
def test_a_call_without_its_request_gives_its_place_back_soon(name: str) -> None:
    async def main() -> None:
        settings = DoorSettings(head_seconds=0.2, most_calls=1, grace=0.5)
        async with raw(settings) as (_, ask):
            status, _, words = await refused(ask.silent(name))
            assert status == "UNAVAILABLE"
            assert words.endswith("came for 0.2 s")
            assert await ask("Health", b"")

    asyncio.run(main())


def test_a_call_that_ends_without_its_request_is_refused() -> None:
    async def main() -> None:
        async with raw() as (_, ask):
            status, _, words = await refused(ask.silent("GetRun", hold=0))
            assert (status, words) == ("INVALID_ARGUMENT", "expected a request, and the call ended without one")

    asyncio.run(main())


def test_an_update_that_drips_ends_too() -> None:
    async def main() -> None:
        settings = DoorSettings(idle_seconds=5, longest_submit=0.3, grace=0.5)
        async with raw(settings) as (_, ask):
            _, code, words = await refused(ask("Submit", head(), chunk(b"a"), hold=5))
            assert (code, words) == ("busy", "the update was not here after 0.3 s")

    asyncio.run(main())


def test_calls_at_a_time_are_limited() -> None:
    async def main() -> None:
        async with opened(DoorSettings(most_calls=2, grace=0.1)) as (service, transport, _):
            waiting = [asyncio.create_task(transport.current_round("demo", after=3, wait=20)) for _ in range(2)]
            while len(service.seen) < 2:
                await asyncio.sleep(0.01)
            with pytest.raises(ServiceError, match="too many calls") as caught:
                await transport.health()
            assert caught.value.code == "busy"
            waiting[0].cancel()
            await asyncio.wait({waiting[0]})
            await eventually(transport.health)
            waiting[1].cancel()
            await asyncio.wait({waiting[1]})

    asyncio.run(main())


async def eventually(call: Callable[[], Coroutine[Any, Any, Any]]) -> None:
    for _ in range(100):
        try:
            await call()
        except ServiceError:
            await asyncio.sleep(0.02)
        else:
            return
    raise AssertionError("never")
