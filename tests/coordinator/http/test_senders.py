"""Who may ask for what, as far as the door itself is concerned."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding
from tests.coordinator.http.doubles import Echo, ask, create_app
from tests.coordinator.http.test_errors import refused

from matl.attest.tokens import Scope
from matl.coordinator.access import Caller
from matl.coordinator.http.senders import Sender

CLIENT = Caller("client", "alice")
VIEWER, OPERATOR, ADMIN = (Caller("operator", "carol", scope) for scope in Scope)
ROUTES = {
    ("GET", "/v1/runs/demo"): {CLIENT, VIEWER, OPERATOR, ADMIN},
    ("GET", "/v1/runs/demo/export"): {VIEWER, OPERATOR, ADMIN},
    ("POST", "/v1/runs/demo/pause"): {OPERATOR, ADMIN},
    ("POST", "/v1/admin/tokens/t/rotate"): {ADMIN},
}


@pytest.mark.parametrize(
    "caller", [Caller(), CLIENT, VIEWER, OPERATOR, ADMIN], ids=lambda one: f"{one.kind} {one.scope}"
)
def test_who_may_ask_for_what(caller):
    async def test(client, service):
        async def authenticate(authorization, **_):
            return caller

        service.authenticate = authenticate
        service.export = service.rotate_token = service.run
        for (method, path), allowed in ROUTES.items():
            answer = await client.request(method, path)
            if caller in allowed:
                assert answer.status_code in (200, 500)  # what this service answers is none of the matter here
            else:
                refused(answer, 401 if caller.kind == "anonymous" else 403)

    ask(test)


def test_a_large_body_of_somebody_who_may_not_send_it_is_not_read():
    async def test(client, service):
        read = []

        async def large():
            read.append(1)
            yield b"x" * 65536

        headers = {"Authorization": "", "Content-Type": "application/vnd.matl.updates"}
        refused(await client.post("/v1/runs/demo/validate", headers=headers, content=large()), 401)
        assert not read

    ask(test)


def test_roles_stand_for_themselves_in_the_documents():
    assert Sender("client", "viewer").security == [{"bearer": ["client"]}, {"bearer": ["viewer"]}]
    assert Sender().security == []


def certificate():
    key = Ed25519PrivateKey.generate()
    name = x509.Name([])
    now = datetime.now(UTC)
    return x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + timedelta(days=1)).sign(key, None)


def test_the_certificate_of_the_connection_reaches_the_service():
    shown = certificate()

    async def main():
        service = Echo()
        app = create_app(service)
        messages = []

        async def receive():
            return {"type": "http.request"}

        async def send(message):
            messages.append(message)

        scope = {
            "type": "http", "http_version": "1.1", "method": "POST", "scheme": "https", "path": "/v1/challenge",
            "raw_path": b"", "query_string": b"", "root_path": "", "headers": [], "client": ("192.0.2.7", 4000),
            "server": None,
            "extensions": {"tls": {"client_cert_chain": [shown.public_bytes(Encoding.PEM).decode()]}},
        }  # fmt: skip
        with pytest.raises(AttributeError, match="challenge"):  # of which this service has none
            await app(scope, receive, send)
        assert service.calls == [("authenticate", None, shown.public_bytes(Encoding.DER), "192.0.2.7")]

    asyncio.run(main())
