"""What a server optimiser is, and what it is told about a round."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from matl.params import Float32, ParamLayout
from matl.registry import Registry
from matl.state import State

__all__ = ["SERVER_OPTIMIZERS", "RoundSummary", "ServerOptimizer", "StatefulOptimizer"]


@dataclass(frozen=True, slots=True)
class RoundSummary:
    """What a server knows about a judged round beside the aggregate; all of it concerns the units that counted.

    Parameters
    ----------
    mean_square_norm : float
        Weighted mean of the squared L2 norms of the updates; a norm counts at most three times the median, so that one
        client cannot set it.
    mean_steps : float
        Weighted mean of the local steps they took, from the example counts they claim; a claim counts at most three
        times the median, so that one client cannot set it.
    learning_rate : float
        Of the local steps.
    participation : float
        Share of all clients whose updates counted, in (0, 1].
    """

    mean_square_norm: float
    mean_steps: float = 1.0
    learning_rate: float = 1.0
    participation: float = 1.0


class ServerOptimizer(ABC):
    """Turns aggregates into new parameters; pure functions over plain-data state."""

    @property
    def recipe(self) -> Mapping[str, Any]:
        """Fields of `matl.learning.local.LocalTraining` that clients have to follow for this algorithm; mostly none."""
        return {}

    def init(self, layout: ParamLayout) -> State:
        """The state before the first round; mostly none."""
        return {}

    @abstractmethod
    def step(self, params: Float32, aggregate: Float32, state: State, summary: RoundSummary) -> tuple[Float32, State]:
        """New parameters (d,) and state after one round."""


class StatefulOptimizer(ServerOptimizer):
    """An algorithm whose clients remember one vector each, by which they correct their local gradients.

    Nothing but the update crosses the network towards the server: what a client remembers follows from its own update,
    and what the server needs of it follows from the aggregate. Both have to move together, so a client whose update did
    not count keeps what it remembered before.
    """

    @abstractmethod
    def shared(self, state: State) -> Float32:
        """What the server sends along with the model, shape (d,)."""

    @abstractmethod
    def shift(self, memory: Float32, shared: Float32) -> Float32:
        """What each of m clients with memories (m, d) adds to every local gradient, shape (m, d)."""

    @abstractmethod
    def remember(self, memory: Float32, shared: Float32, updates: Float32, learning_rate: float) -> Float32:
        """Memories (m, d) after a round in which the updates counted.

        Parameters
        ----------
        memory : float32 array of shape (m, d)
            What the clients remembered.
        shared : float32 array of shape (d,)
            What the server had sent.
        updates : float32 array of shape (m, d)
            Their updates.
        learning_rate : float
            Of the local steps.
        """


SERVER_OPTIMIZERS: Registry[ServerOptimizer] = Registry("server optimizer")
