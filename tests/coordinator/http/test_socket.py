"""The WebSocket, over a network and in front of a real service."""

from __future__ import annotations

import asyncio
import contextlib
import json

import jsonschema
import pytest
from tests.coordinator.http.doubles import Echo, connected, serving
from tests.coordinator.service_kit import serving as service
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from matl.coordinator.access import Caller
from matl.coordinator.http import frames, socket
from matl.coordinator.http.app import create_app
from matl.coordinator.http.frames import PATH
from matl.coordinator.limits import InFlight

SCHEMA = jsonschema.Draft202012Validator(frames.schema())


@contextlib.asynccontextmanager
async def opened(url, *hello):
    async with connect(url.replace("http", "ws") + PATH, max_size=None) as line:
        for frame in hello:
            SCHEMA.validate(frame)
            await line.send(json.dumps(frame))
        yield line


async def said(line):
    async with asyncio.timeout(10):
        frame = json.loads(await line.recv())
    SCHEMA.validate(frame)
    return frame


async def closed(line):
    with pytest.raises(ConnectionClosed) as error:
        async with asyncio.timeout(10):
            await line.recv()
    return error.value.rcvd.code


def hello(token=None, after=None):
    return {"type": "hello", "token": token, "after": after}


def token(kit):
    return kit.bearer["Authorization"].removeprefix("Bearer ")


def test_events_from_a_number_on_and_then_as_they_happen(tmp_path):
    async def main():
        async with service(tmp_path) as kit:
            await kit.start()
            await kit.enrol("ann")
            async with serving(create_app(kit.service)) as url, opened(url, hello(token(kit), 0)) as line:
                page = await kit.service.events(kit.admin)
                assert len(page.events) >= 3
                for event in page.events:
                    assert await said(line) == {"type": "event", **event.model_dump(mode="json")}
                await kit.enrol("bob")
                event = await said(line)
                assert event["kind"] == "client_enrolled"
                async with opened(url, hello(token(kit), event["seq"] - 1)) as later:
                    assert await said(later) == event

    asyncio.run(main())


def test_updates_are_acknowledged_in_order_without_a_token(tmp_path):
    async def main():
        async with service(tmp_path) as kit:
            await kit.start()
            ann, bob = await kit.enrol("ann"), await kit.enrol("bob")
            async with serving(create_app(kit.service)) as url, opened(url, hello()) as line:
                message = await ann.message()
                await line.send(message)
                await line.send(b"\0\0\0\x02{}")
                await line.send(message)
                await line.send(await bob.message())
                first, second, third, fourth = [await said(line) for _ in range(4)]
            assert (first["type"], first["answers"], first["client_id"]) == ("ack", 0, "ann")
            assert first["duplicate"] is False
            assert (second["type"], second["answers"], second["code"]) == ("problem", 1, "malformed")
            assert (third["type"], third["answers"], third["duplicate"]) == ("ack", 2, True)
            assert (fourth["client_id"], fourth["answers"]) == ("bob", 3)
            assert (await kit.service.current_round(kit.admin, "demo")).accepted == 2

    asyncio.run(main())


def test_updates_and_events_through_one_connection(tmp_path):
    async def main():
        async with service(tmp_path) as kit:
            await kit.start(target=1, quorum=1)
            ann = await kit.enrol("ann")
            async with serving(create_app(kit.service)) as url, opened(url, hello(ann.token, 0)) as line:
                await line.send(await ann.message())
                seen = []
                while not {"ack", "round_committed"} <= set(seen):
                    frame = await said(line)
                    seen.append(frame["kind"] if frame["type"] == "event" else frame["type"])

    asyncio.run(main())


def test_ping():
    async def main():
        async with serving(create_app(Echo())) as url, opened(url, hello(), {"type": "ping"}) as line:
            assert await said(line) == {"type": "pong"}

    asyncio.run(main())


