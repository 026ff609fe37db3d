"""Rules that pick the updates closest to their neighbours: Krum and Multi-Krum."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from matl import validate
from matl.aggregators._gram import squared_distances
from matl.aggregators.base import AGGREGATORS, Context, Result, Rule, weighted_sum
from matl.errors import BoundError
from matl.matrix import UpdateMatrix

__all__ = ["Krum", "MultiKrum"]


@AGGREGATORS.register("multi_krum")
@dataclass(frozen=True, slots=True)
class MultiKrum(Rule):
    """Mean of the m updates with the smallest Krum score.

    Parameters
    ----------
    f : int or None
        Byzantine rows to tolerate; ``None`` takes the bound of the context.
    m : int or None
        Rows to average; ``None`` takes n - f.

    Notes
    -----
    The score of a row is the sum of its squared distances to its n - f - 2 nearest other rows; ties go to the smaller
    index. Breakdown point f < (n - 2) / 2. Weights are ignored. Cost O(n^2 d).

    References
    ----------
    Blanchard et al., "Machine Learning with Adversaries: Byzantine Tolerant Gradient Descent", NeurIPS 2017.
    """

    f: int | None = None
    m: int | None = None
    condition: ClassVar[str] = "n >= 2f + 3"

    def __post_init__(self) -> None:
        Rule.__post_init__(self)
        if self.m is not None:
            validate.whole(1, m=self.m)

    def max_f(self, n: int) -> int:
        """See `Rule.max_f`."""
        return max((n - 3) // 2, 0)

    def combine(self, X: UpdateMatrix, f: int, context: Context) -> Result:
        """See `Rule.combine`."""
        n = len(X)
        keep = n - f if self.m is None else self.m
        if keep > n:
            raise BoundError(f"expected m <= n, got m={keep} and n={n}")
        scores = krum_scores(squared_distances(X), f)
        weights = np.zeros(n)
        weights[np.argsort(scores, kind="stable")[:keep]] = 1.0 / keep
        return Result(weighted_sum(X, weights), weights)


@AGGREGATORS.register("krum")
@dataclass(frozen=True, slots=True)
class Krum(MultiKrum):
    """The one update closest to its neighbours.

    Parameters
    ----------
    f : int or None
        Byzantine rows to tolerate; ``None`` takes the bound of the context.

    Notes
    -----
    `MultiKrum` with m = 1.

    References
    ----------
    Blanchard et al., "Machine Learning with Adversaries: Byzantine Tolerant Gradient Descent", NeurIPS 2017.
    """

    m: int | None = 1


def krum_scores(distances: NDArray[np.float64], f: int) -> NDArray[np.float64]:
    """Sum of each row's n - f - 2 smallest squared distances to other rows, shape (n,); at least one is summed."""
    n = len(distances)
    neighbours = max(n - f - 2, 1)
    others = distances + np.diag(np.full(n, np.inf))
    nearest = np.sort(others, axis=1)[:, : min(neighbours, n - 1)]
    scores: NDArray[np.float64] = nearest.sum(axis=1)
    return scores
