"""A copy of the package, for oracles that are processes of their own."""

from __future__ import annotations

import pytest
from tests.oracle.processes import Library


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Library:
    return Library.copied(tmp_path_factory.mktemp("installed") / "library")
