from __future__ import annotations

import asyncio
import os
import socket
import threading
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import Any

import pytest
from tests.coordinator.grpc_door.fake import HASH, NOW, ROUND, RUN, SESSION, FakeService, message_of, opened

from matl.client.grpc import GrpcTransport
from matl.coordinator.grpc_door import DoorSettings, GrpcDoor
from matl.errors import InvalidValueError, ServiceError, StateError
from matl.protocol.messages import EnrolRequest, SessionRequest
from matl.protocol.pb.methods import CODE, GO_ON, RETRY_AFTER

grpc = pytest.importorskip("grpc")


@asynccontextmanager
async def closing(url: str, **given: Any) -> AsyncIterator[GrpcTransport]:
    transport = GrpcTransport(url, **given)
    try:
        yield transport
    finally:
        await transport.aclose()


async def refused(call: Any) -> tuple[str, str]:
    with pytest.raises(ServiceError) as caught:
        await call
    return caught.value.code, caught.value.reason


def test_everything_is_asked_and_answered() -> None:
    async def main() -> None:
        async with opened() as (service, transport, _):
            assert (await transport.health()).time == NOW
            assert await transport.challenge() == "cd" * 56
            enrolment = EnrolRequest(client_id="alice", key="AAAA", token="t", challenge="c", signature="AAAA")
            assert (await transport.enrol(enrolment)).session == SESSION
            asking = SessionRequest(client_id="alice", challenge="c", signature="AAAA")
            assert await transport.session(asking) == SESSION
            assert service.seen == [(enrolment,), (asking,)]
            assert await transport.runs() == [RUN, RUN]
            assert await transport.run("demo") == RUN
            assert await transport.current_round("demo", after=2, wait=1.5) == ROUND
            assert await transport.current_round("demo") == ROUND
            assert await transport.current_round("demo", after=0) == ROUND
            assert await transport.current_round("demo", after=-1) == ROUND
            assert service.seen[-4:] == [("demo", 2, 1.5), ("demo", None, 0.0), ("demo", 0, 0.0), ("demo", None, 0.0)]
            assert (await transport.round("demo", 7)).number == 7
            acknowledged = await transport.submit("demo", 3, message_of(b"payload"))
            assert (acknowledged.run, acknowledged.round, acknowledged.duplicate) == ("demo", 3, False)
            assert (await transport.update("demo", 3, "alice")).status == "received"
            assert await transport.receipt("demo", 3, "alice") == b"demo 3 alice"
            service.model_size = 10
            assert b"".join([each async for each in transport.model(HASH)]) == bytes(range(10))
            assert b"".join([each async for each in transport.model(HASH, offset=4)]) == bytes(range(4, 10))
            async with aclosing(transport.events(after=1)) as events:
                assert (await anext(events)).seq == 2

    asyncio.run(main())


def test_updates_are_not_sent_in_pieces() -> None:
    async def main() -> None:
        async with opened() as (_, transport, _):
            assert not transport.resumable
            for call in (
                transport.begin_upload("demo", 3, b""), transport.upload("u"), transport.append("u", 0, b""),
            ):  # fmt: skip
                assert await refused(call) == ("invalid", "not_resumable")

    asyncio.run(main())


def test_refusals_keep_code_reason_words_and_time() -> None:
    async def main() -> None:
        async with opened() as (_, transport, _):
            with pytest.raises(ServiceError, match="was there already") as caught:
                await transport.submit("demo", 3, message_of(b"abc", "mallory"))
            assert (caught.value.code, caught.value.reason, caught.value.retry_after) == ("conflict", "replay", 1.5)
            with pytest.raises(ServiceError, match="no run 'other' \N{CHECK MARK}") as caught:
                await transport.run("other")
            assert (caught.value.code, caught.value.reason, caught.value.retry_after) == ("not_found", "no run??", None)

    asyncio.run(main())


def test_a_fault_of_the_coordinator_is_told_without_its_secrets() -> None:
    async def main() -> None:
        async with opened() as (_, transport, _):
            with pytest.raises(ServiceError, match=r"failed.*its log says why") as caught:
                await transport.run("broken")
            assert (caught.value.code, caught.value.reason) == ("busy", "internal")
            assert "secret" not in str(caught.value)

    asyncio.run(main())


