"""MoNNA's mixing step: a participant averages its own update with those nearest to it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from matl import validate
from matl.aggregators.base import AGGREGATORS, Context, Result, Rows, Rule
from matl.errors import InvalidValueError
from matl.state import State

__all__ = ["MoNNA"]


@AGGREGATORS.register("monna")
@dataclass(frozen=True, slots=True)
class MoNNA(Rule):
    """Mean of the n - f updates nearest to the participant's own, itself included (nearest-neighbour averaging).

    Parameters
    ----------
    f : int or None
        Byzantine rows to tolerate; ``None`` takes the bound of the context.
    index : int or None
        Row of the participant that aggregates; ``None`` takes ``self_index`` of the context.

    Notes
    -----
    For participants that aggregate for themselves (gossip): whoever owns the row is trusted, and an honest one never
    averages a row that is farther from its own than the farthest honest one. The paper's participants send momentum.
    Ties go to the smaller index. Two passes over the updates, or one behind a rule that compared all pairs already.
    Weights are ignored.

    References
    ----------
    Farhadkhani et al., "Robust Collaborative Learning with Linear Gradient Overhead", ICML 2023.
    """

    f: int | None = None
    index: int | None = None
    condition: ClassVar[str] = "2f < n"
    breakdown: ClassVar[str] = "1/2, if the own row is honest"

    def __post_init__(self) -> None:
        Rule.__post_init__(self)
        if self.index is not None:
            validate.whole(0, index=self.index)

    @property
    def needs(self) -> frozenset[str]:  # type: ignore[override]
        """``self_index``, unless the rule was given its row."""
        return frozenset({"self_index"} if self.index is None else ())

    def max_f(self, n: int) -> int:
        """See `Rule.max_f`."""
        return (n - 1) // 2

    def run(self, X: Rows, context: Context, state: State) -> tuple[Result, State]:
        """See `Rule.run`."""
        if self.index is None and context.self_index is None:
            raise InvalidValueError(
                "MoNNA needs the row of the participant that aggregates; got neither index nor self_index; "
                "give the rule an index or the context a self_index"
            )
        return Rule.run(self, X, context, state)

    def combine(self, X: Rows, f: int, context: Context) -> Result:
        """See `Rule.combine`."""
        n, own = len(X), context.self_index if self.index is None else self.index
        if own is None or own >= n:
            raise InvalidValueError(f"expected index < n={n}, got index={own}; name a row that there is")
        distances = X.squared_distances_to(np.eye(1, n, own)[0])
        distances[own] = -1.0  # first even among equal rows
        weights = np.zeros(n)
        weights[np.argsort(distances, kind="stable")[: n - f]] = 1.0 / (n - f)
        return Result(X.combine(weights), weights)
