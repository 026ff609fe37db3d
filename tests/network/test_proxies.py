"""Where requests come from, behind proxies and without them, and who is let in where lines are in the clear."""

import asyncio
import ipaddress

import httpx
import pytest

from matl.attest.tokens import Scope
from matl.client.websocket import WebSocketTransport
from matl.coordinator.access import Caller
from matl.coordinator.limits import Limits, Rate
from matl.errors import ServiceError
from matl.network import proxies
from matl.network.hosting import hosted
from matl.network.proxies import Fronted
from matl.network.serving import open_doors
from matl.network.settings import NetworkSettings
from matl.protocol.messages import TokenRequest

OWNER = Caller("operator", "owner", Scope.ADMIN)
PROXIES = tuple(map(ipaddress.ip_network, ("10.0.0.5", "10.244.0.0/16", "fd00::/8")))


def asked(peer, headers=(), *, encrypted=False):
    """The scope that the application behind is given, or the answer to whoever is refused."""
    seen = []

    async def app(scope, receive, send):
        seen.append(scope)
        await send({"type": "http.response.start", "status": 204, "headers": []})
        await send({"type": "http.response.body"})

    async def ask():
        transport = httpx.ASGITransport(Fronted(app, PROXIES, encrypted=encrypted), client=(peer, 4711))
        async with httpx.AsyncClient(transport=transport, base_url="http://matl") as client:
            return await client.get("/v1/health", headers=list(headers))

    answer = asyncio.run(ask())
    return seen[0] if seen else answer


def forwarded(*values):
    return [("X-Forwarded-For", value) for value in values]


@pytest.mark.parametrize("peer", ["10.0.0.5", "10.244.3.1", "::ffff:10.0.0.5", "fd00::7"])
@pytest.mark.parametrize(
    "headers",
    [
        forwarded("203.0.113.9"),
        forwarded("198.51.100.1, 203.0.113.9"),
        forwarded("198.51.100.1", "198.51.100.2,203.0.113.9"),
        forwarded("10.0.0.5, 203.0.113.9:4711"),
        forwarded("nonsense, ::ffff:203.0.113.9"),
    ],
)
def test_a_proxy_is_believed_its_last_entry_alone(peer, headers):
    assert asked(peer, headers)["client"] == ("203.0.113.9", 0)


def test_a_sender_who_says_where_it_comes_from_stays_one_sender():
    told = {asked("10.0.0.5", forwarded(f"198.51.100.{one}, 203.0.113.9"))["client"] for one in range(20)}
    assert told == {("203.0.113.9", 0)}


@pytest.mark.parametrize("last", ["", "unknown", "_hidden", "203.0.113.9, evil", "1" * 500, "[2001:db8::7", "a:b:c"])
def test_what_is_no_address_counts_as_the_proxy(last):
    found = asked("10.0.0.5", forwarded(last))["client"]
    assert found == (("2001:db8::7", 0) if last.startswith("[") else ("10.0.0.5", 0))


def test_an_address_may_have_a_port_and_brackets():
    assert asked("10.0.0.5", forwarded("[2001:db8::7]:4711"))["client"] == ("2001:db8::7", 0)
    assert asked("10.0.0.5", forwarded("2001:db8::7"))["client"] == ("2001:db8::7", 0)


def test_a_proxy_says_whether_it_was_asked_over_tls():
    assert asked("10.0.0.5")["scheme"] == "http"
    assert asked("10.0.0.5", [("X-Forwarded-Proto", "https")])["scheme"] == "https"
    assert asked("127.0.0.1", [("X-Forwarded-Proto", "https")])["scheme"] == "http"


@pytest.mark.parametrize("peer", ["192.0.2.2", "10.0.0.6", "fe80::1", "testclient", ""])
def test_without_tls_nobody_else_is_let_in(peer):
    answer = asked(peer, forwarded("127.0.0.1"))
    assert answer.status_code == 403
    assert (answer.json()["code"], answer.json()["reason"]) == ("forbidden", "clear")
    assert "https address" in answer.json()["message"]
    assert (answer.headers["connection"], answer.headers["cache-control"]) == ("close", "no-store")


@pytest.mark.parametrize("peer", ["127.0.0.1", "::1", "::ffff:127.0.0.1"])
def test_this_machine_is_let_in_and_not_believed(peer):
    assert asked(peer, forwarded("203.0.113.9"))["client"] == (peer, 4711)


def test_with_tls_everybody_is_let_in_and_proxies_alone_are_believed():
    assert asked("192.0.2.2", forwarded("203.0.113.9"), encrypted=True)["client"] == ("192.0.2.2", 4711)
    assert asked("10.0.0.5", forwarded("203.0.113.9"), encrypted=True)["client"] == ("203.0.113.9", 0)


def test_behind_a_proxy_the_rate_is_that_of_whoever_asks(tmp_path):
    settings = NetworkSettings(folder=tmp_path, port=0, trusted_proxies=["127.0.0.1"])

    async def flood(client, headers):
        answers = [await client.post("/v1/challenge", headers=headers(one)) for one in range(10)]
        return [answer.status_code for answer in answers].count(429)

    async def scenario():
        limits = Limits(address=Rate(per_second=0.01, burst=5))
        async with (
            hosted(settings, limits=limits) as service,
            open_doors(service, settings) as doors,
            httpx.AsyncClient(base_url=doors.url) as client,
        ):
            one = await flood(client, lambda _: {"X-Forwarded-For": "203.0.113.9"})
            spoofed = await flood(client, lambda i: {"X-Forwarded-For": f"198.51.100.{i}, 203.0.113.10"})
            many = await flood(client, lambda i: {"X-Forwarded-For": f"198.51.100.{i}"})
            return one, spoofed, many

    assert asyncio.run(scenario()) == (5, 5, 0)


def test_over_a_line_in_the_clear_a_stranger_is_told_nothing(tmp_path, monkeypatch):
    settings = NetworkSettings(folder=tmp_path, host="0.0.0.0", port=0, trusted_proxies=["10.255.255.1"])

    async def scenario():
        async with hosted(settings) as service, open_doors(service, settings) as doors:
            token = (await service.issue_token(OWNER, TokenRequest(name="carol", scope="admin"))).secret
            headers = {"Authorization": f"Bearer {token}"}
            async with httpx.AsyncClient(base_url=doors.url, headers=headers) as client:
                assert (await client.get("/v1/admin/tokens")).status_code == 200  # from this machine
                monkeypatch.setattr(proxies, "address_of", lambda _: ipaddress.ip_address("192.0.2.2"))
                refused = await client.post("/v1/challenge", content=b"{}" * 5000)
                assert (refused.status_code, refused.json()["reason"]) == (403, "clear")
                assert (await client.get("/v1/admin/tokens")).status_code == 403
            line = WebSocketTransport(doors.url.replace("http", "ws"))
            line.set_token(token)
            with pytest.raises(ServiceError, match="takes no WebSocket"):
                await anext(line.events())
            await line.aclose()

    asyncio.run(scenario())
