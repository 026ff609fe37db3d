"""Android Key Attestation: a key in a phone's secure hardware, the app that made it, and how the phone booted.

Evidence is `matl.attest.evidence.pack_evidence` of ``chain``: the DER certificates of ``KeyStore.getCertificateChain``
one behind the other, leaf first. The nonce is the attestation challenge the key was made with. Format and rules:
https://source.android.com/docs/security/features/keystore/attestation and
https://developer.android.com/privacy-and-security/security-key-attestation.
"""

from __future__ import annotations

import hmac
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

from matl.attest import _roots
from matl.attest._der import SEQUENCE, SET, Der, context
from matl.attest._x509 import Certificate, load_key, read_certificates, verify_chain
from matl.attest.claims import Claims, Clock, system_clock
from matl.attest.evidence import among, check_digests, check_nonce, unpack_evidence
from matl.attest.revocation import RevokedList
from matl.errors import AttestationError, InvalidValueError
from matl.validate import whole

__all__ = ["AndroidPolicy", "AndroidVerifier"]

_DESCRIPTION = "1.3.6.1.4.1.11129.2.1.17"
_MAX_CHAIN = 12  # certificates; the longest published sample has 8
_FIELDS = {"chain": 32_768}
_MAX_CHALLENGE = 128  # KeyMint, ATTESTATION_CHALLENGE

_ATTEST_KEY = 7  # KeyPurpose
_GENERATED = 0  # KeyOrigin
_LEVELS = ("SOFTWARE", "TRUSTED_ENVIRONMENT", "STRONG_BOX")
_BOOT_STATES = ("VERIFIED", "SELF_SIGNED", "UNVERIFIED", "FAILED")
# Tags of an AuthorizationList.
_PURPOSE, _ORIGIN, _ROOT_OF_TRUST, _APPLICATION = 1, 702, 704, 709
_VERSION_TAGS = {705: "os_version", 706: "os_patch_level", 718: "vendor_patch_level", 719: "boot_patch_level"}


@dataclass(frozen=True, slots=True, kw_only=True)
class AndroidPolicy:
    """What a phone has to prove.

    Parameters
    ----------
    package : str
        The application's package name, the only one in its user id.
    signatures : frozenset of str
        SHA-256 digests (hex) of the certificates that may have signed the application.
    revoked : frozenset of int or RevokedList
        Serial numbers that count as revoked: `RevokedList.google`, or `revoked_serials` of a list that is kept fresh.
    require_strongbox : bool
        Whether the key must be in a chip of its own and not in the processor's trusted environment.
    require_verified_boot : bool
        Whether the boot loader must be locked and the system signed by the phone's maker. Without it the application is
        only what the phone's owner says.
    min_os_patch_level : int
        Oldest month (``YYYYMM``) of the system's security patches; 0 allows any.
    min_version : int
        Oldest attestation version; 3 (Android 9) is the first with a digest of what was booted.

    Raises
    ------
    InvalidValueError
        No application is pinned, or a value is out of range.
    """

    package: str
    signatures: frozenset[str]
    revoked: frozenset[int] | RevokedList
    require_strongbox: bool = False
    require_verified_boot: bool = True
    min_os_patch_level: int = 0
    min_version: int = 3

    def __post_init__(self) -> None:
        check_digests(32, signatures=self.signatures)
        whole(0, min_os_patch_level=self.min_os_patch_level, min_version=self.min_version)
        if not self.package:
            raise InvalidValueError("expected package to be the application's name, got ''")


