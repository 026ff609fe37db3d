"""Nearest-neighbour mixing: replace every update by the mean of its nearest neighbours, then apply a rule."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from matl.aggregators._rows import Float64
from matl.aggregators.base import AGGREGATORS, Context, Rows, Rule
from matl.aggregators.coordinate import TrimmedMean
from matl.aggregators.pre import PreAggregator

__all__ = ["NNM"]


@AGGREGATORS.register("nnm")
@dataclass(frozen=True, slots=True)
class NNM(PreAggregator):
    """Nearest-neighbour mixing before another rule.

    Parameters
    ----------
    f : int or None
        Byzantine rows to tolerate; ``None`` takes that of the rule after it, or the bound of the context.
    rule : Rule
        Applied to the mixed rows; not one that needs root data.

    Notes
    -----
    Row i becomes the mean of its n - f nearest rows, itself included; ties go to the smaller index. Mixing makes
    heterogeneous honest rows alike: behind it a rule with coefficient kappa has 8 f / (n - f) (kappa + 1), which is of
    the best possible order.

    References
    ----------
    Allouah et al., "Fixing by Mixing: A Recipe for Optimal Byzantine ML under Heterogeneity", AISTATS 2023.
    """

    f: int | None = None
    rule: Rule = field(default_factory=TrimmedMean)
    condition: ClassVar[str] = "2f < n, and what the rule after it allows"
    cost: ClassVar[str] = "n^2 d"

    def proven_kappa(self, n: int, f: int) -> float | None:
        """See `Rule.kappa`."""
        inner = self.rule.proven_kappa(n, f)
        return None if inner is None else 8.0 * f / (n - f) * (inner + 1.0)

    def coefficients(self, X: Rows, f: int, context: Context) -> Float64:
        """See `PreAggregator.coefficients`."""
        keep = len(X) - f
        return nearest(X.squared_distances, keep) / keep


def nearest(distances: Float64, count: int) -> Float64:
    """1 for the ``count`` smallest entries of every row, ties to the smaller index, and 0 for the others; (n, n)."""
    last = np.partition(distances, count - 1, axis=1)[:, count - 1, None]
    chosen = distances < last
    tied = distances == last
    room = count - chosen.sum(axis=1, keepdims=True)
    chosen |= tied & (np.cumsum(tied, axis=1) <= room)
    return chosen.astype(np.float64)
