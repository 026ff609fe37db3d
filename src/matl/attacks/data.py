"""Attacks on the training data: label flips."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from matl.attacks.base import ATTACKS, Attack, Knowledge
from matl.params import Float32

__all__ = ["LabelFlip"]


@ATTACKS.register("label_flip")
@dataclass(frozen=True, slots=True)
class LabelFlip(Attack):
    """Train on reversed labels: class c becomes K - 1 - c.

    References
    ----------
    Tolpegin et al., "Data Poisoning Attacks Against Federated Learning Systems", ESORICS 2020.
    """

    knowledge: ClassVar[Knowledge] = Knowledge.DATA

    def poison(
        self,
        X: Float32,
        y: NDArray[np.int64],
        num_classes: int,
        rng: np.random.Generator,
    ) -> tuple[Float32, NDArray[np.int64]]:
        """Every label y becomes num_classes - 1 - y."""
        return X, num_classes - 1 - y
