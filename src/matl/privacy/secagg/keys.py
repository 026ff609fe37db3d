"""Keys of a round: what is signed, what two clients derive from their keys, and what travels under it.

Every text that is signed, derived or authenticated names the protocol and its version, a purpose of its own, and the
transcript of the round, which covers run, round, group, and every client's id and keys. All parts behind the purpose
have fixed lengths, so that no two different contexts are the same bytes.

X25519 is RFC 7748, Ed25519 RFC 8032, HKDF RFC 5869, AES-GCM NIST SP 800-38D; all from the ``cryptography`` package.
"""

from __future__ import annotations

import hashlib
import hmac
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from matl.errors import ProtocolError
from matl.state import digest

__all__ = [
    "COMMITMENT_BYTES",
    "CONFIRMATION_BYTES",
    "KEY_BYTES",
    "SEALED_BYTES",
    "SHARE_BYTES",
    "SIGNATURE_BYTES",
    "Channel",
    "advertised",
    "check_key",
    "consistent",
    "mask_key",
    "seed_commitment",
    "self_mask_key",
    "share_commitment",
    "sharers_digest",
    "verified",
]

PROTOCOL = b"matl-secagg/2"  # since 2 a session has terms

KEY_BYTES = 32
SIGNATURE_BYTES = 64
SHARE_BYTES = 32
SEALED_BYTES = 2 * SHARE_BYTES + 16  # both shares and the tag of AES-GCM
CONFIRMATION_BYTES = 16  # a forger of one message is right with probability 2^-128
COMMITMENT_BYTES = 16  # second preimages take 2^128 tries; who makes two openings fit harms its own round only

_ONCE = bytes(12)  # the nonce of a key that seals one message


def _context(purpose: bytes, transcript: bytes, *clients: int) -> bytes:
    return b"%b %b\0%b%b" % (PROTOCOL, purpose, transcript, struct.pack(f">{len(clients)}I", *clients))


def _derive(secret: bytes, context: bytes, length: int = KEY_BYTES) -> bytes:
    return HKDF(SHA256(), length, salt=None, info=context).derive(secret)


def advertised(session: str, client_id: str, cipher_key: bytes, mask_key: bytes) -> bytes:
    """The text a client signs to say that these are its keys for one session."""
    fields = {"session": session, "client": client_id, "cipher_key": cipher_key, "mask_key": mask_key}
    return _context(b"advertise", bytes.fromhex(digest(fields)))


def consistent(transcript: bytes, sharers: Sequence[int], survivors: Sequence[int]) -> bytes:
    """The text a client signs to say whose vectors are in the sum."""
    return _context(b"consistent", transcript) + bytes.fromhex(
        digest({"sharers": list(sharers), "survivors": list(survivors)})
    )


@lru_cache(maxsize=4096)  # a pure function, and in a simulation every client of a process asks it the same
def verified(identity: bytes, signature: bytes, text: bytes) -> bool:
    """Whether an Ed25519 signature is of this identity (32 bytes) and text."""
    try:
        Ed25519PublicKey.from_public_bytes(identity).verify(signature, text)
    except (InvalidSignature, ValueError):
        return False
    return True


def check_key(public: bytes) -> None:
    """Check that an X25519 public key agrees on a secret at all, as a server does before it passes it on.

    Raises
    ------
    ProtocolError
        It is a point of small order.
    """
    _agree(_PROBE, public)


_PROBE = X25519PrivateKey.from_private_bytes(b"a key for trying others".ljust(KEY_BYTES))


def _agree(secret: X25519PrivateKey, public: bytes) -> bytes:
    try:
        return secret.exchange(X25519PublicKey.from_public_bytes(public))
    except ValueError as error:
        raise ProtocolError(
            "key", "an X25519 public key is a point of small order, with which nothing is secret"
        ) from error


def mask_key(secret: X25519PrivateKey, public: bytes, transcript: bytes, first: int, second: int) -> bytes:
    """Key of the mask that two clients share, the same from either side."""
    low, high = sorted((first, second))
    return _derive(_agree(secret, public), _context(b"mask", transcript, low, high))


def self_mask_key(seed: bytes, transcript: bytes, client: int) -> bytes:
    """Key of a client's own mask."""
    return _derive(seed, _context(b"self-mask", transcript, client))


def share_commitment(transcript: bytes, dealer: int, holder: int, kind: bytes, share: bytes) -> bytes:
    """What the server checks a revealed share against; a share is a random number that cannot be guessed."""
    text = _context(b"share " + kind, transcript, dealer, holder) + share
    return hashlib.sha256(text).digest()[:COMMITMENT_BYTES]


def seed_commitment(transcript: bytes, dealer: int, seed: bytes) -> bytes:
    """What the server checks a recovered seed against."""
    return hashlib.sha256(_context(b"seed", transcript, dealer) + seed).digest()


def sharers_digest(sharers: Sequence[int]) -> bytes:
    """Digest of the clients that a client masks with or may mask with, to be confirmed to its neighbours."""
    return bytes.fromhex(digest({"sharers": list(sharers)}))


@dataclass(frozen=True, slots=True, repr=False)
class Channel:
    """What one client shares with one neighbour during one round.

    Every key seals one message, so that the nonce is constant.

    Parameters
    ----------
    transcript : bytes
        Of the round.
    me, peer : int
        The two ends.
    outgoing, incoming, confirming : bytes
        Keys that seal what is sent, open what is received, and confirm what was seen.
    """

    transcript: bytes
    me: int
    peer: int
    outgoing: bytes
    incoming: bytes
    confirming: bytes

    @classmethod
    def between(cls, secret: X25519PrivateKey, public: bytes, transcript: bytes, me: int, peer: int) -> Channel:
        """The channel from a client's own secret key and its peer's public one.

        Raises
        ------
        ProtocolError
            The public key is a point of small order.
        """
        low, high = sorted((me, peer))
        keys = _derive(_agree(secret, public), _context(b"channel", transcript, low, high), 3 * KEY_BYTES)
        up, down, confirming = keys[:KEY_BYTES], keys[KEY_BYTES : 2 * KEY_BYTES], keys[2 * KEY_BYTES :]
        return cls(transcript, me, peer, *((up, down) if me == low else (down, up)), confirming)

    def seal(self, shares: bytes) -> bytes:
        """Two shares for the peer, encrypted and bound to round, sender and receiver."""
        return AESGCM(self.outgoing).encrypt(_ONCE, shares, _context(b"seal", self.transcript, self.me, self.peer))

    def open(self, sealed: bytes) -> bytes | None:
        """What the peer sealed, or ``None`` if that is not from it, to this client and of this round."""
        try:
            return AESGCM(self.incoming).decrypt(_ONCE, sealed, _context(b"seal", self.transcript, self.peer, self.me))
        except InvalidTag:
            return None

    def confirm(self, sharers: bytes) -> bytes:
        """Tell the peer which sharers this client masked under."""
        return self._confirmation(sharers, self.me, self.peer)

    def confirmed(self, sharers: bytes, confirmation: bytes) -> bool:
        """Whether the peer masked under the same sharers."""
        return hmac.compare_digest(self._confirmation(sharers, self.peer, self.me), confirmation)

    def _confirmation(self, sharers: bytes, sender: int, receiver: int) -> bytes:
        text = _context(b"confirm", self.transcript, sender, receiver) + sharers
        return hmac.digest(self.confirming, text, "sha256")[:CONFIRMATION_BYTES]
