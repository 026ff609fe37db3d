"""Distances between all pairs of rows, from one Gram matrix."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from matl.matrix import UpdateMatrix

__all__ = ["squared_distances"]

# Columns per Gram update: the block of 100 clients fits the cache, and the order of summation never depends on d alone.
_WIDTH = 4096


def squared_distances(X: UpdateMatrix) -> NDArray[np.float64]:
    """Squared Euclidean distance of every pair of rows, shape (n, n), zero on the diagonal.

    |a|^2 + |b|^2 - 2 a.b cancels when the rows share a large mean, and float32 products of large rows overflow. float64
    survives both. Centring the rows would not: one huge row drags the mean away and drowns the distances of the others.
    """
    n = len(X)
    gram = np.zeros((n, n))
    for block in X.column_blocks(_WIDTH):
        wide = block.astype(np.float64)
        gram += wide @ wide.T
    squares = np.diag(gram)
    distances = squares[:, None] + squares[None, :] - 2.0 * gram
    np.maximum(distances, 0.0, out=distances)
    np.fill_diagonal(distances, 0.0)
    return distances
