"""A simulated population: who holds which data, and who lies. The only room that knows the second."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from matl import validate
from matl.learning.datasets import Dataset, Source, as_source
from matl.learning.partition import PARTITIONS, FederatedData, Partition, split_federation
from matl.simulation.randomness import stream

__all__ = ["Population", "federate", "malicious_count", "takes_alpha"]


def federate(
    dataset: str | Mapping[str, Any] | Source | Dataset | tuple[Any, Any] = "digits",
    *,
    clients: int = 50,
    alpha: float = 0.5,
    partition: str | Mapping[str, Any] | Partition = "dirichlet",
    root_size: int = 100,
    seed: int = 0,
) -> FederatedData:
    """Deal a data set out to clients, a validator and a test set.

    Parameters
    ----------
    dataset : str, mapping, Source, Dataset or (X, y)
        A data set by name or by a table of ``name`` and options, or the data.
    clients : int
        Number of clients.
    alpha : float
        Concentration for partitions that take one and are given none of their own; small is skewed.
    partition : str, mapping or Partition
        How the samples are spread: by name, by a table of ``name`` and options, or as an object.
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
        partition=partition if isinstance(partition, Partition) else _partition(partition, alpha),
        root_size=root_size,
        rng=stream(seed, "partition"),
    )


def _partition(spec: str | Mapping[str, Any], alpha: float) -> Partition:
    options: dict[str, Any] = {"name": spec} if isinstance(spec, str) else dict(spec)
    return PARTITIONS.create({**options, "alpha": alpha} if takes_alpha(options) else options)


def takes_alpha(spec: str | Mapping[str, Any]) -> bool:
    """Whether a partition is dealt by the alpha of the configuration: it takes one and is given none of its own.

    Examples
    --------
    >>> takes_alpha("dirichlet"), takes_alpha("shards"), takes_alpha({"name": "dirichlet", "alpha": 0.1})
    (True, False, False)
    """
    options = {"name": spec} if isinstance(spec, str) else spec
    return "alpha" not in options and "alpha" in inspect.signature(PARTITIONS.get(options.get("name", ""))).parameters


def malicious_count(byzantine: float, clients: int) -> int:
    """How many of some clients are malicious: the share of them, rounded down.

    Examples
    --------
    >>> malicious_count(0.45, 50), malicious_count(0.29, 100), malicious_count(0.2, 4)
    (22, 29, 0)
    """
    # The product of a decimal fraction and a count may fall just short of a whole number (0.29 * 100).
    return int(byzantine * clients + 1e-9)


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
        count = malicious_count(byzantine, clients)
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
