"""Every column of a block sorted at once, by a sorting network that works on many columns side by side."""

from __future__ import annotations

from functools import cache

import numpy as np
from numpy.typing import NDArray

__all__ = ["TILE", "block_width", "sorting_network"]

TILE = 128  # columns sorted together: 100 rows of them stay in the second-level cache
_BYTES = 8 * 2**20  # of the buffer that a thread sorts in
# Tiles side by side in the buffer. Reading 128 columns of every row straight from memory would defeat its prefetching.
# Odd, so that rows of the buffer do not fall on the same sets of the cache.
_MOST_TILES = 17


def block_width(n: int) -> int:
    """Columns that a thread loads before it sorts them; depends on n alone."""
    tiles = min(max(_BYTES // (4 * TILE * n), 1), _MOST_TILES)
    return TILE * (tiles - 1 + tiles % 2)


@cache
def sorting_network(n: int) -> NDArray[np.int32]:
    """Steps that sort n values, shape (steps, 5); see `matl.aggregators._kernels.sort_columns`.

    The bitonic network in the form where every comparator puts the smaller value first, so that the rows missing to a
    power of two may be thought of as infinite and left out.

    References
    ----------
    Batcher, "Sorting Networks and Their Applications", AFIPS 1968.
    """
    steps: list[NDArray[np.int64]] = [np.empty((0, 5), np.int64)]
    half = 1
    size = 1 << max(n - 1, 0).bit_length()
    while half < size:
        # Merge sorted runs of length `half`: one layer against the mirrored other run, then layers of stride k.
        starts = np.arange(0, size, 2 * half)[:, None]
        quarter = half // 2
        if half.bit_length() % 2:  # an odd number of layers: the first one stands alone
            i = np.arange(half)
            steps.append(_pairs(starts + i, starts + 2 * half - 1 - i, n))
            k = quarter
        else:
            i = np.arange(quarter)
            mirrored = starts + 2 * half - 1 - i
            steps.append(_fours(2, (starts + i, starts + i + quarter, mirrored - quarter, mirrored), n))
            k = quarter // 2
        while k >= 2:
            first = np.arange(0, size, 2 * k)[:, None] + np.arange(k // 2)
            steps.append(_fours(1, (first, first + k // 2, first + k, first + k + k // 2), n))
            k //= 4
        half *= 2
    return np.ascontiguousarray(np.concatenate(steps), dtype=np.int32)


def _pairs(a: NDArray[np.int64], b: NDArray[np.int64], n: int) -> NDArray[np.int64]:
    a, b = a.ravel(), b.ravel()
    rows = np.stack([np.zeros_like(a), a, b, a, b], axis=1)
    return rows[b < n]


def _fours(kind: int, wires: tuple[NDArray[np.int64], ...], n: int) -> NDArray[np.int64]:
    """Two layers on groups of four rows; groups that reach beyond row n fall apart into what is left of their pairs."""
    a, b, c, d = (wire.ravel() for wire in wires)
    whole = d < n
    groups = np.stack([np.full_like(a, kind), a, b, c, d], axis=1)[whole]
    a, b, c, d = (wire[~whole] for wire in (a, b, c, d))
    first = [(a, c), (b, d)] if kind == 1 else [(a, d), (b, c)]
    return np.concatenate([groups, *(_pairs(p, q, n) for p, q in [*first, (a, b), (c, d)])])