def test_a_token_can_be_taken_back() -> None:
    async def main() -> None:
        async with opened() as (service, transport, _):
            transport.set_token("one")
            await transport.runs()
            transport.set_token("")
            await transport.runs()
            assert [shown for shown, _, _ in service.asked] == ["Bearer one", None]

    asyncio.run(main())


def test_nobody_there() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"grpc://127.0.0.1:{taken.getsockname()[1]}"

        async def main() -> None:
            async with closing(url) as transport:
                assert await refused(transport.health()) == ("busy", "unreachable")
                assert await refused(transport.submit("demo", 3, message_of(b"abc"))) == ("busy", "unreachable")
                with pytest.raises(ServiceError, match=r"matl up"):
                    await anext(transport.model(HASH))

        asyncio.run(main())


def test_a_name_that_is_unknown() -> None:
    async def main() -> None:
        async with closing("grpc://nowhere.invalid:1", timeout=10) as transport:
            assert await refused(transport.health()) in (("busy", "unreachable"), ("busy", "timeout"))

    asyncio.run(main())


@pytest.mark.parametrize("host", ["xn--zzzzzz", "-b\u00fc", "1.2.3.999"])
def test_names_that_nobody_can_have(host: str) -> None:
    async def main() -> None:
        async with closing(f"grpc://{host}:1", timeout=10) as transport:
            assert await refused(transport.health()) in (("busy", "unreachable"), ("busy", "timeout"))

    asyncio.run(main())


def test_somebody_who_does_not_answer() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"grpc://127.0.0.1:{silent.getsockname()[1]}"

        async def main() -> None:
            async with closing(url, timeout=0.3) as transport:
                assert await refused(transport.health()) == ("busy", "timeout")
                with pytest.raises(ServiceError) as caught:
                    await anext(transport.model(HASH))
                assert (caught.value.code, caught.value.reason) == ("busy", "timeout")

        asyncio.run(main())


