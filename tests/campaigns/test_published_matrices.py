"""The published tables were made by the judges that the code has now."""

import csv
import re
from pathlib import Path

import pytest

from matl.campaigns.matrix.design import read_matrix

PUBLISHED = Path(__file__).parents[2] / "benchmarks" / "results" / "matrix"
PAGE = Path(__file__).parents[2] / "docs" / "attack-matrix.md"
NAMES = sorted(path.parent.name for path in PUBLISHED.glob("*/summary.md"))


def test_the_main_table_is_published():
    assert "main" in NAMES


def test_the_constants_in_code_are_those_in_the_published_footers_or_the_page_says_which_are_not():
    changed = set()
    for name in NAMES:
        footer = (PUBLISHED / name / "summary.md").read_text().rsplit("Digests of the rules' constants: ", 1)[1]
        published = dict(entry.rsplit(" ", 1) for entry in footer.strip().rstrip(".").split(", "))
        assert all(re.fullmatch("[0-9a-f]{12}", digest) for digest in published.values())
        judges = {rule: digest[:12] for rule, digest in read_matrix(name).judges.items()}
        assert published.keys() == judges.keys()
        changed |= {
            f"{rule} was {published[rule]} and is {now}" for rule, now in judges.items() if published[rule] != now
        }
    assert changed == set(re.findall(r"`(\w+ was [0-9a-f]{12} and is [0-9a-f]{12})`", PAGE.read_text()))


@pytest.mark.parametrize("name", NAMES)
def test_published_cells_are_cells_of_the_matrix_that_comes_with_matl(name):
    """Rows may be added to a preset; those that have run keep their names, so that they need not run again."""
    with (PUBLISHED / name / "cells.csv").open(newline="") as stream:
        published = [(row["cell"], int(row["seed"])) for row in csv.DictReader(stream)]
    seed = published[0][1]
    cells = {cell.name for cell in read_matrix(name, seeds=(seed,)).cells}
    assert {cell for cell, of in published if of == seed} <= cells
