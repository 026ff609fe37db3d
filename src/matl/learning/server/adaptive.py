"""Steps that adapt: per coordinate (FedAdam, FedYogi) or by how much the clients disagree (FedExP)."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import numpy as np

from matl import validate
from matl.errors import InvalidValueError
from matl.learning.server.base import SERVER_OPTIMIZERS, RoundSummary, ServerOptimizer
from matl.params import Float32, ParamLayout
from matl.state import State

__all__ = ["FedAdam", "FedExP", "FedYogi"]


@dataclass(frozen=True, slots=True)
class _Adaptive(ServerOptimizer):
    learning_rate: float = 0.1
    momentum: float = 0.9
    decay: float = 0.99
    tau: float = 1e-3

    def __post_init__(self) -> None:
        validate.positive(learning_rate=self.learning_rate, tau=self.tau)
        for name in ("momentum", "decay"):
            value = getattr(self, name)
            if not 0 <= value < 1:
                raise InvalidValueError(f"expected 0 <= {name} < 1, got {name}={value}")

    def init(self, layout: ParamLayout) -> State:
        """No momentum yet, and the second moment at its floor, as in the paper."""
        floor = np.full(layout.size, self.tau**2, np.float32)
        return {"momentum": np.zeros(layout.size, np.float32), "second_moment": floor}

    @abstractmethod
    def _second_moment(self, before: Float32, square: Float32) -> Float32:
        """The running second moment with one round more."""

    def step(self, params: Float32, aggregate: Float32, state: State, summary: RoundSummary) -> tuple[Float32, State]:
        """See `ServerOptimizer.step`."""
        momentum = np.float32(self.momentum) * state["momentum"] + np.float32(1 - self.momentum) * aggregate
        second = self._second_moment(state["second_moment"], np.square(aggregate))
        step = np.float32(self.learning_rate) * momentum / (np.sqrt(second) + np.float32(self.tau))
        return params + step, {"momentum": momentum, "second_moment": second}


@SERVER_OPTIMIZERS.register("fedadam")
@dataclass(frozen=True, slots=True)
class FedAdam(_Adaptive):
    """Adam on the server: m = b1 m + (1 - b1) D; v = b2 v + (1 - b2) D^2; w + rate * m / (sqrt(v) + tau).

    Parameters
    ----------
    learning_rate : float
        Step size.
    momentum, decay : float
        b1 and b2, in [0, 1).
    tau : float
        Adaptivity: coordinates whose updates are smaller than this are not scaled up.

    References
    ----------
    Reddi et al., "Adaptive Federated Optimization", ICLR 2021, algorithm 2; momentum, decay and tau are those of its
    experiments, the step size one of the values it tries.
    """

    def _second_moment(self, before: Float32, square: Float32) -> Float32:
        return np.float32(self.decay) * before + np.float32(1 - self.decay) * square


@SERVER_OPTIMIZERS.register("fedyogi")
@dataclass(frozen=True, slots=True)
class FedYogi(_Adaptive):
    """Yogi on the server: as `FedAdam`, with v = v - (1 - b2) D^2 sign(v - D^2), which forgets large updates slowly.

    Parameters
    ----------
    learning_rate : float
        Step size.
    momentum, decay : float
        b1 and b2, in [0, 1).
    tau : float
        Adaptivity: coordinates whose updates are smaller than this are not scaled up.

    References
    ----------
    Reddi et al., "Adaptive Federated Optimization", ICLR 2021, algorithm 2.
    """

    def _second_moment(self, before: Float32, square: Float32) -> Float32:
        toward: Float32 = square * np.sign(before - square)
        return before - np.float32(1 - self.decay) * toward


@SERVER_OPTIMIZERS.register("fedexp")
@dataclass(frozen=True, slots=True)
class FedExP(ServerOptimizer):
    """Extrapolate by how much clients disagree: w + eta D, eta = max(1, mean |D_i|^2 / (2 (|D|^2 + eps))).

    Parameters
    ----------
    epsilon : float
        Keeps the step bounded where the aggregate vanishes.

    References
    ----------
    Jhunjhunwala, Wang, Joshi, "FedExP: Speeding Up Federated Averaging via Extrapolation", ICLR 2023; ``epsilon`` is
    that of its experiments.
    """

    epsilon: float = 1e-3

    def __post_init__(self) -> None:
        validate.positive(epsilon=self.epsilon)

    def step(self, params: Float32, aggregate: Float32, state: State, summary: RoundSummary) -> tuple[Float32, State]:
        """See `ServerOptimizer.step`."""
        square = float(np.square(aggregate, dtype=np.float64).sum())
        eta = max(1.0, summary.mean_square_norm / (2 * (square + self.epsilon)))
        return params + np.float32(eta) * aggregate, state
