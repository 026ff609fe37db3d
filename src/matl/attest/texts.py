"""The texts that clients sign about an update, versions 1 and 2.

Version 1 has no first line of its own. It begins with ``round=``, as no other text does.
"""

from __future__ import annotations

import base64
import functools
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from matl.attest.canonical import COUNT, DIGEST, IDENTIFIER, LARGEST_COUNT, CanonicalText, Grammar, line
from matl.errors import ProtocolError, StateError
from matl.records import RoundSpec, Update
from matl.state import digest

__all__ = ["LARGEST_CHUNK", "ChunkText", "UpdateText"]

LARGEST_CHUNK = 3 << 18
"""Bytes of the longest chunk that version 1 signs, whose base64 has 2^20 characters."""

_NONCE = Grammar(words="32 lowercase hexadecimal digits", pattern="[0-9a-f]{32}", longest=32)
_CHUNK = Grammar(
    words=f"1 to {LARGEST_CHUNK} bytes in base64 (RFC 4648, section 4, with padding)",
    pattern="[A-Za-z0-9+/]+={0,2}",
    longest=LARGEST_CHUNK // 3 * 4,
    kind=bytes,
    encode=lambda value: base64.b64encode(value).decode(),
    decode=functools.partial(base64.b64decode, validate=True),
)
_CODEC = Grammar(
    words="1 to 128 characters of visible ASCII with single spaces between", pattern="[!-~]+( [!-~]+)*", longest=128
)
_KIND = Grammar(
    words="1 to 32 lowercase letters, digits and _, beginning with a letter", pattern="[a-z][a-z0-9_]*", longest=32
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ChunkText(CanonicalText):
    """Version 1: what a mobile hardware key signs about a chunk of a gradient. It is never a submission.

    Five lines, signed with ECDSA on P-256 with SHA-256. It names no run and has no nonce, and so version 2 exists.

    Parameters
    ----------
    round : int
        The round.
    node_id : str
        The client.
    model_hash : str
        SHA-256 of the parameters the client started from.
    chunk : bytes
        The chunk, spelled ``gradient_chunk_b64``.
    timestamp_unix_ms : int
        The client's clock.

    Examples
    --------
    >>> chunk = ChunkText(
    ...     round=3, node_id="phone-7", model_hash="ab" * 32, chunk=b"hi", timestamp_unix_ms=1700000000000
    ... )
    >>> print(chunk.to_bytes().decode())
    round=3
    node_id=phone-7
    model_hash=abababababababababababababababababababababababababababababababab
    gradient_chunk_b64=aGk=
    timestamp_unix_ms=1700000000000
    >>> ChunkText.parse(chunk.to_bytes()) == chunk
    True
    """

    round: int = line(COUNT)
    node_id: str = line(IDENTIFIER)
    model_hash: str = line(DIGEST)
    chunk: bytes = line(_CHUNK, key="gradient_chunk_b64")
    timestamp_unix_ms: int = line(COUNT)


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateText(CanonicalText):
    """Version 2: what a client signs about an `Update`, and all that a verifier believes about it.

    Every field of `Update` is here but ``received_at``, which is the host's own, and the payload and evidence, of which
    the digests are. Codec and layout say how the payload is read, and the phase says what for: bytes that were signed
    as one thing are never taken for another.

    Parameters
    ----------
    run, round, client_id, base_version, model_hash, kind, payload_sha256
        As in `Update`.
    phase : str or None
        The phase of the round, one of `RoundSpec.phases`; ``None`` in a round that has but one.
    layout_hash, codec
        As in `RoundSpec`.
    num_examples : int or None
        As in `Update`.
    evidence_hash : str or None
        `matl.state.digest` of the evidence; ``None`` if there is none.
    nonce : str
        16 random bytes (hex), new in every text.
    timestamp_unix_ms : int
        `Update.created_at` in milliseconds.

    Examples
    --------
    >>> spec = RoundSpec(run="demo", round=3, model_hash="ab" * 32, layout_hash="cd" * 32)
    >>> update = Update(
    ...     client_id="alice", run="demo", round=3, base_version=3, model_hash="ab" * 32, payload=b"...",
    ...     payload_sha256="ef" * 32, num_examples=120, nonce="01" * 16, created_at=1700000000.25,
    ... )  # fmt: skip
    >>> UpdateText.of(update, spec).to_bytes().decode().splitlines()[:5]
    ['matl-update/2', 'run=demo', 'round=3', 'phase=', 'client_id=alice']
    """

    DOMAIN: ClassVar[str] = "matl-update/2"

    run: str = line(IDENTIFIER)
    round: int = line(COUNT)
    phase: str | None = line(replace(_KIND, optional=True))
    client_id: str = line(IDENTIFIER)
    base_version: int = line(COUNT)
    model_hash: str = line(DIGEST)
    layout_hash: str = line(DIGEST)
    kind: str = line(_KIND)
    codec: str = line(_CODEC)
    payload_sha256: str = line(DIGEST)
    num_examples: int | None = line(replace(COUNT, optional=True))
    evidence_hash: str | None = line(replace(DIGEST, optional=True))
    nonce: str = line(_NONCE)
    timestamp_unix_ms: int = line(COUNT)

    @classmethod
    def of(cls, update: Update, spec: RoundSpec, phase: str | None = None) -> UpdateText:
        """The text of an update that was sent for a round, and for this phase where it has several.

        Raises
        ------
        ProtocolError
            A field has no spelling. Payloads that were not encoded have no digest, and so no text.
        """
        return cls(
            run=update.run,
            round=_plain(update.round),
            phase=phase,
            client_id=update.client_id,
            base_version=_plain(update.base_version),
            model_hash=update.model_hash,
            layout_hash=spec.layout_hash,
            kind=update.kind,
            codec=spec.codec,
            payload_sha256=update.payload_sha256,  # type: ignore[arg-type] # refused if it is None
            num_examples=_plain(update.num_examples),
            evidence_hash=_evidence_hash(update.evidence),
            nonce=update.nonce,
            timestamp_unix_ms=_milliseconds(update.created_at),
        )


def _plain(value: Any) -> Any:
    """A NumPy number as Python's; its type is checked later."""
    return value.item() if isinstance(value, np.generic) else value


def _milliseconds(seconds: object) -> int:
    """A time that is a whole number of milliseconds: a part of one would not be signed."""
    if isinstance(seconds, int | float) and 0 <= seconds <= LARGEST_COUNT / 1000:
        milliseconds = round(seconds * 1000)
        if milliseconds / 1000 == seconds:
            return milliseconds
    raise ProtocolError("malformed", "created_at: expected Unix seconds, a whole number of milliseconds")


def _evidence_hash(evidence: object) -> str | None:
    if not isinstance(evidence, Mapping):
        raise ProtocolError("malformed", f"evidence: expected a mapping, got a {type(evidence).__name__}")
    try:
        return digest(dict(evidence)) if evidence else None
    except (StateError, TypeError, RecursionError) as error:  # keys that cannot be sorted, or nested without end
        raise ProtocolError("malformed", f"evidence: expected plain data, got {type(error).__name__}") from error
