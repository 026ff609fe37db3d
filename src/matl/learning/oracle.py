"""The oracle of a validator that owns clean data: directions to explain updates by, and simulated honest clients."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any

import numpy as np
from numpy.typing import NDArray

from matl import validate
from matl.errors import InvalidValueError
from matl.learning.datasets import Dataset
from matl.learning.local import LocalTraining, train_locally
from matl.learning.tasks import Task
from matl.params import Float32, values_hash
from matl.state import digest
from matl.trust.oracle import Atoms

__all__ = ["LOCAL_EXAMPLES", "RootOracle"]

LOCAL_EXAMPLES = 25.0
"""Mean number of samples of a simulated client, unless said otherwise: half a fold of a root of 100."""

_FOLDS = 2
_MIN_EXAMPLES = 2  # a simulated client holds at least this many, as a real one does


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
    local_examples : float or None
        Mean number of samples of a simulated client; counts are exponentially distributed around it, as some clients
        hold much and many hold little. ``None`` for half a fold, but not more than `LOCAL_EXAMPLES`: shadows that hold
        far more than clients are more regular than clients.
    seed : int
        Draws the folds and what each simulated client holds, once and for all.

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
    >>> oracle.honest(params, np.full((3, 10), 0.1), seed=0, fold=1).shape
    (3, 258)
    """

    def __init__(
        self,
        task: Task,
        root: Dataset,
        recipe: LocalTraining,
        *,
        local_examples: float | None = None,
        seed: int = 0,
    ) -> None:
        if not isinstance(root, Dataset):
            raise InvalidValueError(
                f"expected root as a matl.Dataset, got a {type(root).__name__}; wrap arrays: "
                "matl.Dataset('root', X, y, num_classes)"
            )
        counts = root.class_counts()
        if counts.min() < _FOLDS:
            short = ", ".join(map(str, np.flatnonzero(counts < _FOLDS)))
            raise InvalidValueError(
                f"expected at least {_FOLDS} root samples of every class, got {counts.tolist()}; "
                f"collect clean samples of class {short}"
            )
        if root.num_classes != task.num_classes:
            raise InvalidValueError(
                f"expected a root of {task.num_classes} classes like the task, got {root.num_classes}"
            )
        if local_examples is not None:
            validate.at_least(1, local_examples=local_examples)
        self.task, self.root, self.recipe, self.seed = task, root, recipe, seed
        half_a_fold = len(root) / (2 * _FOLDS)
        self.local_examples = min(half_a_fold, LOCAL_EXAMPLES) if local_examples is None else float(local_examples)
        self._folds = _stratified(root.y, root.num_classes, np.random.default_rng([seed, 0]))

    @property
    def num_classes(self) -> int:
        """See `matl.trust.oracle.Oracle`."""
        return self.task.num_classes

    @cached_property
    def digest(self) -> str:
        """See `matl.trust.oracle.Oracle`."""
        task = [type(self.task).__name__, self.task.layout.digest]
        data = [values_hash(self.root.X), values_hash(self.root.y)]
        return digest(["root-oracle", 1, task, data, self.recipe.as_dict(), self.local_examples, self.seed])

    def atoms(self, params: Float32, fold: int) -> Atoms:
        """See `matl.trust.oracle.Oracle`. Cost: K^2 passes over one class of one fold."""
        classes = self.num_classes
        gradients = np.empty((classes, classes, params.size), np.float32)
        models = np.repeat(params[None], classes, axis=0)
        labels = np.arange(classes)
        for true in range(classes):
            X = self.root.X[self._folds[fold][true]]
            y = np.repeat(labels[:, None], len(X), axis=1)
            gradients[true] = self.task.loss_and_gradient(models, np.repeat(X[None], classes, axis=0), y)[1]
        wrong = ~np.eye(classes, dtype=bool)
        pairs = np.argwhere(wrong).astype(np.int64)
        return Atoms(honest=-gradients[labels, labels], poison=-gradients[wrong], pairs=pairs)

    def loss(self, params: Float32) -> float:
        """See `matl.trust.oracle.Oracle`."""
        losses, _ = self.task.loss_and_gradient(params[None], self.root.X[None], self.root.y[None])
        return float(losses[0])

    def honest(self, params: Float32, mixes: NDArray[np.float64], seed: int, fold: int | None) -> Float32:
        """See `matl.trust.oracle.Oracle`. Cost: M times a client's own local training."""
        if fold is None:
            clients = [self.root.take(self._quota(mix)) for mix in mixes]
        else:
            clients = [self.root.take(self._holding(index, mix, fold)) for index, mix in enumerate(mixes)]
        rngs = [np.random.default_rng([seed, index]) for index in range(len(mixes))]
        return train_locally(self.task, params, clients, self.recipe, rngs)

    def _holding(self, index: int, mix: NDArray[np.float64], fold: int) -> NDArray[np.intp]:
        """What a simulated client holds: a small sample that stays the same, so that it overfits as a real one does."""
        rng = np.random.default_rng([self.seed, 1 + fold, index])
        count = max(_MIN_EXAMPLES, int(rng.exponential(self.local_examples)))
        labels = rng.choice(self.num_classes, size=count, p=mix)
        return np.array([rng.choice(self._folds[fold][label]) for label in labels])

    def _quota(self, mix: NDArray[np.float64]) -> NDArray[Any]:
        """The whole root, with classes repeated or left out until their shares are those of the mix."""
        counts = np.rint(mix * len(self.root)).astype(int)
        members = (np.flatnonzero(self.root.y == label) for label in range(self.num_classes))
        return np.concatenate([np.resize(own, count) for own, count in zip(members, counts, strict=True)])


def _stratified(
    y: NDArray[np.int64], num_classes: int, rng: np.random.Generator
) -> Sequence[Sequence[NDArray[np.intp]]]:
    """For each fold and each class the indices of its samples; a class is dealt to the folds in turn."""
    shuffled = [rng.permutation(np.flatnonzero(y == label)) for label in range(num_classes)]
    return [[own[fold::_FOLDS] for own in shuffled] for fold in range(_FOLDS)]
