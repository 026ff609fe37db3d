"""What a rule combines: the rows of a matrix, or mixtures of them that are never written out."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import cached_property, partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from matl import validate
from matl.aggregators._gram import Float64, centred_gram, pairwise
from matl.aggregators._sorted import TILE, block_width, sorting_network
from matl.aggregators._threads import run, stripes
from matl.errors import InvalidValueError
from matl.matrix import UpdateMatrix
from matl.params import Float32

__all__ = ["Float64", "Rows"]

_MIXED = 4096  # columns of mixtures written out at a time
_BLUR = 1e-7  # of the typical squared distance; single precision does not tell less from nothing
_SAME = 1e-12  # sums of coefficients that differ by rounding alone
_WIDTH = 16384  # columns at a time: long enough to stream a row, short enough for a sum to stay in the cache


class Rows:
    """n rows of d numbers, read by blocks of columns; what is computed from all pairs of rows is computed once.

    Mixtures of rows (`mixed`) keep the matrix and a small n x n table of coefficients: distances between mixtures
    follow from distances between rows, and a weighted sum of mixtures is one of rows. The first method that reads the
    matrix refuses values that are not finite, so no pass over it is spent on looking.

    Parameters
    ----------
    X : UpdateMatrix
        The matrix, shape (rows, d).
    mixing : float64 array of shape (n, rows), optional
        Coefficients; row i of these rows is ``mixing[i] @ X``. ``None`` is the matrix itself.

    Examples
    --------
    >>> rows = Rows(UpdateMatrix.of([[0.0, 0.0], [3.0, 4.0]]))
    >>> rows.squared_distances
    array([[ 0., 25.],
           [25.,  0.]])
    >>> rows.mixed(np.array([[0.5, 0.5], [0.0, 1.0]])).squared_distances
    array([[0.  , 6.25],
           [6.25, 0.  ]])
    """

    def __init__(self, X: UpdateMatrix, mixing: Float64 | None = None) -> None:
        self._X = X
        self._mixing = mixing
        self._basis_gram: Float64 | None = None

    def __len__(self) -> int:
        return len(self._X) if self._mixing is None else len(self._mixing)

    @property
    def shape(self) -> tuple[int, int]:
        """(n, d)."""
        return len(self), self._X.shape[1]

    def mixed(self, mixing: Float64) -> Rows:
        """Mixtures of these rows: row i is ``mixing[i]`` times them, for ``mixing`` of shape (m, n)."""
        result = Rows(self._X, mixing if self._mixing is None else mixing @ self._mixing)
        result._basis_gram = self._basis_gram
        return result

    def take(self, indices: NDArray[np.intp]) -> Rows:
        """The rows at ``indices`` (k,), k >= 1, in that order; no row is copied and no pair compared again.

        Examples
        --------
        >>> rows = Rows(UpdateMatrix.of([[0.0, 0.0], [9.0, 9.0], [3.0, 4.0]]))
        >>> rows.take(np.array([0, 2])).dense()
        array([[0., 0.],
               [3., 4.]], dtype=float32)
        """
        if self._mixing is not None:
            result = Rows(self._X, self._mixing[indices])
            result._basis_gram = self._basis_gram
            return result
        result = Rows(self._X.take(indices))
        if self._basis_gram is not None:
            kept = np.append(indices, len(self._X))
            result._basis_gram = self._basis_gram[np.ix_(kept, kept)]
        return result

    @cached_property
    def squared_distances(self) -> Float64:
        """Squared Euclidean distance of every pair of rows (n, n), zero on the diagonal.

        About 1e-6 accurate, relative to what is typical of the crowd. Mixtures whose coefficients do not sum to the
        same, as after clipping, feel the mean that all rows share: relative to its square they are as accurate.
        """
        inner, to_centre, length, sums = self._centred
        distances = pairwise(inner)
        apart = np.subtract.outer(sums, sums)
        if length and (np.abs(apart) > _SAME).any():
            distances += 2.0 * np.subtract.outer(to_centre, to_centre) * apart + length * apart**2
            np.maximum(distances, 0.0, out=distances)
        return distances

    @cached_property
    def inner_products(self) -> Float64:
        """Inner product of every pair of rows, shape (n, n)."""
        inner, to_centre, length, sums = self._centred
        if not length:  # the centre is zero
            return np.array(inner)
        across = np.outer(to_centre, sums)
        return np.asarray(inner + across + across.T + length * np.outer(sums, sums))

    def norms(self) -> Float64:
        """Euclidean norm of every row, shape (n,)."""
        if self._diagonal is not None:
            return np.abs(np.diag(np.asarray(self._mixing))) * np.sqrt(self._squares())
        if self._mixing is not None:
            return np.sqrt(np.maximum(np.diag(self.inner_products), 0.0))
        return np.sqrt(self._squares())

    def squared_distances_to(self, weights: Float64) -> Float64:
        """Squared distance of every row to the sum of rows times ``weights``, shape (n,).

        Two passes over the matrix, or none where all pairs were compared already.
        """
        if self._basis_gram is None and self._mixing is None:
            return self._squares(self.combine(weights) if weights.any() else None)
        point = weights @ self._coefficients
        gaps = self._coefficients - point
        squares = np.einsum("ij,ij->i", gaps @ self._basis, gaps)
        # What is smaller is rounding, and who divides by it would take it for certainty.
        return np.asarray(np.maximum(squares, _BLUR * np.median(squares)))

    def squared_distances_to_point(self, point: Float32) -> Float64:
        """Squared distance of every row to a vector (d,), shape (n,). Mixtures are written out, block by block."""
        if self._mixing is None:
            return self._squares(point)
        total, start = np.zeros(len(self)), 0
        for block in self.blocks(_MIXED):
            gaps = block.astype(np.float64) - point[start : start + block.shape[1]]
            total += np.einsum("ij,ij->i", gaps, gaps)
            start += block.shape[1]
        return total

    def products(self, vector: Float32) -> Float64:
        """Inner product of every row with a vector of shape (d,), shape (n,)."""
        products = self._finite(self._reduced("add_products", vector))
        return products if self._mixing is None else np.asarray(self._mixing @ products)

    def combine(self, weights: Float64) -> Float32:
        """Sum of rows times weights, shape (d,), summed in float64; rows of weight 0 are not read.

        Raises
        ------
        InvalidValueError
            A row that counts is not finite, or the sum is beyond float32.
        """
        wanted = weights if self._mixing is None else weights @ self._mixing
        counting = np.flatnonzero(wanted)
        if len(counting) == 1 and wanted[counting[0]] == 1.0:
            row = int(counting[0])
            out = np.array(self._X.rows(row, row + 1)[0])
        else:
            out = self._summed(counting, wanted)
        if not np.isfinite(out).all():
            self._refuse()
            raise InvalidValueError(
                "expected updates whose weighted sum fits float32, got a sum beyond 3.4e38; screen such updates"
            )
        return out

    def _summed(self, counting: NDArray[np.intp], weights: Float64) -> Float32:
        from matl.aggregators import _kernels

        out = np.empty(self._X.shape[1], np.float32)

        def task(start: int, stop: int) -> None:
            for left in range(start, stop, _WIDTH):
                right = min(left + _WIDTH, stop)
                total = np.zeros(right - left)
                for shard, first in self._X.shards():
                    rows = counting[(counting >= first) & (counting < first + len(shard))]
                    _kernels.add_rows(shard, rows - first, weights[rows], left, right, total)
                with np.errstate(over="ignore"):
                    out[left:right] = total

        run([partial(task, *stripe) for stripe in stripes(len(out))], len(counting) * len(out))
        return out

    def blocks(self, width: int) -> Iterator[Float32]:
        """All columns from left to right, ``width`` at a time, shape (n, at most width)."""
        for start in range(0, self._X.shape[1], width):
            yield self.columns(start, min(start + width, self._X.shape[1]))

    def columns(self, start: int, stop: int) -> Float32:
        """Columns ``start:stop`` of every row."""
        block = self._X.columns(start, stop)
        if self._basis_gram is None:
            validate.finite_matrix(X=block)
        if self._mixing is None:
            return block
        if self._diagonal is not None:
            return block * self._diagonal[:, None]
        with np.errstate(over="ignore", invalid="ignore"):  # what is too large is refused where it is used
            return self._single @ block

    def dense(self) -> Float32:
        """All rows as one array (n, d)."""
        out = np.empty(self.shape, np.float32)

        def task(start: int, stop: int) -> None:
            for left in range(start, stop, _MIXED):
                right = min(left + _MIXED, stop)
                out[:, left:right] = self.columns(left, right)

        run([partial(task, *stripe) for stripe in stripes(out.shape[1])], out.size)
        return out

    def by_sorted_columns(self, reduce: Callable[[Float32, Float64, Float32], None]) -> Float32:
        """Reduce every column, given its values in ascending order, shape (d,).

        Parameters
        ----------
        reduce : callable
            Called with sorted columns (n, at least width), a float64 scratch of as many numbers, and an array (width,)
            to write the results to; from several threads.
        """
        n, d = self.shape
        out = np.empty(d, np.float32)
        network = sorting_network(n)

        def task(start: int, stop: int) -> None:
            width = block_width(n)
            keys, scratch = _aligned(n, width), np.empty(width)
            for left in range(start, stop, width):
                right = min(left + width, stop)
                self._sorted_block(left, right, keys, network)
                reduce(keys.view(np.float32), scratch, out[left:right])

        run([partial(task, *stripe) for stripe in stripes(d)], n * d)
        return out

    def _sorted_block(self, left: int, right: int, keys: NDArray[np.int32], network: NDArray[np.int32]) -> None:
        from matl.aggregators import _kernels

        n, width = len(self), right - left
        if self._mixing is None:
            for shard, first in self._X.shards():
                _kernels.load_keys(shard.view(np.int32), left, right, keys[first : first + len(shard)])
        else:
            _kernels.load_keys(_readonly(self.columns(left, right)).view(np.int32), 0, width, keys)
        _kernels.sort_columns(keys, -(-width // TILE) * TILE, TILE, network)
        _kernels.restore_floats(keys, 0, n, width)
        # Sorted, so what is not finite stands first or last.
        if not np.isfinite(keys[[0, -1], :width].view(np.float32)).all():
            self._refuse()

    def _reduced(self, kernel: str, *vectors: Float32) -> Float64:
        """A sum over the columns of every row, by canonical blocks."""
        from matl.aggregators import _kernels

        add: Any = getattr(_kernels, kernel)
        vectors = tuple(_readonly(vector) for vector in vectors)

        def task(start: int, stop: int) -> Float64:
            total = np.zeros(len(self._X))
            for left in range(start, stop, _WIDTH):
                for shard, first in self._X.shards():
                    add(shard, *vectors, left, min(left + _WIDTH, stop), total[first : first + len(shard)])
            return total

        n, d = self._X.shape
        return np.asarray(sum(run([partial(task, *stripe) for stripe in stripes(d)], n * d)))

    @cached_property
    def _single(self) -> Float32:
        return np.asarray(self._mixing, np.float32)

    @cached_property
    def _diagonal(self) -> Float32 | None:
        """The diagonal of coefficients that only scale the rows, as clipping does: no product of matrices is needed."""
        if self._mixing is None:
            return None
        rows, columns = np.nonzero(self._single)
        scales = self._single.shape[0] == self._single.shape[1] and np.array_equal(rows, columns)
        return np.diag(self._single) if scales else None

    @property
    def _basis(self) -> Float64:
        if self._basis_gram is None:
            self._basis_gram = centred_gram(self._X)
        return self._basis_gram

    @cached_property
    def _centred(self) -> tuple[Float64, Float64, float, Float64]:
        """Inner products of the rows, each less its sum of coefficients times the centre, and with the centre.

        Then the centre's squared length, and the sums of coefficients.
        """
        inner, to_centre, length = self._basis[:-1, :-1], self._basis[:-1, -1], float(self._basis[-1, -1])
        if self._mixing is None:
            return inner, to_centre, length, np.ones(len(self))
        sums = self._mixing.sum(axis=1)
        return self._mixing @ inner @ self._mixing.T, self._mixing @ to_centre, length, sums

    @property
    def _coefficients(self) -> Float64:
        """Every row as a combination of the centred rows and the centre, shape (n, rows + 1)."""
        mixing = np.eye(len(self._X)) if self._mixing is None else self._mixing
        return np.concatenate([mixing, mixing.sum(axis=1, keepdims=True)], axis=1)

    def _squares(self, point: Float32 | None = None) -> Float64:
        """Squared distance of every row of the matrix to a point, or to zero."""
        if point is None or not point.any():
            return self._finite(self._reduced("add_squares"))
        return self._finite(self._reduced("add_squared_gaps", point))

    def _finite(self, sums: Float64) -> Float64:
        if not np.isfinite(sums).all():
            self._refuse()
        return sums

    def _refuse(self) -> None:
        """Name the rows that are not finite, if any are."""
        for block in self._X.column_blocks(_WIDTH):
            validate.finite_matrix(X=block)


def _aligned(n: int, width: int) -> NDArray[np.int32]:
    """An empty buffer (n, width) that starts on a cache line: vectors that straddle two cost twice as much."""
    line = 64
    memory = np.zeros(4 * n * width + line, np.uint8)
    start = -memory.ctypes.data % line
    return memory[start : start + 4 * n * width].view(np.int32).reshape(n, width)


def _readonly(vector: Float32) -> Float32:
    """A view that cannot be written, so that kernels are compiled once for both kinds."""
    view = np.ascontiguousarray(vector, np.float32).view()
    view.flags.writeable = False
    return view
