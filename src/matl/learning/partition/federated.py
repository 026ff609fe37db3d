"""The split of a data set into a root sample, a test set and one part per client."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from matl.errors import InvalidValueError
from matl.learning.datasets import Dataset, Source
from matl.learning.partition.base import Partition
from matl.learning.partition.statistics import PartitionStatistics

__all__ = ["FederatedData", "hold_out", "split_federation"]


@dataclass(frozen=True)
class FederatedData:
    """A data set dealt out: disjoint root, test and client parts.

    Parameters
    ----------
    root : Dataset
        The validator's clean samples, equally many of each class.
    test : Dataset
        Samples that nobody trains on, for measuring accuracy.
    clients : tuple of Dataset
        What each client holds.
    """

    root: Dataset
    test: Dataset
    clients: tuple[Dataset, ...]

    def __post_init__(self) -> None:
        if not self.clients:
            raise InvalidValueError("expected at least one client, got none")
        for who, part in (("root", self.root), *((f"client {i}", client) for i, client in enumerate(self.clients))):
            if (part.num_classes, part.X.shape[1]) != (self.test.num_classes, self.test.X.shape[1]):
                raise InvalidValueError(
                    f"expected the same classes and features everywhere, got {part.num_classes} and "
                    f"{part.X.shape[1]} in {who}, {self.test.num_classes} and {self.test.X.shape[1]} in the test set"
                )

    def class_counts(self) -> NDArray[np.int64]:
        """Samples per client and class, shape (clients, num_classes)."""
        return np.stack([client.class_counts() for client in self.clients])

    def statistics(self) -> PartitionStatistics:
        """How unevenly samples and classes are spread."""
        return PartitionStatistics.of(self.class_counts())


def split_federation(
    source: Source, *, clients: int, partition: Partition, root_size: int, rng: np.random.Generator
) -> FederatedData:
    """Deal a data set into a root sample, a test set and one part per client.

    Parameters
    ----------
    source : Source
        The data set. Without official test samples a fifth of it, stratified by class, becomes the test set.
    clients : int
        Number of clients.
    partition : Partition
        How the rest is spread over them.
    root_size : int
        Samples in the root, rounded down to equally many of each class; at least two of each.
    rng : numpy.random.Generator
        Source of all randomness.

    Raises
    ------
    InvalidValueError
        There are too few samples for the root or for the clients.
    """
    train, test = source.train, source.test
    classes = train.num_classes
    per_class = root_size // classes
    if per_class < 2:
        raise InvalidValueError(
            f"expected root_size >= {2 * classes} (two samples of each of {classes} classes), got root_size={root_size}"
        )
    if test is None:
        train, test = hold_out(train, rng)
    empty = np.flatnonzero(train.class_counts() == 0)
    if len(empty):
        raise InvalidValueError(
            f"class {empty[0]} has no samples; labels must be 0 to {classes - 1} without gaps, e.g. "
            "y = np.unique(y, return_inverse=True)[1]"
        )
    rarest = int(train.class_counts().argmin())
    if (fewest := int(train.class_counts()[rarest])) <= per_class:
        advice = "use a smaller root_size" if fewest > 2 else f"collect more of class {rarest}, or leave it out"
        raise InvalidValueError(
            f"expected more than {per_class} training samples of each class for a root of {root_size}, got "
            f"{fewest} of class {rarest}; {advice}"
        )
    chosen = _stratified(train.y, classes, [per_class] * classes, rng)
    root, rest = train.take(chosen), train.take(np.setdiff1d(np.arange(len(train)), chosen))
    del source, train  # where the caller keeps none of it either, a large data set is in memory twice and not thrice
    return FederatedData(root, test, tuple(partition.deal(rest, clients, rng)))


def hold_out(data: Dataset, rng: np.random.Generator) -> tuple[Dataset, Dataset]:
    """Part a data set into what is left and a test set: a fifth, stratified by class."""
    held_out = _stratified(data.y, data.num_classes, [int(c) // 5 for c in data.class_counts()], rng)
    return data.take(np.setdiff1d(np.arange(len(data)), held_out)), data.take(held_out)


def _stratified(y: NDArray[Any], classes: int, counts: list[int], rng: np.random.Generator) -> NDArray[np.intp]:
    picked = [rng.permutation(np.flatnonzero(y == c))[: counts[c]] for c in range(classes)]
    return np.sort(np.concatenate(picked))
