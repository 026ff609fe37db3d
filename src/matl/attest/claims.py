"""What evidence proves, once a verifier of its format has accepted it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, ClassVar, Protocol, TypeVar

__all__ = ["Claims", "Clock", "Verifier", "system_clock"]

Clock = Callable[[], datetime]
"""Tells the time, with a time zone. Anything but `system_clock` is for tests."""

PolicyT_contra = TypeVar("PolicyT_contra", contravariant=True)


def system_clock() -> datetime:
    """The time by this machine."""
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True, kw_only=True)
class Claims:
    """What was proved, and by what.

    Parameters
    ----------
    format : str
        Which kind of evidence, as `Verifier.format`.
    hardware_root : bool
        Whether the chain of trust ends in a vendor's hardware; false for a software TPM, an emulator or an unchecked
        endorsement key.
    measurement : str
        Digest (hex) of what runs there: MRENCLAVE, MRTD, a launch measurement, a digest of PCRs, or of the application.
    key : bytes or None
        Public key (DER SubjectPublicKeyInfo) that the evidence binds, where the format binds one.
    report_data : bytes
        What the attester had signed in: the nonce, or a digest of the nonce and a key.
    details : mapping of str to str, int or bool
        What else the format says, such as versions, security level and advisories; plain data for people and logs.
    """

    format: str
    hardware_root: bool
    measurement: str
    key: bytes | None = None
    report_data: bytes = b""
    details: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))


class Verifier(Protocol[PolicyT_contra]):
    """Checks evidence of one format.

    ``verify`` either returns what the evidence proves or raises `matl.errors.AttestationError`, whose code is the
    stable short name of what is wrong: ``"format"``, ``"signature"``, ``"root"``, ``"expired"``, ``"revoked"``,
    ``"nonce"``, ``"measurement"``, ``"debug"``, ``"version"`` or ``"policy"``. It raises nothing else, whatever bytes
    it is given.
    """

    format: ClassVar[str]

    def verify(self, evidence: bytes, nonce: bytes, policy: PolicyT_contra, clock: Clock = system_clock) -> Claims:
        """What ``evidence`` proves about a machine that was asked with ``nonce``, under a policy.

        Raises
        ------
        AttestationError
            It proves less than the policy asks for.
        """