@pytest.mark.parametrize(
    ("first", "code", "number"),
    [
        ("{", "malformed", 1008),
        ("[" * 1000, "malformed", 1008),
        ('{"type": "ping"}', "invalid", 1008),
        ('{"type": "hello", "after": -1}', "invalid", 1008),
        ('{"type": "hello", "after": "3"}', "invalid", 1008),
        ('{"type": "hello", "admin": true}', "invalid", 1008),
        ('{"type": "hello", "token": "wrong"}', "unauthenticated", 1008),
        ('{"type": "hello", "after": 0}', "unauthenticated", 1008),
        (b"\0\0\0\x02{}", "malformed", 1008),
        (json.dumps(hello("x" * 5000)), "too_large", 1009),
    ],
)
def test_a_first_frame_that_is_refused(first, code, number):
    async def main():
        async with serving(create_app(Echo())) as url, opened(url) as line:
            await line.send(first)
            frame = await said(line)
            assert (frame["type"], frame["code"], frame["answers"]) == ("problem", code, None)
            assert await closed(line) == number

    asyncio.run(main())


def test_a_later_frame_that_is_refused():
    async def main():
        async with serving(create_app(Echo())) as url, opened(url, hello(), hello()) as line:
            assert (await said(line))["code"] == "invalid"
            assert await closed(line) == 1008

    asyncio.run(main())


def test_silence_is_not_waited_out(monkeypatch):
    monkeypatch.setattr(socket, "HELLO_SECONDS", 0.05)

    async def main():
        async with serving(create_app(Echo())) as url, opened(url) as line:
            assert (await said(line))["reason"] == "hello"
            assert await closed(line) == 1008

    asyncio.run(main())


def test_frames_have_a_size():
    async def main():
        async with serving(create_app(Echo())) as url:
            async with opened(url, hello()) as line:
                await line.send(b"x" * (Echo.max_message + 1))
                assert (await said(line))["code"] == "too_large"
                assert await closed(line) == 1009
            async with opened(url, hello()) as line:
                with contextlib.suppress(ConnectionClosed):  # before all of it was sent
                    await line.send(b"x" * (socket.LARGEST_FRAME + 1))
                assert await closed(line) == 1009

    asyncio.run(main())


def test_a_refused_update_leaves_the_connection_open(tmp_path):
    async def main():
        async with service(tmp_path) as kit:
            await kit.start()
            ann, bob = await kit.enrol("ann"), await kit.enrol("bob")
            async with serving(create_app(kit.service)) as url, opened(url, hello(bob.token)) as line:
                await line.send(await ann.message())
                frame = await said(line)
                assert (frame["code"], frame["reason"]) == ("forbidden", "client")
                await line.send(await bob.message())
                assert (await said(line))["type"] == "ack"

    asyncio.run(main())


def test_a_token_that_is_revoked_ends_the_connection(monkeypatch):
    monkeypatch.setattr(socket, "_WATCH_SECONDS", 0.05)
    echo = Echo()

    async def main():
        async with serving(create_app(echo)) as url, opened(url, hello("admin")) as line:
            await line.send('{"type": "ping"}')
            await said(line)
            echo.revoked = True
            assert (await said(line))["code"] == "unauthenticated"
            assert await closed(line) == 1008

    asyncio.run(main())


def test_a_certificate_that_is_nobodys_any_more_ends_the_connection(monkeypatch):
    monkeypatch.setattr(socket, "_WATCH_SECONDS", 0.05)
    echo = Echo()

    async def shown(authorization, **_):
        return Caller() if echo.revoked else Caller("client", "ann", key="5f" * 32)

    monkeypatch.setattr(echo, "authenticate", shown)

    async def main():
        async with serving(create_app(echo)) as url, opened(url, hello()) as line:
            await line.send('{"type": "ping"}')
            await said(line)
            echo.revoked = True
            assert (await said(line))["code"] == "unauthenticated"
            assert await closed(line) == 1008

    asyncio.run(main())


@pytest.mark.parametrize("how", ["revoked", "ended"])
def test_events_end_with_the_right_to_them(tmp_path, how):
    async def main():
        async with service(tmp_path) as kit:
            await kit.start()
            ann = await kit.enrol("ann")
            async with serving(create_app(kit.service)) as url, opened(url, hello(ann.token, 0)) as line:
                assert (await said(line))["type"] == "event"
                if how == "revoked":
                    await kit.service.revoke(kit.admin, "ann")
                else:
                    kit.clock.ahead = 3601
                    await kit.service.pause(kit.admin, "demo")
                while (frame := await said(line))["type"] == "event":
                    pass
                assert (frame["code"], frame["reason"]) == ("unauthenticated", "token")
                assert await closed(line) == 1008

    asyncio.run(main())


