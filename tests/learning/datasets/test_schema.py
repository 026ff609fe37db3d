"""What columns hold is declared in advance; what does not fit is named with its row, column, value and bounds."""

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from matl.errors import ConfigError, CorruptDataError, InvalidValueError
from matl.learning.datasets import Column, Schema, Table

COLUMNS = [
    {"name": "id", "kind": "identifier", "description": "not a feature"},
    {"name": "age", "kind": "numeric", "dtype": "int64", "lower": 0, "upper": 120},
    {"name": "colour", "kind": "categorical", "domain": ["red", "green", "?"]},
    {"name": "grade", "kind": "categorical", "domain": [1, 2]},
    {"name": "ill", "kind": "label", "domain": ["no", "yes"]},
]


def write(tmp_path, content):
    path = tmp_path / "schema.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def schema(tmp_path, **top):
    return Schema.read(write(tmp_path, {"columns": COLUMNS, **top}))


def table(**cells):
    columns = {
        "id": ["a", "b"],
        "age": ["30", " 60 "],
        "colour": ["green", "?"],
        "grade": ["2", "1.0"],
        "ill": ["no", " yes"],
    }
    return Table("mine.csv", columns | cells)


def test_numbers_are_scaled_by_public_bounds_and_categories_take_the_order_of_the_domain(tmp_path):
    data = schema(tmp_path).encode(table())
    assert data.X.tolist() == [[0.25, 0, 1, 0, 0, 1], [0.5, 0, 0, 1, 1, 0]]
    assert data.X.dtype == np.float32
    assert data.y.tolist() == [0, 1]
    assert (data.name, data.num_classes, data.class_names, data.groups) == ("mine.csv", 2, ("no", "yes"), None)


def test_cells_of_parquet_have_types_of_their_own(tmp_path):
    columns = {"id": [1, 2], "age": [30, 60.0], "colour": ["green", "?"], "grade": [2, 1], "ill": ["no", "yes"]}
    typed = schema(tmp_path).encode(Table("mine.parquet", columns))
    np.testing.assert_array_equal(typed.X, schema(tmp_path).encode(table()).X)


def test_a_column_that_groups_is_no_feature(tmp_path):
    data = schema(tmp_path).encode(table(colour=["red", "green"]), group="colour")
    assert data.groups.tolist() == [1, 0]
    assert data.X.shape == (2, 3)
    extra = schema(tmp_path).encode(table(hospital=["north", "north"]), group="hospital")
    assert extra.groups.tolist() == [0, 0]
    assert extra.X.shape == (2, 6)
    with pytest.raises(CorruptDataError, match="row 2, column 'hospital': a missing value, where every row has to"):
        schema(tmp_path).encode(table(hospital=["north", " "]), group="hospital")
    with pytest.raises(CorruptDataError, match=r"no column 'hospitl' to group by \(did you mean 'hospital'\?\)"):
        schema(tmp_path).encode(table(hospital=["north", "south"]), group="hospitl")


@pytest.mark.parametrize(
    ("cells", "message"),
    [
        ({"age": ["30", "121"]}, r"row 2, column 'age': 121 is outside its bounds 0 to 120 \(1 such cell"),
        ({"age": ["-1", "121"]}, r"row 1, column 'age': -1 is outside its bounds 0 to 120 \(2 such cell"),
        ({"age": ["30", ""]}, "row 2, column 'age': expected a number, got a missing value"),
        ({"age": ["30", None]}, "row 2, column 'age': expected a number, got a missing value"),
        ({"age": ["thirty", "1"]}, "row 1, column 'age': expected a number, got 'thirty'"),
        ({"age": ["nan", "1"]}, "row 1, column 'age': expected a number, got 'nan'"),
        ({"age": ["1", "inf"]}, "row 2, column 'age': expected a number, got 'inf'"),
        (
            {"colour": ["red", "gren"]},
            r"row 2, column 'colour': 'gren' is not in its domain \['red', 'green', '\?'\] \(did you mean 'green'\?\)",
        ),
        ({"colour": ["", "red"]}, "row 1, column 'colour': a missing value is not in its domain"),
        ({"grade": ["1", "3"]}, r"row 2, column 'grade': '3' is not in its domain \[1, 2\]"),
        ({"grade": ["1", "one"]}, "row 2, column 'grade': 'one' is not in its domain"),
        ({"ill": ["no", "maybe"]}, "row 2, column 'ill': 'maybe' is not in its domain"),
        ({"height": ["1", "2"]}, "it has column 'height', which the schema does not know"),
    ],
)
def test_cells_that_do_not_fit_are_named(tmp_path, cells, message):
    with pytest.raises(CorruptDataError, match=message) as caught:
        schema(tmp_path).encode(table(**cells))
    assert str(caught.value).startswith("mine.csv")


