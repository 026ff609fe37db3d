"""Rules that rank the values of each coordinate: median, trimmed mean and mean around the median."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from matl.aggregators.base import AGGREGATORS, Context, Result, Rows, Rule
from matl.params import Float32

__all__ = ["Meamed", "Median", "TrimmedMean"]

_WIDTH = 4096  # columns of a weighted median at a time
_ROUNDING = 1e-12  # by how much sums of equal weights may differ


@dataclass(frozen=True, slots=True)
class _Ranked(Rule):
    """What the rules of this file share. Example counts play no part unless a rule says otherwise."""

    condition: ClassVar[str] = "2f < n"
    breakdown: ClassVar[str] = "1/2"
    cost: ClassVar[str] = "d n log^2 n"

    def max_f(self, n: int) -> int:
        """See `Rule.max_f`."""
        return (n - 1) // 2


@AGGREGATORS.register("median")
@dataclass(frozen=True, slots=True)
class Median(_Ranked):
    """Median of every coordinate.

    Parameters
    ----------
    weighted : bool
        Whether rows count by the context's weights. Then the tolerated share is one of weight, not of rows, and who
        claims many examples gains by it.

    Notes
    -----
    With fewer than half of the rows malicious, every coordinate stays within the range of the honest ones. An even
    number of rows gives the mean of the two middle values; with weights likewise, where both sides weigh the same.

    References
    ----------
    Yin et al., "Byzantine-Robust Distributed Learning: Towards Optimal Statistical Rates", ICML 2018.
    """

    weighted: bool = False

    def proven_kappa(self, n: int, f: int) -> float:
        """See `Rule.kappa`: 4 (1 + f / (n - 2f))^2."""
        return 4.0 * (1.0 + f / (n - 2 * f)) ** 2

    def combine(self, X: Rows, f: int, context: Context) -> Result:
        """See `Rule.combine`."""
        from matl.aggregators import _kernels

        if self.weighted and context.weights is not None:
            return Result(_weighted_median(X, context.weights))
        first, last = (len(X) - 1) // 2, len(X) // 2 + 1
        return Result(
            X.by_sorted_columns(lambda ranked, sums, out: _kernels.mean_of_sorted(ranked, first, last, sums, out))
        )


@AGGREGATORS.register("trimmed_mean")
@dataclass(frozen=True, slots=True)
class TrimmedMean(_Ranked):
    """Mean of every coordinate without its f smallest and f largest values.

    Parameters
    ----------
    f : int or None
        Values cut from each end; ``None`` takes the bound of the context.

    References
    ----------
    Yin et al., "Byzantine-Robust Distributed Learning: Towards Optimal Statistical Rates", ICML 2018.
    """

    f: int | None = None
    breakdown: ClassVar[str] = "f/n < 1/2"

    def proven_kappa(self, n: int, f: int) -> float:
        """See `Rule.kappa`: 6 f / (n - 2f) (1 + f / (n - 2f))."""
        share = f / (n - 2 * f)
        return 6.0 * share * (1.0 + share)

    def combine(self, X: Rows, f: int, context: Context) -> Result:
        """See `Rule.combine`."""
        from matl.aggregators import _kernels

        last = len(X) - f
        return Result(
            X.by_sorted_columns(lambda ranked, sums, out: _kernels.mean_of_sorted(ranked, f, last, sums, out))
        )


@AGGREGATORS.register("meamed")
@dataclass(frozen=True, slots=True)
class Meamed(_Ranked):
    """Mean of every coordinate over its n - f values nearest to the median.

    Parameters
    ----------
    f : int or None
        Values left out; ``None`` takes the bound of the context.

    Notes
    -----
    The nearest values are neighbours in sorted order; of two equally near ones on either side the lower is taken.

    References
    ----------
    Xie, Koyejo and Gupta, "Generalized Byzantine-tolerant SGD", arXiv:1802.10116, 2018.
    """

    f: int | None = None
    breakdown: ClassVar[str] = "f/n < 1/2"

    def combine(self, X: Rows, f: int, context: Context) -> Result:
        """See `Rule.combine`."""
        from matl.aggregators import _kernels

        keep = len(X) - f
        return Result(X.by_sorted_columns(lambda ranked, sums, out: _kernels.mean_near_median(ranked, keep, sums, out)))


def _weighted_median(X: Rows, weights: np.ndarray[tuple[int, ...], np.dtype[np.float64]]) -> Float32:
    """The value of every column below and above which at most half of the weight lies."""
    parts = []
    for block in X.blocks(_WIDTH):
        order = np.argsort(block, axis=0, kind="stable")
        ranked = np.take_along_axis(block, order, axis=0)
        below = np.cumsum(weights[order], axis=0)
        half = below[-1] / 2.0
        low = np.argmax(below >= half * (1.0 - _ROUNDING), axis=0)
        # Where a prefix weighs exactly half, every value up to the next one that counts is a median; take the middle.
        high = np.argmax(below > half * (1.0 + _ROUNDING), axis=0)
        columns = np.arange(block.shape[1])
        parts.append(ranked[low, columns] / np.float32(2) + ranked[high, columns] / np.float32(2))
    return np.concatenate(parts)
