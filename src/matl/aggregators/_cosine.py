"""Cosine distances of all pairs of rows, without cancellation and without noise between parallel ones."""

from __future__ import annotations

import numpy as np

from matl.aggregators._rows import Float64, Rows

__all__ = ["cosine_distances"]

# What single precision leaves of a squared distance that is zero, in squared distances typical of the two rows.
_ROUNDING = 2e-5


def cosine_distances(X: Rows) -> Float64:
    """1 - cos(x_i, x_j) of every pair of rows, shape (n, n), in [0, 2] and zero on the diagonal.

    Rows of zeros, which have no direction, are at distance 0 from each other and 1 from all others. Pairs that rounding
    cannot tell from parallel ones are at distance 0, so that colluding copies are ties, not noise.

    |x_i| |x_j| - x_i.x_j = (|x_i - x_j|^2 - (|x_i| - |x_j|)^2) / 2, where the right side loses nothing to a large mean
    that all rows share.
    """
    norms, squares = X.norms(), X.squared_distances
    gaps = (squares - np.subtract.outer(norms, norms) ** 2) / 2.0
    spread = np.median(squares, axis=1)
    gaps[gaps <= _ROUNDING * np.maximum.outer(spread, spread)] = 0.0
    lengths = np.multiply.outer(norms, norms)
    with np.errstate(invalid="ignore", divide="ignore"):
        distances = np.minimum(gaps / lengths, 2.0)
    zero = norms == 0.0
    distances[zero | zero[:, None]] = 1.0
    distances[zero & zero[:, None]] = 0.0
    np.fill_diagonal(distances, 0.0)
    return np.asarray(distances)
