"""Compiled: from numbers to small integers and back, one scale per chunk of numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from matl.codec._hadamard import GAMMA, mix64
from matl.jit import compiled

__all__ = ["add_squares", "from_table", "largest", "round_to_nearest", "round_to_table", "round_up_or_down", "times"]

_Floats = NDArray[np.float32]
_UNIT = 2.0**-53  # the top 53 bits of a word, as a number in [0, 1)


@compiled
def largest(bits: NDArray[np.int32], chunk: int, out: NDArray[np.int32]) -> None:
    """Bits of the largest magnitude of every chunk: magnitudes of floats sort like the integers of the same bits."""
    for c in range(out.shape[0]):
        part, top = bits[c * chunk : (c + 1) * chunk], np.int32(0)
        for j in range(part.shape[0]):
            top = max(top, part[j] & np.int32(0x7FFFFFFF))
        out[c] = top


@compiled
def add_squares(values: _Floats, chunk: int, out: NDArray[np.float64]) -> None:
    """Sum of squares of every chunk, in float64; four sums side by side do not wait for one another."""
    for c in range(out.shape[0]):
        part = values[c * chunk : (c + 1) * chunk]
        sums = np.zeros(4)
        for j in range(part.shape[0]):
            value = np.float64(part[j])
            sums[j % 4] += value * value
        out[c] = (sums[0] + sums[1]) + (sums[2] + sums[3])


@compiled
def round_to_nearest(values: _Floats, steps: _Floats, chunk: int, limit: int, words: NDArray[Any]) -> None:
    """``words = values / step``, rounded to the nearest, ties to even, and held within plus or minus ``limit``."""
    for c in range(steps.shape[0]):
        part, to, step = values[c * chunk : (c + 1) * chunk], words[c * chunk : (c + 1) * chunk], np.float64(steps[c])
        if step == 0:
            to[:] = 0
            continue
        for j in range(part.shape[0]):
            to[j] = np.int64(min(max(np.rint(np.float64(part[j]) / step), -limit), limit))


@compiled
def round_up_or_down(
    values: _Floats, steps: _Floats, chunk: int, limit: int, key: Any, words: NDArray[Any]
) -> None:  # fmt: skip
    """``words = values / step``, rounded up with the probability that keeps the mean; randomness is counted from key.

    Coordinate i takes word i of SplitMix64 with state ``key``.
    """
    for c in range(steps.shape[0]):
        part, to, step = values[c * chunk : (c + 1) * chunk], words[c * chunk : (c + 1) * chunk], np.float64(steps[c])
        if step == 0:
            to[:] = 0
            continue
        for j in range(part.shape[0]):
            word = mix64(key + np.uint64(c * chunk + j + 1) * GAMMA)
            chance = np.float64(word >> np.uint64(11)) * _UNIT
            to[j] = np.int64(min(max(np.floor(np.float64(part[j]) / step + chance), -limit), limit))


@compiled
def times(words: NDArray[Any], steps: _Floats, chunk: int, out: _Floats) -> None:
    """``out = words * step``."""
    for c in range(steps.shape[0]):
        part, to, step = words[c * chunk : (c + 1) * chunk], out[c * chunk : (c + 1) * chunk], steps[c]
        for j in range(part.shape[0]):
            to[j] = np.float32(part[j]) * step


@compiled
def round_to_table(
    values: _Floats, rms: _Floats, chunk: int, table: _Floats, words: NDArray[np.int8], scales: _Floats
) -> None:  # fmt: skip
    """The nearest entry of a symmetric, ascending table to ``values / rms``, numbered from minus half its length.

    ``scales`` gets |v|^2 / <v, q> for every chunk v of values and q of entries.
    """
    half = table.shape[0] // 2
    for c in range(rms.shape[0]):
        part, to = values[c * chunk : (c + 1) * chunk], words[c * chunk : (c + 1) * chunk]
        to[:] = -half
        for k in range(table.shape[0] - 1):
            bound = np.float32(0.5) * (table[k] + table[k + 1]) * rms[c]
            for j in range(part.shape[0]):
                to[j] += part[j] > bound
        squares, products = 0.0, 0.0
        for j in range(part.shape[0]):
            squares += np.float64(part[j]) * np.float64(part[j])
            products += np.float64(part[j]) * np.float64(table[to[j] + half])
        scales[c] = squares / products if products > 0 else 0.0


@compiled
def from_table(words: NDArray[Any], scales: _Floats, chunk: int, table: _Floats, out: _Floats) -> None:
    """``out = scale * table[words + half its length]``."""
    half = table.shape[0] // 2
    for c in range(scales.shape[0]):
        part, to, scale = words[c * chunk : (c + 1) * chunk], out[c * chunk : (c + 1) * chunk], scales[c]
        for j in range(part.shape[0]):
            to[j] = table[part[j] + half] * scale
