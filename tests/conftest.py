"""What every test file shares."""

from __future__ import annotations

import os

import hypothesis
import pytest

# A loaded machine is slow now and then; that is not a failure.
hypothesis.settings.register_profile("matl", deadline=None)
hypothesis.settings.load_profile("matl")

# What continuous integration may lack today: no part of a release depends on it yet.
MAY_BE_ABSENT_IN_CI = ("torch", "MATL_DATA_DIR")


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
