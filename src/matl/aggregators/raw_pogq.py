"""Raw PoGQ: keep the updates that lower the loss on the server's own data."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from matl import validate
from matl.aggregators.base import AGGREGATORS, Context, Result, Rows, Rule
from matl.errors import InvalidValueError

__all__ = ["RawPoGQ"]


@AGGREGATORS.register("raw_pogq")
@dataclass(frozen=True, slots=True)
class RawPoGQ(Rule):
    """Mean of the rows that lower the loss on root data by more than a threshold: literal proof of gradient quality.

    A baseline to compare with, not what MATL decides by. Under label skew near the optimum an honest client with skewed
    data raises the root loss more than an attacker that stays near the mean.

    Parameters
    ----------
    threshold : float
        A row is kept if it alone lowers the mean loss on root data by more than this, in nats.

    Notes
    -----
    With L the mean loss on root data and w the parameters: the mean of all x_i with L(w) - L(w + x_i) > threshold, and
    0 if there is none. A gain that is no number is above no threshold. Example counts are ignored.

    Scoring by the loss on the server's own data is Zeno's idea. Zeno also subtracts rho |x_i|^2 from the gain, and
    leaves out a fixed number b of the lowest scores; here is the plain threshold. Cost beside the rule's own: n + 1
    losses on root data.

    References
    ----------
    Xie, Koyejo and Gupta, "Zeno: Distributed Stochastic Gradient Descent with Suspicion-based Fault-tolerance",
    ICML 2019.

    Examples
    --------
    >>> RawPoGQ()(np.array([[1.0], [2.0], [-90.0]]), root_gain=[0.2, 0.1, -3.0])
    array([1.5], dtype=float32)
    """

    threshold: float = 0.0
    needs: ClassVar[frozenset[str]] = frozenset({"root_gain"})
    breakdown: ClassVar[str] = "none proven"

    def __post_init__(self) -> None:
        Rule.__post_init__(self)
        validate.finite(threshold=self.threshold)

    def combine(self, X: Rows, f: int, context: Context) -> Result:
        """See `Rule.combine`."""
        gain = np.asarray(context.root_gain, dtype=np.float64)
        # Not `validate.vector`: an update that breaks the model has a gain that is not finite, and is left out for it.
        if gain.shape != (len(X),):
            raise InvalidValueError(f"expected root_gain of shape ({len(X)},), got shape {gain.shape}")
        kept = gain > self.threshold
        weights = kept / max(int(kept.sum()), 1)
        return Result(X.combine(weights), weights, {"kept": int(kept.sum())})
