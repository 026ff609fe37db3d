"""Whoever refuses a request, the answer is a `Problem`."""

from __future__ import annotations

import asyncio

import pytest
from tests.coordinator.http.doubles import ADMIN, Echo, ask, asking

from matl.coordinator.http.errors import RESPONSES
from matl.coordinator.strict_json import in_words
from matl.protocol.messages import Problem
from matl.protocol.problems import CODES


def refused(answer, status, reason=None):
    assert answer.status_code == status, answer.text
    problem = Problem.model_validate_json(answer.content)
    assert answer.headers["content-type"] == "application/json"
    if reason is not None:
        assert problem.reason == reason
    return problem


def test_every_code_has_a_declared_response():
    assert sorted(RESPONSES) == sorted(numbers.http for numbers in CODES.values())


def test_no_such_address():
    async def test(client, service):
        for path in ("/", "/v1/nonsense", "/v1/runs/", "/openapi.json", "/redoc", "/favicon.ico"):
            refused(await client.get(path), 404, "no_route")

    ask(test)


def test_another_method():
    async def test(client, service):
        answer = await client.delete("/v1/runs")
        problem = refused(answer, 405, "method_not_allowed")
        assert problem.message == "expected one of GET, POST at this address, got DELETE"
        assert answer.headers["allow"] == "GET, POST"
        answer = await client.put("/v1/models/" + "ab" * 32)
        assert answer.headers["allow"] == "GET, HEAD"

    ask(test)


def test_what_is_wrong_with_an_address_is_named():
    async def test(client, service):
        problem = refused(await client.get("/v1/runs/demo/rounds/current?wait=31&after=x"), 422, "invalid")
        assert "query.wait" in problem.message
        assert "query.after" in problem.message

    ask(test)


def test_who_sends_it_is_asked_before_what_it_says():
    async def test(client, service):
        bad = {"Authorization": "Bearer wrong"}
        answer = await client.post("/v1/runs/demo/pause", headers=bad, content=b"{", params={})
        refused(answer, 401)
        assert answer.headers["www-authenticate"] == "Bearer"

    ask(test)


def test_two_authorizations_are_none():
    async def test(client, service):
        headers = [("Authorization", "Bearer admin"), ("Authorization", "Bearer admin")]
        refused(await client.get("/v1/runs/demo", headers=headers), 400)

    ask(test)


def test_times_to_wait_are_whole_seconds_and_at_least_one():
    async def test(client, service):
        answer = await client.get("/v1/ready")
        assert refused(answer, 503, "busy").retry_after == 1.2
        assert answer.headers["retry-after"] == "2"
        answer = await client.get("/v1/runs/fast")
        refused(answer, 429, "rate")
        assert answer.headers["retry-after"] == "1"

    ask(test)


def test_our_own_mistake_says_nothing_of_the_inside():
    async def test(client, service):
        answer = await client.get("/v1/runs/broken")
        assert refused(answer, 500, "internal").code == "internal"
        assert "secret" not in answer.text

    ask(test)


def test_our_own_mistake_reaches_the_log():
    async def main():
        async with asking(Echo()) as client:
            client._transport.raise_app_exceptions = True
            with pytest.raises(RuntimeError, match="secret of the inside"):
                await client.get("/v1/runs/broken")

    asyncio.run(main())


def test_many_problems_are_counted():
    problems = [{"loc": ("body", "list", index), "msg": "wrong"} for index in range(20)]
    words = in_words(problems)
    assert words.startswith("body.list.0: wrong; ")
    assert words.endswith("; and 12 more")


def test_an_empty_header_is_nobody():
    async def test(client, service):
        assert (await client.get("/v1/runs/demo", headers=ADMIN)).status_code == 200
        refused(await client.get("/v1/runs/demo", headers={"Authorization": ""}), 401)

    ask(test)
