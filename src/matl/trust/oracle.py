"""What a validator can compute from clean data of its own. The judge sees the data only through this protocol."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from matl.matrix import Allocate, in_memory
from matl.params import Float32
from matl.trust.calibration import Shadows

__all__ = ["FOLDS", "Atoms", "Oracle"]

FOLDS = 2
"""Parts of the root, used in turn."""


@dataclass(frozen=True, slots=True)
class Atoms:
    """Directions that updates are explained by.

    Parameters
    ----------
    honest : float32 array of shape (K, d)
        Row c is the negative gradient of the loss on clean samples of class c.
    poison : float32 array of shape (K (K - 1), d)
        Each row is the negative gradient on clean samples of one class under another class's label.
    pairs : int64 array of shape (K (K - 1), 2)
        For each poison row the true and the false class.
    """

    honest: Float32
    poison: Float32
    pairs: NDArray[np.int64]

    @property
    def reach(self) -> Float32:
        """Norms (K,) of the honest directions: how far each class moves the model per amount of training."""
        # Row by row: all at once, NumPy would make an array of all squares.
        return np.concatenate([np.linalg.norm(self.honest[row : row + 1], axis=1) for row in range(len(self.honest))])


class Oracle(Protocol):
    """A validator's clean root data, the task, and the local recipe that clients follow.

    The root is kept in two folds, 0 and 1, with the same number of samples of each class, so that directions from one
    fold can be compared with simulated clients from the other.
    """

    @property
    def digest(self) -> str:
        """SHA-256 of root data, task and recipe."""

    @property
    def num_classes(self) -> int:
        """Number of classes K."""

    def atoms(self, params: Float32, fold: int, allocate: Allocate = in_memory) -> Atoms:
        """Directions at parameters (d,) from one fold of the root, in an array that ``allocate`` makes."""

    def steps(self, samples: int) -> int:
        """Local steps that the recipe asks of a client with that many samples."""

    def loss(self, params: Float32) -> float:
        """Mean loss of parameters (d,) on the whole root."""

    def honest(
        self, params: Float32, shadows: Shadows, seed: int, fold: int, allocate: Allocate = in_memory
    ) -> Float32:
        """Updates of simulated honest clients.

        Parameters
        ----------
        params : float32 array of shape (d,)
            Where they start.
        shadows : Shadows
            Their label mixes, and how much each holds.
        seed : int
            Draws the mini-batches.
        fold : int
            The fold their samples come from. Simulated client j of a fold holds the same samples whenever it is asked
            for with the same mix and size, as real clients do; only the order of its mini-batches depends on ``seed``.
        allocate : callable
            Makes the array that is returned.

        Returns
        -------
        float32 array of shape (M, d)
        """

    def root_update(self, params: Float32, seed: int) -> Float32:
        """Update (d,) of a client that holds the whole root, with the same number of samples of each class."""
