"""Adult and credit default: public schemas, the published files, and downloads that are turned into them."""

import gzip
import hashlib
import os
from pathlib import Path

import numpy as np
import pytest

from matl.errors import CorruptDataError
from matl.learning.datasets import load_dataset, uci

TRAIN_ROWS = [
    "39, State-gov, 77516, Bachelors, 13, Never-married, Adm-clerical, Not-in-family, White, Male, 2174, 0, 40, "
    "United-States, <=50K",
    "31, Private, 45781, Masters, 14, Never-married, Prof-specialty, Not-in-family, White, Female, 14084, 0, 50, "
    "?, >50K",
]
TEST_ROWS = [
    "25, ?, 226802, 11th, 7, Never-married, ?, Own-child, Black, Male, 0, 0, 40, United-States, <=50K",
]
TRAIN = "\n".join([*TRAIN_ROWS, "", ""]).encode()
TEST = "\n".join(["|1x3 Cross validator", *(f"{row}." for row in TEST_ROWS), "", ""]).encode()


@pytest.fixture
def tiny(monkeypatch):
    digests = [hashlib.sha256(content).hexdigest() for content in (TRAIN, TEST)]
    monkeypatch.setattr(uci, "_ADULT_FILES", dict(zip(("adult.data", "adult.test"), digests, strict=True)))
    monkeypatch.setattr(uci, "_ADULT_TEST_ROWS", len(TEST_ROWS))
    monkeypatch.setattr(uci, "_CREDIT_COUNTS", [2, 1])


def assert_tiny(source):
    assert source.train.X.shape == (2, 107)
    assert source.train.name == source.test.name == "adult"
    assert source.train.y.tolist() == [0, 1]
    assert source.test.y.tolist() == [0]
    assert source.train.class_names == ("<=50K", ">50K")
    assert source.train.X[0, 0] == np.float32((39 - 17) / (90 - 17))
    # One of each of eight categories, and four numbers that are not 0.
    assert np.count_nonzero(source.train.X[0]) == 8 + 4


@pytest.mark.parametrize("place", ["adult", "."])
def test_the_original_files(tiny, tmp_path, place):
    folder = tmp_path / "cache/matl" / place
    folder.mkdir(parents=True)
    (folder / "adult.data").write_bytes(TRAIN)
    (folder / "adult.test.gz").write_bytes(gzip.compress(TEST))
    assert_tiny(load_dataset("adult"))
    (folder / "adult.data").write_bytes(TRAIN[:-1])
    with pytest.raises(CorruptDataError, match=r"adult.data is damaged: SHA-256"):
        load_dataset("adult")


def as_openml(schema, rows, drop=()):
    """Rows of text as the loader of OpenML gives them: categories numbered, the missing NaN, the label as text."""
    columns = [column for column in schema.columns if column.name not in drop]
    categories, data = {}, []
    for index, column in enumerate(columns[:-1]):
        cells = [row[index] for row in rows]
        if column.kind == "categorical" and isinstance(column.domain[0], str):
            categories[column.name] = sorted(set(cells) - {"?"})
            data.append([float("nan") if c == "?" else categories[column.name].index(c) for c in cells])
        else:
            data.append([float(cell) for cell in cells])
    return {
        "data": np.array(data).T,
        "target": np.array([row[-1] for row in rows], object),
        "feature_names": [column.name for column in columns[:-1]],
        "categories": categories,
    }


def test_a_download_of_adult_becomes_the_original_files(tiny, openml, tmp_path):
    asked = openml(as_openml(uci.ADULT, [row.split(", ") for row in TEST_ROWS + TRAIN_ROWS]))
    assert_tiny(load_dataset("adult"))
    assert_tiny(load_dataset("adult"))
    assert asked == [1590]
    assert (tmp_path / "cache/matl/adult/adult.data").read_bytes() == TRAIN
    assert (tmp_path / "cache/matl/adult/adult.test").read_bytes() == TEST


def credit_rows():
    """Three clients within the bounds but for the last, who owes more and pays earlier than the schema foresees."""
    row = ["20000", "2", "1", "1", "24", *["0"] * 6, *["1000"] * 6, *["0"] * 6, "0"]
    return [row, [*row[:-1], "1"], ["900000", *row[1:11], "1664089", *row[12:]]]


def credit_header():
    return [column.name for column in uci.CREDIT_DEFAULT.columns]


@pytest.mark.parametrize("label", ["default_payment_next_month", "default.payment.next.month", "Y"])
def test_the_table_of_credit_card_clients(tiny, tmp_path, label):
    folder = tmp_path / "cache/matl/credit_default"
    folder.mkdir(parents=True)
    rows = [[str(i), *row] for i, row in enumerate(credit_rows())]
    text = "\n".join(",".join(row) for row in [[*credit_header()[:-1], label], *rows])
    (folder / "credit_default.csv").write_text(text)
    source = load_dataset("credit_default")
    assert source.test is None
    assert source.train.name == "credit_default"
    assert source.train.X.shape == (3, 33)
    assert source.train.y.tolist() == [0, 1, 0]
    bill = 1 + 2 + 7 + 4 + 1 + 6
    assert source.train.X[2, bill] == 1  # clipped
    assert source.train.X[0, bill] == np.float32(201_000 / 1_200_000)
    (folder / "credit_default.csv").write_text(text.rsplit("\n", 1)[0])
    with pytest.raises(CorruptDataError, match=r"expected \[2, 1\] samples of classes 0 and 1, got \[1, 1\]"):
        load_dataset("credit_default")
    (folder / "credit_default.csv").write_text("")
    with pytest.raises(CorruptDataError, match="expected columns with names of their own"):
        load_dataset("credit_default")


def test_a_download_of_credit_card_clients(tiny, openml, tmp_path):
    answer = as_openml(uci.CREDIT_DEFAULT, credit_rows(), drop=("ID",))
    asked = openml(answer | {"feature_names": [f"x{i}" for i in range(1, 24)], "categories": None})
    first, second = load_dataset("credit_default"), load_dataset("credit_default")
    assert asked == [42477]
    np.testing.assert_array_equal(first.train.X, second.train.X)
    assert (tmp_path / "cache/matl/credit_default/credit_default.csv").read_text().startswith("ID,LIMIT_BAL,SEX")


@pytest.mark.slow
@pytest.mark.skipif("MATL_DATA_DIR" not in os.environ, reason="needs the real Adult files in MATL_DATA_DIR")
def test_real_adult(openml, monkeypatch, tmp_path):
    source = load_dataset("adult")
    assert source.train.class_counts().tolist() == [24_720, 7_841]
    assert source.test.class_counts().tolist() == [12_435, 3_846]
    # What is downloaded is written back byte for byte: the published checksums say so.
    folder = Path(os.environ["MATL_DATA_DIR"]) / "adult"
    train, test = (gzip.decompress((folder / f"adult.{part}.gz").read_bytes()).decode() for part in ("data", "test"))
    rows = [line.rstrip(".").split(", ") for line in (test + train).splitlines() if line and not line.startswith("|")]
    monkeypatch.delenv("MATL_DATA_DIR")
    openml(as_openml(uci.ADULT, rows))
    np.testing.assert_array_equal(load_dataset("adult").train.X, source.train.X)


@pytest.mark.skipif("MATL_DATA_DIR" not in os.environ, reason="needs the real credit_default file in MATL_DATA_DIR")
def test_real_credit_default():
    data = load_dataset("credit_default").train
    assert data.X.shape == (30_000, 33)
    assert data.class_counts().tolist() == [23_364, 6_636]
    assert (data.X.min(), data.X.max()) == (0, 1)