def test_a_server_that_ends_says_so():
    async def main():
        app = create_app(Echo())
        entered = serving(app)
        url = await entered.__aenter__()
        async with opened(url, hello("admin", 3), {"type": "ping"}) as line:
            assert await said(line) == {"type": "pong"}
            waiting = asyncio.create_task(closed(line))
            async with asyncio.timeout(3):
                await entered.__aexit__(None, None, None)
            assert await waiting in (1001, 1012)
        assert app.state.sockets.count == 0

    asyncio.run(main())


def test_a_service_that_ends_ends_the_connection(tmp_path):
    async def main():
        async with (
            service(tmp_path) as kit,
            serving(create_app(kit.service)) as url,
            opened(url, hello(token(kit), 10**6), {"type": "ping"}) as line,
        ):
            assert await said(line) == {"type": "pong"}
            kit.service.drain()
            assert await closed(line) == 1001

    asyncio.run(main())


def test_connections_are_counted():
    app = create_app(Echo())
    app.state.sockets = InFlight(1, 1, "connections")

    async def main():
        async with serving(app) as url:
            async with opened(url, hello(), {"type": "ping"}) as line:
                assert await said(line) == {"type": "pong"}
                async with opened(url) as second:
                    assert (await said(second))["code"] == "busy"
                    assert await closed(second) == 1013
            async with asyncio.timeout(5):
                while app.state.sockets.count:
                    await asyncio.sleep(0.01)
            async with opened(url, hello(), {"type": "ping"}) as line:
                assert await said(line) == {"type": "pong"}

    asyncio.run(main())


def test_one_sender_has_only_so_many_connections(monkeypatch):
    monkeypatch.setattr(socket, "MOST_OF_ONE", 1)
    app = create_app(Echo())

    async def main():
        async with serving(app) as url, opened(url, hello(), {"type": "ping"}) as line:
            assert await said(line) == {"type": "pong"}
            async with opened(url, hello()) as second:
                assert (await said(second))["reason"] == "connections"
                assert await closed(second) == 1013
            async with opened(url, hello("admin"), {"type": "ping"}) as other:
                assert await said(other) == {"type": "pong"}
        assert not app.state.lines

    asyncio.run(main())


def test_a_reader_that_does_not_read_is_let_go(monkeypatch):
    monkeypatch.setattr(socket, "_SEND_SECONDS", 0.2)
    app = create_app(Torrent())

    async def main():
        async with serving(app) as url, connected(url) as (reader, writer):
            writer.write(
                f"GET {PATH} HTTP/1.1\r\nHost: x\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
                "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n".encode()
            )
            await reader.readuntil(b"\r\n\r\n")
            text = json.dumps(hello("admin", 0)).encode()
            writer.write(bytes([0x81, 0x80 | len(text), 0, 0, 0, 0]) + text)
            async with asyncio.timeout(5):
                while not app.state.sockets.count:
                    await asyncio.sleep(0.01)
                while app.state.sockets.count:
                    await asyncio.sleep(0.01)
            writer.transport.abort()

    asyncio.run(main())


class Torrent(Echo):
    """Large events without end."""

    async def subscribe(self, caller, *, after):
        event = self._event(1)
        while True:
            await asyncio.sleep(0)
            yield event.model_copy(update={"data": {"text": "x" * 100_000}})


def test_the_schema_names_every_frame():
    schema = frames.schema()
    assert schema["x-sockets"] == [PATH]
    sides = [schema["$defs"][side]["oneOf"] for side in ("ClientFrame", "ServerFrame")]
    kinds = [
        schema["$defs"][one["$ref"].rpartition("/")[2]]["properties"]["type"]["const"] for side in sides for one in side
    ]
    assert kinds == ["hello", "ping", "event", "ack", "problem", "pong"]
    jsonschema.Draft202012Validator.check_schema(schema)
    assert not SCHEMA.is_valid({"type": "hello", "after": -1})
