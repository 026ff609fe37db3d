"""Two tables of the UCI repository with public schemas: bounds and domains from their codebooks, not their data."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np

from matl.errors import CorruptDataError
from matl.learning.datasets import files
from matl.learning.datasets.record import DATASETS, Dataset, Source
from matl.learning.datasets.schema import Column, Schema
from matl.learning.datasets.tables import read_rows

__all__ = ["ADULT", "CREDIT_DEFAULT", "adult", "credit_default"]


def _categories(name: str, domain: str) -> Column:
    return Column(name, "categorical", domain=tuple(domain.split()))


ADULT = Schema(
    (
        Column("age", "numeric", 17, 90),
        _categories(
            "workclass",
            "Private Self-emp-not-inc Self-emp-inc Federal-gov Local-gov State-gov Without-pay Never-worked ?",
        ),
        Column("fnlwgt", "identifier"),  # a survey weight, which says nothing of the person
        _categories(
            "education",
            "Preschool 1st-4th 5th-6th 7th-8th 9th 10th 11th 12th HS-grad Some-college Assoc-voc Assoc-acdm Bachelors "
            "Masters Prof-school Doctorate",
        ),
        Column("education-num", "numeric", 1, 16),
        _categories(
            "marital-status",
            "Never-married Married-civ-spouse Married-AF-spouse Married-spouse-absent Separated Divorced Widowed",
        ),
        _categories(
            "occupation",
            "Adm-clerical Armed-Forces Craft-repair Exec-managerial Farming-fishing Handlers-cleaners "
            "Machine-op-inspct Other-service Priv-house-serv Prof-specialty Protective-serv Sales Tech-support "
            "Transport-moving ?",
        ),
        _categories("relationship", "Husband Wife Own-child Other-relative Not-in-family Unmarried"),
        _categories("race", "White Black Asian-Pac-Islander Amer-Indian-Eskimo Other"),
        _categories("sex", "Female Male"),
        Column("capital-gain", "numeric", 0, 100_000),
        Column("capital-loss", "numeric", 0, 10_000),
        Column("hours-per-week", "numeric", 0, 100),
        _categories(
            "native-country",
            "United-States Cambodia Canada China Columbia Cuba Dominican-Republic Ecuador El-Salvador England France "
            "Germany Greece Guatemala Haiti Holand-Netherlands Honduras Hong Hungary India Iran Ireland Italy Jamaica "
            "Japan Laos Mexico Nicaragua Outlying-US(Guam-USVI-etc) Peru Philippines Poland Portugal Puerto-Rico "
            "Scotland South Taiwan Thailand Trinadad&Tobago Vietnam Yugoslavia ?",
        ),
        Column("income", "label", domain=("<=50K", ">50K")),
    )
)

_MONTHS = range(1, 7)

CREDIT_DEFAULT = Schema(
    (
        Column("ID", "identifier"),
        Column("LIMIT_BAL", "numeric", 0, 1_000_000),
        Column("SEX", "categorical", domain=(1, 2)),
        Column("EDUCATION", "categorical", domain=tuple(range(7))),
        Column("MARRIAGE", "categorical", domain=tuple(range(4))),
        Column("AGE", "numeric", 18, 100),
        *(Column(f"PAY_{month}", "numeric", -2, 9) for month in (0, 2, 3, 4, 5, 6)),  # the source knows no PAY_1
        *(Column(f"BILL_AMT{month}", "numeric", -200_000, 1_000_000) for month in _MONTHS),
        *(Column(f"PAY_AMT{month}", "numeric", 0, 1_000_000) for month in _MONTHS),
        Column("default_payment_next_month", "label", domain=(0, 1)),
    ),
    on_out_of_bounds="clip",
)

# Published digests of the uncompressed originals.
_ADULT_FILES = {
    "adult.data": "5b00264637dbfec36bdeaab5676b0b309ff9eb788d63554ca0a249491c86603d",
    "adult.test": "a2a9044bc167a35b2361efbabec64e89d69ce82d9790d2980119aac5fd7e9c05",
}
_ADULT_AT_OPENML = 1590
_ADULT_TEST_ROWS = 16_281

_CREDIT_FILE = "credit_default.csv"
_CREDIT_AT_OPENML = 42477
_CREDIT_COUNTS = [23_364, 6_636]
# How the label is headed in the copies that are about.
_CREDIT_LABELS = ("default.payment.next.month", "default payment next month", "Y")


@DATASETS.register("adult")
def adult() -> Source:
    """Census records, who earns more than 50,000 dollars; 2 classes, 32,561 + 16,281 samples; files or download."""
    paths = files.find(list(_ADULT_FILES), ("adult", "."))
    if paths is None:
        _download_adult()
        paths = [files.cache_directory() / "adult" / name for name in _ADULT_FILES]
    contents = [files.read_checked(path, sha) for path, sha in zip(paths, _ADULT_FILES.values(), strict=True)]
    return Source(*(_adult_rows(content.decode("ascii")) for content in contents))


def _adult_rows(text: str) -> Dataset:
    # The test file begins with a remark and ends its labels with a full stop.
    lines = [line.rstrip(".") for line in text.splitlines() if not line.startswith("|")]
    header = [column.name for column in ADULT.columns]
    return ADULT.encode(read_rows("adult", header, [line.split(", ") for line in lines if line]))


def _download_adult() -> None:
    """Fetch Adult and store it as the original files, whose checksums are then checked as ever."""
    bunch = files.fetch_openml(_ADULT_AT_OPENML, dataset="adult", wanted=f"{' and '.join(_ADULT_FILES)} (plain or .gz)")
    rows = [", ".join(row) for row in _cells(bunch)]
    test, train = rows[:_ADULT_TEST_ROWS], rows[_ADULT_TEST_ROWS:]  # in this order there
    texts = ["\n".join([*train, "", ""]), "\n".join(["|1x3 Cross validator", *(f"{row}." for row in test), "", ""])]
    files.store("adult", {name: text.encode("ascii") for name, text in zip(_ADULT_FILES, texts, strict=True)})


@DATASETS.register("credit_default")
def credit_default() -> Source:
    """Credit card clients, who defaults next month; 2 classes, 30,000 samples; a CSV file or download."""
    paths = files.find([_CREDIT_FILE], ("credit_default", "."))
    if paths is None:
        return Source(_download_credit_default())
    lines = files.read(paths[0]).decode("utf-8-sig", "replace").splitlines()
    header, *rows = [line.split(",") for line in lines] or [[]]
    return Source(_credit_rows([name.strip('"') for name in header], rows, str(paths[0])))


def _credit_rows(header: list[str], rows: list[list[str]], where: str) -> Dataset:
    label = CREDIT_DEFAULT.label.name
    table = read_rows(where, [label if name in _CREDIT_LABELS else name for name in header], rows)
    data = CREDIT_DEFAULT.encode(table)
    if data.class_counts().tolist() != _CREDIT_COUNTS:
        raise CorruptDataError(
            f"{where} is not the published data set: expected {_CREDIT_COUNTS} samples of classes 0 and 1, got "
            f"{data.class_counts().tolist()}"
        )
    return replace(data, name="credit_default")


def _download_credit_default() -> Dataset:
    wanted = f"{_CREDIT_FILE} (the sheet of the UCI repository, saved as CSV with the names of its columns)"
    bunch = files.fetch_openml(_CREDIT_AT_OPENML, dataset="credit_default", wanted=wanted)
    header = [column.name for column in CREDIT_DEFAULT.columns]
    rows = [[str(number), *row] for number, row in enumerate(_cells(bunch), 1)]
    data = _credit_rows(header, rows, "the download")
    text = "\n".join(",".join(row) for row in [header, *rows]) + "\n"
    files.store("credit_default", {_CREDIT_FILE: text.encode("ascii")})
    return data


def _cells(bunch: Any) -> list[list[str]]:
    """Rows of text from what OpenML's loader gives: categories by number, missing values as NaN."""
    columns = []
    for name, values in zip(bunch.feature_names, np.asarray(bunch.data).T, strict=True):
        domain = (bunch.categories or {}).get(name)
        columns.append(["?" if np.isnan(v) else domain[int(v)] if domain else f"{v:.0f}" for v in values])
    columns.append([str(label) for label in bunch.target])
    return [list(row) for row in zip(*columns, strict=True)]
