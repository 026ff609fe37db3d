"""Models: whole, in ranges, and not at all where the client has them."""

from __future__ import annotations

import asyncio
import base64
import hashlib

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.coordinator.http.doubles import ADMIN, MODEL, MODEL_HASH, Echo, ask, connected, create_app, serving
from tests.coordinator.http.test_errors import refused

from matl.coordinator.http.ranges import wanted
from matl.errors import ServiceError

PATH = f"/v1/models/{MODEL_HASH}"
ETAG = f'"{hashlib.sha256(MODEL).hexdigest()}"'


def test_a_whole_model():
    async def test(client, service):
        answer = await client.get(PATH)
        assert answer.status_code == 200
        assert answer.content == MODEL
        assert answer.headers["content-length"] == str(len(MODEL))
        assert answer.headers["etag"] == ETAG
        assert answer.headers["accept-ranges"] == "bytes"
        assert "immutable" in answer.headers["cache-control"]
        digest = base64.b64encode(hashlib.sha256(MODEL).digest()).decode()
        assert answer.headers["repr-digest"] == f"sha-256=:{digest}:"
        assert service.streams_closed == 1

    ask(test)


@pytest.mark.parametrize(
    ("asked", "start", "stop"),
    [("bytes=0-0", 0, 1), ("bytes=5000-", 5000, len(MODEL)), ("bytes=-7", len(MODEL) - 7, len(MODEL)),
     ("bytes=990-1010", 990, 1011), ("bytes=0-99999999", 0, len(MODEL))],
)  # fmt: skip
def test_a_part_of_a_model(asked, start, stop):
    async def test(client, service):
        answer = await client.get(PATH, headers={"Range": asked})
        assert answer.status_code == 206
        assert answer.content == MODEL[start:stop]
        assert answer.headers["content-range"] == f"bytes {start}-{stop - 1}/{len(MODEL)}"
        assert answer.headers["content-length"] == str(stop - start)

    ask(test)


@pytest.mark.parametrize("asked", [f"bytes={len(MODEL)}-", "bytes=-0", "bytes=999999-1000000"])
def test_a_part_that_is_not_there(asked):
    async def test(client, service):
        answer = await client.get(PATH, headers={"Range": asked})
        refused(answer, 416, "range")
        assert answer.headers["content-range"] == f"bytes */{len(MODEL)}"

    ask(test)


@pytest.mark.parametrize(
    "asked", ["bytes=9-5", "bytes=-", "lines=1-2", "bytes=0-1,4-5", "bytes=a-b", "bytes=" + "9" * 40]
)
def test_a_range_that_cannot_be_read_is_none(asked):
    async def test(client, service):
        answer = await client.get(PATH, headers={"Range": asked})
        assert answer.status_code == 200
        assert answer.content == MODEL

    ask(test)


def test_a_range_of_what_the_client_has_no_longer():
    async def test(client, service):
        headers = {"Range": "bytes=0-9", "If-Range": '"older"'}
        assert (await client.get(PATH, headers=headers)).status_code == 200
        assert (await client.get(PATH, headers=headers | {"If-Range": ETAG})).status_code == 206

    ask(test)


def test_a_model_that_the_client_has():
    async def test(client, service):
        for tag in (ETAG, "*", f'"x", W/{ETAG}'):
            answer = await client.get(PATH, headers={"If-None-Match": tag, "Range": "bytes=0-9"})
            assert answer.status_code == 304
            assert answer.content == b""
            assert answer.headers["etag"] == ETAG
        assert (await client.get(PATH, headers={"If-None-Match": '"older"'})).status_code == 200

    ask(test)


def test_how_large_a_model_is():
    async def test(client, service):
        answer = await client.head(PATH)
        assert answer.status_code == 200
        assert answer.content == b""
        assert answer.headers["content-length"] == str(len(MODEL))
        assert (await client.head(PATH, headers={"Range": "bytes=0-9"})).headers["content-length"] == "10"
        assert service.streams_closed == 0

    ask(test)


@pytest.mark.parametrize("name", ["AB" * 32, "ab" * 31, "..%2f..%2fetc%2fpasswd", "ab" * 33, "%00" * 64])
def test_what_is_no_hash(name):
    async def test(client, service):
        assert (await client.get(f"/v1/models/{name}")).status_code in (404, 422)

    ask(test)


def test_a_client_that_leaves_closes_what_is_read():
    async def main():
        async with serving(create_app(service := Echo())) as url:
            service.model = _endless(service)
            async with connected(url) as (reader, writer):
                writer.write(f"GET {PATH} HTTP/1.1\r\nHost: matl\r\nAuthorization: Bearer admin\r\n\r\n".encode())
                await reader.readexactly(1000)
                writer.transport.abort()
            async with asyncio.timeout(5):
                while not service.streams_closed:
                    await asyncio.sleep(0.01)

    asyncio.run(main())


def _endless(service):
    original = service.model

    async def model(caller, model_hash):
        blob = await original(caller, model_hash)

        async def stream(start, stop):
            try:
                while True:
                    await asyncio.sleep(0)  # as any reader of a disk does
                    yield b"x" * 65536
            finally:
                service.streams_closed += 1

        return type(blob)(blob.sha256, 1 << 40, stream)

    return model


def test_heads_over_a_network_have_no_body():
    async def main():
        async with serving(create_app(Echo())) as url, httpx.AsyncClient(base_url=url, headers=ADMIN) as client:
            for path in (PATH, "/v1/health"):
                answer = await client.head(path)
                assert answer.status_code == 200
                assert answer.content == b""

    asyncio.run(main())


@given(st.text("bytes=-0123456789, \t", max_size=20), st.integers(1, 1000))
def test_any_range_is_within_the_bytes(text, size):
    try:
        part = wanted({"range": text}, '"tag"', size)
    except ServiceError:
        return
    assert part is None or 0 <= part[0] < part[1] <= size
