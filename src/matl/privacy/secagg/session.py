"""What everybody agrees on before a round (`Session`), and who takes part in it (`Registration`)."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping, Set
from dataclasses import dataclass, fields
from enum import StrEnum
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np

from matl import validate
from matl.codec import FixedWidth
from matl.errors import InvalidValueError, ProtocolError
from matl.privacy.secagg.graph import MAX_CLIENTS, Graph, choose_graph, quorum
from matl.privacy.secagg.keys import advertised, verified
from matl.privacy.secagg.masks import Vector
from matl.privacy.secagg.messages import MAX_ADVERTISEMENT, Advertisement
from matl.state import digest

__all__ = ["Phase", "Registration", "Session"]

_WIDTHS = (*range(2, 9), 16, 32)
_MAX_WORDS = 1 << 30  # per client and round; longer vectors are several rounds
_SHA256 = re.compile(r"[0-9a-f]{64}")
_PER_CLIENT = 320  # bytes that any message may spend on each client of the round, generously


class Phase(StrEnum):
    """What a round waits for."""

    ADVERTISE = "advertise"  # public keys of the round, signed
    SHARE = "share"  # sealed shares of the secrets behind the masks
    MASK = "mask"  # the masked vector
    CONSISTENCY = "consistency"  # a signature on who is in the sum
    UNMASK = "unmask"  # one share per neighbour
    DONE = "done"


@dataclass(frozen=True, kw_only=True)
class Session:
    """One aggregation, as every client is told from outside and as nobody in it can change.

    Parameters
    ----------
    run : str
        Identifier of the run.
    round : int
        Index of the round. A round that is tried again takes a number of its own: a client serves each number once.
    group : str
        Which of several aggregations of the round, ``""`` if there is one.
    length : int
        Words of a vector.
    bits : int
        2 to 8, 16 or 32: vectors are added mod 2^bits, and nothing else of their sum is seen. On the wire a word takes
        as many bits.
    corrupt : int
        Clients that may work for the server, at most.
    min_survivors : int
        Fewest clients a sum may be over, the corrupt ones included; counted by every client itself. With h honest ones
        needed, say for their noise, it is h + ``corrupt``.
    terms : str
        SHA-256 (hex) of what every client that takes part has to have agreed to, such as the privacy manifest; ``""``
        for nothing. It is a part of `digest`, so that nobody shares a sum with a client of other terms.

    Raises
    ------
    InvalidValueError
        A value is outside what is allowed; among others, a sum over fewer than two honest clients is somebody's vector.

    Examples
    --------
    >>> session = Session(run="demo", round=3, length=1000, corrupt=5, min_survivors=70)
    >>> session.needed(100), session.graph(100)
    (70, Graph(n=100, degree=99, threshold=52))
    """

    run: str
    round: int
    length: int
    bits: int = 8
    corrupt: int = 0
    min_survivors: int
    group: str = ""
    terms: str = ""

    def __post_init__(self) -> None:
        validate.whole(0, round=self.round, corrupt=self.corrupt)
        validate.whole(1, length=self.length)
        validate.whole(2 + self.corrupt, min_survivors=self.min_survivors)
        if self.terms and not _SHA256.fullmatch(self.terms):
            raise InvalidValueError(f"expected terms to be a SHA-256 in 64 hexadecimal digits, got {self.terms!r:.80}")
        if self.bits not in _WIDTHS:
            raise InvalidValueError(f"expected bits to be 2 to 8, 16 or 32, got bits={self.bits}")
        if self.length > _MAX_WORDS or self.min_survivors > MAX_CLIENTS:
            raise InvalidValueError(
                f"expected length <= {_MAX_WORDS} and min_survivors <= {MAX_CLIENTS}, got length={self.length} "
                f"and min_survivors={self.min_survivors}; aggregate in parts"
            )

    @property
    def dtype(self) -> np.dtype[np.unsignedinteger[Any]]:
        """Type of a word in memory."""
        return np.dtype(f"u{max(self.bits // 8, 1)}")

    @property
    def nbytes(self) -> int:
        """Bytes of a vector on the wire."""
        return -(-self.length * self.bits // 8)

    @property
    def max_message(self) -> int:
        """Bytes above which no message of this session is read."""
        return self.nbytes + _PER_CLIENT * MAX_CLIENTS

    @cached_property
    def digest(self) -> str:
        """SHA-256 (hex) of all fields; clients sign it with their keys."""
        return digest({item.name: getattr(self, item.name) for item in fields(self)})

    def needed(self, n: int) -> int:
        """Clients that have to be in the sum if n registered: the minimum, and a `quorum` at least."""
        return max(self.min_survivors, quorum(n, self.corrupt))

    def graph(self, n: int) -> Graph:
        """The graph over n clients, planned so that all but the `needed` may drop out."""
        return choose_graph(n, n - self.needed(n), self.corrupt)

    def empty(self) -> Vector:
        """A vector of zeros."""
        return np.zeros(self.length, self.dtype)

    def vector(self, data: bytes) -> Vector:
        """The vector that travelled as bytes: little-endian words, or words of fewer than 8 bits without gaps.

        Raises
        ------
        ProtocolError
            There are more or fewer bytes than it has.
        """
        if len(data) != self.nbytes:
            raise ProtocolError("size", f"expected a vector of {self.nbytes} bytes, got {len(data)}")
        if self.bits < 8:
            return self.reduced(FixedWidth().unpack(data, self.length, self.bits).view(np.uint8))
        return np.frombuffer(data, self.dtype.newbyteorder("<"))

    def reduced(self, vector: Vector) -> Vector:
        """The words mod 2^bits."""
        return vector & self.dtype.type((1 << self.bits) - 1)

    def raw(self, vector: Vector) -> bytes:
        """The bytes of a vector, of whose words only the low ``bits`` bits go."""
        if self.bits < 8:
            return FixedWidth().pack(vector.view(np.int8), self.bits)
        return vector.astype(self.dtype.newbyteorder("<"), copy=False).tobytes()


@dataclass(frozen=True)
class Registration:
    """Who takes part in a round with which keys; client i is the i-th in order of id.

    Parameters
    ----------
    session : Session
        What is aggregated.
    signed : tuple of bytes
        The `Advertisement` of each client, as it was sent, in increasing order of id.
    """

    session: Session
    signed: tuple[bytes, ...]

    @cached_property
    def advertisements(self) -> tuple[Advertisement, ...]:
        """The same, read."""
        return tuple(Advertisement.from_bytes(item, MAX_ADVERTISEMENT) for item in self.signed)

    @cached_property
    def clients(self) -> tuple[str, ...]:
        """Ids in order."""
        return tuple(item.client_id for item in self.advertisements)

    @cached_property
    def numbers(self) -> dict[str, int]:
        """Number of each id."""
        return {client: number for number, client in enumerate(self.clients)}

    @cached_property
    def transcript(self) -> bytes:
        """SHA-256 of all that happened so far; every later key, share and signature is bound to it."""
        return bytes.fromhex(digest({"session": self.session.digest, "advertisements": self.signed}))

    @cached_property
    def graph(self) -> Graph:
        """Who masks with how many."""
        return self.session.graph(len(self.signed))

    def neighbours(self, client: int) -> tuple[int, ...]:
        """Who masks with this client; the transcript is the seed, so that the server has no say in it."""
        if client not in self._drawn:
            self._drawn[client] = self.graph.neighbours(client, self.transcript)
        return self._drawn[client]

    @cached_property
    def _drawn(self) -> dict[int, tuple[int, ...]]:
        return {}

    def neighbours_among(self, client: int, members: Collection[int]) -> list[int]:
        """Those of the neighbours that are also among some members, in increasing order."""
        known = members if isinstance(members, Set) else frozenset(members)
        return [other for other in self.neighbours(client) if other in known]

    def check(self, identities: Mapping[str, bytes]) -> None:
        """Check every advertisement, as each client does for itself.

        Raises
        ------
        ProtocolError
            Ids are not in order, somebody is unknown, a signature is not of this session, or a key serves twice.
        """
        if any(first >= second for first, second in pairwise(self.clients)):
            raise ProtocolError("roster", "expected clients in increasing order of id, each once, got another order")
        for item in self.advertisements:
            check_advertisement(self.session, item, identities)
        keys = [key for item in self.advertisements for key in (item.cipher_key, item.mask_key)]
        if len(set(keys)) != len(keys):
            raise ProtocolError("key", "expected different keys of all clients, got one key twice; keys serve once")


def check_advertisement(session: Session, item: Advertisement, identities: Mapping[str, bytes]) -> None:
    """Check that a client is known and signed these keys for this session.

    Raises
    ------
    ProtocolError
        With the code ``"unknown"`` or ``"signature"``.
    """
    identity = identities.get(item.client_id)
    if identity is None:
        raise ProtocolError("unknown", f"client {item.client_id!r} is not among the {len(identities)} known identities")
    text = advertised(session.digest, item.client_id, item.cipher_key, item.mask_key)
    if not verified(identity, item.signature, text):
        raise ProtocolError(
            "signature",
            f"client {item.client_id!r} did not sign these keys for run {session.run!r}, round {session.round}, "
            f"group {session.group!r} and these terms: they are forged, were replayed from another round, or their "
            "client agreed to another manifest",
        )
