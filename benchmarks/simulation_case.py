"""One federated task for every simulator: the same clients, samples, batches and training code.

Imported by MATL's environment and by the one that Flower is in.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from matl.learning.datasets import Dataset
from matl.learning.local import LocalTraining, train_locally
from matl.learning.tasks import MLPTask, accuracy
from matl.params import Float32
from matl.simulation.randomness import stream

__all__ = ["CASES", "Case"]

SEED = 10


@dataclass(frozen=True)
class Case:
    """A federation in which every client holds as many samples and takes part in every round."""

    name: str
    clients: int
    features: int
    classes: int
    hidden: tuple[int, ...]
    samples: int
    test_samples: int
    rounds: int

    @cached_property
    def task(self) -> MLPTask:
        """The model."""
        return MLPTask(self.features, self.classes, self.hidden)

    @property
    def recipe(self) -> LocalTraining:
        """What clients do: 5 steps on batches of 32."""
        return LocalTraining(learning_rate=0.1, batch_size=32, steps=5)

    def write(self, folder: Path) -> None:
        """Draw the samples, Gaussian around a centre per class, and write them where every process can map them."""
        rng = np.random.default_rng(SEED)
        count = self.clients * self.samples + self.test_samples
        y = rng.integers(self.classes, size=count)
        centres = 3 * rng.standard_normal((self.classes, self.features), np.float32) / np.sqrt(self.features)
        X = rng.standard_normal((count, self.features), np.float32)
        X += centres.astype(np.float32)[y]
        np.save(folder / "X.npy", X)
        np.save(folder / "y.npy", y)

    def client(self, folder: Path, index: int) -> Dataset:
        """What one client holds."""
        return self._part(folder, index * self.samples, self.samples)

    def test(self, folder: Path) -> Dataset:
        """What the model is measured on after every round."""
        return self._part(folder, self.clients * self.samples, self.test_samples)

    def init(self) -> Float32:
        """The model before the first round."""
        return self.task.init(stream(SEED, "init"))

    def update(self, params: Float32, client: Dataset, index: int, number: int) -> Float32:
        """One client's update in a round, by the code that MATL's own simulator runs."""
        rng = stream(SEED, "client", number, index)
        return train_locally(self.task, params, [client], self.recipe, [rng])[0]

    def accuracy(self, params: Float32, test: Dataset) -> float:
        """Share of the test samples that a model labels correctly."""
        return accuracy(self.task, params, test.X, test.y)

    def _part(self, folder: Path, start: int, count: int) -> Dataset:
        X, y = _samples(folder)
        rows = slice(start, start + count)
        return Dataset(self.name, X[rows], y[rows], self.classes)


@cache
def _samples(folder: Path) -> tuple[Float32, NDArray[np.int64]]:
    """All samples, mapped into memory once."""
    return np.asarray(np.load(folder / "X.npy", mmap_mode="r")), np.asarray(np.load(folder / "y.npy", mmap_mode="r"))


CASES = {
    "mlp": Case("MLP 784-128-10, 100 clients", 100, 784, 10, (128,), 600, 10_000, 14),
    "small": Case("10 parameters, 100 clients", 100, 4, 2, (), 100, 1_000, 14),
    "tiny": Case("10 parameters, 20 clients", 20, 4, 2, (), 100, 1_000, 14),
}
"""The published sizes: MNIST's, and so small a model that nothing but the simulator is left to measure."""
