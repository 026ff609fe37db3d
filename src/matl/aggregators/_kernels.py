"""Compiled loops over float32 rows. Imported only when a rule runs.

Every kernel reads C-ordered (n, d) blocks between two columns, writes what it was handed, holds no lock, and does the
same arithmetic whoever calls it. Sums over many numbers run in float64: the loops wait for memory anyway, and no
finite float32 row can overflow them. Rows are sliced before they are looped over, because an index such as
``start + j`` may be negative for all the compiler knows, and it does not vectorise such a loop.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from matl.jit import compiled

_Floats = NDArray[np.float32]
_Wide = NDArray[np.float64]
_Keys = NDArray[np.int32]

_Kernel = TypeVar("_Kernel", bound=Callable[..., None])


def _sum(kernel: _Kernel) -> _Kernel:
    """Free to reorder a sum, so that it can be vectorised; infinities and NaN keep their meaning."""
    return compiled(kernel, fastmath={"reassoc", "contract", "nsz"})


@compiled
def add_rows(X: _Floats, rows: NDArray[np.int64], weights: _Wide, start: int, stop: int, total: _Wide) -> None:
    """``total += weights @ X[rows, start:stop]``, four rows at a time, so that ``total`` is read and written less.

    They are added one after another: how rows are grouped, or split into shards, does not change a bit.
    """
    k = 0
    while k + 4 <= rows.shape[0]:
        a, b = X[rows[k], start:stop], X[rows[k + 1], start:stop]
        c, d = X[rows[k + 2], start:stop], X[rows[k + 3], start:stop]
        p, q, r, s = weights[k], weights[k + 1], weights[k + 2], weights[k + 3]
        for j in range(a.shape[0]):
            total[j] = (((total[j] + p * a[j]) + q * b[j]) + r * c[j]) + s * d[j]
        k += 4
    while k < rows.shape[0]:
        a = X[rows[k], start:stop]
        for j in range(a.shape[0]):
            total[j] += weights[k] * a[j]
        k += 1


@_sum
def add_squares(X: _Floats, start: int, stop: int, total: _Wide) -> None:
    """``total[i] += |X[i, start:stop]|^2``."""
    for i in range(X.shape[0]):
        row = X[i, start:stop]
        part = 0.0
        for j in range(row.shape[0]):
            value = np.float64(row[j])
            part += value * value
        total[i] += part


@_sum
def add_squared_gaps(X: _Floats, z: _Floats, start: int, stop: int, total: _Wide) -> None:
    """``total[i] += |X[i, start:stop] - z[start:stop]|^2``."""
    point = z[start:stop]
    for i in range(X.shape[0]):
        row = X[i, start:stop]
        part = 0.0
        for j in range(row.shape[0]):
            value = np.float64(row[j]) - np.float64(point[j])
            part += value * value
        total[i] += part


@_sum
def add_products(X: _Floats, z: _Floats, start: int, stop: int, total: _Wide) -> None:
    """``total[i] += X[i, start:stop] . z[start:stop]``."""
    point = z[start:stop]
    for i in range(X.shape[0]):
        row = X[i, start:stop]
        part = 0.0
        for j in range(row.shape[0]):
            part += np.float64(row[j]) * np.float64(point[j])
        total[i] += part


@compiled
def load_keys(bits: _Keys, start: int, stop: int, keys: _Keys) -> None:
    """Copy columns ``start:stop`` as integers that sort like the floats whose bits they were."""
    for i in range(bits.shape[0]):
        row = bits[i, start:stop]
        to = keys[i]
        for j in range(row.shape[0]):
            to[j] = row[j] ^ ((row[j] >> np.int32(31)) & np.int32(0x7FFFFFFF))


@compiled
def restore_floats(keys: _Keys, first: int, last: int, width: int) -> None:
    """Turn rows ``first:last`` of keys back into the bits of floats, in place."""
    for i in range(first, last):
        row = keys[i, :width]
        for j in range(width):
            row[j] = row[j] ^ ((row[j] >> np.int32(31)) & np.int32(0x7FFFFFFF))


@compiled
def sort_columns(keys: _Keys, width: int, tile: int, steps: NDArray[np.int32]) -> None:
    """Sort every column of ``keys[:, :width]`` by a sorting network, ``tile`` columns at a time.

    A step is (kind, a, b, c, d): kind 0 orders rows a and b; 1 and 2 run two layers of the network on four rows while
    these are in registers, which halves the traffic: (a,c)(b,d) or (a,d)(b,c), then (a,b)(c,d).
    """
    for left in range(0, width, tile):
        right = left + tile
        for k in range(steps.shape[0]):
            kind = steps[k, 0]
            a, b = keys[steps[k, 1], left:right], keys[steps[k, 2], left:right]
            if kind == 0:
                for j in range(tile):
                    p, q = a[j], b[j]
                    a[j] = min(p, q)
                    b[j] = max(p, q)
                continue
            c, d = keys[steps[k, 3], left:right], keys[steps[k, 4], left:right]
            if kind == 1:
                for j in range(tile):
                    p, q, r, s = a[j], b[j], c[j], d[j]
                    low, high = min(p, r), min(q, s)
                    more, most = max(p, r), max(q, s)
                    a[j] = min(low, high)
                    b[j] = max(low, high)
                    c[j] = min(more, most)
                    d[j] = max(more, most)
            else:
                for j in range(tile):
                    p, q, r, s = a[j], b[j], c[j], d[j]
                    low, high = min(p, s), min(q, r)
                    more, most = max(p, s), max(q, r)
                    a[j] = min(low, high)
                    b[j] = max(low, high)
                    c[j] = min(more, most)
                    d[j] = max(more, most)


@compiled
def mean_of_sorted(ranked: _Floats, first: int, last: int, sums: _Wide, out: _Floats) -> None:
    """Mean of the sorted rows ``first:last`` of every column."""
    width = out.shape[0]
    sums[:width] = 0.0
    for i in range(first, last):
        row = ranked[i, :width]
        for j in range(width):
            sums[j] += row[j]
    for j in range(width):
        out[j] = sums[j] / (last - first)


@compiled
def mean_near_median(ranked: _Floats, keep: int, sums: _Wide, out: _Floats) -> None:
    """Mean of the ``keep`` values of every column nearest to its median; ``ranked`` is sorted.

    They are neighbours in sorted order. The window starts at the lowest value and moves up by one while the next value
    lies nearer to the median than the lowest; once it stops it never moves again, so every move is a masked addition.
    """
    n, width = ranked.shape[0], out.shape[0]
    low, high = ranked[(n - 1) // 2, :width], ranked[n // 2, :width]
    sums[:width] = 0.0
    for i in range(keep):
        row = ranked[i, :width]
        for j in range(width):
            sums[j] += row[j]
    for i in range(n - keep):
        leaves, enters = ranked[i, :width], ranked[i + keep, :width]
        for j in range(width):
            middle = 0.5 * (np.float64(low[j]) + np.float64(high[j]))
            gain = np.float64(enters[j]) - np.float64(leaves[j])
            moves = np.float64(enters[j]) - middle < middle - np.float64(leaves[j])
            sums[j] += gain if moves else 0.0
    for j in range(width):
        out[j] = sums[j] / keep
