"""CAF: take weight from updates along the direction in which they spread most."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import ClassVar

import numpy as np

from matl.aggregators._rows import Float64
from matl.aggregators._threads import run
from matl.aggregators.base import AGGREGATORS, Context, Result, Rows, Rule

__all__ = ["CAF"]

_STEPS = 128  # Lanczos steps at most; for no more rows than that a full decomposition is faster
_TOLERANCE = 1e-10  # residual of an eigenpair, in eigenvalues
_EQUAL = 1e-5  # a tau that differs from the largest by a smaller share of it counts as equal: distances are no better


@AGGREGATORS.register("caf")
@dataclass(frozen=True, slots=True)
class CAF(Rule):
    """Covariance bound-agnostic filter: the weighted mean whose covariance had the smallest top eigenvalue.

    Parameters
    ----------
    f : int or None
        Byzantine rows to tolerate; ``None`` takes the bound of the context.

    Notes
    -----
    All weights c_i start from 1. While they sum to more than n - 2f, the weighted covariance around the weighted mean
    is decomposed, tau_i is the squared projection of x_i minus the mean on the top eigenvector, and c_i is multiplied
    by 1 - tau_i / max tau. The result is the mean that belongs to the smallest top eigenvalue seen. The maximum is
    over rows that still count, so every round leaves one row out, with those that tie with it to 1e-5, and there are at
    most 2f rounds. Weights of the context are ignored.

    Eigenpairs come from the distances between rows, to a residual of 1e-10 eigenvalues. Beyond 128 rows they are
    computed by at most 128 Lanczos steps from a vector that the context's seed draws, and eigenvalues too close to be
    told apart by these count as one; the filter only needs a direction of nearly the largest spread.

    References
    ----------
    Allouah, Guerraoui and Stephan, "Towards Trustworthy Federated Learning with Untrusted Participants", ICML 2025.
    """

    f: int | None = None
    condition: ClassVar[str] = "2f < n"
    breakdown: ClassVar[str] = "1/2"
    cost: ClassVar[str] = "n^2 d + f n^2"

    def max_f(self, n: int) -> int:
        """See `Rule.max_f`."""
        return (n - 1) // 2

    def combine(self, X: Rows, f: int, context: Context) -> Result:
        """See `Rule.combine`."""
        start = np.random.default_rng(context.seed).normal(size=len(X))
        # As a task, because products with a matrix of this size are slower on several BLAS threads.
        weights, rounds = run([partial(_filtered, X.squared_distances, f, start)])[0]
        return Result(X.combine(weights), weights, {"rounds": rounds})


def _filtered(distances: Float64, f: int, start: Float64) -> tuple[Float64, int]:
    """Shares of the rows in the best mean, shape (n,), and how many rounds it took to find them."""
    n = len(distances)
    counts = np.ones(n)
    best, smallest, rounds = counts / n, np.inf, 0
    while counts.sum() > n - 2 * f:
        rounds += 1
        shares = counts / counts.sum()
        eigenvalue, projections = _principal(distances, shares, start)
        if eigenvalue < smallest:
            best, smallest = shares, eigenvalue
        projections = np.where(counts > 0.0, np.abs(projections), 0.0)
        if not projections.any():  # the rows that count are equal
            break
        lost = (projections / projections.max()) ** 2
        counts = np.where(lost > 1.0 - _EQUAL, 0.0, counts * (1.0 - lost))
    return best, rounds


def _principal(distances: Float64, shares: Float64, start: Float64) -> tuple[float, Float64]:
    """Top eigenvalue of the weighted covariance, and every row's projection on its eigenvector, up to a factor; (n,).

    The inner products of centred rows are -1/2 (D - D s 1' - 1 s' D + s' D s), with D the squared distances and s the
    shares. Multiplied by the roots of the shares from both sides they have the covariance's eigenvalues.
    """
    means = distances @ shares
    mean = float(shares @ means)
    roots = np.sqrt(shares)

    def centred(u: Float64) -> Float64:
        total = u.sum()
        return np.asarray(-0.5 * (distances @ u - means * total - (means @ u - mean * total)))

    if len(shares) <= _STEPS:
        values, vectors = np.linalg.eigh(-0.5 * np.outer(roots, roots) * (distances - means[:, None] - means + mean))
        value, vector = float(values[-1]), vectors[:, -1]
    else:
        value, vector = _lanczos(lambda q: roots * centred(roots * q), roots * start)
    return value, centred(roots * vector)


def _lanczos(times: Callable[[Float64], Float64], start: Float64) -> tuple[float, Float64]:
    """Top eigenpair of a symmetric matrix of more than `_STEPS` rows, given its product with a vector."""
    basis = np.empty((_STEPS, len(start)))
    diagonal, beside = np.zeros(_STEPS), np.zeros(_STEPS)
    following = start / np.linalg.norm(start)
    check = 0
    for k in range(_STEPS):
        basis[k] = following
        known = basis[: k + 1]
        rest = times(following)
        diagonal[k] = following @ rest
        # Twice, because rounding leaves a little of them the first time.
        for _ in range(2):
            rest -= (known @ rest) @ known
        beside[k] = np.linalg.norm(rest)
        if k == check or k == _STEPS - 1 or beside[k] <= _TOLERANCE * np.abs(diagonal).max():
            check = k + k // 3 + 8
            inner = beside[:k]
            values, vectors = np.linalg.eigh(np.diag(diagonal[: k + 1]) + np.diag(inner, 1) + np.diag(inner, -1))
            if beside[k] * abs(vectors[-1, -1]) <= _TOLERANCE * abs(values[-1]):
                break
        following = rest / beside[k]
    return float(values[-1]), vectors[:, -1] @ known
