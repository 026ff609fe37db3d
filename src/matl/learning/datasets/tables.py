"""Tables from CSV and Parquet files, with a schema or with one that is read off the data."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from matl.errors import CorruptDataError, InvalidValueError, MissingExtraError, nearest
from matl.learning.datasets import files
from matl.learning.datasets.record import DATASETS, Dataset, Source
from matl.learning.datasets.schema import Column, Schema, Table, numbers, shortened
from matl.params import Float32

__all__ = ["csv_file", "infer_schema", "parquet_file", "read_csv", "read_parquet", "read_rows", "standardised"]

_MAX_VALUES = 100
"""Distinct values up to which a column of text is taken for categories, and a label for classes."""


def read_csv(
    path: str | Path,
    *,
    label: str | None = None,
    schema: str | Path | Schema | None = None,
    group: str | None = None,
    drop: Sequence[str] = (),
    delimiter: str = ",",
) -> Dataset:
    r"""Read a CSV file whose first line names the columns.

    Parameters
    ----------
    path : str or Path
        The file, UTF-8, plain or ``.gz``.
    label : str, optional
        The column to learn. Needed without a schema, which names it otherwise.
    schema : str, Path or Schema, optional
        What the columns are; see `Schema`. Without one it is read off the data: columns of numbers are standardised,
        columns of text become one feature per value. That **looks at the data** of all clients, which no real
        federation could; where that matters, write a schema.
    group : str, optional
        The column that says where a row comes from (a hospital, a user); the partition ``natural`` goes by it.
    drop : sequence of str
        Columns to leave out.
    delimiter : str
        What separates cells.

    Raises
    ------
    DataNotFoundError
        There is no such file.
    CorruptDataError
        It is no such table, or a cell is missing or not what it should be; the message names row and column.
    ConfigError
        The schema file is wrong.

    Examples
    --------
    >>> import tempfile
    >>> path = Path(tempfile.mkdtemp()) / "mine.csv"
    >>> _ = path.write_text("age,sex,ill\n20,f,no\n30,m,yes\n40,f,no\n")
    >>> data = read_csv(path, label="ill")
    >>> data.X.round(2)
    array([[-1.22,  1.  ,  0.  ],
           [ 0.  ,  0.  ,  1.  ],
           [ 1.22,  1.  ,  0.  ]], dtype=float32)
    >>> data.y.tolist(), data.class_names
    ([0, 1, 0], ('no', 'yes'))
    """
    path = Path(path)
    try:
        text = files.read(path).decode("utf-8-sig")
        rows = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True))
    except UnicodeDecodeError as error:
        raise CorruptDataError(f"{path} is not UTF-8 text: {error}; save it as UTF-8") from error
    except TypeError as error:
        raise InvalidValueError(f"expected a delimiter of one character, got {delimiter!r}") from error
    except csv.Error as error:
        raise CorruptDataError(f"{path} is not a CSV file: {error}") from error
    if not rows:
        raise CorruptDataError(f"{path} is empty; expected a first line that names the columns")
    header = [name.strip() for name in rows[0]]
    return _dataset(read_rows(path.name, header, rows[1:]), label, schema, group, drop)


def read_parquet(
    path: str | Path,
    *,
    label: str | None = None,
    schema: str | Path | Schema | None = None,
    group: str | None = None,
    drop: Sequence[str] = (),
) -> Dataset:
    """Read a Parquet file of plain columns; everything else is as in `read_csv`."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise MissingExtraError("pyarrow", extra="data") from error
    path = Path(path)
    try:
        content = pq.read_table(pa.BufferReader(files.read(path)))
    except (pa.ArrowException, OSError) as error:
        raise CorruptDataError(f"{path} is not a Parquet file: {error}") from error
    names = content.column_names
    _check_header(path.name, names)
    nested = [field.name for field in content.schema if pa.types.is_nested(field.type) and field.name not in drop]
    if nested:
        raise CorruptDataError(
            f"{path}: column {nested[0]!r} holds more than one value in a row; leave it out with drop"
        )
    columns = {}
    for name in names:
        try:
            columns[name] = [] if name in drop else content[name].to_pylist()
        except (ValueError, OverflowError) as error:  # text that is no UTF-8, or times that Python has no type for
            raise CorruptDataError(
                f"{path}: column {name!r} of type {content[name].type} cannot be read: {error}; leave it out with drop"
            ) from error
    return _dataset(Table(path.name, columns), label, schema, group, drop)


@DATASETS.register("csv")
def csv_file(
    path: Path,
    schema: Path | None = None,
    label: str | None = None,
    group: str | None = None,
    drop: tuple[str, ...] = (),
    delimiter: str = ",",
) -> Source:
    """Any CSV file with a header, described by a schema file, or by the name of its label column alone."""
    return Source(read_csv(path, label=label, schema=schema, group=group, drop=drop, delimiter=delimiter))


@DATASETS.register("parquet")
def parquet_file(
    path: Path,
    schema: Path | None = None,
    label: str | None = None,
    group: str | None = None,
    drop: tuple[str, ...] = (),
) -> Source:
    """Any Parquet file of plain columns, described by a schema file, or by the name of its label column alone."""
    return Source(read_parquet(path, label=label, schema=schema, group=group, drop=drop))


