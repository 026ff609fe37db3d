from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from tests.coordinator.grpc_door.certificates import Authority
from tests.coordinator.grpc_door.fake import FakeService, opened

from matl.client.grpc import GrpcTransport
from matl.coordinator.grpc_door import DoorSettings, GrpcDoor, Tls
from matl.errors import InvalidValueError, ServiceError


def test_tls(tmp_path: Path) -> None:
    ours, theirs = Authority(tmp_path, "ours"), Authority(tmp_path, "theirs")
    certificate, key = ours.issue("coordinator")

    async def main() -> None:
        settings = DoorSettings(tls=Tls(certificate=certificate, key=key), grace=0.5)
        async with opened(settings, ca=ours.file) as (service, transport, door):
            assert (await transport.health()).status == "ok"
            await transport.challenge()
            assert service.asked == [(None, None, "127.0.0.1")]
            for url, ca, code, reason in (
                (f"grpcs://localhost:{door.port}", theirs.file, "unauthenticated", "tls"),
                (f"grpcs://localhost:{door.port}", None, "unauthenticated", "tls"),
                (f"grpc://localhost:{door.port}", None, "busy", "unreachable"),
            ):
                other = GrpcTransport(url, ca=ca, timeout=5)
                with pytest.raises(ServiceError) as caught:
                    await other.health()
                assert (caught.value.code, caught.value.reason) == (code, reason)
                await other.aclose()

    asyncio.run(main())


def test_mutual_tls(tmp_path: Path) -> None:
    ours, theirs = Authority(tmp_path, "ours"), Authority(tmp_path, "theirs")
    certificate, key = ours.issue("coordinator")
    alice, mallory = ours.issue("alice"), theirs.issue("mallory")

    async def main() -> None:
        settings = DoorSettings(tls=Tls(certificate=certificate, key=key, client_ca=ours.file), grace=0.5)
        async with opened(settings, ca=ours.file, certificate=alice) as (service, transport, door):
            await transport.challenge()
            shown = x509.load_pem_x509_certificate(alice[0].read_bytes()).public_bytes(Encoding.DER)
            assert service.asked == [(None, shown, "127.0.0.1")]
            for other in (mallory, None):
                stranger = GrpcTransport(f"grpcs://localhost:{door.port}", ca=ours.file, certificate=other, timeout=5)
                with pytest.raises(ServiceError) as caught:
                    await stranger.challenge()
                assert caught.value.reason in ("tls", "unreachable")
                await stranger.aclose()
            assert len(service.asked) == 1

    asyncio.run(main())


def test_certificates_that_cannot_be_read_are_named(tmp_path: Path) -> None:
    certificate, key = Authority(tmp_path, "ours").issue("coordinator")
    (tmp_path / "empty").touch()
    for tls, words in (
        (Tls(certificate=tmp_path / "nowhere", key=key), "the certificate cannot be read from .*nowhere: No such file"),
        (Tls(certificate=certificate, key=tmp_path / "empty"), "expected PEM with a PRIVATE KEY in .*empty"),
        (Tls(certificate=certificate, key=key, client_ca=key), "expected PEM with a CERTIFICATE in .*key"),
    ):
        with pytest.raises(InvalidValueError, match=words):
            asyncio.run(GrpcDoor(FakeService(), DoorSettings(tls=tls)).start())
