"""What evidence of a machine answers when a client that is enrolled already presents it."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import ClassVar

from matl.attest.canonical import DIGEST, IDENTIFIER, CanonicalText, line
from matl.attest.challenge import CHALLENGE

__all__ = ["AttestationText"]


@dataclass(frozen=True, slots=True, kw_only=True)
class AttestationText(CanonicalText):
    """Whose machine is attested, and when: evidence made for another client, key or time has another nonce.

    Parameters
    ----------
    client_id : str
        Who it is.
    key : str
        Fingerprint of its enrolled key.
    challenge : str
        What `matl.attest.challenge.Challenger.issue` said.

    Examples
    --------
    >>> text = AttestationText(client_id="alice", key="cd" * 32, challenge="ab" * 56)
    >>> text.nonce.hex()[:16]
    '379a220f6a2626be'
    """

    DOMAIN: ClassVar[str] = "matl-attestation/1"

    client_id: str = line(IDENTIFIER)
    key: str = line(DIGEST)
    challenge: str = line(CHALLENGE)

    @property
    def nonce(self) -> bytes:
        """What to ask for evidence with: SHA-256 of the text."""
        return hashlib.sha256(self.to_bytes()).digest()
