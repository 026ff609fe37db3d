"""Quantity skew: some clients hold much and many hold little, of the same distribution."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from matl import validate
from matl.learning.datasets import Dataset
from matl.learning.partition.base import MIN_SAMPLES, PARTITIONS, IndexPartition

__all__ = ["QuantityPartition"]


@PARTITIONS.register("quantity")
@dataclass(frozen=True, slots=True)
class QuantityPartition(IndexPartition):
    """Quantity skew: how much a client holds is drawn from a Dirichlet distribution, what it holds is not.

    Parameters
    ----------
    alpha : float
        Concentration, > 0. At 0.5 a few clients hold most samples, at 100 all hold about the same.

    Notes
    -----
    Every client is given two samples first; the rest is dealt in the drawn proportions.

    References
    ----------
    Li et al., "Federated Learning on Non-IID Data Silos: An Experimental Study", ICDE 2022.
    """

    alpha: float = 0.5

    def __post_init__(self) -> None:
        validate.positive(alpha=self.alpha)

    def assign(self, data: Dataset, clients: int, rng: np.random.Generator) -> NDArray[np.intp]:
        """Draw the shares, then shuffle and deal."""
        shares = rng.dirichlet(np.full(clients, self.alpha))
        rest = len(data) - MIN_SAMPLES * clients
        ends = np.round(np.cumsum(shares) * rest).astype(int)
        ends[-1] = rest
        sizes = MIN_SAMPLES + np.diff(ends, prepend=0)
        owner = np.empty(len(data), np.intp)
        owner[rng.permutation(len(data))] = np.repeat(np.arange(clients), sizes)
        return owner
