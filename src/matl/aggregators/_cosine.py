"""Cosine distances of all pairs of rows, without cancellation and without noise between parallel ones."""

from __future__ import annotations

import numpy as np

from matl.aggregators._rows import Float64, Rows
from matl.matrix import UpdateMatrix
from matl.params import Float32

__all__ = ["cosine_distances"]

_ROUNDING = 2e-5  # what single precision leaves of a distance that is zero, in distances typical of rows of length 1
_PARALLEL = 1e-13  # distance of copies that were scaled and rounded to float32 each on its own
_NARROW = 1 / 16  # typical distance below which rows are alike enough for their Gram matrix to be a centred one
_UNEVEN = 1e-3  # relative difference in length that is still small against what tells rows apart
_FAINT = 1e-15  # root mean square of a row below which its square leaves the range of single precision


def cosine_distances(X: Rows) -> Float64:
    """1 - cos(x_i, x_j) of every pair of rows, shape (n, n), in [0, 2] and zero on the diagonal.

    Rows of zeros, which have no direction, are at distance 0 from each other and 1 from all others. Pairs that rounding
    cannot tell from parallel ones are at distance 0, so that colluding copies are ties, not noise.

    1 - cos is half the squared distance of the rows at unit length, which follows from that of the rows as they are,
    unless they share a large mean: what is left of a short or long row once the others' mean is subtracted is mostly
    that mean. Then those rows are scaled first and all pairs compared again.
    """
    norms = X.norms()
    zero = norms == 0.0
    lengths = np.where(zero, 1.0, norms)
    distances = _of_unit_rows(X, lengths)
    typical = float(np.clip(np.median(lengths), 1e-15, 1e15))
    uneven = ~zero & (np.abs(lengths / typical - 1.0) > _UNEVEN)
    faint = lengths < _FAINT * np.sqrt(X.shape[1])
    if uneven.any() and (faint.any() or np.median(distances, axis=1).min() < _NARROW):
        scales = np.where(uneven, typical / lengths, 1.0)
        distances = _of_unit_rows(Rows(_Scaled(X, scales)), lengths * scales)
    distances[zero | zero[:, None]] = 1.0
    distances[zero & zero[:, None]] = 0.0
    np.fill_diagonal(distances, 0.0)
    return np.minimum(distances, 2.0)


def _of_unit_rows(X: Rows, lengths: Float64) -> Float64:
    """Half the squared distances of the rows over their lengths, zero where they are within rounding, shape (n, n)."""
    distances = X.mixed(np.diag(1.0 / lengths)).squared_distances / 2.0
    # The errors are those of the rows before they were mixed; far from the others, they are relative to the row itself.
    usual = np.minimum(np.median(X.squared_distances, axis=1) / lengths**2, 1.0)
    distances[distances <= np.maximum(_ROUNDING * np.maximum.outer(usual, usual), _PARALLEL)] = 0.0
    return distances


class _Scaled(UpdateMatrix):
    """Rows times a number each, scaled as their columns are read."""

    def __init__(self, rows: Rows, scales: Float64) -> None:
        self._rows = rows
        self._scales = scales[:, None]

    @property
    def shape(self) -> tuple[int, int]:
        return self._rows.shape

    def rows(self, start: int, stop: int) -> Float32:
        scaled = self._rows.take(np.arange(start, stop)).dense() * self._scales[start:stop]
        return scaled.astype(np.float32)

    def columns(self, start: int, stop: int) -> Float32:
        return (self._rows.columns(start, stop) * self._scales).astype(np.float32)
