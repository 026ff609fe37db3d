"""Certificates and DER of one's own, for evidence that no vendor made. Written out by hand, so that it can be wrong."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache

from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
NOT_BEFORE, NOT_AFTER = NOW - timedelta(days=1), NOW + timedelta(days=1)
PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey

ECDSA_SHA256 = bytes.fromhex("300a06082a8648ce3d040302")
ECDSA_SHA384 = bytes.fromhex("300a06082a8648ce3d040303")
RSA_SHA256 = bytes.fromhex("300d06092a864886f70d01010b0500")
PSS_SHA384 = bytes.fromhex(
    "304106092a864886f70d01010a3034a00f300d06096086480165030402020500a11c301a06092a864886f70d010108300d"
    "06096086480165030402020500a203020130"
)
BASIC_CONSTRAINTS, KEY_USAGE = "2.5.29.19", "2.5.29.15"


def der(tag: int | bytes, content: bytes) -> bytes:
    """One DER value."""
    identifier = tag if isinstance(tag, bytes) else bytes([tag])
    size = len(content)
    if size < 0x80:
        return identifier + bytes([size]) + content
    octets = size.to_bytes((size.bit_length() + 7) // 8, "big")
    return identifier + bytes([0x80 | len(octets)]) + octets + content


def der_integer(value: int, tag: int = 2) -> bytes:
    return der(tag, value.to_bytes(value.bit_length() // 8 + 1, "big"))


def der_oid(dotted: str) -> bytes:
    first, second, *arcs = map(int, dotted.split("."))
    content = b""
    for arc in [40 * first + second, *arcs]:
        octets = [arc & 0x7F]
        while arc := arc >> 7:
            octets.insert(0, 0x80 | arc & 0x7F)
        content += bytes(octets)
    return der(6, content)


def der_name(common: str) -> bytes:
    attribute = der(0x30, der_oid("2.5.4.3") + der(0x0C, common.encode()))
    return der(0x30, der(0x31, attribute))


def der_time(moment: datetime) -> bytes:
    return der(0x18, moment.strftime("%Y%m%d%H%M%SZ").encode())


def extension(oid: str, value: bytes, *, critical: bool = False) -> bytes:
    return der(0x30, der_oid(oid) + (b"\x01\x01\xff" if critical else b"") + der(4, value))


def authority(path_length: int | None = None) -> list[bytes]:
    """The extensions of a certificate that may issue others."""
    constraints = b"\x01\x01\xff" + (b"" if path_length is None else der_integer(path_length))
    return [
        extension(BASIC_CONSTRAINTS, der(0x30, constraints), critical=True),
        extension(KEY_USAGE, bytes.fromhex("03020204"), critical=True),
    ]


def spki(key: PrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)


def p256() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP256R1())


def p384() -> ec.EllipticCurvePrivateKey:
    return ec.generate_private_key(ec.SECP384R1())


@cache
def rsa_key(number: int) -> rsa.RSAPrivateKey:
    """One of a few keys that are made once, since making them takes long."""
    return rsa.generate_private_key(65537, 2048)


def sign(key: PrivateKey, algorithm: bytes, data: bytes) -> bytes:
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return key.sign(data, ec.ECDSA(hashes.SHA384() if algorithm == ECDSA_SHA384 else hashes.SHA256()))
    if algorithm[2:13] == PSS_SHA384[2:13]:
        return key.sign(data, padding.PSS(padding.MGF1(hashes.SHA384()), 48), hashes.SHA384())
    return key.sign(data, padding.PKCS1v15(), hashes.SHA256())


def certificate(
    subject: str,
    issuer: str,
    key: bytes,
    signer: PrivateKey,
    *,
    algorithm: bytes = ECDSA_SHA256,
    extensions: Sequence[bytes] = (),
    serial: int = 1,
    not_before: datetime = NOT_BEFORE,
    not_after: datetime = NOT_AFTER,
    version: bytes = bytes.fromhex("a003020102"),
) -> bytes:
    """A DER certificate of ``key`` (SubjectPublicKeyInfo), signed by ``signer``."""
    validity = der(0x30, der_time(not_before) + der_time(not_after))
    tbs = version + der_integer(serial) + algorithm + der_name(issuer) + validity + der_name(subject) + key
    if extensions:
        tbs += der(0xA3, der(0x30, b"".join(extensions)))
    tbs = der(0x30, tbs)
    return der(0x30, tbs + algorithm + der(3, b"\0" + sign(signer, algorithm, tbs)))


@dataclass(frozen=True)
class Authority:
    """A name and a key that issue certificates."""

    name: str
    key: PrivateKey

    @property
    def spki(self) -> bytes:
        return spki(self.key)

    def issue(self, subject: str, key: bytes, **options: object) -> bytes:
        return certificate(subject, self.name, key, self.key, **options)  # type: ignore[arg-type]
