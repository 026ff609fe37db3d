"""Answers that are longer than they look, and URLs that are none, on every line that speaks HTTP."""

from __future__ import annotations

import asyncio
import gzip
from functools import partial

import pytest
from starlette.responses import Response
from tests.client.fake import serving

from matl.client.answers import web_parts
from matl.client.connection import open_transport
from matl.client.oracle_line import OracleLine
from matl.errors import InvalidValueError, ServiceError
from matl.network.operating import Operator

BOMB = gzip.compress(gzip.compress(bytes(64 << 20)))  # a few hundred bytes


def answering(*, status=200, body=b"", pieces=1, seen=None, **headers):
    """An application that has one answer, so many times its body."""
    told = [(name.replace("_", "-").encode(), value.encode()) for name, value in headers.items()]

    async def app(scope, receive, send):
        if seen is not None:
            seen.append(dict(scope["headers"]))
        await send({"type": "http.response.start", "status": status, "headers": told})
        for left in reversed(range(pieces)):
            await send({"type": "http.response.body", "body": body, "more_body": left > 0})

    return app


async def on(transport, work):
    try:
        return await work(transport)
    finally:
        await transport.aclose()


async def model_of(transport):
    return b"".join([piece async for piece in transport.model("ab" * 32)])


def through_http(url):
    return asyncio.run(on(open_transport(url), lambda transport: transport.health()))


def through_model(url):
    return asyncio.run(on(open_transport(url), model_of))


def through_oracle(url):
    return asyncio.run(OracleLine(url).body("GET", "/v1/evidence", most=1 << 20))


def through_operator(url):
    with Operator(url, "matl_op_x") as line:
        return line.tokens()


LINES = [through_http, through_model, through_oracle, through_operator]
lines = pytest.mark.parametrize("line", LINES)


def error_of(line, app):
    with serving(app) as url, pytest.raises(ServiceError) as caught:
        line(url)
    return caught.value


@lines
@pytest.mark.parametrize("status", [200, 400])
def test_what_comes_packed_is_refused_and_not_unpacked(line, status):
    seen = []
    assert len(BOMB) < 1000
    error = error_of(line, answering(status=status, body=BOMB, seen=seen, content_encoding="gzip, gzip"))
    assert error.code == "malformed"
    assert error.reason in ("not_a_coordinator", "no_oracle")
    assert "answers packed ('gzip, gzip'), and was asked not to" in str(error)
    assert seen[0][b"accept-encoding"] == b"identity"


@lines
def test_what_is_no_encoding_at_all_is_told(line):
    assert "answers packed ('gzip')" in str(error_of(line, answering(body=b"no gzip", content_encoding="gzip")))


def test_what_says_that_it_comes_as_it_is_comes_as_it_is():
    app = answering(body=b"model", content_encoding="identity")
    with serving(app) as url:
        assert through_model(url) == through_oracle(url) == b"model"


@pytest.mark.parametrize("line", [through_http, through_oracle, through_operator])
def test_answers_without_end_are_not_read(line):
    error = error_of(line, answering(body=bytes(1 << 20), pieces=80))
    assert error.code == "malformed"
    assert "bytes; is it the right address?" in str(error)


@lines
@pytest.mark.parametrize("location", ["http://xn--zzzzzz/", "mailto:x", "http://[::1", "http:///x"])
def test_who_sends_on_to_what_is_no_url_is_refused(line, location):
    error = error_of(line, answering(status=302, location=location))
    assert (error.code, error.reason) == ("malformed", "no_oracle" if line is through_oracle else "not_a_coordinator")


@lines
@pytest.mark.parametrize("status", [302, 429, 500, 502, 503, 504])
def test_what_the_status_says_is_the_same_packed_and_plain(line, status):
    there = partial(answering, status=status, body=BOMB, location="/x", retry_after="7")
    plain, packed = error_of(line, there()), error_of(line, there(content_encoding="gzip"))
    passes = status in (429, 502, 503, 504) or (status == 500 and line is through_oracle)
    assert plain.code == packed.code == ("busy" if passes else "malformed")
    assert (packed.reason, packed.retry_after) == (plain.reason, plain.retry_after)
    assert f"answers {status}" in str(packed) or "sends on to /x" in str(packed)


def test_an_id_that_makes_a_url_too_long_is_no_fault_of_the_line():
    with serving(answering()) as url, pytest.raises(ServiceError, match="an address that cannot be used") as caught:
        asyncio.run(on(open_transport(url), lambda transport: transport.run("x" * 70_000)))
    assert (caught.value.code, caught.value.reason) == ("malformed", "not_a_coordinator")


@pytest.mark.parametrize(
    "url",
    [
        "http://[::1",
        "http://[zz]:1",
        "http://a\x00b",
        "http://a\nb",
        "http://localhost:99999",
        "http://xn--zzzzzz:1",
        "http://-b\u00fc:1",
        "http://\ud800",
        "http://1.2.3.999:1",
        "http://a..b",
        f"http://{'a' * 64}.example",
        f"http://localhost/{'a' * 70_000}",
    ],
)
def test_what_is_no_url_is_refused_before_anything_is_asked(url):
    for scheme in ("http", "ws"):
        with pytest.raises(InvalidValueError, match=r"expected .*://host:\w+.*, got"):
            open_transport(url.replace("http", scheme), insecure=True)
    with pytest.raises(InvalidValueError, match="expected an oracle's address as https://host:port"):
        OracleLine(url)
    with pytest.raises(InvalidValueError, match="expected --url as https://host:port"):
        Operator(url, "matl_op_x", insecure=True)
    with pytest.raises(InvalidValueError, match="expected an address as https://host:port") as caught:
        web_parts(url)
    assert len(str(caught.value)) < 1000
    assert str(caught.value).isprintable()


def test_names_of_other_alphabets_are_names():
    assert web_parts("https://b\u00fccher.example").hostname == "b\u00fccher.example"


def test_an_answer_of_the_right_length_is_read_whole():
    async def app(scope, receive, send):
        await Response(bytes(1 << 20))(scope, receive, send)

    with serving(app) as url:
        assert len(through_oracle(url)) == 1 << 20
