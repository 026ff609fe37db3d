"""Inner products of all pairs of rows, at the speed of single precision and safe against offsets and huge rows."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from matl import validate
from matl.aggregators._threads import run, stripes
from matl.matrix import UpdateMatrix
from matl.params import Float32

__all__ = ["Float64", "centred_gram", "pairwise"]

Float64 = NDArray[np.float64]

_WIDTH = 16384  # columns per product: float32 inside, float64 between them
_COPIED = 4096  # the same where rows have to be centred, that is copied
_LANES = 16  # sums kept apart so that threads can work on them; fewer for many rows, whose sums are large
_LANE_CELLS = 2**22  # cells of all lanes' sums together, 32 MiB
_SAMPLE_BLOCKS, _SAMPLE_WIDTH = 8, 128  # columns that tell beforehand whether to centre
_SAMPLE_ROWS = 128
_FAR = 16.0  # squared distance of the centre from the crowd, in typical squared distances; keeps errors below 1e-5
_TRIES = 6  # a centre far out blurs where the crowd is, but less each time
_CHEAP = 2**26  # n^2 d up to which doing the work twice costs less than looking at a sample first
_FAINT = 1e-30  # typical squared distance per coordinate below which squares leave the range of single precision


def centred_gram(X: UpdateMatrix) -> Float64:
    """Inner products of the rows and their centre, shape (n + 1, n + 1).

    The last row and column belong to a centre c, which is zero or a row of ``X``; the others to x_i - c. So x_i is
    row i plus the last row, and distances need the first n alone.

    |a|^2 + |b|^2 - 2 a.b cancels where the rows share a large mean: single precision then swaps neighbours. Centring
    on the mean would not help, because one huge row drags the mean away. So the centre is the row whose typical
    distance to the others is least, which a minority cannot pull away, wherever the rows are so far from zero that it
    matters. A sample of columns chooses it, and since whoever knows the sample could deceive it, the finished product
    decides whether the centre was a good one; if not, the work is done again around a better one. Rows too large or
    too small to be squared in single precision are left to double precision.

    Raises
    ------
    InvalidValueError
        An entry of ``X`` is not finite.
    """
    n, d = X.shape
    centre = _guessed_centre(X) if n * n * d > _CHEAP else None
    dtype: type[np.float32] | type[np.float64] = np.float32
    for _ in range(_TRIES):
        gram = _gram(X, centre, dtype)
        if not np.isfinite(gram).all():
            for block in X.column_blocks(_WIDTH):
                validate.finite_matrix(X=block)
            dtype = np.float64
            continue
        crowd = _crowd(gram)
        if crowd.better_centre is not None:
            centre = crowd.better_centre
        elif crowd.spread < _FAINT * d and dtype is np.float32:
            dtype = np.float64
        else:
            break
    return gram


def pairwise(gram: Float64) -> Float64:
    """Squared distance of every pair from their inner products (m, m); exactly zero on the diagonal."""
    squares = np.diag(gram)
    distances = squares[:, None] + squares[None, :]
    distances -= 2.0 * gram
    np.maximum(distances, 0.0, out=distances)
    np.fill_diagonal(distances, 0.0)
    return distances


@dataclass(frozen=True, slots=True)
class _Crowd:
    """Where most rows are: the row in their middle, its typical squared distance to others and that to the centre."""

    middle: int
    spread: float
    off_centre: float

    @property
    def better_centre(self) -> int | None:
        """The row in the middle where the present centre lies far from it; ``None`` where that will do."""
        return self.middle if self.off_centre > _FAR * self.spread else None


def _crowd(gram: Float64) -> _Crowd:
    inner = gram[:-1, :-1]
    half = len(inner) // 2
    typical = np.partition(pairwise(inner), half, axis=1)[:, half]
    middle = int(np.argmin(typical))
    return _Crowd(middle, float(typical[middle]), float(inner[middle, middle]))


def _guessed_centre(X: UpdateMatrix) -> int | None:
    """What a sample of rows and columns says about the centre."""
    n, d = X.shape
    step = -(-n // _SAMPLE_ROWS)
    starts = np.linspace(0, max(d - _SAMPLE_WIDTH, 0), _SAMPLE_BLOCKS).astype(int).tolist()
    blocks = [X.columns(start, min(start + _SAMPLE_WIDTH, d))[::step] for start in starts]
    sample = np.concatenate(blocks, axis=1).astype(np.float64)
    gram = np.zeros((len(sample) + 1, len(sample) + 1))
    with np.errstate(over="ignore", invalid="ignore"):
        gram[:-1, :-1] = sample @ sample.T
    if not np.isfinite(gram).all():
        return None
    better = _crowd(gram).better_centre
    return None if better is None else better * step


def _gram(X: UpdateMatrix, centre: int | None, dtype: type[np.float32] | type[np.float64]) -> Float64:
    n, d = X.shape
    lanes = stripes(d, max(2, min(_LANES, _LANE_CELLS // (n + 1) ** 2)))
    middle = None if centre is None else X.rows(centre, centre + 1)[0]
    total = np.zeros((n + 1, n + 1))
    for part in run([partial(_lane, X, middle, dtype, *lane) for lane in lanes], n * d):
        total += part
    return total


def _lane(
    X: UpdateMatrix, centre: Float32 | None, dtype: type[np.float32] | type[np.float64], start: int, stop: int
) -> Float64:
    n = len(X)
    total = np.zeros((n + 1, n + 1))
    width = _WIDTH if centre is None and dtype is np.float32 else _COPIED
    with np.errstate(over="ignore", invalid="ignore"):
        for left in range(start, stop, width):
            right = min(left + width, stop)
            block = X.columns(left, right)
            rows: NDArray[Any]
            if centre is None:
                rows = block.astype(dtype, copy=False)
                total[:n, :n] += rows @ rows.T
                continue
            rows = np.empty((n + 1, right - left), dtype)
            np.subtract(block, centre[left:right], out=rows[:n], dtype=dtype)
            rows[n] = centre[left:right]
            total += rows @ rows.T
    return total
