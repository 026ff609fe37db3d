"""What clients and server send each other: small frozen records, and bounded bytes that are read with suspicion.

A message is the msgpack array ``[version, kind, field, ...]``. Reading one checks its size before anything is
allocated, then version, kind, number, types and sizes of its fields; whatever is wrong, it is one error.

Clients are numbered in order of their ids. Numbers come in increasing order, and the fixed-size pieces of a ``bytes``
field stand in the order of the numbers they belong to, which both sides know.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from itertools import pairwise
from typing import Any, ClassVar, Self

import msgpack

from matl.errors import ProtocolError
from matl.privacy.secagg.graph import MAX_CLIENTS
from matl.privacy.secagg.keys import (
    COMMITMENT_BYTES,
    CONFIRMATION_BYTES,
    KEY_BYTES,
    SEALED_BYTES,
    SHARE_BYTES,
    SIGNATURE_BYTES,
)

__all__ = [
    "MAX_ADVERTISEMENT",
    "Advertisement",
    "Certificate",
    "Consistency",
    "Delivery",
    "MaskedInput",
    "Message",
    "Revealed",
    "Roster",
    "SealedShares",
    "Survivors",
    "pieces",
]

VERSION = 1
"""Of the messages. Another one is refused."""

_MAX_ID = 128  # bytes of a client's id
MAX_ADVERTISEMENT = 272
"""Bytes of the largest advertisement."""


def _exactly(size: int) -> Any:
    return field(metadata={"exactly": size})


def _pieces_of(size: int) -> Any:
    return field(metadata={"unit": size})


@dataclass(frozen=True, slots=True)
class Message:
    """What all messages can do."""

    KIND: ClassVar[int] = 0

    def __post_init__(self) -> None:
        for item in fields(self):
            _CHECKS[str(item.type)](f"{type(self).__name__}.{item.name}", getattr(self, item.name), item.metadata)

    def to_bytes(self) -> bytes:
        """Encode it."""
        values = (getattr(self, item.name) for item in fields(self))
        return bytes(msgpack.packb([VERSION, self.KIND, *values]))

    @classmethod
    def from_bytes(cls, data: bytes, limit: int) -> Self:
        """Decode a message of this kind.

        Parameters
        ----------
        data : bytes
            What arrived.
        limit : int
            Bytes above which it is not read; see `Session.max_message`.

        Raises
        ------
        ProtocolError
            It is too long, malformed, of another version, or another message than is due.
        """
        name = cls.__name__
        if len(data) > limit:
            raise ProtocolError("size", f"{name}: expected at most {limit} bytes, got {len(data)}")
        try:
            # Nested arrays may each claim the most elements; with this bound the deepest nest claims some megabytes.
            values = msgpack.unpackb(
                data, use_list=False, max_array_len=MAX_CLIENTS, max_map_len=0, max_ext_len=0, max_str_len=_MAX_ID
            )
        except (ValueError, TypeError, msgpack.exceptions.UnpackException) as error:
            reason = str(error) or type(error).__name__
            raise ProtocolError("malformed", f"{name}: the bytes cannot be read: {reason}") from error
        if not isinstance(values, tuple) or len(values) < 2:
            raise ProtocolError("malformed", f"{name}: expected [version, kind, ...], got {type(values).__name__}")
        if values[0] != VERSION:
            raise ProtocolError(
                "version", f"{name}: expected version {VERSION}, got {values[0]!r:.40}; update the older side"
            )
        if values[1] != cls.KIND:
            raise ProtocolError("kind", f"expected a message of kind {cls.KIND} ({name}), got {values[1]!r:.40}")
        if len(values) - 2 != len(fields(cls)):
            raise ProtocolError("malformed", f"{name}: expected {len(fields(cls))} fields, got {len(values) - 2}")
        return cls(*values[2:])


@dataclass(frozen=True, slots=True)
class Advertisement(Message):
    """Client to server, phase 1: the public keys of the round, signed with the identity key.

    Parameters
    ----------
    client_id : str
        At most 128 bytes.
    cipher_key, mask_key : bytes
        X25519 public keys: one for sealing shares, one for masks. The secret behind the second is shared out and may be
        recovered; that behind the first never leaves the client.
    signature : bytes
        Ed25519, over `matl.privacy.secagg.keys.advertised`.
    """

    KIND: ClassVar[int] = 1
    client_id: str
    cipher_key: bytes = _exactly(KEY_BYTES)
    mask_key: bytes = _exactly(KEY_BYTES)
    signature: bytes = _exactly(SIGNATURE_BYTES)


@dataclass(frozen=True, slots=True)
class Roster(Message):
    """Server to every client: who takes part. The bytes are those the clients sent."""

    KIND: ClassVar[int] = 2
    advertisements: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class SealedShares(Message):
    """Client to server, phase 2: for each neighbour, sealed shares of both secrets.

    Parameters
    ----------
    sealed : bytes
        A piece of 80 bytes per neighbour.
    commitments : bytes
        Per neighbour 16 bytes for the share of the seed and 16 for that of the mask key.
    seed_commitment : bytes
        Of the seed itself; the mask key needs none, for its public half is known.
    """

    KIND: ClassVar[int] = 3
    sealed: bytes = _pieces_of(SEALED_BYTES)
    commitments: bytes = _pieces_of(2 * COMMITMENT_BYTES)
    seed_commitment: bytes = _exactly(32)


@dataclass(frozen=True, slots=True)
class Delivery(Message):
    """Server to one client: who sent shares, and those for this client from its neighbours among them."""

    KIND: ClassVar[int] = 4
    sharers: tuple[int, ...]
    sealed: bytes = _pieces_of(SEALED_BYTES)


@dataclass(frozen=True, slots=True)
class MaskedInput(Message):
    """Client to server, phase 3: the masked vector.

    Parameters
    ----------
    masked : bytes
        Little-endian words.
    confirmations : bytes
        For each neighbour among the sharers, 16 bytes that tell it which sharers this client was shown.
    unopened : tuple of int
        Neighbours whose shares did not open: they or the server broke the protocol.
    """

    KIND: ClassVar[int] = 5
    masked: bytes
    confirmations: bytes = _pieces_of(CONFIRMATION_BYTES)
    unopened: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Survivors(Message):
    """Server to one client: whose vectors are in the sum, and its neighbours' confirmations."""

    KIND: ClassVar[int] = 6
    survivors: tuple[int, ...]
    confirmations: bytes = _pieces_of(CONFIRMATION_BYTES)


