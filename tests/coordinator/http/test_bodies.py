"""Bodies: sizes, kinds, slow ones, and JSON of a kind that is safe to keep."""

from __future__ import annotations

import asyncio
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.coordinator.http.doubles import ADMIN, Echo, ask, connected, create_app, serving, update_head
from tests.coordinator.http.test_errors import refused

from matl.coordinator.http import bodies
from matl.coordinator.http.bodies import split_messages
from matl.coordinator.http.routes_trust import MOST_VALIDATED
from matl.coordinator.strict_json import DEEPEST, LARGEST_JSON, parse
from matl.errors import ServiceError
from matl.protocol.messages import InviteRequest, StartRequest

JSON = ADMIN | {"Content-Type": "application/json"}
PATH = "/v1/runs/demo/rounds/0/updates"
UPDATE = {"Content-Type": "application/vnd.matl.update"}


def nested(depth):
    return b'{"id": "x", "settings": {"a": ' + b"[" * depth + b"]" * depth + b"}}"


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"", "not JSON"),
        (b"{", "not JSON"),
        (b'{"id": "a", "id": "b"}', "a name stands twice"),
        (b'{"id": "a", "settings": {"x": NaN}}', "not finite"),
        (b'{"id": "a", "settings": {"x": -Infinity}}', "not finite"),
        (b'{"id": "a", "settings": {"x": 1e400}}', "not finite"),
        (b'{"id": "a", "settings": {"x": 9007199254740993}}', "within 2^53"),
        (b'{"id": "a", "settings": {"x": ' + b"9" * 5000 + b"}}", "not JSON"),
        (b'{"id": "a", "settings": {"x": "\\ud800"}}', "surrogates"),
        (b'{"id": "a", "settings": {"\\u0000": 1}}', "NUL"),
        (b"\xff\xfe{\x00}\x00", "not JSON"),
        ('{"id": "a"}'.encode("utf-16"), "not JSON"),
        (nested(DEEPEST), "nested deeper than 16"),
        (nested(60_000), "not JSON"),
    ],
)
def test_json_that_is_refused(body, words):
    async def test(client, service):
        assert words in refused(await client.post("/v1/runs", headers=JSON, content=body), 400, "json").message
        assert not [call for call in service.calls if call[0] == "start"]

    ask(test)


def test_json_as_deep_as_allowed():
    assert parse(StartRequest, nested(DEEPEST - 2)).id == "x"


@pytest.mark.parametrize(
    ("body", "field"),
    [
        ({"settings": {}}, "id"),
        ({"id": "../etc"}, "id"),
        ({"id": "a", "unknown": 1}, "unknown"),
        ({"id": 3}, "id"),
        ({"id": "a", "settings": "text"}, "settings"),
        ([], "Input should be"),
    ],
)
def test_json_with_wrong_values(body, field):
    async def test(client, service):
        problem = refused(await client.post("/v1/runs", headers=ADMIN, json=body), 422, "invalid")
        assert field in problem.message

    ask(test)


@pytest.mark.parametrize("body", [b'{"uses": "1"}', b'{"uses": true}', b'{"uses": 1.0}', b'{"replaces": 1}'])
def test_nothing_is_converted(body):
    with pytest.raises(ServiceError, match="Input should be a valid"):
        parse(InviteRequest, body)


@given(st.binary(max_size=200) | st.recursive(st.none() | st.text() | st.floats() | st.integers(), st.lists).map(repr))
def test_any_bytes_are_read_or_refused(data):
    try:
        parse(StartRequest, data)
    except ServiceError as error:
        refused = error.code
    else:
        refused = None
    assert refused in {None, "malformed", "invalid"}


@pytest.mark.parametrize("kind", ["text/plain", "", "application/x-www-form-urlencoded", "application/jsonp"])
def test_json_by_another_name(kind):
    async def test(client, service):
        headers = ADMIN | {"Content-Type": kind}
        refused(await client.post("/v1/runs", headers=headers, content=b'{"id": "a"}'), 400, "content_type")

    ask(test)


def test_the_kind_of_a_body_may_have_parameters():
    async def test(client, service):
        headers = ADMIN | {"Content-Type": "Application/JSON; charset=utf-8"}
        assert (await client.post("/v1/runs", headers=headers, content=b'{"id": "a"}')).status_code == 201

    ask(test)


def test_a_body_that_may_be_left_out():
    async def test(client, service):
        assert (await client.post("/v1/runs/demo/pause", headers=ADMIN)).status_code == 200
        assert (await client.post("/v1/runs/demo/pause", headers=ADMIN, json={"reason": "x"})).status_code == 200
        assert [call for call in service.calls if call[0] == "pause"] == [("pause", "demo", ""), ("pause", "demo", "x")]
        refused(await client.post("/v1/runs/demo/pause", headers=ADMIN, content=b"{}"), 400, "content_type")

    ask(test)


async def chunks(count, size=65536, *, sent=None):
    for _ in range(count):
        if sent is not None:
            sent.append(size)
        yield b" " * size


def test_json_may_have_its_largest_size_and_not_a_byte_more():
    async def test(client, service):
        body = json.dumps({"id": "a", "settings": {"x": ""}}).encode()
        padded = body + b" " * (LARGEST_JSON - len(body))
        assert (await client.post("/v1/runs", headers=JSON, content=padded)).status_code == 201
        refused(await client.post("/v1/runs", headers=JSON, content=padded + b" "), 413, "body")
        refused(await client.post("/v1/runs", headers=JSON, content=chunks(5)), 413, "body")

    ask(test)


