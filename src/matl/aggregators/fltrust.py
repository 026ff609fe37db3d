"""FLTrust: weigh updates by their agreement with the server's own."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from matl import validate
from matl.aggregators.base import AGGREGATORS, Context, Result, Rows, Rule

__all__ = ["FLTrust"]

# Shorter rows count for next to nothing: what would stretch them to the root's norm leaves the range of float32.
_SHORTEST = 1e-30


@AGGREGATORS.register("fltrust")
@dataclass(frozen=True, slots=True)
class FLTrust(Rule):
    """Mean weighted by the positive part of the cosine to the root update, rescaled to its norm.

    Notes
    -----
    With g the update of honest training on root data and c_i = max(0, cos(x_i, g)):
    sum_i c_i |g| x_i / |x_i| / sum_i c_i, and 0 if no c_i is positive. It stands on the root data alone. Under label
    skew it also leaves out honest clients. Example counts are ignored.

    References
    ----------
    Cao et al., "FLTrust: Byzantine-robust Federated Learning via Trust Bootstrapping", NDSS 2021.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"root_update"})
    breakdown: ClassVar[str] = "none proven"

    def combine(self, X: Rows, f: int, context: Context) -> Result:
        """See `Rule.combine`."""
        norms = np.maximum(X.norms(), _SHORTEST)
        root = np.asarray(context.root_update, dtype=np.float32)
        validate.vector(X.shape[1], root_update=root)
        root_norm = max(float(np.linalg.norm(root.astype(np.float64))), _SHORTEST)
        products = X.products(root)
        trust = np.maximum(products / (norms * root_norm), 0.0)
        total = float(trust.sum())
        weights = trust / total * root_norm / norms if total > 0 else np.zeros(len(X))
        return Result(X.combine(weights), weights, {"trust_total": total})
