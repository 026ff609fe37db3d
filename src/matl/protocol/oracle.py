"""What an oracle says of itself, and what it signs: the texts of Mode 2, and the JSON they travel in."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field

from matl.attest.canonical import COUNT, DIGEST, IDENTIFIER, CanonicalText, Grammar, line
from matl.protocol.messages import Base64

__all__ = [
    "LARGEST_NONCE", "Activation", "ActivationRequest", "ConfigText", "EvidenceView", "IdentityView", "JudgementText",
    "KeysText", "KeysView", "PolicyText",
]  # fmt: skip

LARGEST_NONCE = 64
"""Bytes of the longest nonce that evidence answers."""

_X25519 = Grammar(words="an X25519 key (DER) in hexadecimal digits", pattern="[0-9a-f]{88}", longest=88)


@dataclass(frozen=True, slots=True, kw_only=True)
class ConfigText(CanonicalText):
    """The configuration that an oracle measures; the SHA-256 of the text is `Measurement.config`.

    Parameters
    ----------
    file : str
        SHA-256 of the bytes of the configuration file.
    run_config : str
        Digest of the run's configuration in it, which is also `matl.records.RoundSpec.config_digest`.
    """

    DOMAIN: ClassVar[str] = "matl-oracle-config/1"

    file: str = line(DIGEST)
    run_config: str = line(DIGEST)


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyText(CanonicalText):
    """The policy by which an oracle judges; the SHA-256 of the text is `Measurement.policy`.

    Parameters
    ----------
    mode : str
        Digest of all that the judge is built from, the validator's root data among it.
    max_staleness : int
        How many rounds old the model of an update may be.
    least_clients : int
        Fewest clients that have to count in a round: of fewer, an aggregate would show too much of each.
    """

    DOMAIN: ClassVar[str] = "matl-oracle-policy/1"

    mode: str = line(DIGEST)
    max_staleness: int = line(COUNT)
    least_clients: int = line(COUNT)


@dataclass(frozen=True, slots=True, kw_only=True)
class KeysText(CanonicalText):
    """The key that updates are sealed to, as the key says that the evidence vouches for.

    Parameters
    ----------
    sealing : str
        X25519 key, DER SubjectPublicKeyInfo in hexadecimal digits.
    measurement : str
        What the oracle measured of itself.
    """

    DOMAIN: ClassVar[str] = "matl-oracle-keys/1"

    sealing: str = line(_X25519)
    measurement: str = line(DIGEST)


@dataclass(frozen=True, slots=True, kw_only=True)
class JudgementText(CanonicalText):
    """What an oracle signs about a round that it judged. Its SHA-256 is the nonce of the evidence beside it.

    Parameters
    ----------
    run, round
        The round.
    request : str
        SHA-256 of what was asked: the specification, the seed, the state, and hashes of all payloads.
    state_before, state_after : str
        SHA-256 of the packed states. Answers of successive rounds are a chain.
    answer : str
        SHA-256 of the answer.
    signer : str
        Fingerprint of the key that signs.
    """

    DOMAIN: ClassVar[str] = "matl-judgement/1"

    run: str = line(IDENTIFIER)
    round: int = line(COUNT)
    request: str = line(DIGEST)
    state_before: str = line(DIGEST)
    state_after: str = line(DIGEST)
    answer: str = line(DIGEST)
    signer: str = line(DIGEST)

    @property
    def nonce(self) -> bytes:
        """What the evidence beside it answers (32 bytes)."""
        return hashlib.sha256(self.to_bytes()).digest()


class _View(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)


class KeysView(_View):
    """Which key an oracle signs with at present."""

    signer: Annotated[str, Field(pattern="^[0-9a-f]{64}$", description="SHA-256 of the key its evidence vouches for.")]


class EvidenceView(_View):
    """What an oracle proves, and what it says beside that: only what the evidence binds counts."""

    format: Literal["software", "tpm2"]
    evidence: Base64
    keys: str = Field(max_length=1024, description="The text matl-oracle-keys/1.")
    keys_signature: Base64 = Field(description="Of the key that the evidence vouches for, over that text.")
    config: str = Field(max_length=1024, description="The text matl-oracle-config/1.")
    policy: str = Field(max_length=1024, description="The text matl-oracle-policy/1.")
    hardware_root: bool = Field(description="By the oracle's own word; what the evidence proves is for the reader.")


class IdentityView(_View):
    """What a verifier needs to challenge the oracle's TPM, see `matl.attest.endorsement`."""

    identity: Base64


class ActivationRequest(BaseModel):
    """A challenge of the oracle's TPM."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    blob: Annotated[str, Field(max_length=8192, pattern="^[A-Za-z0-9+/]*={0,2}$")]


class Activation(_View):
    """The answer to a challenge."""

    answer: Base64
