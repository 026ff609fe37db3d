"""Compiled: words of fewer than eight bits side by side, and range asymmetric numeral systems (rANS)."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from matl.jit import compiled

__all__ = ["PRECISION", "START", "ans_decode", "ans_encode", "count", "pack_bits", "unpack_bits"]

PRECISION = 14
"""Frequencies sum to 2^14: fine enough for rare symbols, and the decoder's table stays in the cache."""
START = 1 << 16
"""A state lies in [2^16, 2^32): one 16-bit word in or out per symbol at most."""

_Bytes = NDArray[np.uint8]
_Words = NDArray[np.int8]
_SHIFT, _WORD = np.uint64(PRECISION), np.uint64(16)
_SLOTS = np.uint64((1 << PRECISION) - 1)
_FULL = np.uint64(32 - PRECISION)


@compiled
def pack_bits(words: _Words, bits: int, out: _Bytes) -> None:
    """The low ``bits`` bits of every word, the first in the lowest bits of the first byte."""
    mask, have, held, at = (1 << bits) - 1, 0, 0, 0
    for j in range(words.shape[0]):
        held |= (int(words[j]) & mask) << have
        have += bits
        while have >= 8:
            out[at] = held & 0xFF
            held >>= 8
            have -= 8
            at += 1
    if have:
        out[at] = held & 0xFF


@compiled
def unpack_bits(data: _Bytes, bits: int, words: _Words) -> None:
    """The inverse of `pack_bits`; words are signed (two's complement)."""
    mask, sign, have, held, at = (1 << bits) - 1, 1 << (bits - 1), 0, 0, 0
    for j in range(words.shape[0]):
        while have < bits:
            held |= int(data[at]) << have
            have += 8
            at += 1
        words[j] = ((held & mask) ^ sign) - sign
        held >>= bits
        have -= bits


@compiled
def count(words: _Words, counts: NDArray[np.int64]) -> None:
    """Add to ``counts[w + 128]`` how often every word w occurs."""
    for j in range(words.shape[0]):
        counts[np.int64(words[j]) + 128] += 1


@compiled
def ans_encode(
    words: _Words, low: int, frequencies: NDArray[np.uint64], starts: NDArray[np.uint64], states: NDArray[np.uint64],
    out: NDArray[np.uint16],
) -> Any:  # fmt: skip
    """Fill ``out`` from its end and return where the code begins; word j goes to state j mod 4.

    Runs backwards, so that the decoder runs forwards. Four states do not wait for one another's divisions.
    """
    at = out.shape[0]
    for j in range(words.shape[0] - 1, -1, -1):
        symbol = np.int64(words[j]) - low
        frequency, state = frequencies[symbol], states[j % 4]
        if state >> _FULL >= frequency:
            at -= 1
            out[at] = np.uint16(state & np.uint64(0xFFFF))
            state >>= _WORD
        quotient = np.uint64(np.uint32(state) // np.uint32(frequency))
        states[j % 4] = (quotient << _SHIFT) + (state - quotient * frequency) + starts[symbol]
    return at


@compiled
def ans_decode(
    code: NDArray[np.uint16], low: int, frequencies: NDArray[np.uint64], starts: NDArray[np.uint64], slots: _Bytes,
    states: NDArray[np.uint64], words: _Words,
) -> Any:  # fmt: skip
    """The inverse of `ans_encode`; returns how much of ``code`` was read, or -1 if it was too short.

    ``slots`` holds the symbol of each of the 2^14 slots. Any code decodes to something: that it is the code of these
    words shows in what was read, all, and in the states it ends with, where encoding began.
    """
    at = 0
    for j in range(words.shape[0]):
        state = states[j % 4]
        slot = state & _SLOTS
        symbol = np.int64(slots[slot])
        state = frequencies[symbol] * (state >> _SHIFT) + slot - starts[symbol]
        if state < np.uint64(START):
            if at == code.shape[0]:
                return -1
            state = (state << _WORD) | np.uint64(code[at])
            at += 1
        states[j % 4] = state
        words[j] = symbol + low
    return at
