"""The weighted mean, plain and with every row clipped to a common norm."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from matl.aggregators.base import AGGREGATORS, Context, Result, Rows, Rule

__all__ = ["ClippedMean", "Mean"]


@AGGREGATORS.register("mean", "fedavg")
@dataclass(frozen=True, slots=True)
class Mean(Rule):
    """Weighted mean of all updates (federated averaging). Tolerates no malicious client.

    Notes
    -----
    sum_i w_i x_i / sum_i w_i. One client can move it anywhere.

    References
    ----------
    McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data", AISTATS 2017.
    """

    def combine(self, X: Rows, f: int, context: Context) -> Result:
        """See `Rule.combine`."""
        weights = np.ones(len(X)) if context.weights is None else context.weights
        share = weights / weights.sum()
        return Result(X.combine(share), share)


@AGGREGATORS.register("clipped_mean")
@dataclass(frozen=True, slots=True)
class ClippedMean(Rule):
    """Weighted mean after clipping every update to the median norm. For updates that were judged before.

    Notes
    -----
    sum_i w_i min(1, m / |x_i|) x_i / sum_i w_i with m the median of all |x_i|. No row counts for more than a typical
    one, but f rows that agree still move the result by up to f m / n. Cost O(nd).
    """

    def combine(self, X: Rows, f: int, context: Context) -> Result:
        """See `Rule.combine`."""
        weights = np.ones(len(X)) if context.weights is None else context.weights
        norms = X.norms()
        limit = float(np.median(norms))
        scale = np.minimum(1.0, limit / np.maximum(norms, np.finfo(np.float32).tiny))
        share = weights * scale / weights.sum()
        return Result(X.combine(share), share, {"clip_norm": limit, "clipped": int((scale < 1).sum())})
