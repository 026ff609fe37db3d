"""The same client through a WebSocket."""

from __future__ import annotations

import asyncio
import json

import numpy as np
import pytest
from starlette.applications import Starlette
from tests.client.fake import serving

from matl.client.connection import open_transport
from matl.client.transport import Message
from matl.client.websocket import WebSocketTransport
from matl.errors import ServiceError
from matl.screening import encode_payload


def run(client, work):
    async def within():
        async with client:
            return await work(client)

    return asyncio.run(within())


@pytest.fixture
def socket_url(url):
    return url.replace("http://", "ws://")


def test_a_loop_to_the_end(host, socket_url, client_of):
    async def work(client):
        await client.join(host.invite())
        return await client.fit_loop(lambda params, current: ({n: v + 1 for n, v in params.items()}, 1))

    assert run(client_of(socket_url), work) == 3
    assert host.seen["frame"] == 3
    assert not any("updates" in name and name.startswith("POST") for name in host.seen)
    np.testing.assert_array_equal(host.vector, np.full(9, 3, np.float32))


def test_a_connection_that_breaks_is_made_again(host, socket_url, client_of):
    host.stumble("frame", None, None)

    async def work(client):
        await client.join(host.invite())
        await client.next_round()
        return await client.submit_gradient(np.ones(9))

    assert not run(client_of(socket_url), work).duplicate
    assert host.seen["frame"] == 3


def test_a_refusal_is_told_and_the_connection_stays(host, socket_url, client_of):
    async def work(client):
        await client.join(host.invite())
        await client.next_round()
        with pytest.raises(ServiceError, match="the parameter names are not the model's") as caught:
            await client.submit_payload(encode_payload({"w": np.ones(2, np.float32)})[0])
        await client.submit_gradient(np.ones(9))
        return caught.value

    error = run(client_of(socket_url), work)
    assert (error.code, error.reason) == ("invalid", "names")
    assert host.seen["frame"] == 2


@pytest.mark.parametrize("scheme", ["ws://", "http://"])
def test_events(host, url, scheme, client_of):
    async def work():
        transport = open_transport(url.replace("http://", scheme))
        seen = []
        stream = transport.events(after=4)
        async for event in stream:
            seen.append(event.seq)
            if len(seen) == 2:
                break
        await stream.aclose()
        await transport.aclose()
        return seen

    assert asyncio.run(work()) == [5, 6]


def test_where_no_socket_is(client_of):
    async def work():
        transport = WebSocketTransport(url.replace("http://", "ws://"))
        try:
            await transport.submit("demo", 0, Message(b"{}", b"x"))
        finally:
            await transport.aclose()

    with serving(Starlette()) as url, pytest.raises(ServiceError, match="takes no WebSocket at /v1/ws") as caught:
        asyncio.run(work())
    assert (caught.value.code, caught.value.reason) == ("malformed", "not_a_coordinator")


def speaking(*frames, close=True):
    """An application that answers the first update with these frames."""

    async def app(scope, receive, send):
        assert (await receive())["type"] == "websocket.connect"
        await send({"type": "websocket.accept"})
        assert json.loads((await receive())["text"])["type"] == "hello"
        await receive()
        for frame in frames:
            await send({"type": "websocket.send", "text": frame})
        if not close:
            await receive()
        await send({"type": "websocket.close"})

    return app


async def submit(url, **options):
    transport = WebSocketTransport(url.replace("http://", "ws://"), **options)
    try:
        await transport.submit("demo", 0, Message(b"{}", b"x"))
    finally:
        await transport.aclose()


@pytest.mark.parametrize(
    ("frame", "code", "words"),
    [
        ("no json", "malformed", "a frame that is no JSON object"),
        ("[1]", "malformed", "a frame that is no JSON object"),
        ('{"type": "ack", "answers": 0}', "malformed", "a frame that is no Acknowledgement"),
        ('{"type": "problem", "answers": 0, "code": "new", "message": "hm"}', "invalid", "hm"),
        ('{"type": "problem", "code": "busy", "message": "too many connections"}', "busy", "too many connections"),
        ('{"type": "pong"}', "busy", "no coordinator can be reached"),
    ],
)
def test_frames_that_do_not_answer(frame, code, words):
    with serving(speaking(frame)) as url, pytest.raises(ServiceError, match=words) as caught:
        asyncio.run(submit(url))
    assert caught.value.code == code


def test_an_answer_that_does_not_come():
    with serving(speaking(close=False)) as url, pytest.raises(ServiceError, match="does not answer within") as caught:
        asyncio.run(submit(url, timeout=0.2))
    assert (caught.value.code, caught.value.reason) == ("busy", "timeout")


def test_a_problem_ends_the_events():
    async def listen(url):
        transport = WebSocketTransport(url.replace("http://", "ws://"))
        try:
            async for _ in transport.events(after=0):
                pytest.fail("there is no event")
        finally:
            await transport.aclose()

    async def app(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        await receive()
        text = '{"type": "problem", "code": "unauthenticated", "message": "no such token", "reason": "token"}'
        await send({"type": "websocket.send", "text": text})
        await send({"type": "websocket.close"})

    with serving(app) as url, pytest.raises(ServiceError, match="no such token") as caught:
        asyncio.run(listen(url))
    assert caught.value.code == "unauthenticated"


@pytest.mark.parametrize("status", [302, 308])
def test_nobody_is_followed_to_another_address(status):
    reached = []

    async def elsewhere(scope, receive, send):
        await receive()
        await send({"type": "websocket.accept"})
        reached.append((await receive())["text"])
        await send({"type": "websocket.close"})

    async def listen(url):
        transport = WebSocketTransport(url.replace("http://", "ws://"))
        transport.set_token("matl_cl_secret")
        try:
            async for _ in transport.events(after=0):
                pytest.fail("there is no event")
        finally:
            await transport.aclose()

    with serving(elsewhere) as other:
        target = other.replace("http://", "ws://")

        async def app(scope, receive, send):
            await receive()
            headers = [(b"location", target.encode())]
            await send({"type": "websocket.http.response.start", "status": status, "headers": headers})
            await send({"type": "websocket.http.response.body", "body": b""})

        for work in (listen, submit):
            with serving(app) as url, pytest.raises(ServiceError, match="give the address that answers") as caught:
                asyncio.run(work(url))
            assert f"{url} sends on to {target};" in str(caught.value)
            assert (caught.value.code, caught.value.reason) == ("malformed", "not_a_coordinator")
    assert reached == []
