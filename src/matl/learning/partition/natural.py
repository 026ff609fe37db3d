"""The partition that the data bring with them: by writer, hospital, user, ..."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from matl.errors import InvalidValueError
from matl.learning.datasets import Dataset
from matl.learning.partition.base import PARTITIONS, IndexPartition

__all__ = ["NaturalPartition"]


@PARTITIONS.register("natural")
@dataclass(frozen=True, slots=True)
class NaturalPartition(IndexPartition):
    """By where samples come from: the data set's groups are dealt to the clients, none of them torn apart."""

    def assign(self, data: Dataset, clients: int, rng: np.random.Generator) -> NDArray[np.intp]:
        """Shuffle the groups and deal them out in turn."""
        if data.groups is None:
            raise InvalidValueError(
                f"the partition natural goes by groups, and {data.name} has none; name the column that holds them, "
                "e.g. csv:path=...,group=hospital, or give Dataset(..., groups=...)"
            )
        names, group = np.unique(data.groups, return_inverse=True)
        if len(names) < clients:
            raise InvalidValueError(
                f"expected at most {len(names)} clients, one for each group that {data.name} has left beside root and "
                f"test, got {clients}"
            )
        return rng.permutation(np.arange(len(names)) % clients)[group]
