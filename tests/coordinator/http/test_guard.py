"""What holds for every request and every answer."""

from __future__ import annotations

import asyncio

import httpx
import pytest
from tests.coordinator.http.doubles import Echo, ask, create_app, serving
from tests.coordinator.http.test_errors import refused
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus

from matl.coordinator.http.guard import LARGEST_HEADERS, LARGEST_TARGET, MOST_HEADERS


@pytest.mark.parametrize("path", ["/v1/health", "/v1/nonsense", "/v1/runs/broken", "/v1/ready"])
def test_every_answer_has_careful_headers(path):
    async def test(client, service):
        headers = (await client.get(path)).headers
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["content-security-policy"].startswith("default-src 'none'")
        assert "frame-ancestors 'none'" in headers["content-security-policy"]
        assert headers["referrer-policy"] == "no-referrer"
        assert headers["cache-control"] == "no-store"
        assert "strict-transport-security" not in headers
        assert "server" not in headers
        assert "access-control-allow-origin" not in headers

    ask(test)


def test_tls_is_to_stay():
    async def test(client, service):
        answer = await client.get("https://matl/v1/health")
        assert answer.headers["strict-transport-security"] == "max-age=31536000"

    ask(test)


def test_headers_and_addresses_have_a_size():
    async def test(client, service):
        refused(await client.get("/v1/health", headers={"X": "x" * LARGEST_HEADERS}), 413, "headers")
        many = {f"X-{index}": "x" for index in range(MOST_HEADERS)}
        refused(await client.get("/v1/health", headers=many), 413, "headers")
        refused(await client.get("/v1/health?" + "x" * LARGEST_TARGET), 413, "address")
        assert (await client.get("/v1/health", headers={"X": "x" * 1000})).status_code == 200

    ask(test)


def test_a_server_says_nothing_of_itself_and_bears_large_headers():
    async def main():
        async with serving(create_app(Echo())) as url, httpx.AsyncClient(base_url=url) as client:
            answer = await client.get("/v1/health")
            assert "server" not in answer.headers
            assert "connection" not in answer.headers
            answer = await client.get("/v1/health", headers={"X": "x" * (LARGEST_HEADERS - 1000)})
            assert answer.status_code == 200
            answer = await client.get("/v1/health", headers={"X": "x" * (4 * LARGEST_HEADERS)})
            assert answer.status_code in (400, 413, 431)

            many = {f"X-{index}": "x" for index in range(MOST_HEADERS)}
            with pytest.raises(InvalidStatus) as error:
                async with connect(url.replace("http", "ws") + "/v1/ws", additional_headers=many):
                    pass
            assert error.value.response.status_code == 403

    asyncio.run(main())


def test_one_connection_serves_many_requests():
    async def main():
        async with serving(create_app(Echo())) as url, httpx.AsyncClient(base_url=url) as client:
            kind = {"Content-Type": "application/vnd.matl.update"}
            for _ in range(3):
                answer = await client.post("/v1/runs/demo/rounds/0/updates", headers=kind, content=b"x" * 100)
                assert answer.status_code == 202
                assert "connection" not in answer.headers

    asyncio.run(main())
