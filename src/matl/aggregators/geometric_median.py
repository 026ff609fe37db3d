"""The geometric median by smoothed Weiszfeld steps, known in federated learning as RFA."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from matl import validate
from matl.aggregators.base import AGGREGATORS, Context, Result, Rows, Rule

__all__ = ["GeometricMedian"]


@AGGREGATORS.register("geometric_median", "rfa")
@dataclass(frozen=True, slots=True)
class GeometricMedian(Rule):
    """The point with the least summed distance to all updates (robust federated averaging).

    Parameters
    ----------
    nu : float
        Distances below it count as it, so that a point on an update does not divide by zero.
    iterations : int
        Most Weiszfeld steps. The first starts from zero, which in the space of updates is the present model.
    tolerance : float
        Stop when the objective falls by less than this share of itself; 0 takes all steps.
    weighted : bool
        Whether rows count by the context's weights. Then the tolerated share is one of weight, not of rows, and who
        claims many examples gains by it.

    Notes
    -----
    A step is z = sum_i b_i x_i / sum_i b_i with b_i = w_i / max(nu, |x_i - z|). It costs two passes over the updates,
    or none behind a rule that compared all pairs already. The proofs are about the exact minimiser; few steps come
    close to it unless the updates are far from zero compared with their spread.

    References
    ----------
    Pillutla, Kakade and Harchaoui, "Robust Aggregation for Federated Learning", IEEE Trans. Signal Processing 2022.
    """

    nu: float = 1e-6
    iterations: int = 20
    tolerance: float = 1e-5
    weighted: bool = False
    condition: ClassVar[str] = "2f < n"
    breakdown: ClassVar[str] = "1/2"
    cost: ClassVar[str] = "n d per step"

    def __post_init__(self) -> None:
        Rule.__post_init__(self)
        validate.positive(nu=self.nu)
        validate.whole(1, iterations=self.iterations)
        validate.non_negative(tolerance=self.tolerance)

    def max_f(self, n: int) -> int:
        """See `Rule.max_f`."""
        return (n - 1) // 2

    def proven_kappa(self, n: int, f: int) -> float:
        """See `Rule.kappa`: 4 (1 + f / (n - 2f))^2."""
        return 4.0 * (1.0 + f / (n - 2 * f)) ** 2

    def combine(self, X: Rows, f: int, context: Context) -> Result:
        """See `Rule.combine`."""
        n = len(X)
        shares = context.weights if self.weighted and context.weights is not None else np.ones(n)
        shares = shares / shares.sum()
        weights, before = np.zeros(n), np.inf
        steps = 0
        while steps < self.iterations:
            distances = np.maximum(np.sqrt(X.squared_distances_to(weights)), self.nu)
            objective = float(shares @ distances)
            if self.tolerance and before - objective < self.tolerance * objective:
                break
            before = objective
            weights = shares / distances
            weights /= weights.sum()
            steps += 1
        return Result(X.combine(weights), weights, {"steps": steps})