def test_a_missing_column_is_named_with_what_may_be_meant(tmp_path):
    cells = table().columns | {"agee": ["1", "2"]}
    del cells["age"]
    with pytest.raises(
        CorruptDataError, match=r"it has no column 'age' \(did you mean 'agee'\?\); column 'agee', which"
    ):
        schema(tmp_path).encode(Table("mine.csv", cells))


def test_numbers_out_of_bounds_are_clipped_only_where_the_schema_says_so(tmp_path):
    data = schema(tmp_path, on_out_of_bounds="clip").encode(table(age=["-5", "1e9"]))
    assert data.X[:, 0].tolist() == [0, 1]


@given(values=st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=20))
def test_clipped_numbers_lie_between_0_and_1_and_keep_their_order(values):
    columns = (Column("x", "numeric", -1000, 1000), Column("y", "label", domain=(0, 1)))
    data = Schema(columns, "clip").encode(Table("t", {"x": [repr(value) for value in values], "y": [0] * len(values)}))
    assert ((data.X >= 0) & (data.X <= 1)).all()
    assert (np.diff(data.X[np.argsort(values, kind="stable"), 0]) >= 0).all()


@pytest.mark.parametrize(
    ("content", "problems"),
    [
        ("{", ["cannot be read"]),
        ("[1]", ['expected an object with "columns"']),
        ({"columns": {}}, ['expected an object with "columns"']),
        ({"columns": [1]}, ['expected an object with "columns"']),
        ({"columns": COLUMNS[:-1]}, ["exactly one column of kind label, got []"]),
        ({"columns": [*COLUMNS, COLUMNS[-1]]}, ["expected each column once"]),
        ({"columns": [COLUMNS[0], COLUMNS[-1]]}, ["at least one numeric or categorical column"]),
        ({"columns": COLUMNS, "on_out_of_bounds": "ignore"}, ['"error" or "clip", got \'ignore\'']),
        (
            {
                "columns": [
                    {"kind": "numeric"},
                    {"name": "a", "kind": "numeric", "lower": 0},
                    {"name": "b", "kind": "numeric", "lower": 1, "upper": 1},
                    {"name": "c", "kind": "numerical"},
                    {"name": "d", "kind": "categorical"},
                    {"name": "e", "kind": "label", "domain": ["x", "x "]},
                    {"name": "f", "kind": "categorical", "domain": "abc"},
                    {"name": "g", "kind": "numeric", "lower": "0", "upper": 1},
                    {"name": "h", "kind": ["numeric"]},
                    {"name": "i", "kind": "numeric", "lower": 0, "upper": 10**400},
                ]
            },
            [
                "column 1: expected a name, got None",
                "column 'a': a numeric column needs finite bounds lower and upper, got 0 and None",
                "column 'b': expected lower < upper, got 1 and 1",
                "column 'c': expected kind numeric, categorical, label, identifier, got 'numerical' (did you mean",
                "column 'd': a categorical column needs a domain of distinct values, got []",
                "column 'e': a label column needs a domain of distinct values, got ['x', 'x ']",
                "column 'f': expected a domain as a list of text or numbers, got 'abc'",
                "column 'g': a numeric column needs finite bounds",
                "column 'h': expected kind",
                "column 'i': a numeric column needs finite bounds",
            ],
        ),
    ],
)
def test_all_problems_of_a_schema_file_are_listed(tmp_path, content, problems):
    path = write(tmp_path, content)
    with pytest.raises(ConfigError) as caught:
        Schema.read(path)
    assert str(path) in str(caught.value)
    assert len(caught.value.problems) == len(problems)
    for problem in problems:
        assert problem in str(caught.value)


def test_a_schema_survives_its_file(tmp_path):
    original = schema(tmp_path, on_out_of_bounds="clip")
    original.write(tmp_path / "copy.json")
    assert Schema.read(tmp_path / "copy.json") == original
    with pytest.raises(ConfigError, match="name an existing JSON file"):
        Schema.read(tmp_path / "nowhere.json")


def test_a_column_is_checked_wherever_it_is_made():
    with pytest.raises(InvalidValueError, match="column 'x': expected lower < upper"):
        Column("x", "numeric", 2, 1)
