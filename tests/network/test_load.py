"""A small sample of the benchmarks of load and of kills, with everything they check about what was counted."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path

import pytest
from tests.coordinator.postgres import BINARIES

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"

pytestmark = pytest.mark.slow


def measured(script, *options):
    """What a benchmark prints."""
    command = [sys.executable, str(BENCHMARKS / script), *options, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=570, check=False)
    assert done.returncode == 0, done.stderr[-4000:] + done.stdout[-4000:]
    return json.loads(done.stdout)


def test_many_clients_through_both_doors_are_counted_once():
    row = measured("soak.py", "--clients", "20", "--rounds", "20")
    assert row["problems"] == []
    assert row["acknowledged"] == row["counted"] == 20 * 20
    assert row["submit_p99_ms"] > 0
    assert 15 <= len(row["memory_mib"]) <= 20  # once a round, but where two end between two looks
    growth = row["memory_growth"]  # what grew too much would be among the problems; 8 MiB arrive in each round
    assert growth["slope"] <= growth["allowed"] < 7
    assert growth["most"] < 1.3 * growth["least"]


def test_memory_that_grows_is_a_problem(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    growth = importlib.import_module("soak").Growth
    saw = [240.0, 390.0] + [400.0, 500.0, 460.0, 430.0] * 5
    assert not growth.of(saw).problem
    assert (growth.of(saw).least, growth.of(saw).most) == (400.0, 500.0)
    kept = [value + 16 * index for index, value in enumerate(saw)]  # what is kept for good lifts the median too
    assert "memory grows by 1" in growth.of(kept).problem
    assert growth.of(saw[:9]) is None


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_a_coordinator_that_is_killed_loses_nothing(database):
    if database == "postgresql" and not any(BINARIES.glob("*/bin/initdb")):
        pytest.skip("PostgreSQL not installed (Debian package postgresql)")  # which CI=true does not allow
    (row,) = measured("crash.py", "--kills", "10", "--databases", database)
    assert row["problems"] == []
    assert (row["database"], row["kills"]) == (database, 10)
    assert row["committed"] > 0
    assert row["acknowledged"] > 0
