"""The figures of the proof document: the script draws them, and the page shows what it drew."""

import json
import re
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from xml.etree import ElementTree

import pytest

ROOT = Path(__file__).parents[2]
SCRIPT = ROOT / "benchmarks" / "privacy_figures.py"
PAGE = ROOT / "docs" / "privacy" / "utility.md"
NAMES = ("prediction", "bits", "end_points", "missing")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    """A folder with four pictures, numbers.json and numbers.md."""
    folder = tmp_path_factory.mktemp("figures")
    given = ["--quick", "--out", folder / "numbers", "--pictures", folder]
    done = subprocess.run([sys.executable, SCRIPT, *given], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def rows(drawn):
    found = {name: [] for name in (*NAMES, "signal", "benchmark")}
    for row in json.loads((drawn / "numbers.json").read_text("utf-8"))["rows"]:
        found[row["figure"]].append(row)
    return found


@pytest.mark.parametrize("name", NAMES)
def test_a_picture_fits_any_page(drawn, name):
    text = (drawn / f"{name}.svg").read_text("utf-8")
    picture = ElementTree.fromstring(text)
    assert picture.get("role") == "img"
    assert len(picture.get("aria-label")) > 100
    assert "currentColor" in text
    assert "#000000" not in text
    assert "\n\n" not in text, "a blank line would end the block of the page that holds it"
    assert not re.search(r"Date|Matplotlib|20\d\d-\d\d", text), "a picture that changes with time or version alone"
    ids = re.findall(r'\sid="([^"]+)"', text)
    assert len(ids) == len(set(ids))
    assert set(re.findall(r'(?:href="#|url\(#)([^")]+)', text)) == set(ids)
    assert all(item.startswith(name) for item in ids)


@pytest.mark.parametrize("name", NAMES)
def test_the_page_takes_in_the_picture_that_the_script_draws(drawn, name):
    committed = ROOT / "docs" / "assets" / "privacy" / f"{name}.svg"
    assert f'--8<-- "{committed.relative_to(ROOT)}"' in PAGE.read_text("utf-8")
    new, old = (ElementTree.fromstring(path.read_text("utf-8")) for path in (drawn / f"{name}.svg", committed))
    assert new.attrib == old.attrib


def test_errors_are_what_was_predicted(rows):
    for row in rows["prediction"]:
        face = row["predicted"] - row["wrap"] + row["wrap_at_face_value"]
        assert row["simulated"] == pytest.approx(face, rel=0.02)  # seeds are fixed: it cannot fail by chance
    wraps, seldom = (next(row for row in rows["prediction"] if row["bits"] == bits) for bits in (3, 8))
    assert wraps["wrap_at_face_value"] < 0.1 * wraps["wrap"], "the page says that prediction and error differ by this"
    assert wraps["gain"] < 0.99 < 0.999 < seldom["gain"]


def test_concentrated_updates_come_through_8_bits_and_not_6(rows):
    left = {row["bits"]: row for row in rows["signal"]}
    assert all(left[8][name] > 0.99 for name in ("wraps", "spread", "one block", "one coordinate"))
    assert left[6]["spread"] > 0.99
    assert left[6]["one block"] < 0.7


def test_more_bits_have_less_error_and_the_rival_gets_there_too(rows):
    for clients in (100, 1000):
        found = [row for row in rows["bits"] if row["clients"] == clients]
        for key in ("ours", "rival"):
            errors = [row[key] for row in found if key in row]
            assert errors == sorted(errors, reverse=True)
            assert min(errors) >= 1
        assert all(row["our_budget"] <= row["budget"] for row in found if "ours" in row)
        assert found[-1]["rival"] < 1.001


def test_divergences_stay_below_what_is_certified(rows):
    for row in rows["end_points"]:
        slack = 1 + 1e-9
        assert row["reverse"] <= row["forward"] * slack
        assert row["forward"] <= row["certified"] * slack
        assert row["forward"] <= row["h"] * slack
        if row["order"] == "5/2":
            assert row["h"] <= row["tangent"] * slack


def test_fewer_shares_mean_a_larger_epsilon(rows):
    for planned in {(row["bits"], row["budget"]) for row in rows["missing"]}:
        curve = [row["epsilon"] for row in rows["missing"] if (row["bits"], row["budget"]) == planned]
        assert curve[0] == pytest.approx(planned[1], abs=1e-3)
        assert all(more < less for more, less in pairwise(curve))
