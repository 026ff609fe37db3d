"""Compiled: the last steps of the private encoder, from numbers to fixed point and from there on in integers.

Every kernel does the same whether compiled or run as plain Python.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from matl.jit import compiled

__all__ = ["centre", "round_and_add_noise", "round_to_grid", "shrink", "squares", "to_fixed_point"]

_Fixed = NDArray[np.int32]
_Words = NDArray[np.uint64]

_NOISE = np.uint64(24)  # a word's low 24 bits round, its high 40 bits draw the noise
_BUCKET = np.uint64(52)  # and the first 12 of those choose where the search for the noise begins
_FRACTION = np.uint64((1 << 24) - 1)


@compiled
def to_fixed_point(y: NDArray[np.float32], scale: Any, limit: Any, X: _Fixed) -> None:
    """``X = y * scale`` in units of 2^-24, truncated towards zero and held within plus or minus ``limit``.

    Parameters
    ----------
    y : float32 array of shape (m,)
        Whatever a transform made; what is no number counts as 0.
    scale : float64
        So many units is 1 worth.
    limit : int64
        Below 2^24, or 2^24 itself.
    X : int32 array of shape (m,)
        The result.
    """
    bound = np.float64(limit)
    for j in range(y.shape[0]):
        value = np.float64(y[j]) * scale
        X[j] = np.int32(min(max(value, -bound), bound)) if value == value else 0  # NaN is not itself


@compiled
def round_to_grid(y: NDArray[np.float32], scale: Any, words: _Words, X: _Fixed) -> None:
    """``X = y * scale``, rounded up with the probability that keeps the mean; the top 53 bits of a word decide."""
    for j in range(y.shape[0]):
        chance = np.float64(words[j] >> np.uint64(11)) * 2.0**-53
        X[j] = np.int32(np.floor(np.float64(y[j]) * scale + chance))


@compiled
def squares(X: _Fixed, chunk: int, sums: NDArray[np.int64]) -> None:
    """Exact sum of squares of every chunk, each of which has at most 2^14 numbers of at most 2^24."""
    for c in range(sums.shape[0]):
        part, total = X[c * chunk : (c + 1) * chunk], np.int64(0)
        for j in range(part.shape[0]):
            total += np.int64(part[j]) * np.int64(part[j])
        sums[c] = total


@compiled
def shrink(X: _Fixed, factor: Any) -> None:
    """``X = X * factor``, factor in [0, 1], truncated towards zero: no number gets larger."""
    for j in range(X.shape[0]):
        X[j] = np.int32(np.float64(X[j]) * factor)


@compiled
def round_and_add_noise(
    X: _Fixed, words: _Words, starts: NDArray[np.int64], thresholds: _Words, least: int, mask: int, out: NDArray[Any]
) -> None:
    """Stochastic rounding and one share of the noise, modulo a power of two, from one 64-bit word a coordinate.

    Parameters
    ----------
    X : int32 array of shape (m,)
        Numbers in [-1, 1] in units of 2^-24.
    words : uint64 array of shape (m,)
        Uniform, and never used for anything else.
    starts : int64 array of shape (4096,)
        How many thresholds are at most the first number of each of 4096 equal parts of [0, 2^40).
    thresholds : uint64 array of shape (t,)
        Ascending: 2^40 times the probability that the noise is below least + 1, least + 2, ..., and a last one that no
        number reaches.
    least : int
        The smallest value of the noise.
    mask : int
        M - 1.
    out : unsigned array of shape (m,)
        The result.
    """
    for j in range(X.shape[0]):
        word = words[j]
        noise, drawn = starts[word >> _BUCKET], word >> _NOISE
        while thresholds[noise] <= drawn:  # hardly ever: all but t of the 4096 parts hold no threshold
            noise += 1
        x = np.int64(X[j])
        up = np.int64(np.int64(word & _FRACTION) < abs(x))
        out[j] = (((x > 0) - np.int64(x < 0)) * up + noise + least) & mask


@compiled
def centre(total: NDArray[Any], half: int, scale: Any, y: NDArray[np.float32]) -> None:
    """``y`` = the sum of -M / 2 .. M / 2 - 1 that is ``total`` modulo M, M = 2 ``half``, times ``scale``."""
    for j in range(total.shape[0]):
        value = np.int64(total[j])
        y[j] = np.float32(value - 2 * half if value >= half else value) * scale
