"""What every doctest shares."""

from __future__ import annotations

import doctest
from collections.abc import Generator

import pytest

from matl.errors import MissingExtraError


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    """Skip the doctest of a part whose extra is not installed."""
    try:
        return (yield)
    except doctest.UnexpectedException as failure:
        if isinstance(failure.exc_info[1], MissingExtraError):
            pytest.skip(f"{item.name}: {failure.exc_info[1]}")
        raise
