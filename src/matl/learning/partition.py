"""How samples are spread over clients, and the split of a data set into root, test and client parts."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from matl import validate
from matl.errors import InvalidValueError
from matl.learning.datasets import Dataset, Source
from matl.registry import Registry

__all__ = ["PARTITIONS", "DirichletPartition", "FederatedData", "IidPartition", "Partition", "split_federation"]

_MIN_SAMPLES = 2
_MAX_REDRAWS = 1000


class Partition(Protocol):
    """A way to spread samples over clients."""

    def assign(self, y: NDArray[np.int64], clients: int, rng: np.random.Generator) -> list[NDArray[np.intp]]:
        """Indices of each client's samples; disjoint, and together all of ``y``."""


PARTITIONS: Registry[Partition] = Registry("partition")


@PARTITIONS.register("iid")
@dataclass(frozen=True, slots=True)
class IidPartition:
    """Every client draws from the same distribution, and has the same number of samples up to one."""

    def assign(self, y: NDArray[np.int64], clients: int, rng: np.random.Generator) -> list[NDArray[np.intp]]:
        """Shuffle and deal."""
        _check_enough(len(y), clients)
        return [np.sort(part) for part in np.array_split(rng.permutation(len(y)), clients)]


@PARTITIONS.register("dirichlet")
@dataclass(frozen=True, slots=True)
class DirichletPartition:
    """Label skew: each class is dealt to the clients in proportions drawn from a Dirichlet distribution.

    Parameters
    ----------
    alpha : float
        Concentration, > 0. Small is skewed: at 0.1 most clients hold one or two classes, at 100 it is nearly IID.

    Notes
    -----
    The whole partition is redrawn until every client has at least two samples.

    References
    ----------
    Yurochkin et al., "Bayesian Nonparametric Federated Learning of Neural Networks", ICML 2019.
    """

    alpha: float = 0.5

    def __post_init__(self) -> None:
        validate.positive(alpha=self.alpha)

    def assign(self, y: NDArray[np.int64], clients: int, rng: np.random.Generator) -> list[NDArray[np.intp]]:
        """Deal every class by its own Dirichlet proportions."""
        _check_enough(len(y), clients)
        for _ in range(_MAX_REDRAWS):
            owner = np.empty(len(y), dtype=np.intp)
            for label in np.unique(y):
                members = rng.permutation(np.flatnonzero(y == label))
                shares = rng.dirichlet(np.full(clients, self.alpha))
                cuts = np.round(np.cumsum(shares)[:-1] * len(members)).astype(int)
                for client, part in enumerate(np.split(members, cuts)):
                    owner[part] = client
            if np.bincount(owner, minlength=clients).min() >= _MIN_SAMPLES:
                return [np.flatnonzero(owner == client) for client in range(clients)]
        raise InvalidValueError(
            f"no Dirichlet partition with alpha={self.alpha} gave each of {clients} clients at least {_MIN_SAMPLES} of "
            f"{len(y)} samples in {_MAX_REDRAWS} draws; use a larger alpha or fewer clients"
        )


def _check_enough(samples: int, clients: int) -> None:
    validate.at_least(1, clients=clients)
    if samples < _MIN_SAMPLES * clients:
        raise InvalidValueError(
            f"{clients} clients need at least {_MIN_SAMPLES} samples each, {_MIN_SAMPLES * clients} in all, but there "
            f"are {samples}; use at most {samples // _MIN_SAMPLES} clients or a larger data set"
        )


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

    def class_counts(self) -> NDArray[np.int64]:
        """Samples per client and class, shape (clients, num_classes)."""
        return np.stack([client.class_counts() for client in self.clients])


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
        held_out = _stratified(train.y, classes, [int(c) // 5 for c in train.class_counts()], rng)
        test = train.take(held_out)
        train = train.take(np.setdiff1d(np.arange(len(train)), held_out))
    empty = np.flatnonzero(train.class_counts() == 0)
    if len(empty):
        raise InvalidValueError(
            f"class {empty[0]} has no samples; labels must be 0 to {classes - 1} without gaps, e.g. "
            "y = np.unique(y, return_inverse=True)[1]"
        )
    if train.class_counts().min() <= per_class:
        raise InvalidValueError(
            f"expected more than {per_class} training samples of each class for a root of {root_size}, got "
            f"{train.class_counts().min()}; use a smaller root_size"
        )
    root = _stratified(train.y, classes, [per_class] * classes, rng)
    rest = train.take(np.setdiff1d(np.arange(len(train)), root))
    parts = partition.assign(rest.y, clients, rng)
    return FederatedData(train.take(root), test, tuple(rest.take(part) for part in parts))


def _stratified(y: NDArray[Any], classes: int, counts: list[int], rng: np.random.Generator) -> NDArray[np.intp]:
    picked = [rng.permutation(np.flatnonzero(y == c))[: counts[c]] for c in range(classes)]
    return np.sort(np.concatenate(picked))
