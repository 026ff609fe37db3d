"""The updates of a cohort: n rows of d numbers that need not fit in memory."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from matl import validate
from matl.errors import InvalidValueError
from matl.params import Float32

__all__ = ["Allocate", "UpdateMatrix", "in_memory"]

Allocate: TypeAlias = Callable[[tuple[int, int]], Float32]
"""Makes an array of some shape (n, d): in memory, or in a file where many rows would not fit."""

_NORM_WIDTH = 4096  # columns per step, so that no n x d copy is made


def in_memory(shape: tuple[int, int]) -> Float32:
    """A new array in memory, not filled."""
    return np.empty(shape, np.float32)


class UpdateMatrix:
    """An n x d float32 matrix in memory, memory-mapped, or sharded by rows.

    Code that judges reads it by `rows` or `columns` and never assumes that all of it fits in memory; `dense` is for
    small cohorts and for tests. It is read-only by convention: nobody who is handed one writes to it.

    Parameters
    ----------
    shards : array of shape (n, d), or sequence of arrays of shape (n_k, d)
        Row blocks in order. ``numpy.memmap`` arrays stay on disk until they are read.
    allocate : callable
        Makes room for more rows of the same kind, where these lie: who judges them may need as many again.

    Attributes
    ----------
    allocate : callable
        The same.

    Examples
    --------
    >>> import numpy as np
    >>> X = UpdateMatrix([np.zeros((2, 3), np.float32), np.ones((1, 3), np.float32)])
    >>> X.shape
    (3, 3)
    >>> X.rows(1, 3)
    array([[0., 0., 0.],
           [1., 1., 1.]], dtype=float32)
    >>> [block.shape for block in X.column_blocks(2)]
    [(3, 2), (3, 1)]
    """

    def __init__(self, shards: NDArray[Any] | Sequence[NDArray[Any]], *, allocate: Allocate = in_memory) -> None:
        if isinstance(shards, np.ndarray) and shards.ndim != 2:
            raise InvalidValueError(
                f"expected X of shape (n, d), one row per client, got shape {shards.shape}; X[None] is a row"
            )
        parts = [shards] if isinstance(shards, np.ndarray) else list(shards)
        if not parts or any(part.ndim != 2 for part in parts) or len({part.shape[1] for part in parts}) != 1:
            shapes = [part.shape for part in parts]
            raise InvalidValueError(f"expected row blocks of shape (n_k, d) with one common d, got {shapes}")
        # asanyarray keeps a memmap a memmap; only another dtype or memory layout is copied, because sums over another
        # layout run in another order. What float32 cannot hold becomes inf, which screening and the rules refuse.
        with np.errstate(over="ignore"):
            self._shards: list[Float32] = [np.asanyarray(part, dtype=np.float32, order="C") for part in parts]
        self._starts = np.cumsum([0, *(len(part) for part in self._shards)])
        self.allocate = allocate

    @classmethod
    def of(cls, X: ArrayLike) -> UpdateMatrix:
        """A matrix from anything NumPy reads as one, such as a list of lists.

        Raises
        ------
        InvalidValueError
            It is not n rows of d numbers each.
        """
        try:
            with np.errstate(over="ignore"):
                return cls(np.asarray(X, dtype=np.float32))
        except InvalidValueError:
            raise
        except (ValueError, TypeError) as error:
            raise InvalidValueError(f"expected X to hold n rows of d numbers each; {error}") from error

    @property
    def shape(self) -> tuple[int, int]:
        """(n, d)."""
        return int(self._starts[-1]), int(self._shards[0].shape[1])

    def __len__(self) -> int:
        return self.shape[0]

    def rows(self, start: int, stop: int) -> Float32:
        """Rows ``start:stop``, a view where they lie in one shard."""
        return self._gather(start, stop, slice(None))

    def columns(self, start: int, stop: int) -> Float32:
        """Columns ``start:stop`` of every row, shape (n, stop - start)."""
        return self._gather(0, len(self), slice(start, stop))

    def column_blocks(self, width: int) -> Iterator[Float32]:
        """All columns from left to right, ``width`` at a time (the last block may be narrower)."""
        validate.at_least(1, width=width)
        for start in range(0, self.shape[1], width):
            yield self.columns(start, min(start + width, self.shape[1]))

    def shards(self) -> Iterator[tuple[Float32, int]]:
        """The row blocks as they lie, C-ordered and read-only, each with the index of its first row."""
        for shard, first in zip(self._shards, self._starts, strict=False):
            view = np.asarray(shard).view()
            view.flags.writeable = False
            yield view, int(first)

    def dense(self) -> Float32:
        """The whole matrix as one array; a view where it is one already."""
        return self._gather(0, len(self), slice(None))

    def norms(self) -> NDArray[np.float64]:
        """Euclidean norm of every row, shape (n,); float64, so that no finite row overflows."""
        squares = np.zeros(len(self))
        for block in self.column_blocks(_NORM_WIDTH):
            squares += np.einsum("ij,ij->i", block, block, dtype=np.float64)
        return np.sqrt(squares)

    def take(self, indices: NDArray[np.intp]) -> UpdateMatrix:
        """The rows at ``indices`` (k,), in that order; none is copied.

        Raises
        ------
        IndexError
            There is no such row.
        """
        if np.any((indices < 0) | (indices >= len(self))):
            raise IndexError(f"expected rows 0 to {len(self) - 1}, got {indices.min()} to {indices.max()}")
        if not len(indices):
            return UpdateMatrix(self._shards[0][:0], allocate=self.allocate)
        cuts = np.flatnonzero((np.diff(indices) != 1) | np.isin(indices[1:], self._starts)) + 1
        runs = [self.rows(int(run[0]), int(run[-1]) + 1) for run in np.split(indices, cuts)]
        return UpdateMatrix(runs, allocate=self.allocate)

    def scaled(self, factors: NDArray[np.float64]) -> UpdateMatrix:
        """Every row times its factor (n,); only rows whose factor is not 1 are written anew, where these rows lie.

        Examples
        --------
        >>> import numpy as np
        >>> UpdateMatrix.of([[1.0, 2.0], [3.0, 4.0]]).scaled(np.array([1.0, 0.5])).dense()
        array([[1. , 2. ],
               [1.5, 2. ]], dtype=float32)
        """
        changed = np.flatnonzero(factors != 1.0)
        if not len(changed):
            return self
        written = self.allocate((len(changed), self.shape[1]))
        for row, index in enumerate(changed.tolist()):
            np.multiply(self.rows(index, index + 1)[0], np.float32(factors[index]), out=written[row])
        order = np.arange(len(self))
        order[changed] = len(self) + np.arange(len(changed))
        return UpdateMatrix([*self._shards, written], allocate=self.allocate).take(order)

    def _gather(self, start: int, stop: int, columns: slice) -> Float32:
        parts = []
        at = max(int(np.searchsorted(self._starts, start, side="right")) - 1, 0)
        while at < len(self._shards) and self._starts[at] < stop:
            first = int(self._starts[at])
            part = self._shards[at][max(start - first, 0) : stop - first, columns]
            if len(part):
                parts.append(part)
            at += 1
        if not parts:
            return self._shards[0][:0, columns]
        return parts[0] if len(parts) == 1 else np.concatenate(parts)
