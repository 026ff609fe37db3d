"""Bodies on lines that are slow: written in slices, and answered when they have arrived."""

from __future__ import annotations

import asyncio
import json
from contextlib import asynccontextmanager

import httpx
import pytest

from matl.client.http import HttpTransport
from matl.client.retrying import Retrying
from matl.client.transport import Message
from matl.errors import ServiceError

SLICE = 64 << 10
BODY = bytes(range(256)) * 2000  # 512 000 bytes
MESSAGE = Message(b"{}", BODY)
ACKNOWLEDGED = {"run": "demo", "round": 0, "client_id": "alice", "payload_sha256": "ab" * 32, "duplicate": False}
UPLOAD = {"id": "u", "offset": len(BODY), "size": len(BODY), "expires_at": "2026-01-01T00:00:00Z"}

SENDING = {
    "submit": (lambda line: line.submit("demo", 0, MESSAGE), ACKNOWLEDGED, b"\0\0\0\2{}" + BODY),
    "append": (lambda line: line.append("u", 0, BODY), UPLOAD, BODY),
    "append nothing": (lambda line: line.append("u", len(BODY), b""), UPLOAD, b""),
    "say": (lambda line: line.say("demo", 0, "mask", BODY), ACKNOWLEDGED, BODY),
}
sending = pytest.mark.parametrize(("send", "answer", "body"), SENDING.values(), ids=SENDING)


class Line(httpx.AsyncBaseTransport):
    """Keeps the requests that go over it, as they are written; the first is refused."""

    def __init__(self, answer):
        self.requests, self._answer = [], answer

    async def handle_async_request(self, request):
        self.requests.append((request.headers, [part async for part in request.stream]))
        status = 503 if len(self.requests) == 1 else 200
        return httpx.Response(status, stream=httpx.ByteStream(json.dumps(self._answer).encode()))


@sending
def test_a_body_is_written_in_slices_with_its_length_told_and_anew_when_asked_again(send, answer, body, monkeypatch):
    line = Line(answer)
    made = httpx.AsyncClient
    monkeypatch.setattr(httpx, "AsyncClient", lambda **options: made(**options, transport=line))

    async def work():
        transport = HttpTransport("http://127.0.0.1:1")
        try:
            await Retrying(base=0.001)(lambda: send(transport))
        finally:
            await transport.aclose()

    asyncio.run(work())
    assert len(line.requests) == 2
    for headers, parts in line.requests:
        assert headers["content-length"] == str(len(body))
        assert "transfer-encoding" not in headers
        assert b"".join(parts) == body
        assert all(len(part) <= SLICE for part in parts)


@asynccontextmanager
async def late(seconds):
    """A host that reads a request and answers so many seconds later that it is busy."""
    answering = []

    async def answer(reader, writer):
        answering.append(asyncio.current_task())
        head = await reader.readuntil(b"\r\n\r\n")
        told = [line.split(b":")[1] for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:")]
        await reader.readexactly(int(told[0]) if told else 0)
        await asyncio.sleep(seconds)
        writer.write(b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\nConnection: close\r\n\r\n")
        writer.close()

    async with await asyncio.start_server(answer, "127.0.0.1", 0) as server:
        transport = HttpTransport(f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}", timeout=0.1)
        try:
            yield transport
        finally:
            await transport.aclose()
            await asyncio.gather(*answering)


def reason_of(request):
    async def work():
        async with late(0.4) as transport:
            await request(transport)

    with pytest.raises(ServiceError) as caught:
        asyncio.run(work())
    return caught.value.reason


@pytest.mark.parametrize("name", ["submit", "append", "say"])
def test_what_lies_in_buffers_has_time_to_arrive(name):
    assert reason_of(SENDING[name][0]) == "unreachable"  # it was answered


def test_what_has_no_body_is_answered_in_time_or_not():
    assert reason_of(lambda line: line.health()) == "timeout"
