"""Rules that sort each coordinate: median and trimmed mean."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from matl.aggregators.base import AGGREGATORS, Context, Result, Rule
from matl.matrix import UpdateMatrix
from matl.params import Float32

__all__ = ["Median", "TrimmedMean"]

# Not a power of two: a stride of 4096 floats would map every row of a block to the same cache sets.
_WIDTH = 4112


@AGGREGATORS.register("median")
@dataclass(frozen=True, slots=True)
class Median(Rule):
    """Median of every coordinate.

    Notes
    -----
    Breakdown point 1/2: with fewer than half of the rows malicious, every coordinate stays within the range of the
    honest ones. Weights are ignored. Cost O(d n log n).

    References
    ----------
    Yin et al., "Byzantine-Robust Distributed Learning: Towards Optimal Statistical Rates", ICML 2018.
    """

    condition: ClassVar[str] = "2f < n"

    def max_f(self, n: int) -> int:
        """See `Rule.max_f`."""
        return (n - 1) // 2

    def combine(self, X: UpdateMatrix, f: int, context: Context) -> Result:
        """See `Rule.combine`."""
        n = len(X)
        low, high = (n - 1) // 2, n // 2
        return Result(_by_sorted_columns(X, lambda ranked: (ranked[:, low] + ranked[:, high]) / np.float32(2)))


@AGGREGATORS.register("trimmed_mean")
@dataclass(frozen=True, slots=True)
class TrimmedMean(Rule):
    """Mean of every coordinate without its f smallest and f largest values.

    Parameters
    ----------
    f : int or None
        Values cut from each end; ``None`` takes the bound of the context.

    Notes
    -----
    Breakdown point f/n < 1/2. Weights are ignored. Cost O(d n log n).

    References
    ----------
    Yin et al., "Byzantine-Robust Distributed Learning: Towards Optimal Statistical Rates", ICML 2018.
    """

    f: int | None = None
    condition: ClassVar[str] = "2f < n"

    def max_f(self, n: int) -> int:
        """See `Rule.max_f`."""
        return (n - 1) // 2

    def combine(self, X: UpdateMatrix, f: int, context: Context) -> Result:
        """See `Rule.combine`."""
        n = len(X)
        return Result(_by_sorted_columns(X, lambda ranked: ranked[:, f : n - f].mean(axis=1)))


def _by_sorted_columns(X: UpdateMatrix, reduce: Callable[[Float32], Float32]) -> Float32:
    """Apply ``reduce`` to (width, n) blocks whose rows are the sorted coordinates."""
    parts = []
    for block in X.column_blocks(_WIDTH):
        # One coordinate's values side by side: sorting along the short contiguous axis is several times faster.
        # Always a copy, also where the transpose is contiguous already: the caller's data is not ours to sort.
        ranked = np.array(block.T, order="C")
        ranked.sort(axis=1)
        parts.append(reduce(ranked))
    return np.concatenate(parts)
