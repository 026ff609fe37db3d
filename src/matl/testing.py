"""Checks for parts of one's own: whether a task keeps what `matl.learning.tasks.Task` promises.

Federation, judge and calibration rely on all of it, and most of it breaks without a word: a model whose bias has no
gradient trains, only worse.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from matl import validate
from matl.errors import ContractError, InvalidValueError
from matl.learning.tasks import Task
from matl.params import Float32, ParamLayout

__all__ = ["check_task"]

_SAMPLES = 8
_STACK = 8
"""Models evaluated at a time."""
_COORDINATES = 4
_RANDOM_DIRECTIONS = 4
_STEPS = (1e-3, 3e-3, 1e-2)
"""Finite differences; the one that leaves least doubt counts."""
_RELATIVE = 0.03
_NOISE = 8 * float(np.finfo(np.float32).eps)
"""How much of a loss is rounding."""
_BEND = 8.0
"""Kinks of ReLU or max pooling within a step blur a difference about as much as they bend the loss, which shows in
second differences: in their mean square over directions of one kind, as those of one direction may cancel out."""


def check_task(task: Task, X: Float32 | None = None, y: NDArray[np.int64] | None = None, *, seed: int = 0) -> None:
    """Try whether a task keeps the contract of `matl.learning.tasks.Task`.

    Checked are names, shapes and types; that results are finite, repeatable bit for bit, leave the arguments alone and
    do not depend on who else is in the stack; the gradient of every named parameter against central differences of the
    loss; and the range of predicted labels. Differences are taken along the gradient, along random directions and along
    single coordinates; a parameter whose gradient is off by a tenth is found. A task with
    ``pseudo_gradient = True`` is spared the differences.

    Parameters
    ----------
    task : Task
        What to check.
    X : float32 array of shape (n, features), optional
        Samples; standard normal ones if not given, for which the task must have an attribute ``features``.
    y : int64 array of shape (n,), optional
        Labels; random ones if not given.
    seed : int
        Draws samples, parameters and directions.

    Raises
    ------
    ContractError
        The task breaks the contract; the message names what, where, and the values seen.

    Examples
    --------
    >>> from matl.learning.tasks import MLPTask
    >>> check_task(MLPTask(features=5, num_classes=3, hidden=(4,)))
    """
    rng = np.random.default_rng(seed)
    X, y = _samples(task, X, y, rng)
    _check_layout(task)
    params = _check_init(task, seed)
    # Away from where parameters begin: a bias of zero and dead units hide mistakes.
    params += rng.normal(scale=0.05, size=params.shape).astype(np.float32)
    _check_results(task, params, X, y)
    _check_stack(task, params, X, y, rng)
    if not getattr(task, "pseudo_gradient", False):
        _check_gradient(task, params, X, y, rng)
    _check_predict(task, params, X)


def _samples(
    task: Task, X: Float32 | None, y: NDArray[np.int64] | None, rng: np.random.Generator
) -> tuple[Float32, NDArray[np.int64]]:
    if X is None:
        features = getattr(task, "features", None)
        if features is None:
            raise InvalidValueError(
                f"{type(task).__name__} does not say how many features it takes; give X, or the attribute features"
            )
        X = rng.normal(size=(_SAMPLES, features)).astype(np.float32)
    validate.finite_matrix(X=X)
    if y is None:
        y = rng.permutation(np.arange(len(X)) % task.num_classes)
    return X, y


def _check_layout(task: Task) -> None:
    if not isinstance(task.layout, ParamLayout):
        raise ContractError(f"expected layout to be a matl.ParamLayout, got a {type(task.layout).__name__}")
    _expect(task.num_classes >= 2, f"expected num_classes >= 2, got {task.num_classes}")


def _check_init(task: Task, seed: int) -> Float32:
    params = task.init(np.random.default_rng(seed))
    _expect_array("init(rng)", params, (task.layout.size,), np.float32)
    again = task.init(np.random.default_rng(seed))
    _expect(
        params.tobytes() == again.tobytes(),
        "init(rng) gave different parameters for the same generator; draw from rng alone",
    )
    return params.copy()


def _check_results(task: Task, params: Float32, X: Float32, y: NDArray[np.int64]) -> None:
    """Types and values for one model, twice, with the arguments compared to copies."""
    given = params[None].copy(), X[None].copy(), y[None].copy()
    kept = [array.copy() for array in given]
    losses, gradients = task.loss_and_gradient(*given)
    _expect_array("losses", losses, (1,), np.float32)
    _expect_array("gradients", gradients, (1, task.layout.size), np.float32)
    losses, gradients = losses.copy(), gradients.copy()
    task.predict(given[0][0], given[1][0])
    again = task.loss_and_gradient(*given)
    for index, name in enumerate(("params", "X", "y")):
        _expect(
            np.array_equal(given[index], kept[index]),
            f"{name} was changed in place; the caller still needs it: work on a copy",
        )
    _expect(losses.tobytes() == again[0].tobytes(), f"the same call gave loss {losses[0]!r}, then {again[0][0]!r}")
    for name, where in task.layout.slices.items():
        _expect(
            gradients[0, where].tobytes() == again[1][0, where].tobytes(),
            f"the same call gave two gradients of {name!r}, up to "
            f"{np.abs(gradients[0, where] - again[1][0, where]).max():.2g} apart; "
            "draw no random numbers and keep no state",
        )


def _check_stack(task: Task, params: Float32, X: Float32, y: NDArray[np.int64], rng: np.random.Generator) -> None:
    """Every model of a stack gets the bits it gets alone."""
    models = params + rng.normal(scale=0.01, size=(3, params.size)).astype(np.float32)
    batches, labels = np.stack([X, X[::-1], np.roll(X, 1, axis=0)]), np.stack([y, y, y])
    losses, gradients = task.loss_and_gradient(models, batches, labels)
    _expect_array("losses", losses, (3,), np.float32)
    _expect_array("gradients", gradients, models.shape, np.float32)
    for i in range(3):
        row = slice(i, i + 1)
        loss, gradient = task.loss_and_gradient(models[row], batches[row], labels[row])
        where = next((n for n, at in task.layout.slices.items() if (gradient[0, at] != gradients[i, at]).any()), None)
        _expect(
            loss[0] == losses[i] and where is None,
            f"model {i} of a stack of 3 got loss {losses[i]!r}, and {loss[0]!r} alone"
            + (f"; the gradient of {where!r} differs too" if where else "")
            + "; compute every model by itself, and keep means over the batch axis",
        )


def _check_gradient(task: Task, params: Float32, X: Float32, y: NDArray[np.int64], rng: np.random.Generator) -> None:
    """Central differences of the loss along directions within one named parameter at a time."""
    losses, gradients = task.loss_and_gradient(params[None], X[None], y[None])
    loss = float(losses[0])
    for entry in task.layout.entries:
        where = task.layout.slices[entry.name]
        own = gradients[0, where].astype(np.float64)
        for words, directions, length in _directions(own, params[where], entry.shape, rng):
            analytic = directions @ own
            measured = []
            for step in _STEPS:
                reach = step * length
                plus, minus = _moved_losses(task, params, where, directions * reach, X, y)
                numeric = (plus - minus) / (2 * reach)
                bend = np.sqrt(np.mean((plus + minus - 2 * loss) ** 2)) / (2 * reach)
                measured.append((_BEND * bend + _NOISE * max(1.0, abs(loss)) / reach, numeric))
            doubt, numeric = min(measured, key=lambda one: one[0])
            size = np.maximum(np.maximum(np.abs(analytic), np.abs(numeric)), np.linalg.norm(own) / np.sqrt(own.size))
            tolerance = _RELATIVE * size + doubt
            for index in np.flatnonzero(np.abs(numeric - analytic) > tolerance)[:1]:
                raise ContractError(
                    f"the gradient of {entry.name!r} is wrong: {words[index]} it is {analytic[index]:.4g}, and central "
                    f"differences of the loss give {numeric[index]:.4g} +- {tolerance[index]:.1g}, with {len(X)} "
                    "samples in the batch"
                )


def _directions(
    gradient: NDArray[np.float64], params: Float32, shape: tuple[int, ...], rng: np.random.Generator
) -> Iterator[tuple[list[str], NDArray[np.float64], float]]:
    """Unit vectors (k, n) within one parameter by kind, in words too, and the length over which to move."""
    n = gradient.size
    indices = np.unique([np.argmax(np.abs(gradient)), *rng.choice(n, size=min(n, _COORDINATES), replace=False)])
    axes = np.zeros((len(indices), n))
    axes[np.arange(len(indices)), indices] = 1
    yield [f"at index {tuple(int(i) for i in np.unravel_index(index, shape))}" for index in indices], axes, 1.0
    if gradient.any():
        yield ["along itself"], gradient[None] / np.linalg.norm(gradient), 1.0
    signs = rng.choice([-1.0, 1.0], size=(_RANDOM_DIRECTIONS, n)) / np.sqrt(n)
    yield ["along a random direction"] * len(signs), signs, max(float(np.linalg.norm(params)), 0.1 * np.sqrt(n))


def _moved_losses(
    task: Task, params: Float32, where: slice, moves: NDArray[np.float64], X: Float32, y: NDArray[np.int64]
) -> list[NDArray[np.float64]]:
    """Losses (k,) after moves (k, n) within one parameter, and after the opposite moves."""
    signed = np.concatenate([moves, -moves])
    losses = np.empty(len(signed))
    for start in range(0, len(signed), _STACK):
        block = signed[start : start + _STACK]
        models = np.repeat(params[None], len(block), axis=0)
        models[:, where] += block
        batches = np.repeat(X[None], len(block), axis=0), np.repeat(y[None], len(block), axis=0)
        losses[start : start + len(block)] = task.loss_and_gradient(models, *batches)[0]
    return np.split(losses, 2)


def _check_predict(task: Task, params: Float32, X: Float32) -> None:
    labels = task.predict(params.copy(), X.copy())
    _expect_array("predict(params, X)", labels, (len(X),), np.int64)
    _expect(
        labels.min() >= 0 and labels.max() < task.num_classes,
        f"predict gave labels {labels.min()} to {labels.max()}; expected 0 to {task.num_classes - 1}",
    )
    _expect(
        labels.tobytes() == task.predict(params.copy(), X.copy()).tobytes(), "predict gave other labels when repeated"
    )


def _expect(condition: bool, message: str) -> None:
    if not condition:
        raise ContractError(message)


def _expect_array(what: str, array: Any, shape: tuple[int, ...], dtype: type) -> None:
    """A finite NumPy array of that shape and type."""
    if not isinstance(array, np.ndarray):
        raise ContractError(f"expected {what} to be a NumPy array, got a {type(array).__name__}")
    if array.shape != shape or array.dtype != dtype:
        raise ContractError(
            f"expected {what} of shape {shape} and {np.dtype(dtype)}, got shape {array.shape} and {array.dtype}"
        )
    if not np.isfinite(array).all():
        raise ContractError(f"expected {what} to be finite, got {array[~np.isfinite(array)][0]}")
