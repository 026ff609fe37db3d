"""The oracle of a validator that owns clean data: directions to explain updates by, and simulated honest clients."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from matl.errors import InvalidValueError
from matl.learning.datasets import Dataset
from matl.learning.local import LocalTraining, train_locally
from matl.learning.tasks import Task
from matl.matrix import Allocate, in_memory
from matl.params import Float32, values_hash
from matl.state import digest
from matl.trust.calibration import SIZES, Shadows
from matl.trust.oracle import FOLDS, Atoms

__all__ = ["RootOracle"]

_SHIFT = 1 / 16
"""Part of an image's height by which a sample is moved up, down, left and right: one pixel of 16, half a pixel of 8.
A few root samples have to stand for all that clients hold. Chosen on development seeds 0-2."""
_MOST_HELD = SIZES[-1]
_AT_ONCE = 16  # simulated clients whose samples are gathered at a time
_NUMBERS = 2**22  # parameters of models that are worked on at a time, 16 MiB, or one model; no bit depends on it


class RootOracle:
    """Clean root data, the task and the published local recipe: an implementation of `matl.trust.oracle.Oracle`.

    The root must stay apart from what the model is trained on: once the model has fitted the samples that calibrate,
    simulated clients no longer look like real ones and honest clients are accused.

    Parameters
    ----------
    task : Task
        The model and its loss.
    root : Dataset
        Clean samples, at least two of each class; ten of each is what the published figures use.
    recipe : LocalTraining
        What clients do.
    seed : int
        Draws the folds and what each simulated client holds, once and for all.

    Notes
    -----
    Images are also moved by a sixteenth of their height, in eight directions: clients hold far more samples than the
    root, and shadows that train on few are too irregular to be compared with them.

    Examples
    --------
    >>> from matl.learning.datasets import load_dataset
    >>> from matl.learning.tasks import MLPTask
    >>> samples = load_dataset("synthetic").train
    >>> task = MLPTask(20, 10, hidden=(8,))
    >>> oracle = RootOracle(task, samples.take(np.arange(100)), LocalTraining())
    >>> params = task.init(np.random.default_rng(0))
    >>> oracle.atoms(params, fold=0).poison.shape
    (90, 258)
    >>> oracle.honest(params, Shadows.draw(10, 5, seed=0), seed=0, fold=1).shape
    (5, 258)
    """

    def __init__(
        self,
        task: Task,
        root: Dataset,
        recipe: LocalTraining,
        *,
        seed: int = 0,
    ) -> None:
        if not isinstance(root, Dataset):
            raise InvalidValueError(
                f"expected root as a matl.Dataset, got a {type(root).__name__}; wrap arrays: "
                "matl.Dataset('root', X, y, num_classes)"
            )
        counts = root.class_counts()
        if counts.min() < FOLDS:
            short = ", ".join(map(str, np.flatnonzero(counts < FOLDS)))
            raise InvalidValueError(
                f"expected at least {FOLDS} root samples of every class, got {counts.tolist()}; "
                f"collect clean samples of class {short}"
            )
        if root.num_classes != task.num_classes:
            raise InvalidValueError(
                f"expected a root of {task.num_classes} classes like the task, got {root.num_classes}"
            )
        self.task, self.root, self.recipe, self.seed = task, root, recipe, seed
        self._folds = _stratified(root.y, root.num_classes, np.random.default_rng([seed, 0]))
        self._variants = _moved(root)

    @property
    def num_classes(self) -> int:
        """See `matl.trust.oracle.Oracle`."""
        return self.task.num_classes

    @cached_property
    def digest(self) -> str:
        """See `matl.trust.oracle.Oracle`."""
        task = [type(self.task).__name__, self.task.layout.digest]
        data = [values_hash(self.root.X), values_hash(self.root.y)]
        return digest(["root-oracle", 3, task, data, self.recipe.as_dict(), _SHIFT, self.seed])

    def atoms(self, params: Float32, fold: int, allocate: Allocate = in_memory) -> Atoms:
        """See `matl.trust.oracle.Oracle`. Cost: K^2 passes over one class of one fold."""
        classes = self.num_classes
        pairs = np.argwhere(~np.eye(classes, dtype=bool)).astype(np.int64)
        rows = allocate((classes * classes, params.size))
        order = [(label, label) for label in range(classes)] + [(true, false) for true, false in pairs.tolist()]
        row_of = {pair: row for row, pair in enumerate(order)}
        block = _at_once(classes, params)
        for true in range(classes):
            X = self._variants[self._folds[fold][true]].reshape(-1, self.root.X.shape[1])
            for start in range(0, classes, block):
                labels = np.arange(start, min(start + block, classes))
                models, inputs = (np.repeat(values[None], len(labels), axis=0) for values in (params, X))
                y = np.repeat(labels[:, None], len(X), axis=1)
                gradients = self.task.loss_and_gradient(models, inputs, y)[1]
                for label, gradient in zip(labels.tolist(), gradients, strict=True):
                    np.negative(gradient, out=rows[row_of[true, label]])
        return Atoms(honest=rows[:classes], poison=rows[classes:], pairs=pairs)

    def steps(self, samples: int) -> int:
        """See `matl.trust.oracle.Oracle`."""
        return self.recipe.steps_for(samples)

    def loss(self, params: Float32) -> float:
        """See `matl.trust.oracle.Oracle`."""
        losses, _ = self.task.loss_and_gradient(params[None], self.root.X[None], self.root.y[None])
        return float(losses[0])

    def honest(
        self, params: Float32, shadows: Shadows, seed: int, fold: int, allocate: Allocate = in_memory
    ) -> Float32:
        """See `matl.trust.oracle.Oracle`. Cost: M times a client's own local training."""
        updates = allocate((len(shadows.sizes), params.size))
        block = _at_once(_AT_ONCE, params)
        steps = np.array([self.steps(int(size)) for size in shadows.sizes])
        for count in np.unique(steps):
            recipe = replace(self.recipe, epochs=None, steps=int(count))
            alike = np.flatnonzero(steps == count)
            for start in range(0, len(alike), block):
                chosen = alike[start : start + block]
                clients = [self._holding(i, shadows.mixes[i], int(shadows.sizes[i]), fold) for i in chosen.tolist()]
                rngs = [np.random.default_rng([seed, i]) for i in chosen.tolist()]
                updates[chosen] = train_locally(self.task, params, clients, recipe, rngs)
        return updates

    def root_update(self, params: Float32, seed: int) -> Float32:
        """See `matl.trust.oracle.Oracle`. Cost: a client's own local training."""
        share = len(self.root) // self.num_classes
        members = [np.resize(np.flatnonzero(self.root.y == label), share) for label in range(self.num_classes)]
        client = self.root.take(np.concatenate(members))
        update: Float32 = train_locally(self.task, params, [client], self.recipe, [np.random.default_rng([seed, 0])])[0]
        return update

    def _holding(self, index: int, mix: NDArray[np.float64], size: int, fold: int) -> Dataset:
        """What a simulated client holds: samples that stay the same, so that it fits them as a real client does."""
        rng = np.random.default_rng([self.seed, 1 + fold, index])
        # One that holds more trains longer, but a few root samples cannot stand for more than that many.
        size = min(size, _MOST_HELD)
        labels = rng.choice(self.num_classes, size=size, p=mix)
        own = self._folds[fold]
        counts = np.array([len(indices) for indices in own])
        starts = np.cumsum(counts) - counts
        members = np.concatenate(own)[starts[labels] + rng.integers(counts[labels])]
        X = self._variants[members, rng.integers(self._variants.shape[1], size=size)]
        return Dataset(self.root.name, X, labels.astype(np.int64), self.num_classes, self.root.shape)


