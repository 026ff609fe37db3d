"""CSV and Parquet files, with a schema and without one."""

import gzip
import json

import numpy as np
import pytest

import matl
from matl.errors import ConfigError, CorruptDataError, DataNotFoundError, InvalidValueError, MissingExtraError
from matl.learning.datasets import Schema, infer_schema, load_dataset, read_csv, read_parquet
from matl.learning.datasets.tables import read_rows

TEXT = 'age,sex,"home town",ill\n20,f,"Rome, Italy",no\n30,m,Oslo,yes\n\n40,f,Oslo,no\n'
FEATURES = [[-(1.5**0.5), 1, 0, 0, 1], [0, 0, 1, 1, 0], [1.5**0.5, 1, 0, 1, 0]]
SCHEMA = {
    "columns": [
        {"name": "age", "kind": "numeric", "lower": 0, "upper": 100},
        {"name": "sex", "kind": "categorical", "domain": ["m", "f"]},
        {"name": "home town", "kind": "identifier"},
        {"name": "ill", "kind": "label", "domain": ["yes", "no"]},
    ]
}


@pytest.fixture
def mine(tmp_path):
    path = tmp_path / "mine.csv"
    path.write_text(TEXT)
    (tmp_path / "mine.json").write_text(json.dumps(SCHEMA))
    return path


def test_without_a_schema_the_data_says_what_columns_are(mine):
    data = read_csv(mine, label="ill")
    np.testing.assert_allclose(data.X, FEATURES, rtol=1e-6)
    assert data.y.tolist() == [0, 1, 0]
    assert (data.name, data.class_names, data.num_classes) == ("mine.csv", ("no", "yes"), 2)
    assert matl.read_csv is read_csv


def test_with_a_schema_nothing_is_read_off_the_data(mine):
    data = read_csv(mine, schema=mine.with_name("mine.json"))
    np.testing.assert_allclose(data.X, [[0.2, 0, 1], [0.3, 1, 0], [0.4, 0, 1]], rtol=1e-6)
    assert data.y.tolist() == [1, 0, 1]
    given = Schema.read(mine.with_name("mine.json"))
    np.testing.assert_array_equal(read_csv(mine, label="ill", schema=given).X, data.X)
    with pytest.raises(InvalidValueError, match="expected the label of the schema, 'ill', got label='sex'"):
        read_csv(mine, label="sex", schema=given)
    with pytest.raises(InvalidValueError, match=r"expected a label column or a schema for mine.csv, got neither"):
        read_csv(mine)
    with pytest.raises(ConfigError, match="cannot be read"):
        read_csv(mine, schema=mine)


def test_a_configuration_reads_it_as_python_does(mine):
    spec = {"name": "csv", "path": str(mine), "label": "ill", "group": "sex", "drop": ["home town"]}
    source = load_dataset(spec)
    data = read_csv(mine, label="ill", group="sex", drop=["home town"])
    np.testing.assert_array_equal(source.train.X, data.X)
    assert data.X.shape == (3, 1)
    assert source.train.groups.tolist() == data.groups.tolist() == [0, 1, 0]
    assert source.test is None
    assert load_dataset({"name": "csv", "path": mine, "schema": str(mine.with_name("mine.json"))}).train.X.shape == (
        3,
        3,
    )


def test_forms_of_csv(mine, tmp_path):
    expected = read_csv(mine, label="ill")
    forms = {
        "semicolon.csv": b"age;sex;home town;ill\n20;f;Rome, Italy;no\n30;m;Oslo;yes\n40;f;Oslo;no",
        "windows.csv": b"\xef\xbb\xbf" + TEXT.replace("\n", "\r\n").encode(),
        "packed.csv.gz": gzip.compress(TEXT.encode()),
    }
    for name, content in forms.items():
        (tmp_path / name).write_bytes(content)
        delimiter = ";" if name.startswith("semicolon") else ","
        np.testing.assert_array_equal(read_csv(tmp_path / name, label="ill", delimiter=delimiter).X, expected.X)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "is empty; expected a first line that names the columns"),
        (b"a,y\n", "mine.csv has no rows of data"),
        (b"a,a,y\n1,2,0\n", r"columns with names of their own, got \['a'\] among them"),
        (b"a,,y\n1,2,0\n", "columns with names of their own"),
        (b"a,y\n1,0\n1\n", r"row 2: expected 2 cells, one for each column, got 1: \['1'\]"),
        (b"a,y\n1,0,5\n", "row 1: expected 2 cells"),
        (b'a,y\n"1,0\n', "is not a CSV file: unexpected end of data"),
        (b"a,y\n\xff,0\n", "is not UTF-8 text"),
        (b"a,z\n1,0\n", "has no column 'y'"),
        (b"a,y\n1,0\n,1\n", "row 2, column 'a': a missing value; fill it in"),
        (b"a,y\n1,0\nx,1\n3,1\n", "row 2, column 'a': 'x' among numbers; correct it"),
        (b"a,y\n1,0\nnan,1\n", "row 2, column 'a': 'nan' among numbers"),
        (b"a,y\n1,0\n2,0\n", "the label 'y' has the one value 0; nothing to learn"),
        (b"a,y\n1,0.5\n2,0\n", "the label 'y' must name classes, got the number 0.5"),
        (b"y\n1\n0\n", "at least one numeric or categorical column, got none"),
        (
            b"a,y\n" + b"".join(b"w%d,%d\n" % (i, i % 2) for i in range(101)),
            r"column 'a' has 101 different values, e.g. \['w0', 'w1', 'w10', ...\], too many for categories",
        ),
        (
            b"a,y\n" + b"".join(b"1,%d\n" % i for i in range(101)),
            "column 'y' has 101 different values, .* too many for classes",
        ),
    ],
)
def test_csv_files_that_cannot_be_used(mine, content, message):
    mine.write_bytes(content)
    with pytest.raises((CorruptDataError, InvalidValueError), match=message):
        read_csv(mine, label="y")


