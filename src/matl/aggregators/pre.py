"""What every pre-aggregator is: rows in, mixtures of them out, and a rule applied to these."""

from __future__ import annotations

from abc import ABC, abstractmethod
from dataclasses import replace
from typing import Any, ClassVar, Self

from matl.aggregators._inputs import matrix_of
from matl.aggregators._rows import Float64
from matl.aggregators.base import ROOT_DATA, Context, Result, Rows, Rule, checked_rows
from matl.errors import BoundError, InvalidValueError
from matl.params import ParamLayout
from matl.state import State

__all__ = ["PreAggregator"]


class PreAggregator(Rule, ABC):
    """A rule that replaces its rows by mixtures of them and leaves the rest to another rule.

    ``NNM(f=2) | Median()`` is ``NNM(f=2, rule=Median())``, and chains may be longer. Where a rule of a chain was not
    given its own f, it takes that of its neighbour. The mixtures are never written out: a rule that weighs rows by
    their distances then costs what it costs alone.

    Examples
    --------
    >>> from matl.aggregators import ARC, NNM, Krum
    >>> ARC(f=2) | NNM() | Krum()
    ARC(f=2, rule=NNM(f=None, rule=Krum(f=None, neighbors='n-f-2')))
    """

    breakdown: ClassVar[str] = "that of the rule after it"
    rule: Rule

    def __post_init__(self) -> None:
        Rule.__post_init__(self)
        if not isinstance(self.rule, Rule):
            raise InvalidValueError(f"expected rule to be a rule such as Median(), got rule={self.rule!r}")
        if ROOT_DATA & self.rule.needs:
            raise InvalidValueError(
                f"expected a rule that needs no root data after {type(self).__name__}, got {type(self.rule).__name__}; "
                "use it alone, or choose median, trimmed_mean or krum"
            )

    def __or__(self, other: Rule) -> Self:
        """Put this before another rule."""
        if not isinstance(other, Rule):
            raise InvalidValueError(f"expected a rule such as Median() after |, got {other!r}")
        last = isinstance(self.rule, PreAggregator)
        return replace(self, rule=self.rule | other if last else other)  # type: ignore[type-var, operator]

    @property
    def needs(self) -> frozenset[str]:  # type: ignore[override]
        """What the rule after it needs."""
        return self.rule.needs

    @property
    def keeps_state(self) -> bool:  # type: ignore[override]
        """Whether the rule after it does."""
        return self.rule.keeps_state

    def init(self, layout: ParamLayout) -> State:
        """The state of the rule after it."""
        return self.rule.init(layout)

    def max_f(self, n: int) -> int:
        """See `Rule.max_f`."""
        return min((n - 1) // 2, self.rule.max_f(self.rows_after(n)))

    def rows_after(self, n: int) -> int:
        """How many mixtures n rows give."""
        return n

    def given_f(self) -> int | None:
        """See `Rule.given_f`; of a chain, the first that was given."""
        return self.rule.given_f() if self.f is None else self.f

    def mix(self, X: Any, **context: Any) -> Any:
        """The mixtures that the rule at the end of the chain would see, written out, shape (m, d).

        Examples
        --------
        >>> from matl.aggregators import StaticClipping
        >>> import numpy as np
        >>> StaticClipping(radius=5.0).mix(np.array([[0.0, 1.0], [30.0, 40.0]]))
        array([[0., 1.],
               [3., 4.]], dtype=float32)
        """
        matrix, restore = matrix_of(X)
        rows, given = checked_rows(matrix), Context(**context)
        f, link = given.f, self
        while True:
            told = link.given_f()
            f = f if told is None else told
            if not 0 <= 2 * f < len(rows):
                raise BoundError(f"expected 2f < n, got f={f} and n={len(rows)}; lower f")
            rows = rows.mixed(link.coefficients(rows, f, given))
            if not isinstance(link.rule, PreAggregator):
                return restore(rows.dense())
            link = link.rule

    def step(self, X: Rows, f: int, context: Context, state: State) -> tuple[Result, State]:
        """See `Rule.step`."""
        mixing = self.coefficients(X, f, context)
        mixed = X.mixed(mixing)
        inner = replace(context, f=f)
        if len(mixed) != len(X):  # no row is a client's any more
            inner = replace(inner, weights=None, clients=None, self_index=None)
        result, after = self.rule.run(mixed, inner, state)
        weights = None if result.unit_weights is None else result.unit_weights @ mixing
        return Result(result.vector, weights, result.diagnostics), after

    @abstractmethod
    def coefficients(self, X: Rows, f: int, context: Context) -> Float64:
        """Row i of the result is ``coefficients[i]`` times the rows of ``X``; shape (m, n)."""
