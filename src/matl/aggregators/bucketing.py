"""Bucketing: average random groups of updates, then apply a rule to the averages."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from matl import validate
from matl.aggregators._rows import Float64
from matl.aggregators.base import AGGREGATORS, Context, Rows, Rule
from matl.aggregators.coordinate import TrimmedMean
from matl.aggregators.monna import MoNNA
from matl.aggregators.pre import PreAggregator
from matl.errors import InvalidValueError

__all__ = ["Bucketing"]


@AGGREGATORS.register("bucketing")
@dataclass(frozen=True, slots=True)
class Bucketing(PreAggregator):
    """Means of random groups of s rows before another rule.

    Parameters
    ----------
    size : int
        Rows per bucket, s; the last bucket may hold fewer.
    rule : Rule
        Applied to the means; not one that needs root data or a row of its own.

    Notes
    -----
    The context's seed draws the groups. f malicious rows spoil at most f of the ceil(n / s) buckets, so the rule after
    it has to tolerate f among so many. Weights of the context do not pass.

    References
    ----------
    Karimireddy, He and Jaggi, "Byzantine-Robust Learning on Heterogeneous Datasets via Bucketing", ICLR 2022.
    """

    size: int = 2
    rule: Rule = field(default_factory=TrimmedMean)
    condition: ClassVar[str] = "what the rule after it allows among ceil(n / s) buckets"

    def __post_init__(self) -> None:
        PreAggregator.__post_init__(self)
        validate.whole(1, size=self.size)
        last = self.rule
        while isinstance(last, PreAggregator):
            last = last.rule
        if isinstance(last, MoNNA) or "self_index" in last.needs:
            raise InvalidValueError(
                "expected a rule that needs no row of its own after Bucketing, got "
                f"{type(last).__name__}; buckets mix that row"
            )

    def rows_after(self, n: int) -> int:
        """See `PreAggregator.rows_after`."""
        return -(-n // self.size)

    def coefficients(self, X: Rows, f: int, context: Context) -> Float64:
        """See `PreAggregator.coefficients`."""
        n = len(X)
        order = np.random.default_rng(context.seed).permutation(n)
        mixing = np.zeros((self.rows_after(n), n))
        mixing[np.arange(n) // self.size, order] = 1.0
        return np.asarray(mixing / mixing.sum(axis=1, keepdims=True))