def test_mistakes_in_what_is_asked_for(mine):
    with pytest.raises(CorruptDataError, match=r"no column 'il' \(did you mean 'ill'\?\)"):
        read_csv(mine, label="il")
    with pytest.raises(CorruptDataError, match="no column 'town'"):
        read_csv(mine, label="ill", drop=["town"])
    with pytest.raises(InvalidValueError, match="delimiter of one character, got ';;'"):
        read_csv(mine, label="ill", delimiter=";;")
    with pytest.raises(DataNotFoundError, match=r"nowhere.csv is not there"):
        read_csv("nowhere.csv", label="ill")


def test_labels_that_are_numbers_need_not_start_at_0(mine):
    mine.write_text("a,y\n1,10\n2,-1\n3,9\n")
    data = read_csv(mine, label="y")
    assert data.y.tolist() == [2, 0, 1]
    assert data.class_names == ("-1", "9", "10")


def test_a_column_of_one_value_becomes_0(mine):
    mine.write_text("a,b,y\n5,1,0\n5,2,1\n")
    assert read_csv(mine, label="y").X.tolist() == [[0, -1], [0, 1]]


def test_an_inferred_schema_is_a_start_for_ones_own(tmp_path):
    rows = [["20", "f", "no"], ["30", "m", "yes"]]
    table = read_rows("mine.csv", ["age", "sex", "ill"], rows)
    inferred = infer_schema(table, "ill")
    inferred.write(tmp_path / "start.json")
    schema = Schema.read(tmp_path / "start.json")
    assert schema == inferred
    assert schema.encode(table).X.tolist() == [[0, 1, 0], [1, 0, 1]]


def write_parquet(path, columns):
    pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    import pyarrow.parquet as pq

    pq.write_table(pa.table(columns), path)
    return path


def test_parquet_is_read_like_csv(mine, tmp_path):
    columns = {
        "age": [20, 30, 40],
        "sex": ["f", "m", "f"],
        "home town": ["Rome, Italy", "Oslo", "Oslo"],
        "ill": ["no", "yes", "no"],
    }
    path = write_parquet(tmp_path / "mine.parquet", columns)
    np.testing.assert_array_equal(read_parquet(path, label="ill").X, read_csv(mine, label="ill").X)
    spec = {"name": "parquet", "path": str(path), "schema": str(mine.with_name("mine.json")), "group": "home town"}
    data = load_dataset(spec).train
    np.testing.assert_array_equal(data.X, read_csv(mine, schema=mine.with_name("mine.json")).X)
    assert data.groups.tolist() == [1, 0, 0]
    assert matl.read_parquet is read_parquet


def test_parquet_files_that_cannot_be_used(tmp_path, monkeypatch):
    path = write_parquet(tmp_path / "x.parquet", {"a": [1.0, None], "b": [[1], [2]], "y": [0, 1]})
    with pytest.raises(CorruptDataError, match="column 'b' holds more than one value in a row; leave it out with drop"):
        read_parquet(path, label="y")
    with pytest.raises(CorruptDataError, match="row 2, column 'a': a missing value"):
        read_parquet(path, label="y", drop=["b"])
    path.write_bytes(path.read_bytes()[:-20])
    with pytest.raises(CorruptDataError, match=r"x.parquet is not a Parquet file"):
        read_parquet(path, label="y")
    monkeypatch.setitem(__import__("sys").modules, "pyarrow", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'matl\[data\]'"):
        read_parquet(path, label="y")


def test_a_parquet_column_that_python_cannot_hold_can_be_left_out(tmp_path):
    pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    offsets, text = (pa.py_buffer(content) for content in (np.array([0, 1, 2], np.int32).tobytes(), b"\xffa"))
    broken = pa.Array.from_buffers(pa.string(), 2, [None, offsets, text])
    path = write_parquet(tmp_path / "x.parquet", {"a": [1.0, 2.0], "b": broken, "y": [0, 1]})
    with pytest.raises(CorruptDataError, match="column 'b' of type string cannot be read: 'utf-8' codec"):
        read_parquet(path, label="y")
    assert read_parquet(path, label="y", drop=["b"]).X.shape == (2, 1)
