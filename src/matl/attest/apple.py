"""Apple App Attest: a key in an iPhone's Secure Enclave, made by one application, and later signatures by that key.

Evidence is what Apple's framework returns, unchanged: the CBOR object of ``DCAppAttestService.attestKey`` and, later,
of ``generateAssertion``. The client data that is hashed there is the nonce. The steps are those of
https://developer.apple.com/documentation/devicecheck/validating-apps-that-connect-to-your-server.
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar, NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from matl.attest import _roots
from matl.attest._cbor import Cbor, read_cbor, read_cbor_sequence
from matl.attest._der import Der, context
from matl.attest._x509 import Certificate, load_key, verify_chain
from matl.attest.claims import Claims, Clock, system_clock
from matl.attest.evidence import check_nonce
from matl.errors import AttestationError, InvalidValueError
from matl.validate import whole

__all__ = ["AppAttestPolicy", "AppleVerifier"]

_NONCE_EXTENSION = "1.2.840.113635.100.8.2"
_PRODUCTION, _DEVELOPMENT = b"appattest".ljust(16, b"\0"), b"appattestdevelop"
_FIXED = 37  # bytes of authenticator data that are always there: application, flags, counter
_HAS_CREDENTIAL = 0x40  # flag AT of authenticator data (W3C Web Authentication, 6.1)
_MAX_ATTESTATION, _MAX_ASSERTION = 32_768, 1024  # bytes; samples have about 5,600 and 140
_MAX_CLIENT_DATA = 1 << 16
_MAX_CHAIN = 4
# How the application came onto the phone; what iOS 27 and later append to authenticator data (without the flag for it).
_CATEGORY, _BUNDLE_VERSION = "apple_validation_category_01", "apple_bundle_version_01"
_CATEGORIES = {1: "PLATFORM", 2: "TESTFLIGHT", 3: "DEVELOPMENT", 4: "APP_STORE", 5: "ENTERPRISE", 6: "DEVELOPER_ID"}


@dataclass(frozen=True, slots=True, kw_only=True)
class AppAttestPolicy:
    """What an iPhone has to prove.

    Parameters
    ----------
    app_id : str
        Team identifier, a full stop, and bundle identifier: ``"TEAM123456.org.example.app"``.
    allow_development : bool
        Whether keys of Apple's development environment count, which a debug build has.
    categories : frozenset of str
        How the application may have come onto the phone: ``"APP_STORE"``, ``"TESTFLIGHT"``, ``"ENTERPRISE"`` (ad hoc,
        too), ``"DEVELOPMENT"``, ``"DEVELOPER_ID"``, ``"PLATFORM"``. Systems before iOS 27 do not say it.
    require_category : bool
        Whether those that do not say it are refused.

    Raises
    ------
    InvalidValueError
        No application is pinned, or there is no such category.
    """

    app_id: str
    allow_development: bool = False
    categories: frozenset[str] = frozenset({"APP_STORE"})
    require_category: bool = False

    def __post_init__(self) -> None:
        if not self.categories <= set(_CATEGORIES.values()):
            raise InvalidValueError(
                f"expected categories among {', '.join(_CATEGORIES.values())}, got {', '.join(sorted(self.categories))}"
            )
        team, _, bundle = self.app_id.partition(".")
        if not team or not bundle:
            raise InvalidValueError(f"expected app_id to be TEAM.bundle.identifier, got {self.app_id!r}")


class AppleVerifier:
    """Checks App Attest attestations, and assertions by the keys that they brought.

    Parameters
    ----------
    roots : collection of bytes, optional
        Root keys (DER SubjectPublicKeyInfo) instead of Apple's; then `Claims.hardware_root` is false.
    """

    format: ClassVar[str] = "apple-app-attest"

    def __init__(self, roots: Collection[bytes] | None = None) -> None:
        self._roots = _roots.APPLE if roots is None else frozenset(roots)
        self._pinned = roots is None

    def verify(self, evidence: bytes, nonce: bytes, policy: AppAttestPolicy, clock: Clock = system_clock) -> Claims:
        """What an attestation proves about a key that was made for ``nonce`` (the client data, 1 to 65,536 bytes).

        Apple's certificate is valid for three days, so an attestation is verified when it arrives; keep the claims'
        ``key`` and the counter 0, and check what the application sends later with `verify_assertion`.

        Raises
        ------
        AttestationError
            It proves less than the policy asks for.
        """
        check_nonce(nonce, _MAX_CLIENT_DATA)
        chain, data = _read_attestation(evidence)
        verify_chain(chain, self._roots, clock())
        signed = _nonce_of(chain[0])
        if not hmac.compare_digest(signed, hashlib.sha256(data + hashlib.sha256(nonce).digest()).digest()):
            raise AttestationError("nonce", "the key was made for another nonce, or the authenticator data was changed")
        authenticator = _read_authenticator(data)
        key_id = _check_key(chain[0], authenticator)
        _check_application(authenticator.application, authenticator.launch, policy)
        if authenticator.counter != 0:
            raise AttestationError("policy", f"a new key has the counter 0, got {authenticator.counter}")
        development = hmac.compare_digest(authenticator.aaguid, _DEVELOPMENT)
        if not development and not hmac.compare_digest(authenticator.aaguid, _PRODUCTION):
            raise AttestationError("format", f"{authenticator.aaguid!r} is no environment of App Attest")
        if development and not policy.allow_development:
            raise AttestationError("debug", "the key is of the development environment, that of debug builds")
        return Claims(
            format=self.format,
            hardware_root=self._pinned,
            measurement=authenticator.application.hex(),
            key=chain[0].spki,
            report_data=nonce,
            details=MappingProxyType(
                {
                    "app_id": policy.app_id,
                    "environment": "development" if development else "production",
                    "category": authenticator.launch.category or "unknown",
                    "bundle_version": authenticator.launch.bundle_version or "unknown",
                    "key_id": key_id.hex(),
                    "counter": 0,
                }
            ),
        )

    def verify_assertion(
        self, evidence: bytes, nonce: bytes, policy: AppAttestPolicy, *, key: bytes, counter: int
    ) -> int:
        """Check what an attested key signed later; returns the counter to keep from now on.

        Parameters
        ----------
        evidence : bytes
            The assertion.
        nonce : bytes
            The client data that was to be signed, with a fresh challenge in it, 1 to 65,536 bytes.
        policy : AppAttestPolicy
            Names the application.
        key : bytes
            ``key`` of the claims that the attestation gave.
        counter : int
            The last counter seen of this key; 0 after the attestation.

        Raises
        ------
        AttestationError
            ``"format"``, ``"signature"``, ``"measurement"`` (another application), ``"policy"`` (its category), or
            ``"nonce"``: the counter is not above the one kept, so this is a replay.
        """
        check_nonce(nonce, _MAX_CLIENT_DATA)
        whole(0, counter=counter)
        signature, data = _read_assertion(evidence)
        launch = _read_launch(read_cbor_sequence(data[_FIXED:], 1, "extensions"))
        public = _p256(key)
        signed = hashlib.sha256(data + hashlib.sha256(nonce).digest()).digest()
        try:
            public.verify(signature, signed, ec.ECDSA(hashes.SHA256()))
        except InvalidSignature as error:
            raise AttestationError("signature", "the assertion is not this key's over this client data") from error
        _check_application(data[:32], launch, policy)
        seen = int.from_bytes(data[33:37], "big")
        if seen <= counter:
            raise AttestationError("nonce", f"the assertion's counter is {seen}, above {counter} expected: a replay")
        return seen


class _Launch(NamedTuple):
    """What the system says about how the application came onto the phone; nothing before iOS 27."""

    category: str | None = None
    bundle_version: str | None = None


class _Authenticator(NamedTuple):
    """Authenticator data of an attestation (W3C Web Authentication, 6.1)."""

    application: bytes
    counter: int
    aaguid: bytes
    credential: bytes
    point: bytes
    launch: _Launch


def _read_attestation(evidence: bytes) -> tuple[Sequence[Certificate], bytes]:
    _check_size(evidence, _MAX_ATTESTATION)
    match read_cbor(evidence, "attestation"):
        case {"fmt": "apple-appattest", "attStmt": {"x5c": list(chain), **_rest}, "authData": bytes(data), **none} if (
            not none and len(chain) <= _MAX_CHAIN
        ):
            return [Certificate.parse(_bytes(der), "x5c") for der in chain], data
        case _:
            raise AttestationError("format", "an attestation has fmt apple-appattest, attStmt with x5c, and authData")


def _read_assertion(evidence: bytes) -> tuple[bytes, bytes]:
    _check_size(evidence, _MAX_ASSERTION)
    match read_cbor(evidence, "assertion"):
        case {"signature": bytes(signature), "authenticatorData": bytes(data), **none} if (
            not none and len(data) >= _FIXED
        ):
            return signature, data
        case _:
            raise AttestationError("format", f"an assertion has a signature and {_FIXED} bytes of authenticatorData")


def _read_authenticator(data: bytes) -> _Authenticator:
    size = int.from_bytes(data[53:55], "big")
    if len(data) < 55 + size or size != 32 or not data[32] & _HAS_CREDENTIAL:
        raise AttestationError("format", "authenticator data is cut short, or has no credential of 32 bytes")
    match read_cbor_sequence(data[87:], 2, "credential key"):
        # COSE_Key (RFC 9053, 7.1.1): kty EC2, alg ES256, crv P-256, x, y. Some phones leave out leading zeros.
        case [{1: 2, 3: -7, -1: 1, -2: bytes(x), -3: bytes(y), **none}, *extensions] if not none:
            point = b"\x04" + x.rjust(32, b"\0") + y.rjust(32, b"\0")
            counter = int.from_bytes(data[33:_FIXED], "big")
            return _Authenticator(data[:32], counter, data[37:53], data[55:87], point, _read_launch(extensions))
        case _:
            raise AttestationError("format", "the credential's key is not a point on P-256")


def _read_launch(extensions: Sequence[Cbor]) -> _Launch:
    match extensions:
        case []:
            return _Launch()
        case [{} as found]:
            category, version = found.get(_CATEGORY), found.get(_BUNDLE_VERSION)
        case _:
            raise AttestationError("format", "authenticator data is followed by something else than extensions")
    if not isinstance(version, str | None) or not isinstance(category, bytes | None):
        raise AttestationError("format", "the category or the bundle version is of another type")
    if category is None:
        return _Launch(None, version)
    if len(category) != 4:
        raise AttestationError("format", f"a category has 4 bytes, got {len(category)}")
    number = int.from_bytes(category, "little")
    return _Launch(_CATEGORIES.get(number, str(number)), version)


def _nonce_of(leaf: Certificate) -> bytes:
    outer = Der(leaf.extensions.get(_NONCE_EXTENSION, b""), "nonce extension")
    fields = outer.enter()
    outer.finish()
    tagged = fields.enter(context(1))
    fields.finish()
    value = tagged.octets()
    tagged.finish()
    return value


def _check_key(leaf: Certificate, authenticator: _Authenticator) -> bytes:
    """The certificate's key is that of the credential, which is named by its digest; returns that name."""
    point = _p256(leaf.spki).public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    key_id = hashlib.sha256(point).digest()
    same = hmac.compare_digest(point, authenticator.point)
    if not hmac.compare_digest(key_id, authenticator.credential) or not same:
        raise AttestationError("signature", "the credential is not the key that Apple certified")
    return key_id


def _check_application(application: bytes, launch: _Launch, policy: AppAttestPolicy) -> None:
    if not hmac.compare_digest(application, hashlib.sha256(policy.app_id.encode()).digest()):
        raise AttestationError("measurement", f"the key belongs to another application than {policy.app_id}")
    if launch.category is None and policy.require_category:
        raise AttestationError("policy", "the system does not say how the application came onto the phone")
    if launch.category is not None and launch.category not in policy.categories:
        allowed = ", ".join(sorted(policy.categories)) or "none"
        raise AttestationError("policy", f"the application came by {launch.category}; allowed: {allowed}")


def _p256(spki: bytes) -> ec.EllipticCurvePublicKey:
    key = load_key(spki)
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise AttestationError("format", "an App Attest key is a point on P-256")
    return key


def _bytes(value: Cbor) -> bytes:
    if not isinstance(value, bytes):
        raise AttestationError("format", "x5c holds byte strings")
    return value


def _check_size(evidence: bytes, most: int) -> None:
    if len(evidence) > most:
        raise AttestationError("format", f"evidence of {len(evidence)} bytes, at most {most} allowed")
