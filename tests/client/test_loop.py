"""How long a loop bears that nobody can be reached."""

from __future__ import annotations

import asyncio
import math
from types import SimpleNamespace

import pytest

from matl.client.loop import TrainingLoop
from matl.client.retrying import Retrying
from matl.client.watching import Watch
from matl.errors import ServiceError


class Part:
    async def chosen(self):
        return SimpleNamespace(id="demo")


class Scripted(TrainingLoop):
    """Each attempt takes so many seconds, and then nobody is there; after them the run is over."""

    def __init__(self, *seconds):
        self._connection = SimpleNamespace(retrying=Retrying(base=0.001, cap=0.001))
        self._watch, self._part = Watch(None, None), Part()
        self._left = list(seconds)

    async def next_round(self, *, wait=None):
        if self._left:
            await asyncio.sleep(self._left.pop(0))
            raise ServiceError("busy", "nobody is there")

    async def submit_gradient(self, *_, **__):
        raise AssertionError("there is no round")

    def pass_over(self, *_):
        raise AssertionError("there is no round")


class Refusing(Scripted):
    """Asks to wait so long, once."""

    def __init__(self, retry_after):
        super().__init__()
        self._after = [retry_after]

    async def next_round(self, *, wait=None):
        if self._after:
            raise ServiceError("busy", "come back later", retry_after=self._after.pop())


def rounds_of(loop, patience):
    async def through():
        return [one async for one in loop.rounds(patience=patience)]

    return asyncio.run(through())


def test_an_outage_begins_when_nobody_can_be_reached_and_not_with_the_wait_for_a_round():
    assert rounds_of(Scripted(0.3, 0.01, 0.01), patience=0.2) == []


def test_an_outage_that_takes_too_long_is_an_error():
    with pytest.raises(ServiceError, match="nobody is there"):
        rounds_of(Scripted(0.01, *[0.05] * 20), patience=0.2)


@pytest.mark.parametrize("seconds", [86_400.0, math.inf])
def test_who_asks_to_wait_longer_than_patience_lasts_is_not_waited_for(seconds):
    async def through():
        async with asyncio.timeout(5):
            return [one async for one in Refusing(seconds).rounds(patience=3600.0)]

    with pytest.raises(ServiceError, match="come back later"):
        asyncio.run(through())


def test_who_asks_to_wait_a_little_is_waited_for():
    assert rounds_of(Refusing(0.05), patience=1.0) == []
