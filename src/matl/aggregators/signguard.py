"""SignGuard: keep the updates of ordinary norm whose signs are distributed like those of most."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from matl import validate
from matl.aggregators._rows import Float64
from matl.aggregators._sampling import sampled_columns
from matl.aggregators.base import AGGREGATORS, Context, Result, Rows, Rule

__all__ = ["SignGuard"]

_STEPS = 300  # of mean shift; a handful is usual
_STILL = 1e-3  # bandwidths: a mode that moves less has arrived
_SLACK = 1e-9  # below what two shares of signs can differ by, above their rounding: rows just within reach stay so


@AGGREGATORS.register("signguard")
@dataclass(frozen=True, slots=True)
class SignGuard(Rule):
    """Mean of the updates that pass a filter of norms and one of signs, clipped to the median norm.

    Parameters
    ----------
    lower, upper : float
        Norms that pass the first filter, in median norms; lower <= 1 and upper >= 2, so that some row always passes.
    fraction : float
        Share of the coordinates whose signs are counted, in (0, 1].

    Notes
    -----
    Of the drawn coordinates, the shares that are positive, zero and negative are the features of a row. Mean shift with
    a flat kernel clusters them, and the rows of the largest cluster pass the second filter; rows farther than the
    bandwidth from every mode belong to none. The bandwidth is the mean distance of a row to its floor(n/2)-th nearest,
    counting itself, and at least to its nearest other, so the second filter leaves out many honest rows, attack or not.
    The rows that pass both filters are averaged; where none does, those that pass the first are, and the diagnostics
    say that the filters disagree.

    The context's seed draws the coordinates: runs of adjacent ones, every coordinate alike likely. The authors' code
    reads a single run, and divides each share by its largest among the rows, which lets a single stray zero set a row
    apart; here the shares are as they are. This is the variant without similarity features. Weights of the context are
    ignored.

    With 2f < n the result is no longer than the longest honest row, but nothing else is proven about it.

    References
    ----------
    Xu, Huang, Song and Lan, "Byzantine-robust Federated Learning through Collaborative Malicious Gradient Filtering",
    ICDCS 2022; mean shift: Comaniciu and Meer, "Mean Shift: A Robust Approach toward Feature Space Analysis",
    IEEE Trans. Pattern Analysis and Machine Intelligence 2002.
    """

    lower: float = 0.1
    upper: float = 3.0
    fraction: float = 0.1
    condition: ClassVar[str] = "2f < n"
    breakdown: ClassVar[str] = "1/2"
    cost: ClassVar[str] = "n d"

    def __post_init__(self) -> None:
        Rule.__post_init__(self)
        validate.fraction(lower=self.lower, fraction=self.fraction)
        validate.positive(fraction=self.fraction)
        validate.at_least(2.0, upper=self.upper)

    def max_f(self, n: int) -> int:
        """See `Rule.max_f`."""
        return (n - 1) // 2

    def combine(self, X: Rows, f: int, context: Context) -> Result:
        """See `Rule.combine`."""
        norms = X.norms()
        limit = float(np.median(norms))
        ordinary = (norms >= self.lower * limit) & (norms <= self.upper * limit)
        alike = largest_cluster(self._sign_shares(X, context.seed))
        agree = bool((ordinary & alike).any())
        kept = ordinary & alike if agree else ordinary
        scale = np.divide(limit, norms, out=np.ones(len(X)), where=norms > limit)
        weights = kept * scale / kept.sum()
        diagnostics = {
            "clip_norm": limit,
            "passed_norms": int(ordinary.sum()),
            "passed_signs": int(alike.sum()),
            "filters_agree": agree,
        }
        return Result(X.combine(weights), weights, diagnostics)

    def _sign_shares(self, X: Rows, seed: int) -> Float64:
        """Shares of positive, zero and negative values in each row's drawn coordinates, shape (n, 3)."""
        n, d = X.shape
        runs = sampled_columns(d, max(round(self.fraction * d), 1), np.random.default_rng(seed))
        positive, negative, drawn = np.zeros(n), np.zeros(n), 0
        for run in runs:
            block = X.columns(*run)
            positive += np.count_nonzero(block > 0, axis=1)
            negative += np.count_nonzero(block < 0, axis=1)
            drawn += block.shape[1]
        return np.stack([positive, drawn - positive - negative, negative], axis=1) / drawn


def largest_cluster(points: Float64) -> NDArray[np.bool_]:
    """Which points belong to the largest cluster that mean shift finds, shape (n,).

    Every point is a seed. Of modes closer than the bandwidth only the one with most points around it stays, ties going
    to the larger coordinates, and each point within the bandwidth of a mode belongs to the nearest; of equally large
    clusters the one with the denser mode wins.
    """
    n = len(points)
    nearest = max(n // 2, min(n, 2))
    reach = float(np.partition(_distances(points, points), nearest - 1, axis=1)[:, nearest - 1].mean()) + _SLACK
    modes, crowd = points.copy(), np.zeros(n)
    moving = np.arange(n)
    for _ in range(_STEPS):
        near = _distances(modes[moving], points) <= reach
        crowd[moving] = near.sum(axis=1)
        means = near @ points / crowd[moving, None]
        moves = np.sqrt(np.sum((means - modes[moving]) ** 2, axis=1)) > _STILL * reach
        modes[moving] = means
        moving = moving[moves]
        if not moving.size:
            break
    rest = modes[np.lexsort((*modes.T[::-1], crowd))[::-1]]
    centres = []
    while len(rest):
        centres.append(rest[0])
        rest = rest[_distances(rest, rest[:1])[:, 0] > reach]
    distances = _distances(points, np.stack(centres))
    cluster = np.where(distances.min(axis=1) <= reach, distances.argmin(axis=1), len(centres))
    sizes = np.bincount(cluster, minlength=len(centres) + 1)
    return np.asarray(cluster == sizes[:-1].argmax())


def _distances(points: Float64, others: Float64) -> Float64:
    """Euclidean distance of every point to every other, by differences: exactly zero between equal ones."""
    squares = sum(np.subtract.outer(a, b) ** 2 for a, b in zip(points.T, others.T, strict=True))
    return np.asarray(np.sqrt(squares))
