"""SMEA: the mean of the n - f updates that spread least in the direction in which they spread most."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import chain, combinations
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from matl.aggregators._rows import Float64
from matl.aggregators.base import AGGREGATORS, Context, Result, Rows, Rule
from matl.aggregators.krum import krum_scores
from matl.errors import BoundError

__all__ = ["SMEA"]

_SUBSETS = 1_000_000  # that may be left out: n = 30 with f = 6, or n = 100 with f = 3, which take seconds at worst
_EQUAL = 1e-6  # eigenvalues that differ by a smaller share of themselves count as equal: distances are no better
_REACH = 100.0  # projections are cut there, in roots of the smallest eigenvalue so far


@AGGREGATORS.register("smea")
@dataclass(frozen=True, slots=True)
class SMEA(Rule):
    """Mean of the n - f updates whose covariance has the smallest top eigenvalue.

    Parameters
    ----------
    f : int or None
        Byzantine rows to tolerate; ``None`` takes the bound of the context.

    Notes
    -----
    Exact, and defined while there are at most 1,000,000 ways to leave out f rows. An eigenvalue is computed only for
    the set that looks best: its top eigenvector bounds the eigenvalues of all other sets from below, by their spread
    along it, and the search is over once no bound is below the smallest eigenvalue. Eigenvalues that agree to 1e-6
    count as equal. Weights are ignored.

    References
    ----------
    Allouah et al., "On the Privacy-Robustness-Utility Trilemma in Distributed Learning", ICML 2023.
    """

    f: int | None = None
    condition: ClassVar[str] = "2f < n, and at most 1,000,000 sets of f rows"
    breakdown: ClassVar[str] = "1/2"
    cost: ClassVar[str] = "n^2 d, and at worst f binom(n, f)^2"

    def max_f(self, n: int) -> int:
        """See `Rule.max_f`."""
        return (n - 1) // 2

    def proven_kappa(self, n: int, f: int) -> float:
        """See `Rule.kappa`: 4 f / (n - f) (1 + f / (n - 2f))^2."""
        return 4.0 * f / (n - f) * (1.0 + f / (n - 2 * f)) ** 2

    def combine(self, X: Rows, f: int, context: Context) -> Result:
        """See `Rule.combine`.

        Raises
        ------
        BoundError
            There are more than 1,000,000 ways to leave out f rows.
        """
        n = len(X)
        if (count := math.comb(n, f)) > _SUBSETS:
            raise BoundError(
                f"expected at most {_SUBSETS} sets of f rows to leave out, got {count} with n={n} and f={f}; "
                "lower f or choose another rule, such as caf or minimum_diameter_averaging"
            )
        kept, eigenvalue = _least_spread(X.squared_distances, f)
        weights = np.zeros(n)
        weights[kept] = 1.0 / (n - f)
        return Result(X.combine(weights), weights, {"eigenvalue": eigenvalue})


def _least_spread(distances: Float64, f: int) -> tuple[NDArray[np.intp], float]:
    """The n - f rows whose covariance has the smallest top eigenvalue, and that eigenvalue."""
    n = len(distances)
    scores = krum_scores(distances, n - f - 1)
    middle = distances[np.argmin(scores)]
    gram = 0.5 * (middle[:, None] + middle - distances)  # around a row that no outlier can move
    sets = np.fromiter(chain.from_iterable(combinations(range(n), f)), np.int32).reshape(math.comb(n, f), f)
    bounds = np.zeros(len(sets))
    candidate = np.sort(np.argsort(scores, kind="stable")[: n - f])
    best, smallest = candidate, np.inf
    while True:
        eigenvalue, projections = _principal(gram, candidate)
        if eigenvalue < smallest:
            best, smallest = candidate, eigenvalue
        # Cutting lowers bounds, though never those of sets with an outlier to below the smallest eigenvalue, and keeps
        # outliers from drowning the digits of the others.
        reach = _REACH * np.sqrt(smallest)
        projections = np.clip(projections, -reach, reach)
        left_out = projections[sets]
        means = (projections.sum() - left_out.sum(axis=1)) / (n - f)
        squares = (projections @ projections - np.einsum("ij,ij->i", left_out, left_out)) / (n - f)
        np.maximum(bounds, squares - means**2, out=bounds)
        undecided = bounds < (1.0 - _EQUAL) * smallest
        sets, bounds = sets[undecided], bounds[undecided]
        if not len(sets):
            return best, smallest
        promising = int(np.argmin(bounds))
        candidate = np.delete(np.arange(n), sets[promising])
        bounds[promising] = np.inf


def _principal(gram: Float64, rows: NDArray[np.intp]) -> tuple[float, Float64]:
    """Top eigenvalue of the covariance of ``rows``, and the projections of all rows on its eigenvector, shape (n,)."""
    inner = gram[np.ix_(rows, rows)]
    means = inner.mean(axis=0)
    values, vectors = np.linalg.eigh(inner - means - means[:, None] + means.mean())
    if values[-1] <= 0.0:  # equal rows
        return 0.0, np.zeros(len(gram))
    return float(values[-1]) / len(rows), gram[:, rows] @ vectors[:, -1] / np.sqrt(values[-1])
