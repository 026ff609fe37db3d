"""What every aggregation rule is: configuration in the constructor, a pure function over state."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from matl import validate
from matl.aggregators._inputs import matrix_of
from matl.aggregators._rows import Rows
from matl.errors import BoundError, InvalidValueError, nearest
from matl.matrix import UpdateMatrix
from matl.params import Float32, ParamLayout
from matl.registry import Registry
from matl.state import State

__all__ = ["AGGREGATORS", "ROOT_DATA", "Aggregator", "Context", "Matrix", "Result", "Rows", "Rule"]

Matrix: TypeAlias = UpdateMatrix | NDArray[Any]

ROOT_DATA = frozenset({"root_update", "root_gain"})
"""Fields of `Context` that only clean root data can fill."""


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
    root_gain : float64 array of shape (n,), optional
        By how much each update alone lowers the mean loss on the validator's root data.
    self_index : int, optional
        Row of the participant that aggregates (gossip).
    clients : tuple of str, optional
        Whose updates the rows are, for rules that remember clients; ``None`` takes the row number for the name.
    seed : int
        For rules that draw.
    """

    weights: NDArray[np.float64] | None = None
    f: int = 0
    root_update: Float32 | None = None
    root_gain: NDArray[np.float64] | None = None
    self_index: int | None = None
    clients: tuple[str, ...] | None = None
    seed: int = 0

    def __post_init__(self) -> None:
        validate.whole(0, f=self.f, seed=self.seed)
        if self.self_index is not None:
            validate.whole(0, self_index=self.self_index)
        if self.weights is not None:
            object.__setattr__(self, "weights", np.asarray(self.weights, dtype=np.float64))
        if self.clients is not None:
            object.__setattr__(self, "clients", tuple(self.clients))


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

    @property
    def needs(self) -> frozenset[str]:
        """Fields of `Context` without which the rule cannot work."""

    def init(self, layout: ParamLayout) -> State:
        """The state before the first round."""

    def aggregate(self, X: Matrix, context: Context, state: State) -> tuple[Result, State]:
        """Aggregate the rows of ``X``."""

    def max_f(self, n: int) -> int:
        """Largest number of Byzantine rows among n for which the rule is defined."""


AGGREGATORS: Registry[Aggregator] = Registry("aggregator")