class AndroidVerifier:
    """Checks Key Attestation chains.

    Parameters
    ----------
    roots : collection of bytes, optional
        Root keys (DER SubjectPublicKeyInfo) instead of Google's; then `Claims.hardware_root` is false.
    """

    format: ClassVar[str] = "android-key-attestation"

    def __init__(self, roots: Collection[bytes] | None = None) -> None:
        self._roots = _roots.GOOGLE if roots is None else frozenset(roots)
        self._pinned = roots is None

    def verify(self, evidence: bytes, nonce: bytes, policy: AndroidPolicy, clock: Clock = system_clock) -> Claims:
        """What a chain proves about a key that was made with ``nonce`` (1 to 128 bytes) as its challenge.

        Raises
        ------
        AttestationError
            It proves less than the policy asks for.
        """
        check_nonce(nonce, _MAX_CHALLENGE)
        chain = read_certificates(unpack_evidence(evidence, _FIELDS)["chain"], _MAX_CHAIN)
        attested = _attested(chain)
        verify_chain(chain, self._roots, clock(), revoked=policy.revoked, leaves=attested, known=(_DESCRIPTION,))
        load_key(chain[0].spki)
        descriptions = [_read_description(certificate.extensions[_DESCRIPTION]) for certificate in chain[:attested]]
        for issuer in descriptions[1:]:
            # Whoever holds another key of the phone could sign a description of their own (a key made for signing only
            # is made by any application), so below the maker's certificates only an ATTEST_KEY may be an issuer.
            if issuer.purposes != [_ATTEST_KEY]:
                raise AttestationError("root", "a certificate was issued by a key that is not for attesting keys")
        leaf = descriptions[0]
        if not hmac.compare_digest(leaf.challenge, nonce):
            raise AttestationError("nonce", "the key was made with another challenge")
        boot, *_ = [_check_hardware(description, policy) for description in descriptions]
        application = _check_application(leaf.application, policy)
        return Claims(
            format=self.format,
            hardware_root=self._pinned,
            measurement=application.signature,
            key=chain[0].spki,
            report_data=leaf.challenge,
            details=_details(leaf, boot, application),
        )


@dataclass(frozen=True, slots=True)
class _RootOfTrust:
    verified_boot_key: bytes
    device_locked: bool
    state: str
    verified_boot_hash: bytes


@dataclass(frozen=True, slots=True)
class _Application:
    package: str
    version: int
    signature: str


@dataclass(frozen=True, slots=True)
class _Description:
    """A KeyDescription: what the secure hardware says about a key, and what the system says about the application."""

    version: int
    level: str
    keymint_level: str
    challenge: bytes
    purposes: Sequence[int]
    origin: int | None
    root_of_trust: _RootOfTrust | None
    versions: Mapping[str, int]
    application: bytes | None


def _attested(chain: Sequence[Certificate]) -> int:
    """How many certificates describe a key: they stand first, without a gap, and the rest is the maker's."""
    described = [index for index, certificate in enumerate(chain) if _DESCRIPTION in certificate.extensions]
    if not described or described != list(range(len(described))):
        raise AttestationError("format", "the key is not described by its certificate, or others above it are not")
    return len(described)


def _read_description(data: bytes) -> _Description:
    outer = Der(data, "KeyDescription")
    fields = outer.enter()
    outer.finish()
    version, level = fields.integer(), _name(fields.enumerated(), _LEVELS)
    fields.integer()  # version of KeyMint itself
    keymint_level = _name(fields.enumerated(), _LEVELS)
    challenge = fields.octets()
    fields.octets()  # uniqueId
    software, hardware = _authorizations(fields), _authorizations(fields)
    fields.finish()
    return _Description(
        version,
        level,
        keymint_level,
        challenge,
        _set_of_integers(hardware[_PURPOSE]) if _PURPOSE in hardware else [],
        _only(hardware[_ORIGIN]) if _ORIGIN in hardware else None,
        _root_of_trust(hardware[_ROOT_OF_TRUST]) if _ROOT_OF_TRUST in hardware else None,
        {name: _only(hardware[tag]) for tag, name in _VERSION_TAGS.items() if tag in hardware},
        software.get(_APPLICATION),
    )


def _authorizations(fields: Der) -> Mapping[int, bytes]:
    """An AuthorizationList: values by tag. The tags ascend, so none is there twice."""
    entries, found, last = fields.enter(), {}, -1
    while not entries.done:
        tag = entries.peek()
        number = _tag_number(tag)
        if tag != context(number) or number <= last:
            raise AttestationError("format", f"authorization list: tag {tag.hex()} is not in ascending order")
        found[number] = entries.take(tag)
        last = number
    return found


