"""What is remembered of each client: a table with a row per client, as plain data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import Field, dataclass, field, fields, replace
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from matl.errors import StateError
from matl.state import State

__all__ = ["ClientTable", "column"]


def column(fill: float | str) -> Any:
    """A field of a `ClientTable`: an array with a row per client, or a tuple of str; ``fill`` is what newcomers get."""
    return field(metadata={"fill": fill})


@dataclass(frozen=True)
class ClientTable:
    """Rows keyed by client id. Subclasses add columns; nothing is changed in place.

    Parameters
    ----------
    ids : tuple of str
        Clients in sorted order; row i of every column is about ``ids[i]``.

    Examples
    --------
    >>> @dataclass(frozen=True)
    ... class Scores(ClientTable):
    ...     score: NDArray[np.float64] = column(0.5)
    >>> Scores(("b",), np.array([0.9])).opened(["a", "b"]).as_state()
    {'ids': ['a', 'b'], 'score': array([0.5, 0.9])}
    """

    ids: tuple[str, ...]

    def as_state(self) -> State:
        """The table as plain data."""
        values = {item.name: getattr(self, item.name) for item in fields(self)}
        return {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()}

    @classmethod
    def of_state(cls, state: State) -> Self:
        """What `as_state` gave.

        Raises
        ------
        StateError
            Something is missing.
        """
        try:
            values = {item.name: state[item.name] for item in fields(cls)}
        except KeyError as error:
            raise StateError(f"the state of the judge lacks {error}; it was not written by this mode") from error
        return cls(**{name: tuple(value) if isinstance(value, list) else value for name, value in values.items()})

    def rows(self, ids: Sequence[str]) -> NDArray[np.intp]:
        """Row of each client; every one must be in the table."""
        where = {name: row for row, name in enumerate(self.ids)}
        return np.array([where[name] for name in ids], dtype=np.intp)

    def opened(self, ids: Sequence[str]) -> Self:
        """The table with a row for everyone in ``ids``."""
        known = set(self.ids)
        new = [name for name in ids if name not in known]
        everyone = [*self.ids, *new]
        order = np.array(sorted(range(len(everyone)), key=everyone.__getitem__), dtype=np.intp)
        grown = {item.name: _grown(getattr(self, item.name), len(new), item)[order] for item in self._columns()}
        return self._with(np.array(everyone, dtype=object)[order], grown)

    def kept(self, mask: NDArray[np.bool_]) -> Self:
        """The table with only the rows where ``mask``, of shape (N,), is true."""
        columns = {item.name: _as_array(getattr(self, item.name))[mask] for item in self._columns()}
        return self._with(np.array(self.ids, dtype=object)[mask], columns)

    @classmethod
    def _columns(cls) -> list[Field[Any]]:
        return [item for item in fields(cls) if "fill" in item.metadata]

    def _with(self, ids: NDArray[Any], columns: dict[str, NDArray[Any]]) -> Self:
        values = {name: tuple(value) if value.dtype == object else value for name, value in columns.items()}
        return replace(self, ids=tuple(ids), **values)


def _as_array(values: NDArray[Any] | tuple[str, ...]) -> NDArray[Any]:
    return np.array(values, dtype=object) if isinstance(values, tuple) else values


def _grown(values: NDArray[Any] | tuple[str, ...], count: int, item: Field[Any]) -> NDArray[Any]:
    array = _as_array(values)
    return np.concatenate([array, np.full((count, *array.shape[1:]), item.metadata["fill"], array.dtype)])