@dataclass(frozen=True, slots=True)
class Consistency(Message):
    """Client to server, phase 4: its signature on the survivors."""

    KIND: ClassVar[int] = 7
    signature: bytes = _exactly(SIGNATURE_BYTES)


@dataclass(frozen=True, slots=True)
class Certificate(Message):
    """Server to every client: signatures of a quorum on the same survivors."""

    KIND: ClassVar[int] = 8
    signers: tuple[int, ...]
    signatures: bytes = _pieces_of(SIGNATURE_BYTES)


@dataclass(frozen=True, slots=True)
class Revealed(Message):
    """Client to server, phase 5: for each neighbour one share, of its seed if it survived and else of its mask key."""

    KIND: ClassVar[int] = 9
    dealers: tuple[int, ...]
    shares: bytes = _pieces_of(SHARE_BYTES)


def pieces(name: str, blob: bytes, size: int, count: int) -> list[bytes]:
    """Cut a field into as many pieces as are due.

    Raises
    ------
    ProtocolError
        It has another number of them.
    """
    if len(blob) != size * count:
        raise ProtocolError("size", f"{name}: expected {count} pieces of {size} bytes, got {len(blob)} bytes")
    return [blob[start : start + size] for start in range(0, len(blob), size)]


def _check_bytes(name: str, value: Any, metadata: Any) -> None:
    if not isinstance(value, bytes):
        raise ProtocolError("malformed", f"{name}: expected bytes, got {type(value).__name__}")
    if len(value) != metadata.get("exactly", len(value)) or len(value) % metadata.get("unit", 1):
        wanted = metadata.get("exactly", f"a multiple of {metadata.get('unit')}")
        raise ProtocolError("size", f"{name}: expected {wanted} bytes, got {len(value)}")


def _check_text(name: str, value: Any, _: Any) -> None:
    if not isinstance(value, str) or not 1 <= len(value.encode()) <= _MAX_ID:
        raise ProtocolError("malformed", f"{name}: expected text of 1 to {_MAX_ID} bytes, got {value!r:.40}")


def _check_numbers(name: str, value: Any, _: Any) -> None:
    numbers = isinstance(value, tuple) and all(type(item) is int and 0 <= item < MAX_CLIENTS for item in value)
    if not numbers or any(first >= second for first, second in pairwise(value)):
        raise ProtocolError("malformed", f"{name}: expected client numbers in increasing order, got {value!r:.80}")


def _check_blobs(name: str, value: Any, _: Any) -> None:
    if not isinstance(value, tuple) or not all(isinstance(item, bytes) for item in value):
        raise ProtocolError("malformed", f"{name}: expected a list of bytes, got {value!r:.80}")


_CHECKS = {
    "bytes": _check_bytes,
    "str": _check_text,
    "tuple[int, ...]": _check_numbers,
    "tuple[bytes, ...]": _check_blobs,
}