class Rule:
    """Shared behaviour of rules: checks, the bound, and ``rule(X)``.

    A subclass implements `combine` for checked rows, or `step` if it keeps a state, declares what it is by the class
    variables, and sets `max_f`. It has a field ``f`` if it needs one, where ``None`` means "take the bound of the
    context".
    """

    registry: ClassVar[Registry[Aggregator]] = AGGREGATORS

    needs: ClassVar[frozenset[str]] = frozenset()
    """Fields of `Context` without which the rule cannot work, such as ``root_update``."""
    keeps_state: ClassVar[bool] = False
    """Whether a round's result depends on the rounds before it."""
    condition: ClassVar[str] = "any f < n"
    """For which f the rule is defined, as in the paper."""
    breakdown: ClassVar[str] = "0"
    """The share of malicious rows from which on they can move the result anywhere."""
    cost: ClassVar[str] = "n d"
    """Order of the arithmetic."""

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
            The matrix is empty or not finite, or the weights do not fit it, or the context lacks what the rule needs.
        BoundError
            The rule is not defined for that many Byzantine rows.
        """
        matrix = X if isinstance(X, UpdateMatrix) else UpdateMatrix.of(X)
        rows, n = checked_rows(matrix), len(matrix)
        if context.weights is not None:
            validate.sample_weights(n, weights=context.weights)
        if context.clients is not None and not len(context.clients) == len(set(context.clients)) == n:
            raise InvalidValueError(
                f"expected clients to name n={n} rows, each by another name, got {len(context.clients)} names of which "
                f"{len(set(context.clients))} differ"
            )
        result, after = self.run(rows, context, state)
        if not np.isfinite(result.vector).all():
            raise InvalidValueError(
                "expected updates whose aggregate fits float32, got one beyond 3.4e38; screen such updates"
            )
        return result, after

    def run(self, X: Rows, context: Context, state: State) -> tuple[Result, State]:
        """Check what the rule needs of its context, and aggregate checked rows."""
        f = self.tolerated(len(X), context)
        if missing := sorted(name for name in self.needs if getattr(context, name) is None):
            raise InvalidValueError(f"{type(self).__name__} needs {_NEEDS[missing[0]]}; got none")
        if context.self_index is not None and not 0 <= context.self_index < len(X):
            raise InvalidValueError(f"expected 0 <= self_index < n={len(X)}, got self_index={context.self_index}")
        return self.step(X, f, context, state)

    def tolerated(self, n: int, context: Context) -> int:
        """The f to use with n rows: the rule's own, or the context's."""
        given = self.given_f()
        return self._tolerable(context.f if given is None else given, n)

    def _tolerable(self, f: int, n: int) -> int:
        if not 0 <= f <= self.max_f(n):
            raise BoundError(
                f"{type(self).__name__} with n={n} clients tolerates 0 <= f <= {self.max_f(n)}, got f={f} "
                f"({self.condition}); lower f or choose another rule"
            )
        return f

    def given_f(self) -> int | None:
        """The f that the rule was built with, if any."""
        return self.f

    def __call__(self, X: Any, **context: Any) -> Any:
        """Aggregate the rows of ``X`` without a state; keyword arguments as in `Context`.

        Parameters
        ----------
        X : array or torch tensor of shape (n, d), or a list of n vectors of either kind
            One row per client. Anything but float32 in C order is copied.

        Returns
        -------
        float32 array of shape (d,)
            A torch tensor of the same dtype and on the same device where ``X`` holds tensors.

        Examples
        --------
        >>> from matl.aggregators import Mean
        >>> Mean()(np.array([[1.0, 2.0], [3.0, 4.0]]))
        array([2., 3.], dtype=float32)
        >>> Mean()([[1.0, 2.0], [3.0]])
        Traceback (most recent call last):
            ...
        matl.errors.InvalidValueError: expected X to hold n rows of d numbers each, got rows of length 2 and 1
        """
        matrix, restore = matrix_of(X)
        checked_rows(matrix)
        known = [item.name for item in fields(Context)]
        for name in context:
            if name not in known:
                raise InvalidValueError(f"a context has no {name!r}{nearest(name, known)}; it has {', '.join(known)}")
        result, _ = self.aggregate(matrix, Context(**context), self.init(ParamLayout.of([np.empty(matrix.shape[1])])))
        return restore(result.vector)

    def max_f(self, n: int) -> int:
        """Largest f for which the rule is defined with n rows."""
        return n - 1

    def kappa(self, n: int, f: int) -> float | None:
        """Return the proven robustness coefficient with n rows of which f are malicious; ``None`` where none is known.

        A rule F is (f, kappa)-robust if for every n - f of the rows, with mean m,
        ``|F(x) - m|^2 <= kappa * mean(|x_i - m|^2)`` over these rows, whatever the others are.

        References
        ----------
        Allouah et al., "Fixing by Mixing: A Recipe for Optimal Byzantine ML under Heterogeneity", AISTATS 2023.

        Examples
        --------
        >>> from matl.aggregators import NNM, Median
        >>> Median().kappa(20, 4), (NNM() | Median()).kappa(20, 4)
        (7.1..., 16.2...)
        """
        return self.proven_kappa(n, self._tolerable(f, n))

    def proven_kappa(self, n: int, f: int) -> float | None:
        """The coefficient for a tolerable f; rules that have one override it."""
        return None

    def step(self, X: Rows, f: int, context: Context, state: State) -> tuple[Result, State]:
        """Aggregate checked rows with a tolerable f; rules that keep a state override it."""
        return self.combine(X, f, context), state

    def combine(self, X: Rows, f: int, context: Context) -> Result:
        """Aggregate checked rows with a tolerable f."""
        raise NotImplementedError(f"{type(self).__name__} implements neither combine nor step")


def checked_rows(X: UpdateMatrix) -> Rows:
    """The rows of a matrix that has some.

    Raises
    ------
    InvalidValueError
        It has no rows or no columns.
    """
    if 0 in X.shape:
        raise InvalidValueError(f"expected X of shape (n, d) with n, d >= 1, got shape {X.shape}")
    return Rows(X)


_NEEDS = {
    "root_gain": "root_gain, by how much each update alone lowers the loss on clean root data",
    "root_update": "root_update, the update of honest training on clean root data",
    "self_index": "self_index, the row of the participant that aggregates",
}
