"""Rules that pick the updates closest to their neighbours: Krum and Multi-Krum."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar, Literal

import numpy as np

from matl import validate
from matl.aggregators._rows import Float64
from matl.aggregators.base import AGGREGATORS, Context, Result, Rows, Rule
from matl.errors import BoundError, InvalidValueError

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
    neighbors : {"n-f-2", "n-f-1"}
        How many nearest other rows a score sums over: those of the first paper, which asks for n >= 2f + 3, or all that
        may be honest, as in later work, which asks for 2f < n.

    Notes
    -----
    The score of a row is the sum of its squared distances to its nearest other rows; ties go to the smaller index.
    Weights are ignored.

    References
    ----------
    Blanchard et al., "Machine Learning with Adversaries: Byzantine Tolerant Gradient Descent", NeurIPS 2017;
    with n - f - 1 neighbours: Allouah et al., "Fixing by Mixing", AISTATS 2023.
    """

    f: int | None = None
    m: int | None = None
    neighbors: Literal["n-f-2", "n-f-1"] = "n-f-2"
    condition: ClassVar[str] = "n >= 2f + 3, or 2f < n with n-f-1 neighbors"
    breakdown: ClassVar[str] = "1/2"
    cost: ClassVar[str] = "n^2 d"

    def __post_init__(self) -> None:
        Rule.__post_init__(self)
        if self.m is not None:
            validate.whole(1, m=self.m)
        if self.neighbors not in ("n-f-2", "n-f-1"):
            raise InvalidValueError(f"expected neighbors 'n-f-2' or 'n-f-1', got neighbors={self.neighbors!r}")

    def max_f(self, n: int) -> int:
        """See `Rule.max_f`."""
        return max((n - (3 if self.neighbors == "n-f-2" else 1)) // 2, 0)

    def combine(self, X: Rows, f: int, context: Context) -> Result:
        """See `Rule.combine`."""
        n = len(X)
        keep = n - f if self.m is None else self.m
        if keep > n:
            raise BoundError(f"expected m <= n, got m={keep} and n={n}")
        scores = krum_scores(X.squared_distances, n - f - (2 if self.neighbors == "n-f-2" else 1))
        weights = np.zeros(n)
        weights[np.argsort(scores, kind="stable")[:keep]] = 1.0 / keep
        return Result(X.combine(weights), weights)


@AGGREGATORS.register("krum")
@dataclass(frozen=True, slots=True)
class Krum(MultiKrum):
    """The one update closest to its neighbours.

    Parameters
    ----------
    f : int or None
        Byzantine rows to tolerate; ``None`` takes the bound of the context.
    neighbors : {"n-f-2", "n-f-1"}
        As in `MultiKrum`.

    Notes
    -----
    `MultiKrum` with m = 1.

    References
    ----------
    Blanchard et al., "Machine Learning with Adversaries: Byzantine Tolerant Gradient Descent", NeurIPS 2017.
    """

    m: int | None = field(default=1, init=False, repr=False)

    def proven_kappa(self, n: int, f: int) -> float | None:
        """See `Rule.kappa`: 6 (1 + f / (n - 2f)) with n - f - 1 neighbours."""
        return 6.0 * (1.0 + f / (n - 2 * f)) if self.neighbors == "n-f-1" else None


def krum_scores(distances: Float64, neighbors: int) -> Float64:
    """Sum of each row's smallest squared distances to other rows, shape (n,); at least one is summed where there is."""
    n = len(distances)
    count = min(max(neighbors, 1), n - 1)
    # Every row is at distance zero from itself, which the sum does not feel.
    smallest = np.partition(distances, count, axis=1)[:, : count + 1]
    scores: Float64 = smallest.sum(axis=1)
    return scores