def _tag_number(tag: bytes) -> int:
    number = 0
    for octet in tag[1:]:
        number = number << 7 | octet & 0x7F
    return number if len(tag) > 1 else tag[0] & 0x1F


def _only(data: bytes) -> int:
    value = Der(data, "authorization")
    number = value.integer()
    value.finish()
    return number


def _set_of_integers(data: bytes) -> list[int]:
    outer = Der(data, "authorization")
    members, numbers = outer.enter(SET), []
    outer.finish()
    while not members.done:
        numbers.append(members.integer())
    return numbers


def _root_of_trust(data: bytes) -> _RootOfTrust:
    outer = Der(data, "rootOfTrust")
    fields = outer.enter()
    outer.finish()
    key, locked, state = fields.octets(), fields.boolean(), _name(fields.enumerated(), _BOOT_STATES)
    digest = b"" if fields.done else fields.octets()
    fields.finish()
    return _RootOfTrust(key, locked, state, digest)


def _name(number: int, names: Sequence[str]) -> str:
    if number >= len(names):
        raise AttestationError("format", f"expected one of {', '.join(names)}, got number {number}")
    return names[number]


def _check_hardware(description: _Description, policy: AndroidPolicy) -> _RootOfTrust:
    """Where the key is, and how the phone booted; returns the latter."""
    levels = {"STRONG_BOX"} if policy.require_strongbox else {"TRUSTED_ENVIRONMENT", "STRONG_BOX"}
    if description.level not in levels or description.keymint_level not in levels:
        found = f"{description.level} and {description.keymint_level}"
        raise AttestationError("policy", f"security levels {found}; allowed: {' and '.join(sorted(levels))}")
    if description.version < policy.min_version:
        raise AttestationError(
            "version", f"attestation version {description.version}, at least {policy.min_version} asked for"
        )
    if description.origin != _GENERATED:
        raise AttestationError("policy", "the key was not made inside the secure hardware")
    root = description.root_of_trust
    if root is None:
        raise AttestationError("policy", "the secure hardware does not say how the phone booted")
    if policy.require_verified_boot and not (root.device_locked and root.state == "VERIFIED"):
        lock = "locked" if root.device_locked else "unlocked"
        raise AttestationError("debug", f"the boot loader is {lock} and the boot state {root.state}, not VERIFIED")
    patched = description.versions.get("os_patch_level", 0)
    if patched < policy.min_os_patch_level:
        raise AttestationError(
            "version", f"security patches are of {patched}, at least {policy.min_os_patch_level} asked for"
        )
    return root


def _check_application(data: bytes | None, policy: AndroidPolicy) -> _Application:
    """The AttestationApplicationId names the one package, signed by nobody but who may sign it."""
    if data is None:
        raise AttestationError("measurement", "the system does not say which application made the key")
    tagged = Der(data, "attestationApplicationId")
    outer = Der(tagged.octets(), "attestationApplicationId")
    tagged.finish()
    fields = outer.enter()
    outer.finish()
    packages, digests = fields.enter(SET), fields.enter(SET)
    fields.finish()
    package = packages.enter(SEQUENCE)
    name, version = package.octets(), package.integer()
    package.finish()
    if not packages.done or not hmac.compare_digest(name, policy.package.encode()):
        raise AttestationError("measurement", f"the key was made by {name[:128]!r} or several, not {policy.package!r}")
    signatures = []
    while not digests.done:
        signatures.append(digests.octets())
    if not signatures or not all(among(digest, policy.signatures) for digest in signatures):
        raise AttestationError("measurement", "the application is signed by a certificate that is not pinned")
    return _Application(policy.package, version, signatures[0].hex())


def _details(leaf: _Description, boot: _RootOfTrust, application: _Application) -> Mapping[str, str | int | bool]:
    return MappingProxyType(
        {
            "attestation_version": leaf.version,
            "security_level": leaf.level,
            "package": application.package,
            "package_version": application.version,
            "device_locked": boot.device_locked,
            "verified_boot_state": boot.state,
            "verified_boot_key": boot.verified_boot_key.hex(),
            "verified_boot_hash": boot.verified_boot_hash.hex(),
            **leaf.versions,
        }
    )