def read_rows(name: str, header: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """Rows of text as a table; blank lines are left out.

    Raises
    ------
    CorruptDataError
        Columns have no names of their own, or a row has more or fewer cells than there are columns.
    """
    _check_header(name, header)
    filled = [row for row in rows if row]
    for number, row in enumerate(filled, 1):
        if len(row) != len(header):
            raise CorruptDataError(
                f"{name}, row {number}: expected {len(header)} cells, one for each column, got {len(row)}: "
                f"{shortened(row, 4)}"
            )
    return Table(name, {heading: [row[i] for row in filled] for i, heading in enumerate(header)})


def infer_schema(table: Table, label: str) -> Schema:
    """A schema read off the data: bounds and domains are those that occur. A start for writing one of your own.

    Raises
    ------
    CorruptDataError
        A column mixes numbers and text, has missing cells, or holds too many different texts to be categories.
    """
    return Schema(tuple(_inferred(table, name, name == label) for name in table.columns))


def _inferred(table: Table, name: str, is_label: bool) -> Column:
    cells = table.columns[name]
    texts = ["" if cell is None else str(cell).strip() for cell in cells]
    is_number = [_is_number(text) for text in texts]
    if "" in texts:
        raise table.wrong(texts.index(""), name, "a missing value; fill it in, leave out such rows, or drop the column")
    if any(is_number) and not all(is_number):
        row = is_number.index(False)
        raise table.wrong(
            row, name, f"{texts[row]!r} among numbers; correct it, drop the column, or describe it in a schema"
        )
    if is_number[0] and not is_label:
        values = numbers(table, name)
        lower, upper = float(values.min()), float(values.max())
        return Column(name, "numeric", lower, upper if upper > lower else lower + 1)
    domain: list[Any] = sorted({float(text) for text in texts} if is_number[0] else set(texts))
    if is_number[0]:
        if broken := [value for value in domain if value % 1]:
            raise CorruptDataError(f"{table.name}: the label {name!r} must name classes, got the number {broken[0]}")
        domain = [int(value) for value in domain]
    if len(domain) > _MAX_VALUES:
        what = "classes" if is_label else "categories"
        raise CorruptDataError(
            f"{table.name}: column {name!r} has {len(domain)} different values, e.g. {shortened(domain, 3)}, too many "
            f"for {what} (at most {_MAX_VALUES}); drop it, or describe it in a schema"
        )
    if is_label and len(domain) < 2:
        raise CorruptDataError(f"{table.name}: the label {name!r} has the one value {domain[0]!r}; nothing to learn")
    return Column(name, "label" if is_label else "categorical", domain=tuple(domain))


def _is_number(text: str) -> bool:
    try:
        return math.isfinite(float(text))
    except ValueError:
        return False


def _check_header(name: str, header: Sequence[str]) -> None:
    doubled = sorted({heading for heading in header if header.count(heading) > 1 or not heading})
    if doubled or not header:
        raise CorruptDataError(f"{name}: expected columns with names of their own, got {shortened(doubled)} among them")


def _dataset(
    table: Table, label: str | None, schema: str | Path | Schema | None, group: str | None, drop: Sequence[str]
) -> Dataset:
    for name in (*drop, *([label] if label is not None else [])):
        if name not in table.columns:
            apart = "; is another delimiter used?" if len(table.columns) == 1 else ""
            raise CorruptDataError(
                f"{table.name} has no column {name!r}{nearest(name, table.columns)}; columns: "
                f"{shortened(list(table.columns))}{apart}"
            )
    table = Table(table.name, {name: cells for name, cells in table.columns.items() if name not in drop})
    if not table.columns or not len(table):
        raise CorruptDataError(f"{table.name} has no rows of data")
    if schema is None:
        if label is None:
            raise InvalidValueError(f"expected a label column or a schema for {table.name}, got neither")
        return _without_schema(table, label, group)
    if not isinstance(schema, Schema):
        schema = Schema.read(Path(schema))
    if label not in (None, schema.label.name):
        raise InvalidValueError(f"expected the label of the schema, {schema.label.name!r}, got label={label!r}")
    return schema.encode(table, group=group)


def _without_schema(table: Table, label: str, group: str | None) -> Dataset:
    features = Table(table.name, {name: cells for name, cells in table.columns.items() if name != group})
    schema = infer_schema(features, label)
    data = schema.encode(table, group=group)
    widths = [column.width for column in schema.columns]
    numeric = [sum(widths[:i]) for i, column in enumerate(schema.columns) if column.kind == "numeric"]
    X = data.X.copy()
    X[:, numeric] = standardised(data.X[:, numeric])
    return replace(data, X=X)


def standardised(X: NDArray[Any]) -> Float32:
    """Columns with mean 0 and standard deviation 1; a column that is the same everywhere becomes 0."""
    values = X.astype(np.float64)
    deviation = values.std(axis=0)
    scaled: Float32 = ((values - values.mean(axis=0)) / np.where(deviation > 0, deviation, 1)).astype(np.float32)
    return scaled