@pytest.mark.parametrize("length", ["-1", "1_000", "0x10", "٣", "9" * 30])
def test_lengths_that_are_none(length):
    async def call():
        messages, sent = [], []

        async def receive():
            raise AssertionError("the body was read")

        async def send(message):
            messages.append(message)

        headers = [(b"content-type", b"application/vnd.matl.update"), (b"content-length", length.encode())]
        scope = {
            "type": "http", "http_version": "1.1", "method": "POST", "scheme": "http", "headers": headers,
            "path": "/v1/runs/demo/rounds/0/updates", "raw_path": b"", "query_string": b"", "root_path": "",
            "client": None, "server": None,
        }  # fmt: skip
        await create_app(Echo())(scope, receive, send)
        return messages[0]["status"], sent

    status, _ = asyncio.run(call())
    assert status == (413 if length.startswith("99") else 400)


def test_a_body_that_is_too_large_is_not_asked_for():
    async def main():
        async with serving(create_app(service := Echo())) as url, connected(url) as (reader, writer):
            writer.write(update_head(1 << 40))
            answer = await reader.read()  # to the end: the connection is closed
            assert answer.startswith(b"HTTP/1.1 413 ")
            assert b"\r\nconnection: close\r\n" in answer.lower()
            assert service.received == 0

    asyncio.run(main())


def test_a_body_that_turns_out_too_large_is_not_read_to_its_end():
    async def test(client, service):
        sent = []
        answer = await client.post(PATH, headers=UPDATE, content=chunks(40, sent=sent))
        refused(answer, 413, "body")
        assert service.received <= service.max_message
        assert sum(sent) <= service.max_message + sent[0]

    ask(test)


def test_an_update_of_the_largest_size():
    async def test(client, service):
        answer = await client.post("/v1/runs/demo/rounds/0/updates", headers=UPDATE, content=chunks(16))
        assert answer.status_code == 202
        assert service.received == service.max_message

    ask(test)


def test_a_slow_body_is_waited_for():
    async def main():
        async with serving(create_app(service := Echo())) as url, connected(url) as (reader, writer):
            writer.write(update_head(20))
            for _ in range(20):
                writer.write(b"x")
                await writer.drain()
                await asyncio.sleep(0.01)
            assert (await reader.readline()).startswith(b"HTTP/1.1 202 ")
            assert service.received == 20

    asyncio.run(main())


def test_a_body_that_stops_is_given_up(monkeypatch):
    monkeypatch.setattr(bodies, "IDLE_SECONDS", 0.05)

    async def main():
        async with serving(create_app(service := Echo())) as url, connected(url) as (reader, writer):
            writer.write(update_head(20) + b"xx")
            answer = await reader.read()  # to the end: the connection is closed
            assert answer.startswith(b"HTTP/1.1 503 ")
            assert b"slow_body" in answer
            assert service.received == 2

    asyncio.run(main())


def test_json_that_drips_is_given_up(monkeypatch):
    monkeypatch.setattr(bodies, "_JSON_SECONDS", 0.1)

    async def drip():
        while True:
            await asyncio.sleep(0.01)
            yield b" "

    async def test(client, service):
        refused(await client.post("/v1/runs", headers=JSON, content=drip()), 503, "slow_body")

    ask(test)


def test_a_sender_that_leaves_in_the_middle(caplog):
    async def main():
        async with serving(create_app(service := Echo())) as url:
            async with connected(url) as (_, writer):
                writer.write(update_head(20) + b"xx")
                await writer.drain()
                while not service.received:
                    await asyncio.sleep(0.005)
            await asyncio.sleep(0.05)

    asyncio.run(main())
    assert not caplog.records  # of exceptions in the application


def test_pieces_of_uploads():
    async def test(client, service):
        headers = {"Content-Type": "application/octet-stream"}
        answer = await client.patch("/v1/uploads/abc", headers=headers | {"Upload-Offset": "100"}, content=b"x" * 50)
        assert answer.json()["offset"] == 150
        assert service.sizes == [50]
        await client.patch("/v1/uploads/abc", headers=headers | {"Upload-Offset": "150"}, content=chunks(1))
        assert service.sizes == [50, None]
        assert "Upload-Offset" in refused(await client.patch("/v1/uploads/abc", headers=headers), 422).message
        for offset in ("-1", "1.5", "many"):
            refused(await client.patch("/v1/uploads/abc", headers=headers | {"Upload-Offset": offset}), 422)
        refused(await client.patch("/v1/uploads/abc", headers={"Upload-Offset": "0"}, content=b"x"), 400)

    ask(test)


@given(st.lists(st.binary(max_size=20), max_size=8))
def test_messages_one_behind_the_other(messages):
    data = b"".join(len(message).to_bytes(8, "big") + message for message in messages)
    assert split_messages(data, most=8) == messages
    if data:
        with pytest.raises(ServiceError, match="should end at byte"):
            split_messages(data + b"\0", most=9)


def test_messages_to_validate():
    async def test(client, service):
        headers = ADMIN | {"Content-Type": "application/vnd.matl.updates"}
        content = b"\0" * 7 + b"\x02hi" + b"\0" * 8
        assert (await client.post("/v1/runs/demo/validate", headers=headers, content=content)).json() == {
            "receipts": []
        }
        assert service.calls[-1] == ("validate", [b"hi", b""])
        too_long = b"\xff" * 8 + b"hi"
        refused(await client.post("/v1/runs/demo/validate", headers=headers, content=too_long), 400, "cut_off")
        too_many = b"\0" * 8 * (MOST_VALIDATED + 1)
        refused(await client.post("/v1/runs/demo/validate", headers=headers, content=too_many), 413, "messages")

    ask(test)
