"""A small sample of the benchmarks of load and of kills, with everything they check about what was counted."""

from __future__ import annotations

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
    row = measured("soak.py", "--clients", "20", "--rounds", "2", "--hidden", "64")
    assert row["problems"] == []
    assert row["acknowledged"] == row["counted"] == 20 * 2
    assert row["submit_p99_ms"] > 0


@pytest.mark.parametrize("database", ["sqlite", "postgresql"])
def test_a_coordinator_that_is_killed_loses_nothing(database):
    if database == "postgresql" and not any(BINARIES.glob("*/bin/initdb")):
        pytest.skip("PostgreSQL not installed (Debian package postgresql)")  # which CI=true does not allow
    (row,) = measured("crash.py", "--kills", "10", "--databases", database)
    assert row["problems"] == []
    assert (row["database"], row["kills"]) == (database, 10)
    assert row["committed"] > 0
    assert row["acknowledged"] > 0
