"""Whatever the bytes are, a decoder returns or says that it refuses: no other error, and in little time and memory."""

from __future__ import annotations

import contextlib
import time
import tracemalloc

import pytest
from hypothesis import HealthCheck, example, given, settings
from tests.fuzz.mutations import bombs, exchanged, mutated
from tests.fuzz.targets import TARGETS, Target

MOST_SECONDS = 5.0  # of the processor; what is compiled when it is used for the first time takes one
MOST_BYTES = 64 << 20
NAMES = sorted(TARGETS)


def attempt(target: Target, data: bytes) -> None:
    """Decode, and see what comes of it."""
    began = time.process_time()
    with contextlib.suppress(*target.allowed):
        target.decode(data)
    assert time.process_time() - began < MOST_SECONDS, f"{len(data)} bytes took too long"


@pytest.mark.parametrize("name", NAMES)
def test_the_first_sample_is_taken(name: str) -> None:
    TARGETS[name].decode(TARGETS[name].seeds[0])


@pytest.mark.parametrize("name", NAMES)
def test_every_sample_is_refused_or_taken(name: str) -> None:
    for seed in TARGETS[name].seeds:
        attempt(TARGETS[name], seed)


@pytest.mark.parametrize("name", NAMES)
def test_changed_samples_are_refused_or_taken(name: str) -> None:
    target = TARGETS[name]

    @settings(max_examples=40, suppress_health_check=list(HealthCheck), database=None)
    @example(b"")
    @given(mutated(target.seeds))
    def check(data: bytes) -> None:
        attempt(target, data)

    check()


@pytest.mark.parametrize("name", NAMES)
def test_samples_cut_off_are_refused_or_taken(name: str) -> None:
    target = TARGETS[name]
    seed = target.seeds[0]
    for end in range(0, len(seed), max(1, len(seed) // 60)):
        attempt(target, seed[:end])


@pytest.mark.parametrize("name", [name for name in NAMES if TARGETS[name].form != "bytes"])
def test_parts_exchanged_are_refused_or_taken(name: str) -> None:
    target = TARGETS[name]
    for variant in exchanged(target.seeds[0], target.form):
        attempt(target, variant)


@pytest.mark.parametrize("name", NAMES)
def test_bombs_do_no_harm(name: str) -> None:
    target = TARGETS[name]
    attempt(target, target.seeds[0])  # what is compiled or loaded is there now
    for bomb, data in bombs(target.seeds[0]).items():
        tracemalloc.start()
        try:
            attempt(target, data)
            _, most = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert most < MOST_BYTES, f"{bomb} of {len(data)} bytes took {most}"
