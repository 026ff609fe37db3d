"""What every test file shares."""

from __future__ import annotations

import os
from importlib.util import find_spec

import hypothesis
import pytest

# A loaded machine is slow now and then; that is not a failure.
hypothesis.settings.register_profile("matl", deadline=None)
hypothesis.settings.load_profile("matl")

# What continuous integration may lack: data sets that are too large to keep here, and evidence that others published.
# Every extra is installed there.
MAY_BE_ABSENT_IN_CI = ("MATL_DATA_DIR", "MATL_VECTORS_DIR")

# Packages of the extras that `make venv` leaves out; tests that need one are skipped with its name.
OPTIONAL = ("torch", "opacus", "tensorboardX", "mlflow", "zstandard", "dp_accounting", "dcap_qvl")


def pytest_report_header() -> str | None:
    """Say at once which packages are missing; the skipped tests are named at the end."""
    missing = [package for package in OPTIONAL if find_spec(package) is None]
    if not missing:
        return None
    return f"not installed: {', '.join(missing)}; tests that wait for them are skipped and listed (all: make venv-all)"


def pytest_sessionfinish(session: pytest.Session) -> None:
    """Fail a run in CI (``CI=true``) that skipped a test: there, a missing browser is a fault, not a circumstance."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("CI") != "true" or reporter is None:
        return
    skipped = [report.longrepr for report in reporter.stats.get("skipped", [])]  # (path, line, reason)
    refused = [skip for skip in skipped if not any(name in skip[2] for name in MAY_BE_ABSENT_IN_CI)]
    for path, line, reason in refused:
        reporter.write_line(f"\n{path}:{line}: {reason}; CI=true allows no skipped test", red=True)
    if refused:
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
