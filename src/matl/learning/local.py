"""What clients do with the model they receive: local SGD, many clients at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from matl import validate
from matl.errors import InvalidValueError
from matl.learning.datasets import Dataset
from matl.learning.tasks import Task
from matl.params import Float32

__all__ = ["LocalTraining", "train_locally"]

# Clients trained in one stack. Small enough that the stacked activations of a block stay in the cache; the results do
# not depend on it.
_BLOCK = 16


@dataclass(frozen=True, slots=True)
class LocalTraining:
    """The published local recipe: plain SGD on mini-batches drawn with replacement.

    Parameters
    ----------
    learning_rate : float
        Step size.
    batch_size : int
        Samples per step.
    steps : int or None
        Steps per round, the same for every client.
    epochs : int or None
        Instead of steps: as many steps as it takes to draw ``epochs`` times the client's sample count.
    """

    learning_rate: float = 0.1
    batch_size: int = 32
    steps: int | None = 10
    epochs: int | None = None

    def __post_init__(self) -> None:
        validate.positive(learning_rate=self.learning_rate)
        validate.at_least(1, batch_size=self.batch_size)
        if (self.steps is None) == (self.epochs is None):
            raise InvalidValueError(f"expected either steps or epochs, got steps={self.steps} and epochs={self.epochs}")
        validate.at_least(1, **({"steps": self.steps} if self.steps is not None else {"epochs": self.epochs or 0}))

    def steps_for(self, samples: int) -> int:
        """Steps a client with that many samples takes per round."""
        if self.steps is not None:
            return self.steps
        return math.ceil((self.epochs or 0) * samples / self.batch_size)

    def as_dict(self) -> dict[str, Any]:
        """The recipe as plain data, for `matl.records.RoundSpec`."""
        return asdict(self)


def train_locally(
    task: Task,
    params: Float32,
    clients: Sequence[Dataset],
    recipe: LocalTraining,
    rngs: Sequence[np.random.Generator],
) -> Float32:
    """Train each client from the same parameters on its own data.

    Parameters
    ----------
    task : Task
        The model.
    params : float32 array of shape (d,)
        Where every client starts.
    clients : sequence of m Dataset
        Their data.
    recipe : LocalTraining
        What they do.
    rngs : sequence of m numpy.random.Generator
        Each client's own randomness; a client's update depends on its own generator and data alone.

    Returns
    -------
    float32 array of shape (m, d)
        New minus old parameters of each client.
    """
    updates = np.empty((len(clients), params.size), np.float32)
    for start in range(0, len(clients), _BLOCK):
        block = slice(start, min(start + _BLOCK, len(clients)))
        # Training that diverges ends in infinities, which are screened; it needs no warning for every step.
        with np.errstate(over="ignore", invalid="ignore"):
            updates[block] = _train_block(task, params, clients[block], recipe, rngs[block])
    return updates


def _train_block(
    task: Task,
    params: Float32,
    clients: Sequence[Dataset],
    recipe: LocalTraining,
    rngs: Sequence[np.random.Generator],
) -> Float32:
    steps = [recipe.steps_for(len(client)) for client in clients]
    draws = [
        rng.integers(len(client), size=(count, recipe.batch_size))
        for rng, client, count in zip(rngs, clients, steps, strict=True)
    ]
    models = np.repeat(params[None], len(clients), axis=0)
    rate = np.float32(recipe.learning_rate)
    for step in range(max(steps)):
        active = [i for i, count in enumerate(steps) if count > step]
        X = np.stack([clients[i].X[draws[i][step]] for i in active])
        y = np.stack([clients[i].y[draws[i][step]] for i in active])
        if len(active) == len(clients):
            _, gradients = task.loss_and_gradient(models, X, y)
            models -= rate * gradients
        else:
            _, gradients = task.loss_and_gradient(models[active], X, y)
            models[active] -= rate * gradients
    models -= params
    return models
