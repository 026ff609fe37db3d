"""What every aggregation rule is: configuration in the constructor, a pure function over state."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from matl import validate
from matl.errors import BoundError, InvalidValueError
from matl.matrix import UpdateMatrix
from matl.params import Float32, ParamLayout
from matl.registry import Registry
from matl.state import State

__all__ = ["AGGREGATORS", "Aggregator", "Context", "Matrix", "Result", "Rule"]

Matrix: TypeAlias = UpdateMatrix | NDArray[Any]


@dataclass(frozen=True, slots=True, kw_only=True)
class Context:
    """What a rule may know about a round beside the updates.

    Parameters
    ----------
    weights : float64 array of shape (n,), optional
        Example counts; ``None`` counts every client alike.
    f : int
        Number of Byzantine clients to tolerate, for rules that were not given their own.
    root_update : float32 array of shape (d,), optional
        The update that honest training on the validator's root data gives.
    self_index : int, optional
        Row of the participant that aggregates (gossip).
    seed : int
        For rules that draw.
    """

    weights: NDArray[np.float64] | None = None
    f: int = 0
    root_update: Float32 | None = None
    self_index: int | None = None
    seed: int = 0


@dataclass(frozen=True, slots=True)
class Result:
    """What a rule returns.

    Parameters
    ----------
    vector : float32 array of shape (d,)
        The aggregate.
    unit_weights : float64 array of shape (n,), or None
        With which weight each row counted, where the rule is a weighted sum of rows; 0 means it was left out.
    diagnostics : mapping
        Numbers about the round, as plain data.
    """

    vector: Float32
    unit_weights: NDArray[np.float64] | None = None
    diagnostics: Mapping[str, Any] = field(default_factory=dict)


class Aggregator(Protocol):
    """A robust aggregation rule with frozen configuration.

    Examples
    --------
    >>> from matl.aggregators import Median
    >>> rule: Aggregator = Median()
    >>> X = np.array([[1.0, 2.0], [2.0, 3.0], [90.0, -90.0]], np.float32)
    >>> result, state = rule.aggregate(X, Context(), rule.init(ParamLayout.of([X[0]])))
    >>> result.vector
    array([2., 2.], dtype=float32)
    """

    needs_root: ClassVar[bool]

    def init(self, layout: ParamLayout) -> State:
        """The state before the first round."""

    def aggregate(self, X: Matrix, context: Context, state: State) -> tuple[Result, State]:
        """Aggregate the rows of ``X``."""

    def max_f(self, n: int) -> int:
        """Largest number of Byzantine rows among n for which the rule is defined."""


AGGREGATORS: Registry[Aggregator] = Registry("aggregator")


class Rule(ABC):
    """Shared behaviour of stateless rules: checks, the bound, and ``rule(X)``.

    A subclass implements `combine` for a checked matrix and sets `max_f`; it has a field ``f`` if it needs one, where
    ``None`` means "take the bound of the context".
    """

    registry: ClassVar[Registry[Aggregator]] = AGGREGATORS
    needs_root: ClassVar[bool] = False
    f: int | None = None

    def __post_init__(self) -> None:
        if self.f is not None:
            validate.whole(0, f=self.f)

    def init(self, layout: ParamLayout) -> State:
        """No state."""
        return {}

    def aggregate(self, X: Matrix, context: Context, state: State) -> tuple[Result, State]:
        """Check the input and aggregate its rows.

        Raises
        ------
        InvalidValueError
            The matrix is empty or not finite, or the weights do not fit it.
        BoundError
            The rule is not defined for that many Byzantine rows.
        """
        matrix = X if isinstance(X, UpdateMatrix) else UpdateMatrix.of(X)
        n, d = matrix.shape
        if n == 0 or d == 0:
            raise InvalidValueError(f"expected X of shape (n, d) with n, d >= 1, got shape {(n, d)}")
        for block in matrix.column_blocks(_CHECK_WIDTH):
            validate.finite_matrix(X=block)
        if context.weights is not None:
            validate.sample_weights(n, weights=context.weights)
        f = context.f if self.f is None else self.f
        if not 0 <= f <= self.max_f(n):
            raise BoundError(
                f"{type(self).__name__} with n={n} clients tolerates 0 <= f <= {self.max_f(n)}, got f={f} "
                f"({self.condition}); lower f or choose another rule"
            )
        if self.needs_root and context.root_update is None:
            raise InvalidValueError(
                f"{type(self).__name__} needs root_update, the update of honest training on clean root data; got none"
            )
        return self.combine(matrix, f, context), state

    def __call__(self, X: Matrix, **context: Any) -> Float32:
        """Aggregate the rows of ``X``; keyword arguments as in `Context`.

        Examples
        --------
        >>> from matl.aggregators import Mean
        >>> Mean()(np.array([[1.0, 2.0], [3.0, 4.0]]))
        array([2., 3.], dtype=float32)
        """
        result, _ = self.aggregate(X, Context(**context), {})
        return result.vector

    condition: ClassVar[str] = "any f < n"
    """The bound as it stands in the paper."""

    def max_f(self, n: int) -> int:
        """Largest f for which the rule is defined with n rows."""
        return n - 1

    @abstractmethod
    def combine(self, X: UpdateMatrix, f: int, context: Context) -> Result:
        """Aggregate a checked matrix with a tolerable f."""


# Columns checked at a time: a block of 100 clients stays in the second-level cache.
_CHECK_WIDTH = 4096


def weighted_sum(X: UpdateMatrix, weights: NDArray[np.float64]) -> Float32:
    """Sum of rows times weights, read by column blocks, shape (d,)."""
    coefficients = weights.astype(np.float32)
    parts = [coefficients @ block for block in X.column_blocks(_CHECK_WIDTH)]
    return np.concatenate(parts)
