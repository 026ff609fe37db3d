"""Divide and conquer: leave out the updates that stand out along the direction of largest variance."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np

from matl import validate
from matl.aggregators._rows import Float64
from matl.aggregators._sampling import sampled_columns
from matl.aggregators._threads import run
from matl.aggregators.base import AGGREGATORS, Context, Result, Rows, Rule
from matl.matrix import UpdateMatrix

__all__ = ["DnC"]


@AGGREGATORS.register("dnc")
@dataclass(frozen=True, slots=True)
class DnC(Rule):
    """Mean without the updates that lie farthest along the top singular direction (divide and conquer).

    Parameters
    ----------
    f : int or None
        Byzantine rows to tolerate; ``None`` takes the bound of the context.
    iterations : int
        How often coordinates are drawn and rows judged by them.
    subsample : int
        Coordinates to draw each time, b; all, where there are no more.
    factor : float
        Rows that an iteration removes, in f: c f, rounded up.

    Notes
    -----
    An iteration centres the drawn coordinates, takes their top right singular vector v, and removes the rows with the
    largest <v, x_i - mean>^2. The rows that every iteration kept are averaged. Where there is none, those that the most
    iterations kept are, and the diagnostics say that the iterations disagree.

    The context's seed draws the coordinates: runs of adjacent ones, every coordinate alike likely. Values that are
    neither drawn nor averaged are not read. Weights of the context are ignored.

    A single row that is far off is always found, but one can hide behind another: of two, a huge one turns v to itself,
    and the other may lie anywhere at a right angle to it.

    References
    ----------
    Shejwalkar and Houmansadr, "Manipulating the Byzantine: Optimizing Model Poisoning Attacks and Defenses for
    Federated Learning", NDSS 2021.
    """

    f: int | None = None
    iterations: int = 1
    subsample: int = 10_000
    factor: float = 1.0
    condition: ClassVar[str] = "2f < n and c f < n"
    breakdown: ClassVar[str] = "2/n"
    cost: ClassVar[str] = "n d + n^2 b per iteration"

    def __post_init__(self) -> None:
        Rule.__post_init__(self)
        validate.whole(1, iterations=self.iterations, subsample=self.subsample)
        validate.positive(factor=self.factor)

    def max_f(self, n: int) -> int:
        """See `Rule.max_f`."""
        f = (n - 1) // 2
        while self._removed(f) >= n:
            f -= 1
        return f

    def combine(self, X: Rows, f: int, context: Context) -> Result:
        """See `Rule.combine`."""
        n, d = X.shape
        rng = np.random.default_rng(context.seed)
        votes, iterations = np.zeros(n, np.int64), 1 if d <= self.subsample else self.iterations
        for _ in range(iterations):
            drawn = X if d <= self.subsample else _sample(X, sampled_columns(d, self.subsample, rng))
            votes[np.argsort(_scores(drawn), kind="stable")[: n - self._removed(f)]] += 1
        kept = votes == votes.max()
        weights = kept / kept.sum()
        return Result(X.combine(weights), weights, {"iterations_agree": bool(votes.max() == iterations)})

    def _removed(self, f: int) -> int:
        return math.ceil(round(self.factor * f, 9))  # so that 0.07 * 100 is 7


def _sample(X: Rows, runs: list[tuple[int, int]]) -> Rows:
    return Rows(UpdateMatrix(np.concatenate([X.columns(*run) for run in runs], axis=1)))


def _scores(X: Rows) -> Float64:
    """Squared projection of each centred row onto their top right singular vector, as a share of all, shape (n,).

    They are the squared entries of the top eigenvector of the centred rows' inner products, and these follow from the
    distances.
    """
    inner = -0.5 * X.squared_distances
    inner -= inner.mean(axis=0)
    inner -= inner.mean(axis=1, keepdims=True)
    ((_, vectors),) = run([partial(np.linalg.eigh, inner)])  # on one thread: small matrices gain nothing by more
    return np.asarray(vectors[:, -1] ** 2)
