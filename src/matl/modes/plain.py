"""No judging: an aggregation rule alone, as other systems use it. The baseline of every comparison."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from matl import validate
from matl.aggregators import ROOT_DATA, Aggregator, Context, Mean
from matl.errors import InvalidValueError
from matl.params import Float32, ParamLayout
from matl.records import Cohort, Judgement, Status, Verdict
from matl.registry import describe
from matl.state import State, digest
from matl.trust.oracle import Oracle

__all__ = ["Plain"]


@dataclass(frozen=True)
class Plain:
    """An aggregation rule without verdicts: every unit is accepted, whatever weight the rule gives it.

    Parameters
    ----------
    aggregator : Aggregator
        The rule.
    bound : float
        Fraction of malicious units that rules with an ``f`` are told to tolerate. Published baselines get the true one.
    oracle : Oracle or None
        Needed by rules that compare with an update trained on root data, or score updates by the loss on it.

    Examples
    --------
    >>> from matl import Cohort, ParamLayout
    >>> from matl.aggregators import Median
    >>> mode = Plain(Median(), bound=0.4)
    >>> cohort = Cohort.of(np.array([[1.0], [2.0], [99.0]]))
    >>> judgement, state = mode.judge(cohort, mode.init(ParamLayout.of([cohort.params])))
    >>> judgement.aggregate
    array([2.], dtype=float32)
    """

    aggregator: Aggregator = field(default_factory=Mean)
    bound: float = 0.0
    oracle: Oracle | None = None
    gives_verdicts: bool = field(default=False, init=False)
    channels: tuple[str, ...] = field(default=(), init=False)

    def __post_init__(self) -> None:
        validate.fraction(bound=self.bound)
        if ROOT_DATA & self.aggregator.needs and self.oracle is None:
            raise InvalidValueError(f"{type(self.aggregator).__name__} needs an oracle with root data, got oracle=None")

    @property
    def digest(self) -> str:
        """See `matl.records.Mode`."""
        oracle = "" if self.oracle is None else self.oracle.digest
        return digest(["plain", 1, describe(self.aggregator), self.bound, oracle])

    def init(self, layout: ParamLayout) -> State:
        """See `matl.records.Mode`."""
        return {"version": 1, "aggregator": self.aggregator.init(layout)}

    def judge(self, cohort: Cohort, state: State) -> tuple[Judgement, State]:
        """See `matl.records.Mode`."""
        context = Context(
            weights=cohort.weights,
            f=cohort.max_byzantine,
            root_update=self._root_update(cohort),
            root_gain=self._root_gain(cohort),
            self_index=cohort.self_index,
            clients=tuple(cohort.ids),
            seed=cohort.seed,
        )
        result, after = self.aggregator.aggregate(cohort.X, context, state["aggregator"])
        used = np.ones(len(cohort.units)) if result.unit_weights is None else result.unit_weights > 0
        verdicts = tuple(
            Verdict(unit, float(counted), Status.ACCEPTED, reason="" if counted else "left out by the rule")
            for unit, counted in zip(cohort.ids, used, strict=True)
        )
        return Judgement(result.vector, verdicts, dict(result.diagnostics)), {**state, "aggregator": after}

    def _root_update(self, cohort: Cohort) -> Float32 | None:
        """The update of a client that holds the whole root."""
        if "root_update" not in self.aggregator.needs or self.oracle is None:
            return None
        return self.oracle.root_update(cohort.params, cohort.seed)

    def _root_gain(self, cohort: Cohort) -> NDArray[np.float64] | None:
        """By how much each update alone lowers the loss on the whole root."""
        if "root_gain" not in self.aggregator.needs or self.oracle is None:
            return None
        gains = np.empty(len(cohort.X))
        # An absurd update may take the loss out of range; its gain then is no number, or minus infinity.
        with np.errstate(over="ignore", invalid="ignore"):
            before = self.oracle.loss(cohort.params)
            for row in range(len(gains)):
                gains[row] = before - self.oracle.loss(cohort.params + cohort.X.rows(row, row + 1)[0])
        return gains
