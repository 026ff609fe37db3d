"""Asking again: how often, how long apart, and when not."""

from __future__ import annotations

import asyncio
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matl.client.retrying import Retrying
from matl.errors import ServiceError


class Host:
    """Refuses so many times, then answers."""

    def __init__(self, *errors):
        self.errors, self.asked = list(errors), 0

    async def __call__(self):
        self.asked += 1
        if self.errors:
            raise self.errors.pop(0)
        return "answer"


def busy(retry_after=None, code="busy"):
    return ServiceError(code, "later", retry_after=retry_after)


def retrying(slept, **options):
    async def sleep(seconds):
        slept.append(seconds)

    return Retrying(sleep=sleep, rng=random.Random(1), **options)


@pytest.mark.parametrize("code", ["busy", "rate"])
def test_what_passes_is_asked_again(code):
    slept, host = [], Host(busy(code=code), busy(code=code))
    assert asyncio.run(retrying(slept)(host)) == "answer"
    assert (host.asked, len(slept)) == (3, 2)


@pytest.mark.parametrize(
    "code", ["malformed", "unauthenticated", "forbidden", "not_found", "conflict", "too_large", "invalid"]
)
def test_what_stays_is_not(code):
    slept, host = [], Host(busy(code=code))
    with pytest.raises(ServiceError):
        asyncio.run(retrying(slept)(host))
    assert (host.asked, slept) == (1, [])


def test_after_so_many_attempts_the_last_refusal_is_told():
    slept, host = [], Host(*[busy() for _ in range(9)])
    with pytest.raises(ServiceError, match="later"):
        asyncio.run(retrying(slept, attempts=4)(host))
    assert host.asked == 4


@given(st.integers(0, 60), st.one_of(st.none(), st.floats(0, 100)))
def test_the_wait_is_at_least_what_the_host_says_and_bounded(attempt, retry_after):
    wait = Retrying(base=0.5, cap=8.0).wait(attempt, retry_after)
    assert (retry_after or 0) <= wait <= (retry_after or 0) + min(8.0, 0.5 * 2**attempt)


def test_waits_are_spread_over_the_whole_range():
    """Full jitter. Of 400 even draws none is in the first tenth, or none in the last, with probability 2 * 0.9^400."""
    rule = Retrying(base=1.0, cap=16.0)
    waits = [rule.wait(10) for _ in range(400)]
    assert min(waits) < 1.6
    assert max(waits) > 14.4


def test_a_host_that_asks_for_too_long_is_told_about():
    slept, host = [], Host(busy(retry_after=3600))
    with pytest.raises(ServiceError):
        asyncio.run(retrying(slept, longest=60)(host))
    assert slept == []


def test_the_budget_bounds_retries_to_a_share_of_requests():
    async def storm():
        rule = retrying([], attempts=6, share=0.2, burst=10)
        asked = 0
        for _ in range(500):
            host = Host(*[busy() for _ in range(9)])
            with pytest.raises(ServiceError):
                await rule(host)
            asked += host.asked
        return asked

    assert 500 + 0.2 * 500 - 1 <= asyncio.run(storm()) <= 500 + 10 + 0.2 * 500
