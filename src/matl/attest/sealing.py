"""Sealed boxes for one receiver: HPKE (RFC 9180) in base mode, as ``cryptography`` implements it.

DHKEM(X25519, HKDF-SHA256), HKDF-SHA256, AES-256-GCM: suite (0x0020, 0x0001, 0x0002). A box is the sender's ephemeral
public key (32 bytes), then the ciphertext with its tag (16 bytes longer than the plaintext); every box has an
ephemeral key of its own. Whoever gets the receiver's private key can open every box that was ever sent to it, so an
oracle makes a new key each time it starts, in memory alone.

What a box is meant for goes into ``info``, from which the box's key is derived. RFC 9180 (section 8.1) wants it there
and not in the associated data, which is empty, where a key serves one message. A box does not say who sent it: the
signature of what is inside does.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from cryptography.exceptions import InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hpke import AEAD, KDF, KEM, Suite
from cryptography.hazmat.primitives.serialization import load_der_public_key

from matl.attest.canonical import COUNT, DIGEST, IDENTIFIER, CanonicalText, line
from matl.errors import InvalidValueError, ProtocolError

__all__ = ["LARGEST_BOX", "OVERHEAD", "SealedText", "read_sealing_key", "seal", "unseal"]

OVERHEAD = 48
"""Bytes by which a box is longer than what is in it."""
LARGEST_BOX = (1 << 31) - 1
"""Bytes of the largest box; ``cryptography`` encrypts no more at once."""

_SUITE = Suite(KEM.X25519, KDF.HKDF_SHA256, AEAD.AES_256_GCM)


@dataclass(frozen=True, slots=True, kw_only=True)
class SealedText(CanonicalText):
    """What a sealed update is bound to; its bytes are the ``info`` of the box.

    A box cannot be opened as one of another run, round or client, nor by an oracle that proved to be something else.

    Parameters
    ----------
    run : str
        Identifier of the run.
    round : int
        The round.
    client_id : str
        Who sends it.
    oracle : str
        SHA-256 (hex) of the key that the oracle's evidence vouches for, `matl.attest.claims.Claims.key`.

    Examples
    --------
    >>> print(SealedText(run="demo", round=3, client_id="alice", oracle="ab" * 32).to_bytes().decode())
    matl-sealed-update/1
    run=demo
    round=3
    client_id=alice
    oracle=abababababababababababababababababababababababababababababababab
    """

    DOMAIN: ClassVar[str] = "matl-sealed-update/1"

    run: str = line(IDENTIFIER)
    round: int = line(COUNT)
    client_id: str = line(IDENTIFIER)
    oracle: str = line(DIGEST)


def seal(public_key: X25519PublicKey, plaintext: bytes, info: bytes) -> bytes:
    """Encrypt for the holder of a key; randomness is the operating system's.

    Parameters
    ----------
    public_key : X25519PublicKey
        The receiver's.
    plaintext : bytes
        At most ``LARGEST_BOX - OVERHEAD`` bytes.
    info : bytes
        What the box is for, such as `SealedText.to_bytes`; the receiver has to know it.

    Returns
    -------
    bytes
        The box, `OVERHEAD` bytes longer.

    Raises
    ------
    InvalidValueError
        The plaintext is too long.
    ProtocolError
        ``"key"``: the public key is one with which nothing can be kept secret.

    Examples
    --------
    >>> oracle = X25519PrivateKey.generate()
    >>> unseal(oracle, seal(oracle.public_key(), b"an update", b"round 3"), b"round 3")
    b'an update'
    """
    if len(plaintext) > LARGEST_BOX - OVERHEAD:
        raise InvalidValueError(
            f"expected at most {LARGEST_BOX - OVERHEAD} bytes to seal, got {len(plaintext)}; encode the update smaller"
        )
    try:
        return _SUITE.encrypt(plaintext, public_key, info)
    except ValueError as error:  # a point of small order: everybody knows the shared secret (RFC 7748, section 6.1)
        raise ProtocolError("key", "the receiver's public key has small order; ask for new evidence") from error


def unseal(private_key: X25519PrivateKey, box: bytes, info: bytes) -> bytes:
    """Open a box.

    Raises
    ------
    ProtocolError
        ``"size"``: it is too short or too long for a box; ``"sealed"``: it is for another key or another purpose, or is
        damaged. Which of these it is cannot be told.
    """
    if not OVERHEAD <= len(box) <= LARGEST_BOX:
        raise ProtocolError("size", f"expected a sealed box of {OVERHEAD} to {LARGEST_BOX} bytes, got {len(box)}")
    try:
        return _SUITE.decrypt(box, private_key, info)
    except InvalidTag:
        raise ProtocolError(
            "sealed", "the box does not open: sealed for another key, run, round or client, or damaged; fetch the "
            "oracle's evidence again and seal anew",
        ) from None  # fmt: skip


def read_sealing_key(der: bytes) -> X25519PublicKey:
    """The X25519 key of a DER SubjectPublicKeyInfo.

    Raises
    ------
    ProtocolError
        ``"key"``: it is none, or a key of another kind.
    """
    try:
        key = load_der_public_key(der)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise ProtocolError("key", f"the oracle's public key cannot be read: {error}") from error
    if not isinstance(key, X25519PublicKey):
        raise ProtocolError("key", f"expected an X25519 key to seal to, got {type(key).__name__}")
    return key