def test_a_server_of_something_else() -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read(100)
        writer.write(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")
        writer.close()
        await writer.wait_closed()

    async def main() -> None:
        web = await asyncio.start_server(answer, "127.0.0.1", 0)
        port = web.sockets[0].getsockname()[1]
        async with web, closing(f"grpc://127.0.0.1:{port}", timeout=5) as transport:
            code, reason = await refused(transport.health())
            assert (code, reason) in (("malformed", "not_a_coordinator"), ("busy", "unreachable"))
        other = grpc.aio.server()
        port = other.add_insecure_port("127.0.0.1:0")
        await other.start()
        async with closing(f"grpc://127.0.0.1:{port}", timeout=5) as transport:
            assert await refused(transport.health()) == ("malformed", "not_a_coordinator")
        await other.stop(None)

    asyncio.run(main())


def test_answers_of_another_version_are_named() -> None:
    class Other(FakeService):
        async def runs(self, caller: Any) -> list[Any]:
            return [SESSION]

        async def model(self, caller: Any, model_hash: str) -> Any:
            blob = await super().model(caller, model_hash)

            async def half(start: int, stop: int) -> AsyncIterator[bytes]:
                yield b"x" * (stop // 2)

            return type(blob)(sha256=blob.sha256, size=10, stream=half)

    async def main() -> None:
        async with GrpcDoor(Other()) as door, closing(f"grpc://localhost:{door.port}") as transport:
            with pytest.raises(ServiceError, match="no RunView") as caught:
                await transport.runs()
            assert (caught.value.code, caught.value.reason) == ("malformed", "not_a_coordinator")
            with pytest.raises(ServiceError, match="5 bytes of a model of 10"):
                [each async for each in transport.model(HASH)]

    asyncio.run(main())


@asynccontextmanager
async def answered(answer: Any) -> AsyncIterator[GrpcTransport]:
    """A transport to a server that has one answer to everything."""

    class Everything(grpc.GenericRpcHandler):
        def service(self, details: Any) -> Any:
            return grpc.stream_stream_rpc_method_handler(answer)

    server = grpc.aio.server(handlers=[Everything()])
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    try:
        async with closing(f"grpc://127.0.0.1:{port}", timeout=5) as transport:
            yield transport
    finally:
        await server.stop(None)


@pytest.mark.parametrize("go_on", [False, True])
def test_bytes_that_are_no_message_are_named(go_on: bool) -> None:
    async def babel(asked: Any, context: Any) -> AsyncIterator[bytes]:
        await context.send_initial_metadata(((GO_ON, "1"),) if go_on else ())
        if go_on:
            async for _ in asked:  # or a write that fails could take the place of the answer
                pass
        yield b"\xff\xff"

    async def main() -> None:
        async with answered(babel) as transport:
            calls: list[Any] = [transport.submit("demo", 3, message_of(b"abc"))]
            if go_on:
                calls += [
                    transport.health(), transport.runs(), transport.manifest("demo"),
                    transport.receipt("demo", 3, "alice"), transport.say("demo", 3, "share", b"abc"),
                    transport.asked("demo", 3, "share", wait=0.0, limit=10), anext(transport.model(HASH)),
                    anext(transport.events()),
                ]  # fmt: skip
            for said in await asyncio.gather(*calls, return_exceptions=True):
                assert isinstance(said, ServiceError)
                assert (said.code, said.reason) == ("malformed", "not_a_coordinator")
                assert "answered what is no message of this protocol" in str(said)

    asyncio.run(main())


@pytest.mark.parametrize(("text", "seconds"), [("1.5", 1.5), ("inf", None), ("nan", None), ("-1", None), ("x", None)])
def test_a_time_that_is_none_is_left_out(text: str, seconds: float | None) -> None:
    async def refusing(_: Any, context: Any) -> AsyncIterator[bytes]:
        context.set_trailing_metadata(((CODE, "busy"), (RETRY_AFTER, text)))
        await context.abort(grpc.StatusCode.UNAVAILABLE, "later")
        yield b""

    async def main() -> None:
        async with answered(refusing) as transport:
            with pytest.raises(ServiceError, match="later") as caught:
                await transport.health()
            assert (caught.value.code, caught.value.retry_after) == ("busy", seconds)

    asyncio.run(main())


def test_it_connects_again_after_the_line_broke() -> None:
    async def main() -> None:
        service = FakeService()
        async with GrpcDoor(service) as door:
            port = door.port
            transport = GrpcTransport(f"grpc://localhost:{port}")
            await transport.health()
        assert await refused(transport.health()) == ("busy", "unreachable")
        async with GrpcDoor(service, DoorSettings(port=port)):
            for _ in range(100):
                try:
                    await transport.health()
                    break
                except ServiceError:
                    await asyncio.sleep(0.1)
            else:
                raise AssertionError("never again")
        await transport.aclose()
        await transport.aclose()

    asyncio.run(main())


def test_loops_in_two_threads_do_not_disturb_each_other() -> None:
    stop, ports, answers = threading.Event(), [], []

    def serve() -> None:
        async def main() -> None:
            async with GrpcDoor(FakeService()) as door:
                ports.append(door.port)
                await asyncio.to_thread(stop.wait)

        asyncio.run(main())

    def ask() -> None:
        async def main() -> None:
            async with closing(f"grpc://localhost:{ports[0]}") as transport:
                for _ in range(20):
                    answers.append((await transport.submit("demo", 3, message_of(os.urandom(1000)))).round)

        asyncio.run(main())

    server = threading.Thread(target=serve)
    server.start()
    try:
        while not ports:
            stop.wait(0.01)
        clients = [threading.Thread(target=ask) for _ in range(2)]
        for each in clients:
            each.start()
        for each in clients:
            each.join()
    finally:
        stop.set()
        server.join()
    assert answers == [3] * 40


@pytest.mark.parametrize(
    "url",
    [
        "http://a:1", "grpc://a", "grpc://:5", "grpc://a:0", "grpc://a:99999", "grpc://a:5/path", "grpc://u@a:5",
        "grpc://[::1", "grpc://a..b:5", "grpc://a\x00b:5", "grpc://a\nb:5", "",
    ],
)  # fmt: skip
def test_urls_that_are_none(url: str) -> None:
    with pytest.raises(InvalidValueError, match="grpc://host:port"):
        GrpcTransport(url)


def test_certificates_need_tls_and_files(tmp_path: Any) -> None:
    with pytest.raises(InvalidValueError, match="grpcs://"):
        GrpcTransport("grpc://localhost:1", ca=tmp_path / "ca.pem")

    async def main() -> None:
        async with closing("grpcs://localhost:1", ca=tmp_path / "ca.pem") as transport:
            with pytest.raises(StateError, match=r"ca\.pem: No such file"):
                await transport.health()

    asyncio.run(main())
