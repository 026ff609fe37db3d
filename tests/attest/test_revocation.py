"""Lists of what is revoked: signed by who may, read anew when they change, and not believed when old."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.serialization import Encoding
from cryptography.x509.oid import NameOID
from tests.attest import test_amd as amd
from tests.attest import test_android as android
from tests.attest.chains import NOW, p256, p384, rsa_key, spki
from tests.attest.samples import at

from matl.attest._x509 import Certificate
from matl.attest.revocation import RevokedList, read_crl, revoked_serials
from matl.errors import AttestationError, InvalidValueError

ISSUER = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "ARK-Milan")])
CRITICAL = x509.UnrecognizedExtension(x509.ObjectIdentifier("2.5.29.28"), b"\x30\x00")


def crl(
    key: Any, serials: Iterable[int] = (), *, until: datetime = NOW + timedelta(days=30), critical: bool = False
) -> bytes:
    """A list as `cryptography` makes one."""
    builder = x509.CertificateRevocationListBuilder().issuer_name(ISSUER)
    builder = builder.last_update(NOW - timedelta(days=1)).next_update(until)
    builder = builder.add_extension(x509.CRLNumber(3), critical=False)
    if critical:
        builder = builder.add_extension(CRITICAL, critical=True)
    for serial in serials:
        entry = x509.RevokedCertificateBuilder().serial_number(serial).revocation_date(NOW - timedelta(days=2))
        entry = entry.add_extension(x509.CRLReason(x509.ReasonFlags.key_compromise), critical=False)
        builder = builder.add_revoked_certificate(entry.build())
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return builder.sign(key, hashes.SHA384()).public_bytes(Encoding.DER)
    pss = padding.PSS(padding.MGF1(hashes.SHA384()), 48)  # as AMD signs
    return builder.sign(key, hashes.SHA384(), rsa_padding=pss).public_bytes(Encoding.DER)


def put(path: Path, content: bytes, fetched: datetime = NOW) -> Path:
    path.write_bytes(content)
    os.utime(path, (fetched.timestamp(), fetched.timestamp()))
    return path


@pytest.mark.parametrize("key", [p256(), p384(), rsa_key(0)])
def test_a_list_is_read_as_others_write_it(key: Any) -> None:
    serials = [1, 255, 2**159 - 7]
    assert read_crl(crl(key, serials), [spki(p256()), spki(key)]) == (frozenset(serials), NOW + timedelta(days=30))
    assert read_crl(crl(key), [spki(key)]).serials == frozenset()


def test_a_list_of_somebody_else_or_changed_is_refused() -> None:
    key = p384()
    good = crl(key, [77])
    for data, keys, code in (
        (good, [spki(p384())], "signature"),
        (good, [], "signature"),
        (good.replace(b"\x02\x01\x4d", b"\x02\x01\x4e"), [spki(key)], "signature"),
        (crl(key, [77], critical=True), [spki(key)], "format"),
        (good[:-1], [spki(key)], "format"),
        (good + b"\0", [spki(key)], "format"),
        (b"", [spki(key)], "format"),
        (amd.VCEK, [spki(key)], "format"),
    ):
        with pytest.raises(AttestationError) as caught:
            read_crl(data, keys)
        assert caught.value.code == code


def test_every_cut_and_every_changed_byte_is_refused_or_signed() -> None:
    key = p256()
    good = crl(key, [77])
    for place in range(len(good)):
        for data in (good[:place], good[:place] + bytes([good[place] ^ 1]) + good[place + 1 :]):
            with pytest.raises(AttestationError):
                read_crl(data, [spki(key)])


def test_a_list_is_read_anew_when_its_file_changes(tmp_path: Path) -> None:
    key = p256()
    path = put(tmp_path / "list.crl", crl(key, [1]))
    revoked = RevokedList.crl(path, [spki(key)], clock=at(NOW))
    assert 1 in revoked
    assert 2 not in revoked
    put(tmp_path / "next", crl(key, [1, 2])).replace(path)
    assert 2 in revoked
    put(tmp_path / "next", crl(key, [])).replace(path)
    assert 1 not in revoked


def test_what_cannot_be_known_is_not_believed(tmp_path: Path) -> None:
    key, now = p256(), [NOW]
    path = put(tmp_path / "list.crl", crl(key, [1], until=NOW + timedelta(days=3)))
    revoked = RevokedList.crl(path, [spki(key)], clock=lambda: now[0])

    def refused(words: str) -> None:
        with pytest.raises(AttestationError, match=words) as caught:
            assert 5 in revoked
        assert caught.value.code == "expired"

    now[0] = NOW + timedelta(days=3, seconds=1)
    refused("was good until")
    put(path, crl(key, [1], until=NOW + timedelta(days=365)))
    assert 1 in revoked
    now[0] = NOW + timedelta(days=7, seconds=1)
    refused("was fetched 7.0 days ago, at most 7 are allowed")
    put(path, crl(key, [1], until=NOW + timedelta(days=365)), now[0])
    assert 1 in revoked
    put(path, crl(key, [1], until=NOW + timedelta(days=365)), now[0] + timedelta(days=2))
    refused("dated 2.0 days ahead of this machine's clock")
    put(path, crl(p256(), []), now[0])
    refused("put a whole one in its place")
    put(path, b"", now[0])
    refused("put a whole one in its place")
    path.unlink()
    refused("put a whole one in its place")


def test_what_is_no_list_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"none\.json"):
        RevokedList.google(tmp_path / "none.json")
    with pytest.raises(InvalidValueError, match="not a status list"):
        RevokedList.google(put(tmp_path / "status.json", b"{}"))
    with pytest.raises(AttestationError, match="not signed by any of the keys"):
        RevokedList.amd(put(tmp_path / "milan.crl", crl(rsa_key(0))))
    with pytest.raises(InvalidValueError, match="at most"):
        RevokedList.google(put(tmp_path / "long.json", b" " * ((16 << 20) + 1)))
    with pytest.raises(InvalidValueError, match="days"):
        RevokedList.google(put(tmp_path / "status.json", b'{"entries": {}}'), days=0)


def test_the_makers_lists_revoke_what_machines_show(tmp_path: Path) -> None:
    report = amd.policy_of()
    path = put(tmp_path / "milan.crl", crl(rsa_key(0), []))
    listed = replace(report, revoked=RevokedList.crl(path, [spki(rsa_key(0))], clock=at(NOW)))
    assert amd.VERIFIER.verify(amd.GOOD, amd.NONCE, listed, at(NOW)) == amd.verify(amd.GOOD)
    put(path, crl(rsa_key(0), [Certificate.parse(amd.ASK_CERTIFICATE).serial]))
    with pytest.raises(AttestationError) as caught:
        amd.VERIFIER.verify(amd.GOOD, amd.NONCE, listed, at(NOW))
    assert caught.value.code == "revoked"

    entries = b'{"entries": {"%x": {"status": "REVOKED"}}}'
    serial = Certificate.parse(android.leaf_of()).serial
    status = put(tmp_path / "status.json", b'{"entries": {}}', datetime.now(UTC))
    phones = RevokedList.google(status)
    assert serial not in phones
    put(status, entries % serial, datetime.now(UTC) + timedelta(seconds=1))
    assert serial in phones
    assert revoked_serials(entries % serial) >= {serial}
