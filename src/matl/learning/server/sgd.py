"""Fixed steps: federated averaging, with or without momentum."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from matl import validate
from matl.errors import InvalidValueError
from matl.learning.server.base import SERVER_OPTIMIZERS, RoundSummary, ServerOptimizer
from matl.params import Float32, ParamLayout
from matl.state import State

__all__ = ["FedAvgM", "ServerSGD"]


@SERVER_OPTIMIZERS.register("sgd", "fedavg")
@dataclass(frozen=True, slots=True)
class ServerSGD(ServerOptimizer):
    """Add the aggregate to the model: w + rate * aggregate.

    Parameters
    ----------
    learning_rate : float
        1 is federated averaging (McMahan et al., AISTATS 2017).
    """

    learning_rate: float = 1.0

    def __post_init__(self) -> None:
        validate.positive(learning_rate=self.learning_rate)

    def step(self, params: Float32, aggregate: Float32, state: State, summary: RoundSummary) -> tuple[Float32, State]:
        """See `ServerOptimizer.step`."""
        return params + np.float32(self.learning_rate) * aggregate, state


@SERVER_OPTIMIZERS.register("fedavgm")
@dataclass(frozen=True, slots=True)
class FedAvgM(ServerOptimizer):
    """Server momentum: m = momentum * m + aggregate; w + rate * m.

    Parameters
    ----------
    learning_rate : float
        Step size.
    momentum : float
        In [0, 1).

    References
    ----------
    Hsu, Qi, Brown, "Measuring the Effects of Non-Identical Data Distribution for Federated Visual Classification",
    2019.
    """

    learning_rate: float = 1.0
    momentum: float = 0.9

    def __post_init__(self) -> None:
        validate.positive(learning_rate=self.learning_rate)
        validate.fraction(momentum=self.momentum)
        if self.momentum == 1:
            raise InvalidValueError("expected momentum < 1, got momentum=1: the sum of all updates would grow for ever")

    def init(self, layout: ParamLayout) -> State:
        """No momentum yet."""
        return {"momentum": np.zeros(layout.size, np.float32)}

    def step(self, params: Float32, aggregate: Float32, state: State, summary: RoundSummary) -> tuple[Float32, State]:
        """See `ServerOptimizer.step`."""
        momentum = np.float32(self.momentum) * state["momentum"] + aggregate
        return params + np.float32(self.learning_rate) * momentum, {"momentum": momentum}
