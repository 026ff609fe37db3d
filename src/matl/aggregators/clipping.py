"""Clipping before a rule: to a fixed norm, or to one that follows the updates."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from matl import validate
from matl.aggregators._rows import Float64
from matl.aggregators.base import AGGREGATORS, Context, Rows, Rule
from matl.aggregators.coordinate import TrimmedMean
from matl.aggregators.pre import PreAggregator

__all__ = ["ARC", "StaticClipping"]


@AGGREGATORS.register("static_clipping")
@dataclass(frozen=True, slots=True)
class StaticClipping(PreAggregator):
    """Every row cut to a fixed norm before another rule.

    Parameters
    ----------
    radius : float
        Largest norm that a row keeps, C.
    rule : Rule
        Applied to the clipped rows; not one that needs root data.

    Notes
    -----
    x_i becomes min(1, C / |x_i|) x_i. A fixed C has no proof under heterogeneity; `ARC` chooses one that has.
    """

    radius: float = 2.0
    rule: Rule = field(default_factory=TrimmedMean)
    condition: ClassVar[str] = "what the rule after it allows"

    def __post_init__(self) -> None:
        PreAggregator.__post_init__(self)
        validate.positive(radius=self.radius)

    def coefficients(self, X: Rows, f: int, context: Context) -> Float64:
        """See `PreAggregator.coefficients`."""
        return _cut(X.norms(), self.radius)


@AGGREGATORS.register("arc")
@dataclass(frozen=True, slots=True)
class ARC(PreAggregator):
    """Adaptive robust clipping: the longest rows cut to the length of the next one, before another rule.

    Parameters
    ----------
    f : int or None
        Byzantine rows to tolerate; ``None`` takes that of the rule after it, or the bound of the context.
    rule : Rule
        Applied to the clipped rows; not one that needs root data.

    Notes
    -----
    The k = floor(2 f (n - f) / n) longest rows are cut to the norm of the (k + 1)-th longest. A rule with coefficient
    kappa has at most 3 kappa behind it.

    References
    ----------
    Allouah et al., "Adaptive Gradient Clipping for Robust Federated Learning", ICLR 2025.
    """

    f: int | None = None
    rule: Rule = field(default_factory=TrimmedMean)
    condition: ClassVar[str] = "2f < n, and what the rule after it allows"

    def proven_kappa(self, n: int, f: int) -> float | None:
        """See `Rule.kappa`."""
        inner = self.rule.proven_kappa(n, f)
        return None if inner is None else 3.0 * inner

    def coefficients(self, X: Rows, f: int, context: Context) -> Float64:
        """See `PreAggregator.coefficients`."""
        norms = X.norms()
        clipped = 2 * f * (len(X) - f) // len(X)
        return _cut(norms, float(np.sort(norms)[len(X) - 1 - clipped]))


def _cut(norms: Float64, limit: float) -> Float64:
    """Diagonal coefficients that cut rows of these norms to ``limit``."""
    return np.diag(np.divide(limit, norms, out=np.ones(len(norms)), where=norms > limit))
