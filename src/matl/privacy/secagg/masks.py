"""Mask streams: AES-256 in counter mode, added to a vector of unsigned integers mod 2^b in place."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import islice
from typing import Any, TypeAlias

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, CipherContext
from cryptography.hazmat.primitives.ciphers.algorithms import AES256
from cryptography.hazmat.primitives.ciphers.modes import CTR
from numpy.typing import NDArray

__all__ = ["Vector", "add_masks"]

Vector: TypeAlias = NDArray[np.unsignedinteger[Any]]
"""A vector over Z_{2^b}: uint8, uint16 or uint32 of shape (length,)."""

_CHUNK = 1 << 17  # bytes of a stream at a time: stream, sum and zeros stay in the second cache
_ZEROS = bytes(_CHUNK)
_STREAMS = 256  # cipher states open at a time


def add_masks(vector: Vector, plus: Iterable[bytes] = (), minus: Iterable[bytes] = ()) -> None:
    """Add the streams of some keys to a vector and subtract those of others, mod 2^b, in place.

    The stream of a key is the AES-256-CTR key stream from counter 0, read as little-endian words. A key is for one
    vector only: two vectors under one stream give away their difference.

    Parameters
    ----------
    vector : uint8, uint16 or uint32 array of shape (length,)
        Contiguous, in the machine's byte order.
    plus, minus : iterable of bytes
        Keys of 32 bytes.

    Examples
    --------
    >>> import numpy as np
    >>> word = np.arange(4, dtype=np.uint8)
    >>> add_masks(word, plus=[bytes(32)])
    >>> word
    array([220, 150, 194, 123], dtype=uint8)
    >>> add_masks(word, minus=[bytes(32)])
    >>> word
    array([0, 1, 2, 3], dtype=uint8)
    """
    for keys, combine in ((plus, np.add), (minus, np.subtract)):
        rest = iter(keys)
        while streams := [_stream(key) for key in islice(rest, _STREAMS)]:
            _apply(vector, streams, combine)


def _stream(key: bytes) -> CipherContext:
    return Cipher(AES256(key), CTR(bytes(16))).encryptor()


def _apply(vector: Vector, streams: list[CipherContext], combine: np.ufunc) -> None:
    """Chunk by chunk, so that the vector is read from memory once for all streams."""
    buffer = bytearray(_CHUNK + 15)  # `update_into` may ask for a block less one byte beyond its input
    words = np.frombuffer(buffer, dtype=vector.dtype.newbyteorder("<"), count=_CHUNK // vector.itemsize)
    for start in range(0, vector.size, words.size):
        part = vector[start : start + words.size]
        zeros, mask = _ZEROS[: part.nbytes], words[: part.size]
        for stream in streams:
            stream.update_into(zeros, buffer)
            combine(part, mask, out=part)
