"""Partitions that look at nothing but labels: evenly, or with label skew."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from matl import validate
from matl.errors import InvalidValueError
from matl.learning.datasets import Dataset
from matl.learning.partition.base import PARTITIONS, IndexPartition, check_enough

__all__ = ["ClassesPartition", "DirichletPartition", "GroupBiasPartition", "IidPartition", "ShardsPartition"]


@PARTITIONS.register("iid")
@dataclass(frozen=True, slots=True)
class IidPartition(IndexPartition):
    """Every client draws from the same distribution, and has the same number of samples up to one."""

    def assign(self, data: Dataset, clients: int, rng: np.random.Generator) -> NDArray[np.intp]:
        """Shuffle and deal."""
        owner = np.empty(len(data), np.intp)
        for client, part in enumerate(np.array_split(rng.permutation(len(data)), clients)):
            owner[part] = client
        return owner


@PARTITIONS.register("dirichlet")
@dataclass(frozen=True, slots=True)
class DirichletPartition(IndexPartition):
    """Label skew: each class is dealt to the clients in proportions drawn from a Dirichlet distribution.

    Parameters
    ----------
    alpha : float
        Concentration, > 0. Small is skewed: at 0.1 most clients hold one or two classes, at 100 it is nearly IID.

    References
    ----------
    Yurochkin et al., "Bayesian Nonparametric Federated Learning of Neural Networks", ICML 2019.
    """

    alpha: float = 0.5

    def __post_init__(self) -> None:
        validate.positive(alpha=self.alpha)

    def assign(self, data: Dataset, clients: int, rng: np.random.Generator) -> NDArray[np.intp]:
        """Deal every class by its own Dirichlet proportions."""
        owner = np.empty(len(data), np.intp)
        for label in np.unique(data.y):
            members = rng.permutation(np.flatnonzero(data.y == label))
            shares = rng.dirichlet(np.full(clients, self.alpha))
            cuts = np.round(np.cumsum(shares)[:-1] * len(members)).astype(int)
            for client, part in enumerate(np.split(members, cuts)):
                owner[part] = client
        return owner


@PARTITIONS.register("shards")
@dataclass(frozen=True, slots=True)
class ShardsPartition(IndexPartition):
    """Label skew: samples sorted by class are cut into equal shards, and every client gets some of them.

    Parameters
    ----------
    per_client : int
        Shards for each client; with two, most clients hold two classes.

    References
    ----------
    McMahan et al., "Communication-Efficient Learning of Deep Networks from Decentralized Data", AISTATS 2017.
    """

    per_client: int = 2

    def __post_init__(self) -> None:
        validate.whole(1, per_client=self.per_client)

    def assign(self, data: Dataset, clients: int, rng: np.random.Generator) -> NDArray[np.intp]:
        """Sort, cut and deal."""
        check_enough(len(data), clients, each=self.per_client)
        shuffled = rng.permutation(len(data))
        ordered = shuffled[np.argsort(data.y[shuffled], kind="stable")]
        holders = rng.permutation(np.repeat(np.arange(clients), self.per_client))
        owner = np.empty(len(data), np.intp)
        for client, shard in zip(holders, np.array_split(ordered, len(holders)), strict=True):
            owner[shard] = client
        return owner


@PARTITIONS.register("classes", "label_pairs")
@dataclass(frozen=True, slots=True)
class ClassesPartition(IndexPartition):
    """Label skew: every client holds exactly so many classes, two unless said otherwise.

    Each class is dealt evenly to the clients that hold it, and each class is held by equally many clients up to one.

    Parameters
    ----------
    per_client : int
        Classes for each client.

    References
    ----------
    Li et al., "Federated Learning on Non-IID Data Silos: An Experimental Study", ICDE 2022 (there: #C = k).
    """

    per_client: int = 2

    def __post_init__(self) -> None:
        validate.whole(1, per_client=self.per_client)

    def assign(self, data: Dataset, clients: int, rng: np.random.Generator) -> NDArray[np.intp]:
        """Give every client the classes that the fewest hold so far, then deal each class to its holders."""
        labels = np.unique(data.y)
        if not self.per_client <= len(labels) <= self.per_client * clients:
            raise InvalidValueError(
                f"expected per_client from {-(-len(labels) // clients)} to {len(labels)}, so that {clients} clients "
                f"hold all of {len(labels)} classes between them, got per_client={self.per_client}"
            )
        holders: list[list[int]] = [[] for _ in labels]
        for client in range(clients):
            rarest = np.lexsort((rng.random(len(labels)), np.array([len(held) for held in holders])))
            for place in rarest[: self.per_client]:
                holders[place].append(client)
        owner = np.empty(len(data), np.intp)
        for label, held in zip(labels, holders, strict=True):
            members = rng.permutation(np.flatnonzero(data.y == label))
            if len(members) < len(held):
                raise InvalidValueError(
                    f"class {label} has {len(members)} samples, too few for the {len(held)} clients that hold it; use "
                    "fewer clients or a smaller per_client"
                )
            for client, part in zip(held, np.array_split(members, len(held)), strict=True):
                owner[part] = client
        return owner


@PARTITIONS.register("group_bias")
@dataclass(frozen=True, slots=True)
class GroupBiasPartition(IndexPartition):
    """Label skew: clients form as many groups as there are classes, and each group is biased towards one class.

    A sample goes to the group of its class with probability `bias` and otherwise to any other group alike; in its
    group, to any client alike. Groups are drawn at random and equally large up to one client. With fewer clients than
    classes every client is a group, and some of them are biased towards several classes.

    Parameters
    ----------
    bias : float
        Probability q, in [0, 1]. With 1 / K for K classes it is IID, with 1 every client holds one class.

    Examples
    --------
    >>> data = Dataset("tiny", np.eye(6, dtype=np.float32), np.array([0, 0, 0, 1, 1, 1]), 2)
    >>> dealt = GroupBiasPartition(bias=1.0).deal(data, 2, np.random.default_rng(0))
    >>> sorted(client.y.tolist() for client in dealt)
    [[0, 0, 0], [1, 1, 1]]

    References
    ----------
    Cao et al., "FLTrust: Byzantine-robust Federated Learning via Trust Bootstrapping", NDSS 2021, after Fang et al.,
    "Local Model Poisoning Attacks to Byzantine-Robust Federated Learning", USENIX Security 2020.
    """

    bias: float = 0.5

    def __post_init__(self) -> None:
        validate.fraction(bias=self.bias)

    def assign(self, data: Dataset, clients: int, rng: np.random.Generator) -> NDArray[np.intp]:
        """Draw each sample's group, then its client in there."""
        groups = min(data.num_classes, clients)
        # 1 to groups - 1 steps from the own group reach every other one with equal probability.
        steps = 1 + rng.integers(max(groups - 1, 1), size=len(data))
        away = np.where(rng.random(len(data)) < self.bias, 0, steps)
        members = np.array_split(rng.permutation(clients), groups)
        owner = np.empty(len(data), np.intp)
        for group, within in enumerate(members):
            chosen = np.flatnonzero((data.y + away) % groups == group)
            owner[chosen] = rng.choice(within, len(chosen))
        return owner
