"""Cryptographic randomness as 64-bit words: AES-256 in counter mode under a key that the operating system draws."""

from __future__ import annotations

import os

import numpy as np
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from numpy.typing import NDArray

__all__ = ["KEY_BYTES", "Words"]

KEY_BYTES = 32
_CHUNK = 1 << 18  # bytes enciphered at a time: plaintext and ciphertext stay in the second-level cache
_BLOCK = 16  # bytes of an AES block; `update_into` wants room for all but one byte of another


class Words:
    """A stream of uniform 64-bit words under a fresh key; no word is ever handed out twice.

    Parameters
    ----------
    key : bytes, optional
        32 bytes. Left out, the operating system draws them, and that is what everything private needs: a key that is
        given repeats its words, for test vectors and audits.

    Examples
    --------
    >>> [f"{word:016x}" for word in Words(bytes(32)).take(2)]
    ['898940a278c095dc', '8720849214a248ad']
    """

    def __init__(self, key: bytes | None = None) -> None:
        chosen = os.urandom(KEY_BYTES) if key is None else key
        self._cipher = Cipher(algorithms.AES256(chosen), modes.CTR(bytes(_BLOCK))).encryptor()
        self._zeros = memoryview(bytes(_CHUNK))

    def take(self, count: int) -> NDArray[np.uint64]:
        """The next words, a fresh array of shape (count,); little-endian pairs of every AES block."""
        size = 8 * count
        stream = np.empty(size + _BLOCK, np.uint8)
        room = stream.data
        for start in range(0, size, _CHUNK):
            part = min(_CHUNK, size - start)
            self._cipher.update_into(self._zeros[:part], room[start : start + part + _BLOCK])
        return stream[:size].view("<u8").astype(np.uint64, copy=False)
