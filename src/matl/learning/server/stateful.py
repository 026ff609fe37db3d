"""Algorithms that change what clients do: SCAFFOLD, FedDyn and FedNova.

SCAFFOLD and FedDyn are written so that a client sends its update and nothing else. In their papers the server also
sums control variates; those follow from the updates, so the server takes them from the judged aggregate and a client
that lies about its memory gains nothing beyond what its update can do.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from matl import validate
from matl.learning.server.base import SERVER_OPTIMIZERS, RoundSummary, ServerOptimizer, StatefulOptimizer
from matl.params import Float32, ParamLayout
from matl.state import State

__all__ = ["FedDyn", "FedNova", "Scaffold"]

_PLAIN_STEPS = {"normalize": True, "optimizer": "sgd", "momentum": 0.0}


@SERVER_OPTIMIZERS.register("scaffold")
@dataclass(frozen=True, slots=True)
class Scaffold(StatefulOptimizer):
    """Control variates against client drift: local gradients become g - c_i + c.

    A client that took steps of size r with mean D_i remembers c_i - c - D_i / r (option II of the paper); the server
    moves c by the same rule from the aggregate. Clients send that mean, and the server multiplies by the mean number of
    steps, so that the control variates also fit where clients take unequally many.

    Parameters
    ----------
    learning_rate : float
        Server step size.

    Notes
    -----
    What malicious clients, or a rule that differs from the mean, once put into c stays there: with a robust rule the
    model ends further from the optimum than without control variates.

    References
    ----------
    Karimireddy et al., "SCAFFOLD: Stochastic Controlled Averaging for Federated Learning", ICML 2020.
    """

    learning_rate: float = 1.0

    def __post_init__(self) -> None:
        validate.positive(learning_rate=self.learning_rate)

    @property
    def recipe(self) -> Mapping[str, Any]:
        """Clients send the mean of their steps, which says what their gradients were for plain SGD alone."""
        return _PLAIN_STEPS

    def init(self, layout: ParamLayout) -> State:
        """All control variates are zero."""
        return {"control": np.zeros(layout.size, np.float32)}

    def step(self, params: Float32, aggregate: Float32, state: State, summary: RoundSummary) -> tuple[Float32, State]:
        """See `ServerOptimizer.step`."""
        control = state["control"]
        moved = control - np.float32(summary.participation) * (control + aggregate / np.float32(summary.learning_rate))
        return params + np.float32(self.learning_rate * summary.mean_steps) * aggregate, {"control": moved}

    def shared(self, state: State) -> Float32:
        """The server's control variate c."""
        control: Float32 = state["control"]
        return control

    def shift(self, memory: Float32, shared: Float32) -> Float32:
        """Its difference to the client's own, c - c_i."""
        return shared - memory

    def remember(self, memory: Float32, shared: Float32, updates: Float32, learning_rate: float) -> Float32:
        """See `StatefulOptimizer.remember`."""
        return memory - shared - updates / np.float32(learning_rate)


@SERVER_OPTIMIZERS.register("feddyn")
@dataclass(frozen=True, slots=True)
class FedDyn(StatefulOptimizer):
    """Dynamic regularisation: clients minimise L_i(w) - <h_i, w> + alpha / 2 |w - w_t|^2; the server adds -h / alpha.

    Parameters
    ----------
    alpha : float
        Weight of the regulariser.

    Notes
    -----
    Where malicious clients are believed, the server's memory h keeps what they sent; it forgets nothing.

    References
    ----------
    Acar et al., "Federated Learning Based on Dynamic Regularization", ICLR 2021; 0.1 is one of its three values.
    """

    alpha: float = 0.1

    def __post_init__(self) -> None:
        validate.positive(alpha=self.alpha)

    @property
    def recipe(self) -> Mapping[str, Any]:
        """Clients stay near the model they were sent."""
        return {"proximal": self.alpha}

    def init(self, layout: ParamLayout) -> State:
        """No drift yet."""
        return {"drift": np.zeros(layout.size, np.float32)}

    def step(self, params: Float32, aggregate: Float32, state: State, summary: RoundSummary) -> tuple[Float32, State]:
        """See `ServerOptimizer.step`."""
        drift = state["drift"] - np.float32(self.alpha * summary.participation) * aggregate
        return params + aggregate - drift / np.float32(self.alpha), {"drift": drift}

    def shared(self, state: State) -> Float32:
        """Nothing a client needs: an empty vector."""
        return np.empty(0, np.float32)

    def shift(self, memory: Float32, shared: Float32) -> Float32:
        """The linear term of its objective, -h_i."""
        return -memory

    def remember(self, memory: Float32, shared: Float32, updates: Float32, learning_rate: float) -> Float32:
        """See `StatefulOptimizer.remember`."""
        return memory - np.float32(self.alpha) * updates


@SERVER_OPTIMIZERS.register("fednova")
@dataclass(frozen=True, slots=True)
class FedNova(ServerOptimizer):
    """Normalised averaging: clients send the mean of their steps, the server multiplies by the mean number of steps.

    Clients that take many steps, because they hold many samples, then no longer pull the model towards their own
    optimum. It differs from federated averaging only where the recipe counts ``epochs``.

    Parameters
    ----------
    learning_rate : float
        Server step size.

    Notes
    -----
    Claimed example counts are capped (see `RoundSummary`), and the number of steps follows from them: where a few
    clients hold nearly all samples, the server's steps are shorter than in the paper.

    References
    ----------
    Wang et al., "Tackling the Objective Inconsistency Problem in Heterogeneous Federated Optimization", NeurIPS 2020,
    for plain local SGD.
    """

    learning_rate: float = 1.0

    def __post_init__(self) -> None:
        validate.positive(learning_rate=self.learning_rate)

    @property
    def recipe(self) -> Mapping[str, Any]:
        """Clients send the mean of their steps."""
        return _PLAIN_STEPS

    def step(self, params: Float32, aggregate: Float32, state: State, summary: RoundSummary) -> tuple[Float32, State]:
        """See `ServerOptimizer.step`."""
        return params + np.float32(self.learning_rate * summary.mean_steps) * aggregate, state
