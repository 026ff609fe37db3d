"""Nearest-neighbour mixing: replace every update by the mean of its nearest neighbours, then apply a rule."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from matl.aggregators._gram import squared_distances
from matl.aggregators.base import AGGREGATORS, Context, Result, Rule
from matl.aggregators.coordinate import TrimmedMean
from matl.errors import InvalidValueError
from matl.matrix import UpdateMatrix

__all__ = ["NNM"]


@AGGREGATORS.register("nnm")
@dataclass(frozen=True, slots=True)
class NNM(Rule):
    """Nearest-neighbour mixing before another rule.

    Parameters
    ----------
    f : int or None
        Byzantine rows to tolerate; ``None`` takes the bound of the context.
    rule : Rule
        Applied to the mixed rows with the same f; not one that needs root data.

    Notes
    -----
    Row i becomes the mean of its n - f nearest rows, itself included; ties go to the smaller index. Mixing makes
    heterogeneous honest rows alike, which gives the rules after it their optimal robustness. Breakdown point 1/2 before
    a rule that has it. Cost O(n^2 d).

    References
    ----------
    Allouah et al., "Fixing by Mixing: A Recipe for Optimal Byzantine ML under Heterogeneity", AISTATS 2023.
    """

    f: int | None = None
    rule: Rule = field(default_factory=TrimmedMean)
    condition: ClassVar[str] = "2f < n, and what the rule after it allows"

    def __post_init__(self) -> None:
        Rule.__post_init__(self)
        if self.rule.needs_root:
            raise InvalidValueError(
                f"expected a rule that needs no root data after nnm, got {type(self.rule).__name__}; "
                "use it without nnm, or choose median, trimmed_mean or krum"
            )

    def max_f(self, n: int) -> int:
        """See `Rule.max_f`."""
        return min((n - 1) // 2, self.rule.max_f(n))

    def combine(self, X: UpdateMatrix, f: int, context: Context) -> Result:
        """See `Rule.combine`."""
        n = len(X)
        nearest = np.argsort(squared_distances(X), axis=1, kind="stable")[:, : n - f]
        mixing = np.zeros((n, n), np.float32)
        np.put_along_axis(mixing, nearest, np.float32(1.0 / (n - f)), axis=1)
        mixed = UpdateMatrix(mixing @ X.dense())
        result = self.rule.combine(mixed, f, context)
        weights = None if result.unit_weights is None else result.unit_weights @ mixing.astype(np.float64)
        return Result(result.vector, weights, result.diagnostics)
