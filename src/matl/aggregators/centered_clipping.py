"""Centered clipping: updates may pull only so far from the last result."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from matl import validate
from matl.aggregators.base import AGGREGATORS, Context, Result, Rows, Rule
from matl.errors import StateError
from matl.params import Float32, ParamLayout
from matl.state import State

__all__ = ["CenteredClipping"]


@AGGREGATORS.register("centered_clipping")
@dataclass(frozen=True, slots=True)
class CenteredClipping(Rule):
    """The last round's result, moved by the mean of the updates' differences from it, each cut to a radius.

    Parameters
    ----------
    radius : float
        Largest norm of a difference, tau.
    iterations : int
        Steps per round, L.

    Notes
    -----
    v becomes v + mean_i min(1, tau / |x_i - v|) (x_i - v), starting from the result of the round before, or from zero.
    One round moves v by no more than L tau, so f rows can pull it by at most L tau f / n; the memory is what makes that
    enough, and only where clients send momentum. State: one vector of shape (d,), which is part of the result, so
    the rows' weights do not sum to 1. Called directly, the rule starts from zero every time.

    References
    ----------
    Karimireddy, He and Jaggi, "Learning from History for Byzantine Robust Optimization", ICML 2021.
    """

    radius: float = 10.0
    iterations: int = 1
    condition: ClassVar[str] = "2f < n"
    breakdown: ClassVar[str] = "1/2, over many rounds"
    cost: ClassVar[str] = "n d"
    keeps_state: ClassVar[bool] = True

    def __post_init__(self) -> None:
        Rule.__post_init__(self)
        validate.positive(radius=self.radius)
        validate.whole(1, iterations=self.iterations)

    def max_f(self, n: int) -> int:
        """See `Rule.max_f`."""
        return (n - 1) // 2

    def init(self, layout: ParamLayout) -> State:
        """Nothing yet; the centre is zero until the first result."""
        return {"centre": None}

    def step(self, X: Rows, f: int, context: Context, state: State) -> tuple[Result, State]:
        """See `Rule.step`."""
        n, d = X.shape
        before = state.get("centre", ())
        centre: Float32 = np.zeros(d, np.float32) if before is None else np.asarray(before, np.float32)
        if centre.shape != (d,):
            raise StateError(f"expected a centre of shape {(d,)}, got {centre.shape}; the state belongs to another run")
        weights, far = np.zeros(n), np.zeros(n, bool)
        for _ in range(self.iterations):
            distances = np.sqrt(X.squared_distances_to_point(centre))
            far = distances > self.radius
            pull = np.divide(self.radius, distances, out=np.ones(n), where=far) / n
            stays = 1.0 - pull.sum()
            centre = np.float32(stays) * centre
            centre += X.combine(pull)
            weights = stays * weights + pull
        return Result(centre, weights, {"clipped": int(far.sum())}), {"centre": centre.copy()}
