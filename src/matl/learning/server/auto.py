"""The default adaptive choice: momentum for speed, coordinates evened out, and shorter steps where rounds disagree."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from matl.errors import InvalidValueError
from matl.learning.server.base import SERVER_OPTIMIZERS, RoundSummary, ServerOptimizer
from matl.params import Float32, ParamLayout
from matl.state import State

__all__ = ["DampedNadam"]

_TINY = float(np.finfo(np.float32).tiny)


@SERVER_OPTIMIZERS.register("auto")
@dataclass(frozen=True, slots=True)
class DampedNadam(ServerOptimizer):
    """Nadam's direction, Nesterov momentum's length, damped by how little successive rounds agree.

    With D the aggregate of round t, D' that of the round before, b the momentum and c the decay::

        m = b m + D                                 momentum
        n = b m + D                                 Nesterov's look ahead
        v = c v + (1 - c) D^2                       second moment, per coordinate
        u = n / (sqrt(v) + mean(sqrt(v)))           direction: coordinates that always moved little may move more
        s = b s + (1 - b) <D, D'>                   what two rounds have in common
        p = b p + (1 - b) (|D|^2 + |D'|^2) / 2      what there is; s = p = |D|^2 in the first round
        w + max(1 - b, s / p) |n| u / |u|

    *Momentum* is what saves rounds: where rounds agree it sums up 1 / (1 - b) of them. The *look ahead* doubles the
    first step and damps the swings of the following ones. The *second moment* gives a direction only; the length is
    that of the momentum (grafting), so that no constant depends on the scale of model, data or local learning rate.
    The mean in the denominator keeps coordinates that hardly ever move from being blown up. *Damping* is Wiener's
    filter: s / p estimates which share of an aggregate the next round will confirm. Without noise it stays near one;
    where few clients take part, privacy noise is added or steps swing around an optimum, it falls and the step with
    it, at most to the length of (1 - b) n, an average of rounds. One spike, such as an attack that a rule let
    through, raises p at once and so shortens the very step it causes.

    Clients keep no state. An aggregate of zeros, as of a judge that believes nobody, leaves model and state alone.

    Parameters
    ----------
    momentum : float
        b, in [0, 1); also the memory of the damping.
    decay : float
        c, in [0, 1).

    References
    ----------
    Dozat, "Incorporating Nesterov Momentum into Adam", 2016; Agarwal et al., "Disentangling Adaptive Gradient Methods
    from Learning Rates", 2020 (grafting); Reddi et al., "Adaptive Federated Optimization", ICLR 2021; Wiener,
    "Extrapolation, Interpolation, and Smoothing of Stationary Time Series", 1949.

    Examples
    --------
    Where rounds agree the steps grow, and the coordinate that moves less catches up:

    >>> optimizer, summary = DampedNadam(), RoundSummary(mean_square_norm=5.0)
    >>> params, aggregate = np.zeros(2, np.float32), np.array([2.0, 1.0], np.float32)
    >>> state = optimizer.init(ParamLayout.of([params]))
    >>> for _ in range(3):
    ...     params, state = optimizer.step(params, aggregate, state, summary)
    ...     print(params.round(1))
    [3.5 2.4]
    [8.4 5.9]
    [14.7 10.3]
    """

    momentum: float = 0.9
    decay: float = 0.99

    def __post_init__(self) -> None:
        for name in ("momentum", "decay"):
            value = getattr(self, name)
            if not 0 <= value < 1:
                raise InvalidValueError(f"expected 0 <= {name} < 1, got {name}={value}")

    def init(self, layout: ParamLayout) -> State:
        """Nothing seen yet."""
        zeros = np.zeros(layout.size, np.float32)
        return {"momentum": zeros, "second_moment": zeros, "previous": zeros, "agreement": np.zeros(2)}

    def step(self, params: Float32, aggregate: Float32, state: State, summary: RoundSummary) -> tuple[Float32, State]:
        """See `ServerOptimizer.step`."""
        if not aggregate.any():
            return params, state
        b, c = np.float32(self.momentum), np.float32(self.decay)
        momentum = b * state["momentum"] + aggregate
        ahead = b * momentum + aggregate
        second = c * state["second_moment"] + (1 - c) * np.square(aggregate)
        root = np.sqrt(second)
        direction = ahead / (root + root.mean() + np.float32(_TINY))

        agreement = self._agreement(aggregate, state)
        damping = max(1 - self.momentum, float(agreement[0] / agreement[1]))
        length = damping * np.sqrt(_dot(ahead, ahead) / max(_dot(direction, direction), _TINY))
        after = {"momentum": momentum, "second_moment": second, "previous": aggregate, "agreement": agreement}
        return params + np.float32(length) * direction, after

    def _agreement(self, aggregate: Float32, state: State) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
        """Running means of <D, D'> and of what it would be if the two were equal; shape (2,)."""
        previous, before = state["previous"], state["agreement"]
        square = _dot(aggregate, aggregate)
        if not before.any():  # nothing seen yet: signal until shown to be noise
            return np.array([square, square])
        now = np.array([_dot(aggregate, previous), (square + _dot(previous, previous)) / 2])
        mixed: np.ndarray[tuple[int], np.dtype[np.float64]] = self.momentum * before + (1 - self.momentum) * now
        return mixed


def _dot(a: Float32, b: Float32) -> float:
    """Inner product in float64: squares of float32 overflow and vanish early."""
    return float(np.dot(a.astype(np.float64), b.astype(np.float64)))
