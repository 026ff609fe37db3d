"""Bulyan: updates that Krum picks one after another, and of these a mean around the median of every coordinate."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from matl.aggregators._rows import Float64
from matl.aggregators.base import AGGREGATORS, Context, Result, Rows, Rule
from matl.aggregators.krum import krum_scores

__all__ = ["Bulyan"]

_CANCELLED = 1e-3  # a sum that shrank below this share of itself is summed anew, so that 1e-13 of it is right


@AGGREGATORS.register("bulyan")
@dataclass(frozen=True, slots=True)
class Bulyan(Rule):
    """Mean of every coordinate over the values nearest to the median of the updates that Krum picks.

    Parameters
    ----------
    f : int or None
        Byzantine rows to tolerate; ``None`` takes the bound of the context.

    Notes
    -----
    Krum picks n - 2f rows, each among those that are left: the one with the least sum of squared distances to its
    n_left - f - 2 nearest others, at least one of them. Of each coordinate's n - 2f values the n - 4f nearest to their
    median are averaged. Ties go to the smaller index, and of two equally near values on either side to the lower.
    Weights are ignored.

    References
    ----------
    El Mhamdi, Guerraoui and Rouault, "The Hidden Vulnerability of Distributed Learning in Byzantium", ICML 2018.
    """

    f: int | None = None
    condition: ClassVar[str] = "n >= 4f + 3"
    breakdown: ClassVar[str] = "1/4"
    cost: ClassVar[str] = "n^2 d"

    def max_f(self, n: int) -> int:
        """See `Rule.max_f`."""
        return max((n - 3) // 4, 0)

    def combine(self, X: Rows, f: int, context: Context) -> Result:
        """See `Rule.combine`."""
        from matl.aggregators import _kernels

        keep = len(X) - 4 * f
        selected = X.take(_picked(X.squared_distances, f))
        return Result(
            selected.by_sorted_columns(lambda ranked, sums, out: _kernels.mean_near_median(ranked, keep, sums, out))
        )


def _picked(distances: Float64, f: int) -> NDArray[np.intp]:
    """Indices of the n - 2f rows that Krum picks one after another, in ascending order.

    Every pick takes one row and one neighbour away from all others: the picked row where it was a neighbour, else the
    farthest one. So scores are lowered, in n steps per pick, and summed anew only where that cancels their digits.
    """
    n = len(distances)
    order = np.argsort(distances, axis=1, kind="stable")
    left = np.ones(n, bool)
    last = np.full(n, n - f - 2)  # where a row's farthest neighbour stands in its order; first stands the row itself

    def summed(rows: NDArray[np.intp]) -> Float64:
        near = left[order[rows]] & (np.arange(n) <= last[rows, None])
        return np.asarray((np.take_along_axis(distances[rows], order[rows], axis=1) * near).sum(axis=1))

    rows = np.arange(n)
    scores = summed(rows)
    high = scores.copy()
    for remaining in range(n, 2 * f, -1):
        crowded = remaining - f - 2 > 1
        if not crowded:  # two rows nearest to each other tie, and a rounded score would not
            scores[rows] = krum_scores(distances[np.ix_(rows, rows)], 1)
        pick = rows[np.argmin(scores[rows])]
        left[pick] = False
        rows = rows[rows != pick]
        if not crowded:
            continue
        gone, farthest = distances[rows, pick], order[rows, last[rows]]
        reach = distances[rows, farthest]
        neighbour = (gone < reach) | ((gone == reach) & (pick <= farthest))
        scores[rows] -= np.where(neighbour, gone, reach)
        last[rows[~neighbour]] -= 1
        while len(beyond := rows[~left[order[rows, last[rows]]]]):
            last[beyond] -= 1
        stale = rows[scores[rows] < _CANCELLED * high[rows]]
        scores[stale] = high[stale] = summed(stale)
    return np.flatnonzero(~left)
