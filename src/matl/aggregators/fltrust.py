"""FLTrust: weigh updates by their agreement with the server's own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from matl import validate
from matl.aggregators.base import AGGREGATORS, Context, Result, Rule, weighted_sum
from matl.matrix import UpdateMatrix

__all__ = ["FLTrust"]

# Shorter rows count for nothing; the factor that would stretch them to the root's norm leaves the range of float32.
_SHORTEST = 1e-30


@AGGREGATORS.register("fltrust")
@dataclass(frozen=True, slots=True)
class FLTrust(Rule):
    """Mean weighted by the positive part of the cosine to the root update, rescaled to its norm.

    Notes
    -----
    With g the update of honest training on root data and c_i = max(0, cos(x_i, g)):
    sum_i c_i |g| x_i / |x_i| / sum_i c_i, and 0 if no c_i is positive. There is no formal breakdown point; it stands on
    the root data. Under label skew it also leaves out honest clients. Example counts are ignored. Cost O(nd).

    References
    ----------
    Cao et al., "FLTrust: Byzantine-robust Federated Learning via Trust Bootstrapping", NDSS 2021.
    """

    needs_root: ClassVar[bool] = True

    def combine(self, X: UpdateMatrix, f: int, context: Context) -> Result:
        """See `Rule.combine`."""
        root = np.asarray(context.root_update, dtype=np.float32)
        validate.vector(X.shape[1], root_update=root)
        norms = np.maximum(X.norms(), _SHORTEST)
        wide_root = root.astype(np.float64)
        root_norm = max(float(np.linalg.norm(wide_root)), _SHORTEST)
        products = np.zeros(len(X))
        start = 0
        for block in X.column_blocks(4096):
            # float64: one huge row must not overflow and turn every other weight into NaN.
            products += block @ wide_root[start : start + block.shape[1]]
            start += block.shape[1]
        trust = np.maximum(products / (norms * root_norm), 0.0)
        total = float(trust.sum())
        weights = trust / total * root_norm / norms if total > 0 else np.zeros(len(X))
        return Result(weighted_sum(X, weights), weights, {"trust_total": total})
