"""Evidence without hardware: a key in a file says what runs. It is for trying things out, and says so.

Whoever holds the key can say anything with it. A policy that pins the key takes the word of the key's owner; one that
does not takes anybody's word. `Claims.hardware_root` is false either way.
"""

from __future__ import annotations

import hmac
from dataclasses import dataclass
from types import MappingProxyType
from typing import ClassVar

from matl.attest.canonical import DIGEST, CanonicalText, Grammar, line
from matl.attest.claims import Claims, Clock, system_clock
from matl.attest.evidence import MAX_KEY, among, binding, check_digests, pack_evidence, unpack_evidence
from matl.attest.keys import PublicKey, SigningKey
from matl.attest.measurement import Measurement
from matl.errors import AttestationError, ProtocolError

__all__ = ["SoftwarePolicy", "SoftwareVerifier", "sign_software"]

_VERSION = b"\x01"
_FIELDS = {"software": 1, "measurement": 512, "public": MAX_KEY, "signature": 128}
_BOUND = Grammar(words="128 lowercase hexadecimal digits", pattern="[0-9a-f]{128}", longest=128)


@dataclass(frozen=True, slots=True, kw_only=True)
class _SoftwareText(CanonicalText):
    """What the key signs."""

    DOMAIN: ClassVar[str] = "matl-software-evidence/1"

    measurement: str = line(DIGEST)
    bound: str = line(_BOUND)  # matl.attest.evidence.binding of the nonce and the key


@dataclass(frozen=True, slots=True, kw_only=True)
class SoftwarePolicy:
    """What evidence without hardware has to say.

    Parameters
    ----------
    measurements : frozenset of str
        Digests of a `Measurement` that may run.
    signers : frozenset of str
        Fingerprints of keys whose word is taken; empty for anybody's.

    Raises
    ------
    InvalidValueError
        Nothing may run, or a digest is none.
    """

    measurements: frozenset[str]
    signers: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        check_digests(32, measurements=self.measurements)
        if self.signers:
            check_digests(32, signers=self.signers)


def sign_software(measurement: Measurement, nonce: bytes, key: bytes, signer: SigningKey) -> bytes:
    """Evidence for somebody who drew ``nonce`` (1 to 64 bytes), which vouches for a public key.

    Examples
    --------
    >>> machine, measurement = SigningKey.generate(), Measurement(package="0" * 64, config="1" * 64, policy="2" * 64)
    >>> evidence = sign_software(measurement, b"nonce", b"a public key", machine)
    >>> policy = SoftwarePolicy(measurements=frozenset({measurement.digest}))
    >>> claims = SoftwareVerifier().verify(evidence, b"nonce", policy)
    >>> claims.key, claims.hardware_root
    (b'a public key', False)
    """
    text = _SoftwareText(measurement=measurement.digest, bound=binding(nonce, key).hex())
    return pack_evidence(
        software=_VERSION,
        measurement=measurement.to_bytes(),
        public=signer.public.der,
        signature=signer.sign(text.to_bytes()),
        **({"key": key} if key else {}),
    )


class SoftwareVerifier:
    """Checks evidence without hardware."""

    format: ClassVar[str] = "software"

    def verify(self, evidence: bytes, nonce: bytes, policy: SoftwarePolicy, clock: Clock = system_clock) -> Claims:
        """What a key in a file says about a program that was asked with ``nonce``.

        Raises
        ------
        AttestationError
            It says less than the policy asks for.
        """
        parts = unpack_evidence(evidence, _FIELDS, {"key": MAX_KEY})
        if parts["software"] != _VERSION:
            raise AttestationError("version", "expected version 1 of software evidence; update the older side")
        try:
            measurement, signer = Measurement.parse(parts["measurement"]), PublicKey(parts["public"])
        except ProtocolError as error:
            raise AttestationError("format", f"software evidence: {error}") from error
        bound, key = binding(nonce, parts.get("key", b"")), parts.get("key")
        text = _SoftwareText(measurement=measurement.digest, bound=bound.hex())
        if not signer.verify(parts["signature"], text.to_bytes()):
            raise AttestationError(
                "nonce",
                "the signature is not on this nonce, key and measurement: another was asked for, or it is forged",
            )
        if policy.signers and not any(hmac.compare_digest(signer.fingerprint, one) for one in policy.signers):
            raise AttestationError("root", f"the key {signer.fingerprint} says so, whose word the policy does not take")
        if not among(bytes.fromhex(measurement.digest), policy.measurements):
            raise AttestationError(
                "measurement", f"{measurement.digest} runs there (package {measurement.package:.12}, config "
                f"{measurement.config:.12}, policy {measurement.policy:.12}), which the policy does not name",
            )  # fmt: skip
        details = {name: getattr(measurement, name) for name in ("package", "config", "policy")}
        return Claims(
            format=self.format,
            hardware_root=False,
            measurement=measurement.digest,
            key=key,
            report_data=bound,
            details=MappingProxyType({"signer": signer.fingerprint, **details}),
        )
