"""Durations: quantiles within one percent, histograms that add up, and words that do not change for being timed."""

import math
import time
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matl.codec import BlockLayout
from matl.errors import InvalidValueError
from matl.privacy import timing
from matl.privacy.certificate import Instance
from matl.privacy.encoder import Encoder, _edges
from matl.privacy.table import skellam_table
from matl.privacy.timing import BLOCK_WORDS, Histogram, Stopwatch, clock_step
from matl.privacy.words import Words

DURATIONS = st.one_of(st.integers(0, 1000), st.integers(0, 1 << 40))
INSTANCE = Instance(
    8, skellam_table("3/8").counts, 40, 4, Fraction(1, 8), Fraction(3), 1, Fraction(1, 1000), ((1, 8),), 1
)


def counted(durations):
    histogram = Histogram()
    for duration in durations:
        histogram.add(duration)
    return histogram


@given(st.lists(DURATIONS, min_size=1, max_size=60), st.floats(0, 1))
@settings(max_examples=300)
def test_a_quantile_is_within_one_percent_of_the_duration_of_its_rank(durations, q):
    true = sorted(durations)[math.floor(q * (len(durations) - 1))]
    assert abs(counted(durations).quantile(q) - true) <= 0.01 * true * (1 + 1e-9)


@pytest.mark.parametrize("exponent", range(0, 41, 4))
def test_every_duration_up_to_eighteen_minutes_has_a_bucket_of_its_size(exponent):
    for duration in (1 << exponent, (1 << exponent) + 1, max((1 << exponent) - 1, 0)):
        assert counted([duration] * 3).quantile(0.5) == pytest.approx(duration, rel=0.01 + 1e-9)


def test_longer_ones_are_told_as_the_longest():
    histogram = counted([5, 1 << 50, 1 << 60])
    assert histogram.quantile(0.5) == histogram.quantile(1) == 1 << 60
    assert histogram.quantile(0) == pytest.approx(5, rel=0.01)
    assert len(histogram.counts) == len(Histogram().counts) == 1389


@given(st.lists(DURATIONS, max_size=40), st.lists(DURATIONS, max_size=40))
def test_histograms_add_up_and_travel(first, second):
    both = counted(first) + Histogram.of_dict(counted(second).as_dict())
    assert both == counted(first + second)
    assert (len(both), both.total, both.largest) == (
        len(first + second),
        sum(first + second),
        max(first + second, default=0),
    )
    assert Histogram.of_dict(both.as_dict()) == both


def test_a_quantile_is_told_only_if_a_hundred_durations_were_longer():
    assert Histogram().quantiles() == {}
    assert math.isnan(Histogram().quantile(0.5))
    for count, names in ((199, []), (200, ["p50"]), (9999, ["p50"]), (10_000, ["p50", "p99"])):
        assert list(counted([7] * count).quantiles()) == names
    many = counted([7] * 1000)
    many.counts[8] += 99_000
    assert list(many.quantiles()) == ["p50", "p99", "p999"]


@pytest.mark.parametrize(
    "changed",
    [
        {"buckets": {"1389": 1}},
        {"buckets": {"-1": 1}},
        {"buckets": {"x": 1}},
        {"buckets": {"3": 0}},
        {"buckets": {"3": 1.5}},
        {"buckets": [1]},
        {"sum_ns": -1},
        {"largest_ns": "7"},
    ],
)
def test_what_is_no_histogram(changed):
    with pytest.raises(InvalidValueError, match="this is no histogram of durations"):
        Histogram.of_dict(counted([7]).as_dict() | changed)
    with pytest.raises(InvalidValueError):
        Histogram.of_dict({})