def _at_once(most: int, params: Float32) -> int:
    """How many models to work on at a time."""
    return max(1, min(most, _NUMBERS // params.size))


def _moved(data: Dataset) -> Float32:
    """Every sample and, of images, the same moved in eight directions; shape (n, variants, features)."""
    if data.shape is None or len(data.shape) != 3:  # no image: nothing to move
        return data.X[:, None, :]
    images = data.X.reshape(-1, *data.shape)
    step = _SHIFT * data.shape[1]
    moves = [(down, right) for down in (-step, 0.0, step) for right in (-step, 0.0, step)]
    variants = [_shifted(_shifted(images, 2, down), 3, right).reshape(len(data), -1) for down, right in moves]
    return np.stack(variants, axis=1)


def _shifted(images: Float32, axis: int, by: float) -> Float32:
    """Images moved along an axis by a number of pixels, linearly interpolated, with zeros moving in."""
    whole = math.floor(by)
    part = np.float32(by - whole)
    return (1 - part) * _by_pixels(images, axis, whole) + part * _by_pixels(images, axis, whole + 1)


def _by_pixels(images: Float32, axis: int, by: int) -> Float32:
    moved = np.roll(images, by, axis)
    edge = [slice(None)] * images.ndim
    edge[axis] = slice(0, by) if by >= 0 else slice(by, None)
    moved[tuple(edge)] = 0.0
    return moved


def _stratified(
    y: NDArray[np.int64], num_classes: int, rng: np.random.Generator
) -> Sequence[Sequence[NDArray[np.intp]]]:
    """For each fold and each class the indices of its samples; a class is dealt to the folds in turn."""
    shuffled = [rng.permutation(np.flatnonzero(y == label)) for label in range(num_classes)]
    return [[own[fold::FOLDS] for own in shuffled] for fold in range(FOLDS)]
