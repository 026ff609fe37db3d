"""Who is invited to a round."""

from __future__ import annotations

from collections import Counter

import pytest
from tests.coordinator.runs import plan

from matl.coordinator.rounds.drawing import draw
from matl.coordinator.rounds.machine import Rules
from matl.errors import InvalidValueError

MANY = dict.fromkeys((f"client-{index}" for index in range(100)), True)


def drawn(present=MANY, count=13, key=b"k" * 32, run="demo", seed=7, number=0):
    return draw(present, count, key, run=run, seed=seed, number=number)


def test_a_lot_depends_on_run_seed_round_and_key_and_on_nothing_else():
    first = drawn()
    assert len(set(first)) == 13
    assert first == drawn(dict(sorted(MANY.items(), reverse=True)))
    others = [drawn(key=b"l" * 32), drawn(run="other"), drawn(seed=8), drawn(number=1)]
    assert len({first, *others}) == 5


def test_over_many_rounds_everybody_is_drawn_about_as_often():
    times = Counter(client for number in range(1000) for client in drawn(number=number))
    assert times.keys() == MANY.keys()
    # 130 expected of each, with a standard deviation of 10.6
    assert min(times.values()) > 85
    assert max(times.values()) < 175


def test_who_was_heard_of_lately_comes_before_who_was_not():
    present = {name: index < 10 for index, name in enumerate(MANY)}
    awake = {name for name, heard in present.items() if heard}
    found = drawn(present)
    assert awake < set(found)
    assert len(found) == 13
    assert set(drawn(present, 4)) < awake


@pytest.mark.parametrize("count", [None, 100, 1000])
def test_where_no_more_are_there_than_are_invited_everybody_is(count):
    assert drawn(count=count) is None


@pytest.mark.parametrize(
    "wrong",
    [
        {"rules": Rules(target=3, quorum=2, over_selection=1.3)},
        {"rules": Rules(target=3, quorum=2, deadline=1.0, over_selection=1.3), "workload": {"max_staleness": 1}},
    ],
)
def test_some_are_invited_only_to_rounds_that_have_a_deadline_and_take_nothing_late(wrong):
    with pytest.raises(InvalidValueError, match="a deadline and max_staleness=0 where some clients are invited"):
        plan(**wrong)
