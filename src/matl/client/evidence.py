"""What an oracle has to prove before a client believes it, and how that is checked."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections.abc import Container, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PublicKey

from matl.attest.claims import Claims, Clock, system_clock
from matl.attest.endorsement import EndorsedKey
from matl.attest.evidence import check_digests
from matl.attest.keys import PublicKey
from matl.attest.sealing import read_sealing_key
from matl.attest.software import SoftwarePolicy, SoftwareVerifier
from matl.attest.tpm import APPLICATION_PCR, TpmPolicy, TpmVerifier
from matl.errors import AttestationError, InvalidValueError, ProtocolError
from matl.protocol.oracle import ConfigText, EvidenceView, KeysText, PolicyText

__all__ = ["KnownOracle", "OraclePins", "decoded", "read_evidence"]


@dataclass(frozen=True, slots=True, kw_only=True)
class OraclePins:
    """What an oracle has to prove.

    Parameters
    ----------
    measurements : frozenset of str
        Digests of a `matl.attest.measurement.Measurement` that may run; ``matl oracle measure`` computes one.
    software : bool
        Whether evidence without a hardware root is enough. It proves nothing about the machine, and is for trying out.
    software_signers : frozenset of str
        Of evidence in the format ``software``, fingerprints of the keys whose word is taken; empty for anybody's.
    vendor_keys : frozenset of bytes
        Root keys (DER SubjectPublicKeyInfo) of makers of TPMs; the oracle's TPM is challenged once a day.
    revoked : container of int
        Serial numbers of certificates of TPMs and of who issued them that are no longer good; a
        `matl.attest.revocation.RevokedList` is read anew when it changes, and refuses everybody when it is old.
    pcrs : mapping of int to frozenset of str
        Values (hex) that other PCRs of the TPM may have, such as those of the boot.
    pcr : int
        PCR of the application.

    Raises
    ------
    InvalidValueError
        Nothing could ever be proved: no measurement, or neither a maker of TPMs nor software.
    """

    measurements: frozenset[str]
    software: bool = False
    software_signers: frozenset[str] = frozenset()
    vendor_keys: frozenset[bytes] = frozenset()
    revoked: Container[int] = frozenset()
    pcrs: Mapping[int, frozenset[str]] = field(default_factory=lambda: MappingProxyType({}))
    pcr: int = APPLICATION_PCR

    def __post_init__(self) -> None:
        check_digests(32, measurements=self.measurements)
        if not self.software and not self.vendor_keys:
            raise InvalidValueError(
                "expected vendor_keys, the root keys of makers of TPMs that are trusted, got none: no hardware could "
                "prove anything; for trying out, software=True takes evidence without it"
            )

    def claims(
        self,
        kind: str,
        evidence: bytes,
        nonce: bytes,
        *,
        endorsed: tuple[EndorsedKey, ...] = (),
        clock: Clock = system_clock,
    ) -> Claims:
        """What evidence of a format proves.

        Raises
        ------
        AttestationError
            It proves less than what is pinned.
        """
        if kind == SoftwareVerifier.format:
            if not self.software:
                raise AttestationError("root", "the oracle has no hardware root, and software=True was not given")
            policy = SoftwarePolicy(measurements=self.measurements, signers=self.software_signers)
            return SoftwareVerifier().verify(evidence, nonce, policy, clock)
        if kind != TpmVerifier.format:
            raise AttestationError("format", f"expected evidence in the format software or tpm2, got {kind!r:.40}")
        tpm = TpmPolicy(
            measurements=self.measurements,
            pinned=self.pcrs,
            endorsed=endorsed,
            require_hardware=not self.software,
            pcr=self.pcr,
        )
        return TpmVerifier().verify(evidence, nonce, tpm, clock)


@dataclass(frozen=True, slots=True, kw_only=True)
class KnownOracle:
    """An oracle that proved what was pinned.

    Parameters
    ----------
    claims : Claims
        What it proved; ``hardware_root`` is among it.
    signing : PublicKey
        The key that the evidence vouches for; it signs receipts and judgements.
    sealing : X25519PublicKey
        What updates are sealed to.
    config, policy : ConfigText, PolicyText
        What it measured.
    """

    claims: Claims
    signing: PublicKey
    sealing: X25519PublicKey
    config: ConfigText
    policy: PolicyText

    @property
    def hardware_root(self) -> bool:
        """Whether the chain of trust ends in a maker's hardware."""
        return self.claims.hardware_root


def read_evidence(
    view: EvidenceView,
    nonce: bytes,
    pins: OraclePins,
    *,
    endorsed: tuple[EndorsedKey, ...] = (),
    clock: Clock = system_clock,
) -> KnownOracle:
    """Verify all that an oracle says of itself.

    Raises
    ------
    AttestationError
        It proves less than what is pinned, or says something else than what it proves.
    """
    claims = pins.claims(view.format, decoded(view.evidence), nonce, endorsed=endorsed, clock=clock)
    try:
        signing = PublicKey(claims.key or b"")
        keys, config, policy = (
            KeysText.parse(view.keys.encode()),
            ConfigText.parse(view.config.encode()),
            PolicyText.parse(view.policy.encode()),
        )
        sealing = read_sealing_key(bytes.fromhex(keys.sealing))
    except ProtocolError as error:
        raise AttestationError("format", f"what the oracle says of itself cannot be read: {error}") from error
    if not signing.verify(decoded(view.keys_signature), view.keys.encode()):
        raise AttestationError("signature", "the key to seal to is not signed by the key that the evidence vouches for")
    if keys.measurement != claims.measurement:
        raise AttestationError("measurement", "the key to seal to was made for another measurement than was proved")
    for name, text in (("config", config), ("policy", policy)):
        if not hmac.compare_digest(hashlib.sha256(text.to_bytes()).hexdigest(), claims.details[name]):
            raise AttestationError("measurement", f"the {name} that the oracle shows is not what it measured")
    return KnownOracle(claims=claims, signing=signing, sealing=sealing, config=config, policy=policy)


def decoded(text: str) -> bytes:
    """Bytes that an oracle sent as base64.

    Raises
    ------
    AttestationError
        It is not base64.
    """
    try:
        return base64.b64decode(text, validate=True)
    except ValueError as error:
        raise AttestationError("format", "what the oracle says is not base64 (RFC 4648, section 4)") from error
