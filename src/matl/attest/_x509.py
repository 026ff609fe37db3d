"""X.509 certificates and chains (RFC 5280), as much as hardware vendors use and no more.

Why not ``cryptography.x509``: it warns about, and may one day refuse, the serial number 0 that AMD gives every VCEK;
it takes other encodings than DER in places; and its path verification is for TLS. Signatures themselves are checked by
``cryptography``.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Container, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from types import MappingProxyType
from typing import TypeAlias

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import load_der_public_key

from matl.attest._der import OCTET_STRING, SEQUENCE, Der, context
from matl.errors import AttestationError

__all__ = ["Certificate", "PublicKey", "check_signed", "load_key", "read_certificates", "verify_chain"]

PublicKey: TypeAlias = ec.EllipticCurvePublicKey | rsa.RSAPublicKey

_MAX_CERTIFICATE = 8192  # bytes; the largest in the vendors' chains has 1,417
_MAX_EXTENSIONS = 32
_BASIC_CONSTRAINTS, _KEY_USAGE = "2.5.29.19", "2.5.29.15"
_KEY_CERT_SIGN = 0x04  # bit 5 of the first octet of keyUsage (RFC 5280, 4.2.1.3)
_VERSION_3 = 2


@dataclass(frozen=True, slots=True)
class Certificate:
    """One certificate, parsed but not yet believed.

    ``tbs``, ``issuer``, ``subject``, ``algorithm`` (an AlgorithmIdentifier) and ``spki`` are whole DER values, as they
    are signed; ``extensions`` maps a dotted OID to the octets inside its OCTET STRING, ``critical`` names those that a
    reader may not overlook.
    """

    tbs: bytes
    serial: int
    issuer: bytes
    subject: bytes
    not_before: datetime
    not_after: datetime
    spki: bytes
    extensions: Mapping[str, bytes]
    critical: frozenset[str]
    algorithm: bytes
    signature: bytes

    @classmethod
    def parse(cls, der: bytes, what: str = "certificate") -> Certificate:
        """Read one DER certificate of version 3.

        Raises
        ------
        AttestationError
            ``"format"``: it is no such certificate, or has unique identifiers (obsolete), or is too large.
        """
        _check_size(der, what)
        outer = Der(der, what)
        certificate = outer.enter()
        outer.finish()
        tbs = certificate.raw(SEQUENCE)
        algorithm, signature = certificate.raw(SEQUENCE), certificate.whole_bits()
        certificate.finish()

        body = Der(tbs, what).enter()
        version = body.enter(context(0))
        if version.integer() != _VERSION_3:
            raise AttestationError("format", f"{what}: only X.509 version 3 is read")
        version.finish()
        serial = body.integer()
        if body.raw(SEQUENCE) != algorithm:
            raise AttestationError("format", f"{what}: two signature algorithms are named")
        issuer = body.raw(SEQUENCE)
        validity = body.enter()
        not_before, not_after = validity.time(), validity.time()
        validity.finish()
        subject, spki = body.raw(SEQUENCE), body.raw(SEQUENCE)
        extensions, critical = _extensions(body.optional(context(3)), what)
        body.finish()
        return cls(
            tbs, serial, issuer, subject, not_before, not_after, spki, extensions, critical, algorithm, signature
        )

    def key(self) -> PublicKey:
        """The certified key, as `load_key`."""
        return load_key(self.spki)

    def check_signed_by(self, key: PublicKey) -> None:
        """The signature of this certificate is that of ``key``; ``"signature"`` otherwise."""
        check_signed(key, self.algorithm, self.signature, self.tbs, "a certificate")

    def check_valid(self, moment: datetime) -> None:
        """The certificate is valid at ``moment``, ends included; ``"expired"`` otherwise."""
        if not self.not_before <= moment <= self.not_after:
            raise AttestationError(
                "expired", f"a certificate is valid from {self.not_before} to {self.not_after}, not at {moment}"
            )


def read_certificates(data: bytes, most: int, what: str = "chain") -> list[Certificate]:
    """Read at most ``most`` DER certificates that stand one behind the other."""
    cursor = Der(data, what)
    found: list[Certificate] = []
    while not cursor.done:
        if len(found) == most:
            raise AttestationError("format", f"{what}: more than {most} certificates")
        found.append(Certificate.parse(cursor.raw(SEQUENCE), what))
    return found


def verify_chain(
    chain: Sequence[Certificate],
    roots: Collection[bytes],
    moment: datetime,
    *,
    revoked: Container[int] = (),
    leaves: int = 1,
    known: Collection[str] = (),
) -> None:
    """Check a chain, leaf first, up to one of the pinned keys.

    A root is a key: its name and dates are ours to judge and not the chain's (RFC 5280, 6.1.1 d). A self-signed last
    certificate of a root's key carries that key; it has to be signed by it, and its dates are not looked at.

    Parameters
    ----------
    chain : sequence of Certificate
        Each signed by the next; the last one is signed by a root's key or carries it.
    roots : collection of bytes
        Keys (DER SubjectPublicKeyInfo) that are trusted.
    moment : datetime
        When every certificate must be valid.
    revoked : container of int
        Serial numbers of which none may occur, the carrier of the root included.
    leaves : int
        How many certificates from the start are not those of an authority.
    known : collection of str
        Critical extensions that the caller looks into.

    Raises
    ------
    AttestationError
        ``"root"``, ``"signature"``, ``"expired"``, ``"revoked"`` or ``"format"``.
    """
    carrier = len(chain) > leaves and chain[-1].spki in roots and chain[-1].issuer == chain[-1].subject
    if carrier:
        chain[-1].check_signed_by(load_key(chain[-1].spki))
    path = chain[:-1] if carrier else chain
    if len(path) < leaves:
        raise AttestationError("format", f"a chain of {len(chain)} certificates is too short")
    for certificate, issuer in pairwise(chain):
        if certificate.issuer != issuer.subject:
            raise AttestationError("signature", "a certificate does not name the one above it as its issuer")
        certificate.check_signed_by(issuer.key())
    if not carrier:
        _check_anchored(path[-1], roots)
    for depth, certificate in enumerate(path):
        certificate.check_valid(moment)
        _check_extensions(certificate, None if depth < leaves else depth - leaves, known)
    for certificate in chain:
        if certificate.serial in revoked:
            raise AttestationError("revoked", f"the certificate with serial number {certificate.serial:x} is revoked")


def check_signed(key: PublicKey, algorithm: bytes, signature: bytes, data: bytes, what: str) -> None:
    """A signature by an algorithm (an AlgorithmIdentifier, whole) is that of ``key``; ``"signature"`` otherwise."""
    check = _ALGORITHMS.get(algorithm)
    if check is None:
        raise AttestationError("format", f"{what} is signed with {algorithm.hex()}, not accepted")
    try:
        check(key, signature, data)
    except InvalidSignature as error:
        raise AttestationError("signature", f"{what} is not signed by the key above it") from error


def load_key(spki: bytes) -> PublicKey:
    """An RSA key of 2,048 to 4,096 bits with exponent 65537, or a point on P-256 or P-384.

    Raises
    ------
    AttestationError
        ``"format"``: it is another kind of key, or none.
    """
    try:
        key = load_der_public_key(spki)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise AttestationError("format", f"a public key cannot be read: {error}") from error
    if isinstance(key, ec.EllipticCurvePublicKey) and isinstance(key.curve, ec.SECP256R1 | ec.SECP384R1):
        return key
    if isinstance(key, rsa.RSAPublicKey) and 2048 <= key.key_size <= 4096 and key.public_numbers().e == 65537:
        return key
    raise AttestationError("format", "a public key is neither RSA of 2,048 to 4,096 bits nor on P-256 or P-384")


def _check_size(der: bytes, what: str) -> None:
    if len(der) > _MAX_CERTIFICATE:
        raise AttestationError("format", f"{what}: {len(der)} bytes in a certificate, at most {_MAX_CERTIFICATE}")


def _extensions(tagged: Der | None, what: str) -> tuple[Mapping[str, bytes], frozenset[str]]:
    found: dict[str, bytes] = {}
    critical = set()
    if tagged is not None:
        sequence = tagged.enter()
        tagged.finish()
        while not sequence.done:
            extension = sequence.enter()
            oid = extension.oid()
            if oid in found or len(found) == _MAX_EXTENSIONS:
                raise AttestationError("format", f"{what}: extension {oid} is there twice, or there are too many")
            if extension.peek() != OCTET_STRING and extension.boolean():
                critical.add(oid)
            found[oid] = extension.octets()
            extension.finish()
    return MappingProxyType(found), frozenset(critical)


def _check_anchored(top: Certificate, roots: Collection[bytes]) -> None:
    for root in roots:
        try:
            return top.check_signed_by(load_key(root))
        except AttestationError:
            continue
    raise AttestationError("root", "the chain does not end in a pinned root")


def _check_extensions(certificate: Certificate, below: int | None, known: Collection[str]) -> None:
    """An authority says so, and may have ``below`` others under it; nothing critical is overlooked."""
    unknown = certificate.critical - {_BASIC_CONSTRAINTS, _KEY_USAGE, *known}
    if unknown:
        raise AttestationError("format", f"a certificate has a critical extension that is not known: {min(unknown)}")
    if below is None:
        return
    constraints = certificate.extensions.get(_BASIC_CONSTRAINTS)
    usage = certificate.extensions.get(_KEY_USAGE)
    if constraints is None or not _may_have_below(constraints, below):
        raise AttestationError("signature", "a certificate was issued by one that is not an authority for it")
    if usage is not None and not _may_sign(usage):
        raise AttestationError("signature", "a certificate was issued by a key that is not for signing certificates")


def _may_have_below(constraints: bytes, below: int) -> bool:
    outer = Der(constraints, "basicConstraints")
    value = outer.enter()
    outer.finish()
    authority = not value.done and value.boolean()
    longest = below if value.done else value.integer()
    value.finish()
    return authority and below <= longest


def _may_sign(usage: bytes) -> bool:
    outer = Der(usage, "keyUsage")
    octets, _ = outer.bits()
    outer.finish()
    return bool(octets) and bool(octets[0] & _KEY_CERT_SIGN)


_Check: TypeAlias = Callable[[PublicKey, bytes, bytes], None]


def _ecdsa(hash_: hashes.HashAlgorithm) -> _Check:
    def check(key: PublicKey, signature: bytes, data: bytes) -> None:
        if not isinstance(key, ec.EllipticCurvePublicKey):
            raise InvalidSignature
        key.verify(signature, data, ec.ECDSA(hash_))

    return check


def _rsa(hash_: hashes.HashAlgorithm, pad: padding.AsymmetricPadding) -> _Check:
    def check(key: PublicKey, signature: bytes, data: bytes) -> None:
        if not isinstance(key, rsa.RSAPublicKey):
            raise InvalidSignature
        key.verify(signature, data, pad, hash_)

    return check


_PSS = _rsa(hashes.SHA384(), padding.PSS(padding.MGF1(hashes.SHA384()), 48))
# RSASSA-PSS with SHA-384, MGF1 with SHA-384 and a salt of 48 bytes, without a trailer field (RFC 4055, 3.1).
_PSS_PARAMETERS = (
    "a00f300d06096086480165030402020500a11c301a06092a864886f70d010108300d06096086480165030402020500a203020130"
)

# AlgorithmIdentifiers, whole: a parameter that differs makes another algorithm, which is not accepted.
_ALGORITHMS: Mapping[bytes, _Check] = MappingProxyType(
    {
        bytes.fromhex("300a06082a8648ce3d040302"): _ecdsa(hashes.SHA256()),  # RFC 5758, 3.2
        bytes.fromhex("300a06082a8648ce3d040303"): _ecdsa(hashes.SHA384()),
        bytes.fromhex("300a06082a8648ce3d040304"): _ecdsa(hashes.SHA512()),
        bytes.fromhex("300d06092a864886f70d01010b0500"): _rsa(hashes.SHA256(), padding.PKCS1v15()),  # RFC 4055, 5
        bytes.fromhex("300d06092a864886f70d01010c0500"): _rsa(hashes.SHA384(), padding.PKCS1v15()),
        bytes.fromhex("300d06092a864886f70d01010d0500"): _rsa(hashes.SHA512(), padding.PKCS1v15()),
        bytes.fromhex("304106092a864886f70d01010a3034" + _PSS_PARAMETERS): _PSS,
        # AMD also writes the trailer field out, though DER leaves a default away.
        bytes.fromhex("304606092a864886f70d01010a3039" + _PSS_PARAMETERS + "a303020101"): _PSS,
    }
)
