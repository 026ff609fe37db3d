"""What a client does: sign an update for a round, or a chunk of a gradient."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import replace

from matl.attest.canonical import unix_ms
from matl.attest.claims import Clock, system_clock
from matl.attest.keys import Algorithm, SigningKey
from matl.attest.texts import ChunkText, UpdateText
from matl.errors import InvalidValueError
from matl.records import RoundSpec, Update

__all__ = ["sign_chunk", "sign_update"]


def sign_update(
    update: Update, key: SigningKey, spec: RoundSpec, *, phase: str | None = None, clock: Clock = system_clock
) -> Update:
    """The update with payload digest, nonce, time and signature.

    A retry sends the very same bytes, and a host that accepted them says so again. An update that waited longer than
    the freshness window is signed anew, with another nonce.

    Parameters
    ----------
    update : Update
        Its payload is bytes.
    key : SigningKey
        The one that was enrolled.
    spec : RoundSpec
        The round, whose codec and layout are signed too.
    phase : str, optional
        Which of its phases, where it has several.
    clock : Clock
        The client's.

    Raises
    ------
    InvalidValueError
        The payload was not encoded.
    ProtocolError
        A field has no canonical spelling.

    Examples
    --------
    >>> spec = RoundSpec(run="demo", round=0, model_hash="ab" * 32, layout_hash="cd" * 32)
    >>> update = Update(client_id="alice", run="demo", round=0, base_version=0, model_hash="ab" * 32, payload=b"...")
    >>> signed = sign_update(update, SigningKey.generate(), spec)
    >>> len(signed.signature), len(signed.nonce), signed.payload_sha256[:8]
    (64, 32, 'ab5df625')
    """
    if not isinstance(update.payload, bytes):
        raise InvalidValueError(
            f"expected a payload of bytes, got a {type(update.payload).__name__}; see matl.screening.encode_payload"
        )
    complete = replace(
        update,
        payload_sha256=hashlib.sha256(update.payload).hexdigest(),
        nonce=secrets.token_hex(16),
        created_at=unix_ms(clock()) / 1000,
    )
    return replace(complete, signature=key.sign(UpdateText.of(complete, spec, phase).to_bytes()))


def sign_chunk(chunk: ChunkText, key: SigningKey) -> bytes:
    """The signature of version 1.

    Raises
    ------
    InvalidValueError
        The key is not on P-256.
    """
    if key.public.algorithm is not Algorithm.ECDSA_P256:
        raise InvalidValueError(f"expected a key of {Algorithm.ECDSA_P256} for version 1, got {key.public.algorithm}")
    return key.sign(chunk.to_bytes())
