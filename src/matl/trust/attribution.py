"""Attribution: which clean and which mislabelled training an update is made of.

Honest local training moves a model along a non-negative mix of the directions "learn class c from samples of class c".
A client that lies about labels, or sends its update backwards, needs other directions: "call samples of class c a c'".
Both kinds can be computed from a few clean samples, and non-negative least squares tells how much of each is needed.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from matl import validate
from matl.errors import InvalidValueError
from matl.matrix import UpdateMatrix
from matl.params import Float32
from matl.trust.oracle import Atoms

__all__ = ["Attribution", "attribute", "attribute_both", "nnls"]

_WIDTH = 4096  # columns per step of a projection
_TINY = 1e-12
_RIDGE = 1e-4  # relabelling directions are nearly dependent; a trace of ridge makes their mix unique
_HONEST_STEPS, _ALL_STEPS = 80, 150  # enough for the cosine of the fit to be stable to about 1e-3


@dataclass(frozen=True, slots=True)
class Attribution:
    """What n updates are explained by. All arrays are float64.

    Parameters
    ----------
    norms : array of shape (n,)
        Euclidean norm of each update.
    honest : array of shape (n, K)
        Coefficients of the best explanation of the normalised update by clean training alone.
    gain : array of shape (n,)
        *Relabelling gain*, in [0, 1]: cosine of the update to its best explanation by clean and mislabelled training,
        minus the cosine to its best explanation by clean training alone.
    share : array of shape (n,)
        *Relabelling share*, in [0, 1]: part of the full explanation's coefficients that is mislabelled training.
    alien : array of shape (n,)
        One minus the cosine to the full explanation: what no training on these classes, honest or not, explains.
    relabelled : array of shape (n, K (K - 1))
        Estimated amount of training under each pair of true and false label, in units of learning rate times steps.
    work : array of shape (n,)
        Estimated amount of training of any kind, in the same unit.
    clean : array of shape (n, K)
        Estimated amount of training on each class under its own label, where no other explanation is admitted; in the
        same unit.
    """

    norms: NDArray[np.float64]
    honest: NDArray[np.float64]
    gain: NDArray[np.float64]
    share: NDArray[np.float64]
    alien: NDArray[np.float64]
    relabelled: NDArray[np.float64]
    work: NDArray[np.float64]
    clean: NDArray[np.float64]

    @property
    def mix(self) -> NDArray[np.float64]:
        """Estimated label mixes (n, K): ``clean`` with rows that sum to 1, or to 0 where there is none."""
        return np.asarray(self.clean / np.maximum(self.clean.sum(axis=1, keepdims=True), _TINY))


def attribute(X: UpdateMatrix, atoms: Atoms) -> Attribution:
    """Explain every row of an (n, d) matrix by clean and mislabelled training.

    Notes
    -----
    With unit atoms A and a normalised update u, both fits are ``min_{x >= 0} |u - A^T x|^2 + ridge |x|^2``, over the K
    clean atoms and over all K^2. A flipped sample leaves a trace on the inputs of its class that no mix of clean
    classes leaves, so a client that merely lacks classes is not mistaken for one that fights them.

    Cost O(n d K^2) for the projections, independent of d after that. It has no opinion about an all-zero update: every
    figure is then 0, ``alien`` included.
    """
    measured = _Measured.of(X, atoms)
    return measured.explained(measured.projections)


def attribute_both(X: UpdateMatrix, atoms: Atoms) -> tuple[Attribution, Attribution]:
    """Explain every row of an (n, d) matrix, and the same sent backwards, from one reading of it; see `attribute`."""
    measured = _Measured.of(X, atoms)
    return measured.explained(measured.projections), measured.explained(0.0 - measured.projections)


@dataclass(frozen=True, slots=True)
class _Measured:
    """What is taken from n updates and k atoms: their lengths, and cosines of all pairs that an atom is in."""

    classes: int
    lengths: NDArray[np.float64]
    atom_lengths: NDArray[np.float64]
    gram: NDArray[np.float64]
    projections: NDArray[np.float64]

    @classmethod
    def of(cls, X: UpdateMatrix, atoms: Atoms) -> _Measured:
        directions = UpdateMatrix([atoms.honest, atoms.poison])
        if directions.shape[1] != X.shape[1]:
            raise InvalidValueError(f"expected atoms of {X.shape[1]} parameters, got {directions.shape[1]}")
        lengths, atom_lengths = X.norms(), directions.norms() + _TINY
        gram = _products(directions, directions) / np.outer(atom_lengths, atom_lengths)
        projections = _products(X, directions) / np.outer(lengths + _TINY, atom_lengths)
        return cls(len(atoms.honest), lengths, atom_lengths, gram, projections)

    def explained(self, projections: NDArray[np.float64]) -> Attribution:
        """What explains updates of these lengths and projections (n, k)."""
        classes, gram, lengths, atom_lengths = self.classes, self.gram, self.lengths, self.atom_lengths
        honest = nnls(gram[:classes, :classes], projections[:, :classes], steps=_HONEST_STEPS)
        full = nnls(gram, projections, steps=_ALL_STEPS)
        honest_cosine = _cosine(honest, projections[:, :classes], gram[:classes, :classes])
        full_cosine = _cosine(full, projections, gram)
        moved = lengths > _TINY
        amounts = full * lengths[:, None] / atom_lengths
        return Attribution(
            norms=lengths,
            honest=honest,
            gain=full_cosine - honest_cosine,
            share=full[:, classes:].sum(axis=1) / (full.sum(axis=1) + _TINY),
            alien=np.where(moved, 1.0 - full_cosine, 0.0),
            relabelled=amounts[:, classes:],
            work=amounts.sum(axis=1),
            clean=honest * lengths[:, None] / atom_lengths[:classes],
        )


def nnls(
    gram: NDArray[np.float64], projections: NDArray[np.float64], *, steps: int, ridge: float = _RIDGE
) -> NDArray[np.float64]:
    """Non-negative least squares for many right-hand sides at once, by accelerated projected gradient.

    Parameters
    ----------
    gram : array of shape (k, k)
        Inner products of the atoms.
    projections : array of shape (n, k)
        Inner products of each target with the atoms.
    steps : int
        Iterations, always all of them, so that a row's result does not depend on the other rows.
    ridge : float
        Weight of ``|x|^2``.

    Returns
    -------
    array of shape (n, k)
        For each row the minimiser over x >= 0 of ``x (gram + ridge I) x / 2 - projection x``, to within O(1/steps^2).

    Notes
    -----
    Beck and Teboulle, "A Fast Iterative Shrinkage-Thresholding Algorithm", SIAM J. Imaging Sciences 2009.

    Examples
    --------
    >>> nnls(np.eye(2), np.array([[1.0, -1.0]]), steps=50, ridge=0.0)
    array([[1., 0.]])
    """
    validate.at_least(1, steps=steps)
    validate.non_negative(ridge=ridge)
    matrix = gram + ridge * np.eye(len(gram))
    step = 1.0 / max(float(np.linalg.eigvalsh(matrix)[-1]), _TINY)
    x = ahead = np.zeros_like(projections)
    momentum = 1.0
    for _ in range(steps):
        following = np.maximum(ahead - step * (ahead @ matrix - projections), 0.0)
        next_momentum = (1.0 + np.sqrt(1.0 + 4.0 * momentum**2)) / 2.0
        ahead = following + (momentum - 1.0) / next_momentum * (following - x)
        x, momentum = following, next_momentum
    return x


def _products(X: UpdateMatrix, Y: UpdateMatrix) -> NDArray[np.float64]:
    """Inner products of all rows of X with all rows of Y, summed over column blocks in a fixed order."""
    total = np.zeros((len(X), len(Y)))
    for left, right in zip(X.column_blocks(_WIDTH), Y.column_blocks(_WIDTH), strict=True):
        total += left @ right.T
    return total


def _cosine(x: Float32 | NDArray[np.float64], c: NDArray[np.float64], gram: NDArray[np.float64]) -> NDArray[np.float64]:
    """Cosine between unit targets and their fits x, from inner products alone; 0 where nothing fits."""
    squared = np.einsum("ni,ij,nj->n", x, gram, x)
    return np.asarray((x * c).sum(axis=1) / np.sqrt(squared + _TINY))
