"""What a judge with root data sees of updates: what they are explained by, and sketches of what is not."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from matl.errors import UndecidedError
from matl.matrix import Allocate, UpdateMatrix, in_memory
from matl.params import Float32
from matl.trust.attribution import Attribution, attribute, attribute_both
from matl.trust.calibration import Shadows
from matl.trust.oracle import FOLDS, Atoms, Oracle
from matl.trust.sketch import Sketch

__all__ = ["Simulated", "View"]

_TINY = 1e-12


@dataclass(frozen=True, slots=True)
class View:
    """What is seen of n updates, of clients or of shadows.

    Parameters
    ----------
    attribution : Attribution
        What they are explained by.
    directions : float32 array of shape (n, k)
        Sketches of the normalised updates.
    residuals : float32 array of shape (n, k)
        The same less their best explanation by clean training.
    """

    attribution: Attribution
    directions: Float32
    residuals: Float32

    @classmethod
    def of(cls, X: UpdateMatrix, atoms: Atoms, sketch: Sketch) -> View:
        """Look at the rows of an (n, d) matrix. Cost: that of `attribute` and of the sketch."""
        return cls._of(attribute(X, atoms), X, atoms, sketch)

    @classmethod
    def of_both(cls, X: UpdateMatrix, atoms: Atoms, sketch: Sketch) -> tuple[View, Attribution]:
        """Look at the rows, and at what explains the same sent backwards."""
        attribution, flipped = attribute_both(X, atoms)
        return cls._of(attribution, X, atoms, sketch), flipped

    @classmethod
    def _of(cls, attribution: Attribution, X: UpdateMatrix, atoms: Atoms, sketch: Sketch) -> View:
        lengths = attribution.norms[:, None] + np.finfo(np.float32).tiny
        directions = (sketch(X) / lengths).astype(np.float32)
        clean = sketch(UpdateMatrix(atoms.honest)) / (atoms.reach[:, None] + _TINY)
        explained = attribution.honest @ clean
        return cls(attribution, directions, (directions - explained).astype(np.float32))


@dataclass(frozen=True, slots=True)
class Simulated:
    """What a round shows of simulated honest clients; nothing of it depends on what clients send.

    Parameters
    ----------
    atoms : Atoms
        The directions that explain updates.
    shadows : View
        The simulated clients' updates.
    flipped : Attribution
        What explains the same updates sent backwards.
    """

    atoms: Atoms
    shadows: View
    flipped: Attribution

    @classmethod
    def of(
        cls,
        oracle: Oracle,
        params: Float32,
        fold: int,
        shadows: Shadows,
        seed: int,
        sketch: Sketch,
        allocate: Allocate = in_memory,
    ) -> Simulated:
        """Simulate honest clients on one fold of the root, and explain them by the other.

        The directions and, until it returns, the simulated updates lie where ``allocate`` makes room for them.

        Raises
        ------
        UndecidedError
            Training on the root diverged.
        """
        atoms = oracle.atoms(params, fold, allocate)
        updates = oracle.honest(params, shadows, seed, (fold + 1) % FOLDS, allocate)
        if not all(np.isfinite(row).all() for rows in (updates, atoms.honest, atoms.poison) for row in rows):
            raise UndecidedError(
                "training on the validator's root data diverged, so there is nothing to compare updates with; "
                "standardise the features or lower the learning rate"
            )
        view, flipped = View.of_both(UpdateMatrix(updates), atoms, sketch)
        return cls(atoms, view, flipped)