def test_both_clocks_are_told_of_every_span(monkeypatch):
    """Clocks of which one moves on by 1000 in a span and the other by 300."""
    readings = {"wall": 0, "cpu": 0}

    def clock(name):
        def read():
            readings[name] += 1
            return readings[name]

        return read

    monkeypatch.setattr(timing.time, "perf_counter_ns", clock("wall"))
    monkeypatch.setattr(timing.time, "thread_time_ns", clock("cpu"))
    told = []
    stopwatch = Stopwatch(told.append, run="demo")
    for _ in range(250):
        with stopwatch.span("noise"):
            readings["wall"] += 999
            readings["cpu"] += 299
    with pytest.raises(RuntimeError), stopwatch.span("encode"):
        raise RuntimeError
    stopwatch.publish(round=4)
    noise, encode = told
    assert (noise.kind, noise.run, noise.round, noise.data["span"]) == ("latency", "demo", 4, "noise")
    for name, duration in (("wall", 1000), ("cpu", 300)):
        found = noise.data[name]
        assert (found["count"], found["sum_ns"], found["largest_ns"]) == (250, 250 * duration, duration)
        assert found["quantiles_ns"] == {"p50": pytest.approx(duration, rel=0.01)}
        assert found["step_ns"] == 1
        assert encode.data[name]["count"] == 0  # what was not finished is not timed
        assert noise.data["so_far"][f"{name}_ns"] == dict.fromkeys(
            ("p50", "p99", "p999"), pytest.approx(duration, rel=0.01)
        )
    assert encode.data["so_far"] == {"count": 0, "wall_ns": {}, "cpu_ns": {}}
    stopwatch.publish(round=5)
    assert len(told) == 2  # every duration is told of once
    with stopwatch.span("noise"):
        readings["wall"] += 999_999
    stopwatch.publish(round=6)
    assert (told[2].data["wall"]["count"], told[2].data["so_far"]["count"]) == (1, 251)
    assert told[2].data["so_far"]["wall_ns"]["p50"] == pytest.approx(1000, rel=0.01)


def test_the_step_of_a_clock():
    ticks = iter(range(10**6))
    assert clock_step(lambda: next(ticks) // 5 * 700) == 700
    assert 0 < clock_step(time.perf_counter_ns) < 10**6


def test_a_clock_that_stands_still_has_no_step(monkeypatch):
    monkeypatch.setattr(timing, "_PATIENCE", 10**5)
    assert clock_step(lambda: 5) == 0


@pytest.mark.parametrize("size", [100, BLOCK_WORDS, 3 * BLOCK_WORDS + 5, 12 * BLOCK_WORDS])
def test_what_is_sent_does_not_depend_on_being_timed(size):
    told = []
    quiet = Encoder(INSTANCE, BlockLayout(size), 1.0)
    stopwatch = Stopwatch(told.append)
    timed = replace(quiet, stopwatch=stopwatch)
    assert timed == quiet
    update = np.linspace(-1, 1, size, dtype=np.float32)
    for seed in range(5):
        plain, same = (coder.encode(update, seed, words=Words(bytes(32))) for coder in (quiet, timed))
        np.testing.assert_array_equal(plain, same)
    stopwatch.publish(round=0)
    counts = {event.data["span"]: event.data["cpu"]["count"] for event in told}
    assert counts == {"encode": 5, "noise": 5}


def test_the_blocks_of_an_update_are_timed_in_turn():
    stopwatch = Stopwatch([].append)
    assert [stopwatch.block(3 * BLOCK_WORDS + 5) for _ in range(4)] == [BLOCK_WORDS, 2 * BLOCK_WORDS, 0, BLOCK_WORDS]
    assert stopwatch.block(BLOCK_WORDS - 1) == 0
    assert _edges(BLOCK_WORDS - 1, 0) == [0, BLOCK_WORDS - 1]


@pytest.mark.parametrize("block", [0, 5 * BLOCK_WORDS, 11 * BLOCK_WORDS])
def test_a_timed_block_is_a_part_of_its_own(block):
    edges = _edges(12 * BLOCK_WORDS, block)
    assert edges[edges.index(block) + 1] == block + BLOCK_WORDS
    assert edges == sorted(set(edges))
    assert (edges[0], edges[-1]) == (0, 12 * BLOCK_WORDS)
