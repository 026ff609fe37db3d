"""A simulated population: who holds which data, and who lies. The only room that knows the second."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from matl import validate
from matl.errors import InvalidValueError
from matl.learning.datasets import Dataset, Source, load_dataset
from matl.learning.partition import DirichletPartition, FederatedData, Partition, split_federation
from matl.simulation.randomness import stream

__all__ = ["Population", "as_source", "federate"]


def as_source(dataset: str | Source | Dataset | tuple[Any, Any]) -> Source:
    """A data set given by name, as a record, or as arrays ``(X, y)`` with labels 0 .. K - 1."""
    if isinstance(dataset, str):
        return load_dataset(dataset)
    if isinstance(dataset, Source):
        return dataset
    if isinstance(dataset, Dataset):
        return Source(dataset)
    given: Any = dataset  # what a caller passes need not be what the signature says
    if not (isinstance(given, tuple | list) and len(given) == 2):
        raise InvalidValueError(
            f"expected dataset as a name, Source, Dataset, FederatedData or arrays (X, y), got a {type(given).__name__}"
        )
    X, y = (np.asarray(part) for part in given)
    if y.dtype.kind not in "biuf" or y.ndim != 1 or not y.size or (y % 1 != 0).any():
        raise InvalidValueError(
            f"expected (X, y) with one whole-number label 0 .. K - 1 per sample, got y of shape {y.shape} and {y.dtype}"
        )
    labels = y.astype(np.int64)
    flat = X.reshape(len(X), -1) if X.size else X
    return Source(Dataset("custom", flat.astype(np.float32), labels, int(labels.max()) + 1))


def federate(
    dataset: str | Source | Dataset | tuple[Any, Any] = "digits",
    *,
    clients: int = 50,
    alpha: float = 0.5,
    partition: Partition | None = None,
    root_size: int = 100,
    seed: int = 0,
) -> FederatedData:
    """Deal a data set out to clients, a validator and a test set.

    Parameters
    ----------
    dataset : str, Source, Dataset or (X, y)
        Name of a data set, or the data.
    clients : int
        Number of clients.
    alpha : float
        Concentration of the Dirichlet label skew; used when ``partition`` is not given.
    partition : Partition, optional
        Another way to spread the samples.
    root_size : int
        Samples the validator owns, the same number of each class.
    seed : int
        Source of all randomness.

    Raises
    ------
    InvalidValueError
        A number is not a whole one or too small, or the data is not what it should be or not enough.

    Examples
    --------
    >>> data = federate("synthetic", clients=10, seed=1)
    >>> len(data.clients), len(data.root), len(data.test)
    (10, 100, 800)
    """
    validate.whole(1, clients=clients, root_size=root_size)
    validate.whole(0, seed=seed)
    return split_federation(
        as_source(dataset),
        clients=clients,
        partition=partition if partition is not None else DirichletPartition(alpha),
        root_size=root_size,
        rng=stream(seed, "partition"),
    )


@dataclass(frozen=True)
class Population:
    """The clients of a simulation.

    Parameters
    ----------
    data : FederatedData
        What everybody holds.
    malicious : frozenset of int
        Indices of the malicious clients.
    """

    data: FederatedData
    malicious: frozenset[int]

    @classmethod
    def draw(cls, data: FederatedData, byzantine: float, seed: int) -> Population:
        """Let a random ``byzantine`` share of the clients, rounded down, be malicious."""
        validate.fraction(byzantine=byzantine)
        clients = len(data.clients)
        # The product of a decimal fraction and a count may fall just short of a whole number (0.29 * 100).
        count = int(byzantine * clients + 1e-9)
        chosen = stream(seed, "malicious").choice(clients, size=count, replace=False)
        return cls(data, frozenset(int(index) for index in chosen))

    @cached_property
    def ids(self) -> tuple[str, ...]:
        """Client ids by index; they say nothing about who is malicious."""
        width = max(3, len(str(len(self.data.clients) - 1)))
        return tuple(f"client-{index:0{width}d}" for index in range(len(self.data.clients)))

    @property
    def malicious_ids(self) -> frozenset[str]:
        """Ids of the malicious clients."""
        ids = self.ids
        return frozenset(ids[index] for index in self.malicious)
