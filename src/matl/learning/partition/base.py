"""What a partition is: a way to spread the samples of a data set over clients."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from matl import validate
from matl.errors import InvalidValueError
from matl.learning.datasets import Dataset
from matl.registry import Registry

__all__ = ["MIN_SAMPLES", "PARTITIONS", "IndexPartition", "Partition", "check_enough"]

MIN_SAMPLES = 2
"""Samples that every client holds at least."""

_MAX_DRAWS = 1000

PARTITIONS: Registry[Partition] = Registry("partition")


class Partition(ABC):
    """A way to spread samples over clients, which may change the samples on the way."""

    registry: ClassVar[Registry[Partition]] = PARTITIONS

    @abstractmethod
    def deal(self, data: Dataset, clients: int, rng: np.random.Generator) -> list[Dataset]:
        """What each client holds: disjoint, together all of ``data``, and at least two samples each.

        Raises
        ------
        InvalidValueError
            The data cannot be spread like that over so many clients.
        """


class IndexPartition(Partition):
    """A partition that hands out samples as they are: a subclass says which client gets each.

    An assignment that leaves a client with fewer than two samples is drawn again.

    Examples
    --------
    >>> class Alternating(IndexPartition):
    ...     '''Deal the samples out in turn.'''
    ...
    ...     def assign(self, data, clients, rng):
    ...         return np.arange(len(data)) % clients
    >>> data = Dataset("tiny", np.eye(4, dtype=np.float32), np.array([0, 1, 0, 1]), 2)
    >>> [client.y.tolist() for client in Alternating().deal(data, 2, np.random.default_rng(0))]
    [[0, 0], [1, 1]]
    """

    @abstractmethod
    def assign(self, data: Dataset, clients: int, rng: np.random.Generator) -> NDArray[np.intp]:
        """The client, 0 .. clients - 1, that each sample goes to, shape (n,)."""

    def deal(self, data: Dataset, clients: int, rng: np.random.Generator) -> list[Dataset]:
        """See `Partition.deal`."""
        check_enough(len(data), clients)
        for _ in range(_MAX_DRAWS):
            owner = self.assign(data, clients, rng)
            counts = np.bincount(owner, minlength=clients)
            if counts.min() >= MIN_SAMPLES:
                break
        else:
            raise InvalidValueError(
                f"no partition {self} gave each of {clients} clients at least {MIN_SAMPLES} of {len(data)} samples in "
                f"{_MAX_DRAWS} draws; use fewer clients or a milder skew"
            )
        # One copy in the clients' order; what a client holds is then a view of it.
        ordered = data.take(np.argsort(owner, kind="stable"))
        ends = np.cumsum(counts)
        return [ordered.take(slice(end - count, end)) for end, count in zip(ends, counts, strict=True)]


def check_enough(samples: int, clients: int, *, each: int = MIN_SAMPLES) -> None:
    """There are ``each`` samples for every client."""
    validate.at_least(1, clients=clients)
    if samples < each * clients:
        raise InvalidValueError(
            f"{clients} clients need at least {each} samples each, {each * clients} in all, but there are {samples}; "
            f"use at most {samples // each} clients or a larger data set"
        )
