"""What clients do with the model they receive: local training, many clients at a time."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from matl import validate
from matl.errors import InvalidValueError
from matl.learning import dp_sgd
from matl.learning.datasets import Dataset
from matl.learning.dp_sgd import DPSGD
from matl.learning.tasks import Task
from matl.params import Float32

__all__ = ["LOCAL_OPTIMIZERS", "LocalTraining", "train_locally"]

LOCAL_OPTIMIZERS = ("sgd", "adam")
"""What `LocalTraining.optimizer` may be."""

# Parameters of clients trained in one stack, and clients at most: enough that the arithmetic outweighs the calls, few
# enough that models, gradients and activations stay in the cache. The results do not depend on it.
_BLOCK_PARAMS = 2**19
_BLOCK_CLIENTS = 32

_KEPT = 31 << 20
"""Bytes. glibc returns freed memory above a threshold to the system, and faults its pages in again at every step: up to
half of the time of a step. Freeing one block of nearly 32 MiB, which is never touched, raises that threshold to twice
its size (mallopt(3), M_MMAP_THRESHOLD)."""

# Kingma, Ba, "Adam: A Method for Stochastic Optimization", ICLR 2015.
_ADAM_FIRST, _ADAM_SECOND, _ADAM_EPSILON = 0.9, 0.999, 1e-8


@dataclass(frozen=True, slots=True)
class LocalTraining:
    """The published local recipe: what every client does with the model it is sent.

    Parameters
    ----------
    learning_rate : float
        Step size.
    batch_size : int
        Samples per step.
    steps : int or None
        Steps per round, the same for every client, on batches drawn with replacement.
    epochs : int or None
        Instead of steps: passes over the client's samples, each in an order of its own; what the last batch lacks is
        filled from one more pass.
    optimizer : str
        ``"sgd"`` or ``"adam"``. It starts anew every round: clients remember nothing of it.
    momentum : float
        Of SGD, in [0, 1): v = momentum * v + g; w - learning_rate * v.
    weight_decay : float
        Adds ``weight_decay * w`` to every gradient.
    proximal : float
        FedProx's mu: adds ``proximal * (w - w_t)``, which keeps clients near the model w_t they were sent (Li et al.,
        "Federated Optimization in Heterogeneous Networks", MLSys 2020).
    max_gradient_norm : float or None
        Shortens a mini-batch's gradient to this L2 norm.
    normalize : bool
        Send the mean of the steps instead of their sum, for `matl.learning.server.FedNova`.
    dp : DPSGD or None
        Clip every sample's gradient and add noise (Abadi et al., CCS 2016); a `matl.TorchTask` needs the extra ``dp``.

    Examples
    --------
    >>> LocalTraining(epochs=2, steps=None).steps_for(100)
    7
    """

    learning_rate: float = 0.1
    batch_size: int = 32
    steps: int | None = 10
    epochs: int | None = None
    optimizer: str = "sgd"
    momentum: float = 0.0
    weight_decay: float = 0.0
    proximal: float = 0.0
    max_gradient_norm: float | None = None
    normalize: bool = False
    dp: DPSGD | None = None

    def __post_init__(self) -> None:
        validate.positive(learning_rate=self.learning_rate)
        validate.whole(1, batch_size=self.batch_size)
        if (self.steps is None) == (self.epochs is None):
            raise InvalidValueError(f"expected either steps or epochs, got steps={self.steps} and epochs={self.epochs}")
        validate.whole(1, **({"epochs": self.epochs} if self.steps is None else {"steps": self.steps}))
        if self.optimizer not in LOCAL_OPTIMIZERS:
            raise InvalidValueError(f"expected optimizer {' or '.join(LOCAL_OPTIMIZERS)}, got {self.optimizer!r}")
        if not 0 <= self.momentum < 1:
            raise InvalidValueError(f"expected 0 <= momentum < 1, got momentum={self.momentum}")
        if self.momentum and self.optimizer != "sgd":
            raise InvalidValueError(
                f"momentum is SGD's, got momentum={self.momentum} with optimizer={self.optimizer!r}; leave it out"
            )
        validate.non_negative(weight_decay=self.weight_decay, proximal=self.proximal)
        if self.max_gradient_norm is not None:
            validate.positive(max_gradient_norm=self.max_gradient_norm)

    def steps_for(self, samples: int) -> int:
        """Steps a client with that many samples takes per round."""
        if self.steps is not None:
            return self.steps
        return math.ceil((self.epochs or 0) * samples / self.batch_size)

    def as_dict(self) -> dict[str, Any]:
        """The recipe as plain data, for `matl.records.RoundSpec`."""
        return asdict(self)

    def _batches(self, samples: int, rng: np.random.Generator) -> NDArray[np.intp]:
        """Indices of the samples of every step, shape (steps, batch_size)."""
        count = self.steps_for(samples)
        if self.steps is not None:
            return rng.integers(samples, size=(count, self.batch_size))
        needed = count * self.batch_size
        passes = [rng.permutation(samples) for _ in range(math.ceil(needed / samples))]
        return np.concatenate(passes)[:needed].reshape(count, self.batch_size)


def train_locally(
    task: Task,
    params: Float32,
    clients: Sequence[Dataset],
    recipe: LocalTraining,
    rngs: Sequence[np.random.Generator],
    *,
    shift: Float32 | None = None,
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
    shift : float32 array of shape (m, d), optional
        What each client adds to every gradient; see `matl.learning.server.StatefulOptimizer`.

    Returns
    -------
    float32 array of shape (m, d)
        New minus old parameters of each client.
    """
    if len(rngs) != len(clients):
        raise InvalidValueError(f"expected one generator per client, got {len(rngs)} for {len(clients)} clients")
    updates = np.empty((len(clients), params.size), np.float32)
    size = max(1, min(_BLOCK_CLIENTS, _BLOCK_PARAMS // params.size))
    np.empty(_KEPT, np.uint8)  # made and freed: see there
    # Clients with as many steps stand together, those with most first: who still trains is then always a prefix.
    order = sorted(range(len(clients)), key=lambda index: -recipe.steps_for(len(clients[index])))
    for start in range(0, len(order), size):
        block = order[start : start + size]
        # Training that diverges ends in infinities, which are screened; it needs no warning for every step.
        with np.errstate(over="ignore", invalid="ignore"):
            updates[block] = _train_block(
                task,
                params,
                [clients[index] for index in block],
                recipe,
                [rngs[index] for index in block],
                None if shift is None else shift[block],
            )
    return updates


def _train_block(
    task: Task,
    params: Float32,
    clients: Sequence[Dataset],
    recipe: LocalTraining,
    rngs: Sequence[np.random.Generator],
    shift: Float32 | None,
) -> Float32:
    steps = [recipe.steps_for(len(client)) for client in clients]  # descending
    if recipe.dp is None:
        draws = [recipe._batches(len(client), rng) for rng, client in zip(rngs, clients, strict=True)]
    models = np.repeat(params[None], len(clients), axis=0)
    descent = _Descent(recipe, params, models, shift)
    for step in range(steps[0]):
        active = sum(count > step for count in steps)
        if recipe.dp is None:
            X = np.stack([clients[i].X[draws[i][step]] for i in range(active)])
            y = np.stack([clients[i].y[draws[i][step]] for i in range(active)])
            _, gradients = task.loss_and_gradient(models[:active], X, y)
        else:
            gradients = np.stack(
                [
                    dp_sgd.private_step(task, models[i], clients[i], recipe.batch_size, recipe.dp, rngs[i])
                    for i in range(active)
                ]
            )
        descent.step(gradients)
    models -= params
    if recipe.normalize:
        models /= np.array(steps, np.float32)[:, None]
    return models


class _Descent:
    """Steps of a block of models (m, d), in place; its memory lasts one round."""

    def __init__(self, recipe: LocalTraining, start: Float32, models: Float32, shift: Float32 | None) -> None:
        self._recipe, self._start, self._models, self._shift = recipe, start, models, shift
        self._direction: Callable[[Float32], Float32] = _gradient
        if recipe.optimizer == "adam":
            self._direction = _Adam(models)
        elif recipe.momentum:
            self._direction = _Momentum(models, recipe.momentum)

    def step(self, gradients: Float32) -> None:
        """One step of the first k models by gradients (k, d), which stay as they are: they are the task's own."""
        recipe, models = self._recipe, self._models[: len(gradients)]
        if recipe.max_gradient_norm is not None:
            gradients = gradients * _shortening(gradients, recipe.max_gradient_norm)
        if recipe.proximal:
            gradients = gradients + np.float32(recipe.proximal) * (models - self._start)
        if self._shift is not None:
            gradients = gradients + self._shift[: len(models)]
        if recipe.weight_decay:
            gradients = gradients + np.float32(recipe.weight_decay) * models
        models -= np.float32(recipe.learning_rate) * self._direction(gradients)


def _gradient(gradients: Float32) -> Float32:
    """Plain SGD steps along the gradient itself."""
    return gradients


class _Momentum:
    """Heavy-ball directions of the first k of m models."""

    def __init__(self, models: Float32, momentum: float) -> None:
        self._velocity, self._momentum = np.zeros_like(models), np.float32(momentum)

    def __call__(self, gradients: Float32) -> Float32:
        velocity = self._velocity[: len(gradients)]
        velocity *= self._momentum
        velocity += gradients
        return velocity


class _Adam:
    """Adam's directions of the first k of m models (Kingma, Ba, ICLR 2015)."""

    def __init__(self, models: Float32) -> None:
        self._first, self._second, self._steps = np.zeros_like(models), np.zeros_like(models), 0

    def __call__(self, gradients: Float32) -> Float32:
        self._steps += 1
        first, second = self._first[: len(gradients)], self._second[: len(gradients)]
        first += np.float32(1 - _ADAM_FIRST) * (gradients - first)
        second += np.float32(1 - _ADAM_SECOND) * (np.square(gradients) - second)
        unbiased = second / np.float32(1 - _ADAM_SECOND**self._steps)
        direction: Float32 = first / np.float32(1 - _ADAM_FIRST**self._steps)
        direction /= np.sqrt(unbiased) + np.float32(_ADAM_EPSILON)
        return direction


def _shortening(gradients: Float32, longest: float) -> Float32:
    """Factors (k, 1) that bring rows to an L2 norm of at most ``longest``."""
    norms = np.sqrt(np.square(gradients, dtype=np.float64).sum(axis=1, keepdims=True))  # float32 squares overflow
    factors: Float32 = (longest / np.maximum(norms, longest)).astype(np.float32)
    return factors
