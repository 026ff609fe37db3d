"""How long a loop bears that nobody can be reached."""

from __future__ import annotations

import asyncio
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


def rounds_of(loop, patience):
    async def through():
        return [one async for one in loop.rounds(patience=patience)]

    return asyncio.run(through())


def test_an_outage_begins_when_nobody_can_be_reached_and_not_with_the_wait_for_a_round():
    assert rounds_of(Scripted(0.3, 0.01, 0.01), patience=0.2) == []


def test_an_outage_that_takes_too_long_is_an_error():
    with pytest.raises(ServiceError, match="nobody is there"):
        rounds_of(Scripted(0.01, *[0.05] * 20), patience=0.2)
