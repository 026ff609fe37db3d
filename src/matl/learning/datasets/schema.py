"""What the columns of a table are and may hold, declared in advance: names, kinds, bounds and domains."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, TypeAlias, get_args

import numpy as np
from numpy.typing import NDArray

from matl.errors import ConfigError, CorruptDataError, InvalidValueError, nearest
from matl.files import write_atomic
from matl.learning.datasets.record import Dataset

__all__ = ["Column", "Kind", "Schema", "Table", "numbers"]

Kind: TypeAlias = Literal["numeric", "categorical", "label", "identifier"]
OutOfBounds: TypeAlias = Literal["error", "clip"]
Value: TypeAlias = str | int | float

_LARGEST = 1e300
"""A bound beyond this cannot be subtracted from another in float64."""


@dataclass(frozen=True, slots=True)
class Table:
    """The cells of a file by column, text or numbers, and what to call the file in messages."""

    name: str
    columns: Mapping[str, Sequence[Any]]

    def __len__(self) -> int:
        return len(next(iter(self.columns.values())))

    def wrong(self, row: int, column: str, what: str) -> CorruptDataError:
        """An error that says where; rows count from 1, without the header."""
        return CorruptDataError(f"{self.name}, row {row + 1}, column {column!r}: {what}")


@dataclass(frozen=True, slots=True)
class Column:
    """One column of a table.

    Parameters
    ----------
    name : str
        Its heading.
    kind : {"numeric", "categorical", "label", "identifier"}
        A numeric column is scaled to [0, 1] by its bounds, a categorical one becomes one feature per value of its
        domain, the label is what is learned, and an identifier is left out.
    lower, upper : float or None
        Public bounds of a numeric column.
    domain : tuple of str or numbers
        All values a categorical column or the label may have, in the order of the features or classes.
    """

    name: str
    kind: Kind
    lower: float | None = None
    upper: float | None = None
    domain: tuple[Value, ...] = ()

    def __post_init__(self) -> None:
        if problem := self._problem():
            raise InvalidValueError(f"column {self.name!r}: {problem}")

    def _problem(self) -> str | None:
        if self.kind not in get_args(Kind):
            return (
                f"expected kind {', '.join(get_args(Kind))}, got {self.kind!r}{nearest(str(self.kind), get_args(Kind))}"
            )
        if self.kind == "numeric":
            bounds = (self.lower, self.upper)
            if not all(isinstance(bound, int | float) and abs(bound) <= _LARGEST for bound in bounds):
                return f"a numeric column needs finite bounds lower and upper, got {self.lower!r} and {self.upper!r}"
            if not self.lower < self.upper:  # type: ignore[operator]  # both are numbers by now
                return f"expected lower < upper, got {self.lower!r} and {self.upper!r}"
        elif self.kind != "identifier":
            keys = [self.key(value) for value in self.domain]
            if len(keys) < (2 if self.kind == "label" else 1) or len(set(keys)) < len(keys):
                return f"a {self.kind} column needs a domain of distinct values, got {list(self.domain)}"
        return None

    @property
    def width(self) -> int:
        """How many features it becomes."""
        return {"numeric": 1, "categorical": len(self.domain)}.get(self.kind, 0)

    def key(self, value: Any) -> Any:
        """What a cell is compared by: its number where the whole domain is numbers (1 is 1.0), else its text."""
        if all(isinstance(one, int | float) and not isinstance(one, bool) for one in self.domain):
            try:
                return float(value)
            except (TypeError, ValueError, OverflowError):
                return value
        return str(value).strip()

    def positions(self, table: Table) -> NDArray[np.int64]:
        """Where in the domain each cell of the column stands, shape (rows,)."""
        places = {self.key(value): place for place, value in enumerate(self.domain)}
        cells = table.columns[self.name]
        found = [places.get(self.key(cell), -1) for cell in cells]
        if -1 in found:
            row = found.index(-1)
            raise table.wrong(
                row,
                self.name,
                f"{_shown(cells[row])} is not in its domain {shortened(self.domain)}"
                f"{nearest(str(cells[row]), map(str, self.domain))}",
            )
        return np.array(found, np.int64)

    def scaled(self, table: Table, on_out_of_bounds: OutOfBounds) -> NDArray[np.float64]:
        """A numeric column on a scale where its bounds are 0 and 1, shape (rows,)."""
        lower, upper = float(self.lower or 0.0), float(self.upper or 0.0)
        values = numbers(table, self.name)
        outside = (values < lower) | (values > upper)
        if outside.any() and on_out_of_bounds == "error":
            row = int(outside.argmax())
            seen = f"{values[row]:.12g} is outside its bounds {lower:.12g} to {upper:.12g}"
            advice = 'correct it, widen the bounds, or say "on_out_of_bounds": "clip" in the schema'
            raise table.wrong(row, self.name, f"{seen} ({outside.sum()} such cell(s) in this column); {advice}")
        return (np.clip(values, lower, upper) - lower) / (upper - lower)


@dataclass(frozen=True, slots=True)
class Schema:
    """What a table holds, known before anyone looks at the data, so that reading it gives nothing away.

    Parameters
    ----------
    columns : tuple of Column
        All columns; exactly one is the label.
    on_out_of_bounds : {"error", "clip"}
        What to do with a number outside its bounds.

    Examples
    --------
    >>> schema = Schema(
    ...     (
    ...         Column("age", "numeric", 0, 100),
    ...         Column("sex", "categorical", domain=("f", "m")),
    ...         Column("ill", "label", domain=(0, 1)),
    ...     )
    ... )
    >>> schema.encode(Table("two.csv", {"age": ["25", "50"], "sex": ["m", "f"], "ill": ["0", "1"]})).X
    array([[0.25, 0.  , 1.  ],
           [0.5 , 1.  , 0.  ]], dtype=float32)
    """

    columns: tuple[Column, ...]
    on_out_of_bounds: OutOfBounds = "error"

    def __post_init__(self) -> None:
        names = [column.name for column in self.columns]
        labels = [column.name for column in self.columns if column.kind == "label"]
        if len(set(names)) < len(names):
            raise InvalidValueError(f"expected each column once, got {names}")
        if len(labels) != 1:
            raise InvalidValueError(f"expected exactly one column of kind label, got {labels}")
        if not any(column.width for column in self.columns):
            raise InvalidValueError("expected at least one numeric or categorical column, got none")
        if self.on_out_of_bounds not in get_args(OutOfBounds):
            raise InvalidValueError(f'expected on_out_of_bounds "error" or "clip", got {self.on_out_of_bounds!r}')

    @property
    def label(self) -> Column:
        """The column that is learned."""
        return next(column for column in self.columns if column.kind == "label")

    @classmethod
    def read(cls, path: Path) -> Schema:
        """A schema from its JSON file.

        Raises
        ------
        ConfigError
            The file cannot be read or is no schema; all its problems are listed.
        """
        try:
            content = json.loads(path.read_text("utf-8"))
        except (OSError, ValueError, RecursionError) as error:
            raise ConfigError(str(path), [f"cannot be read: {error}; name an existing JSON file"]) from error
        entries = content.get("columns") if isinstance(content, dict) else None
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise ConfigError(str(path), ['expected an object with "columns": [{"name": ..., "kind": ...}, ...]'])
        columns, problems = [], []
        for number, entry in enumerate(entries, 1):
            try:
                columns.append(_column(number, entry))
            except InvalidValueError as error:
                problems.append(str(error))
        if not problems:
            try:
                return cls(tuple(columns), content.get("on_out_of_bounds", "error"))
            except InvalidValueError as error:
                problems.append(str(error))
        raise ConfigError(str(path), problems)

    def write(self, path: Path) -> None:
        """Write the JSON file that `read` reads."""
        entries = []
        for column in self.columns:
            entry: dict[str, Any] = {"name": column.name, "kind": column.kind}
            if column.kind == "numeric":
                entry |= {"lower": column.lower, "upper": column.upper}
            elif column.kind != "identifier":
                entry["domain"] = list(column.domain)
            entries.append(entry)
        content = {"on_out_of_bounds": self.on_out_of_bounds, "columns": entries}
        write_atomic(path, json.dumps(content, indent=2, ensure_ascii=False) + "\n")

    def encode(self, table: Table, *, group: str | None = None) -> Dataset:
        """The table as samples: numbers scaled, categories one feature per value, both in the order of the schema.

        Parameters
        ----------
        table : Table
            The cells.
        group : str, optional
            The column that says where a row comes from; it is no feature then, and need not be in the schema.

        Raises
        ------
        CorruptDataError
            A column is missing or unknown, or a cell is not what the schema says; the message names row and column.
        """
        self._check_columns(table, group)
        features = [column for column in self.columns if column.width and column.name != group]
        X = np.zeros((len(table), sum(column.width for column in features)), np.float32)
        start = 0
        for column in features:
            if column.kind == "numeric":
                X[:, start] = column.scaled(table, self.on_out_of_bounds)
            else:
                X[np.arange(len(table)), start + column.positions(table)] = 1
            start += column.width
        return Dataset(
            table.name,
            X,
            self.label.positions(table),
            len(self.label.domain),
            groups=None if group is None else _groups(table, group),
            class_names=tuple(str(value) for value in self.label.domain),
        )

    def _check_columns(self, table: Table, group: str | None) -> None:
        expected = [column.name for column in self.columns]
        if group is not None and group not in table.columns:
            raise CorruptDataError(f"{table.name} has no column {group!r} to group by{nearest(group, table.columns)}")
        missing = [name for name in expected if name not in table.columns]
        unknown = [name for name in table.columns if name not in expected and name != group]
        if missing or unknown:
            problems = [f"no column {name!r}{nearest(name, unknown)}" for name in missing]
            problems += [f"column {name!r}, which the schema does not know" for name in unknown]
            raise CorruptDataError(
                f"{table.name} does not fit its schema: it has {'; '.join(problems)}; correct the file or the schema"
            )


def numbers(table: Table, column: str) -> NDArray[np.float64]:
    """The cells of a column as finite numbers, shape (rows,).

    Raises
    ------
    CorruptDataError
        A cell is missing or is no finite number.
    """
    cells = table.columns[column]
    try:
        values = np.array(cells, np.float64)
    except (TypeError, ValueError):
        values = np.array([_number(cell) for cell in cells])
    bad = ~np.isfinite(values)
    if bad.any():
        row = int(bad.argmax())
        raise table.wrong(row, column, f"expected a number, got {_shown(cells[row])}; fill in or leave out such rows")
    return values


def shortened(values: Sequence[Any], limit: int = 8) -> str:
    """A list for a message, cut where it grows long."""
    shown = ", ".join(repr(value) for value in values[:limit])
    return f"[{shown}{', ...' if len(values) > limit else ''}]"


def _number(cell: Any) -> float:
    try:
        return float(cell)
    except (TypeError, ValueError):
        return math.nan


def _shown(cell: Any) -> str:
    return "a missing value" if cell is None or (isinstance(cell, str) and not cell.strip()) else repr(cell)


def _groups(table: Table, column: str) -> NDArray[np.int64]:
    names = [str(cell).strip() if cell is not None else "" for cell in table.columns[column]]
    if "" in names:
        raise table.wrong(names.index(""), column, "a missing value, where every row has to belong to a group")
    return np.unique(names, return_inverse=True)[1].astype(np.int64)


def _column(number: int, entry: Mapping[str, Any]) -> Column:
    name, domain = entry.get("name"), entry.get("domain", [])
    if not isinstance(name, str) or not name:
        raise InvalidValueError(f"column {number}: expected a name, got {name!r}")
    if not isinstance(domain, list) or not all(isinstance(value, str | int | float) for value in domain):
        raise InvalidValueError(f"column {name!r}: expected a domain as a list of text or numbers, got {domain!r}")
    return Column(name, entry.get("kind", ""), entry.get("lower"), entry.get("upper"), tuple(domain))
