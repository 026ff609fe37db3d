"""What a judge carries and what it says go through the codec and come back the same, bit for bit."""

from dataclasses import asdict
from functools import cache

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from matl.modes import Plain
from matl.records import Judgement, Status, Verdict
from matl.simulation import build_simulation, load_config
from matl.state import pack, unpack

KINDS = ("mode0", "mode1", "plain")


class Recorder:
    """A judge that keeps what it is shown and what it says."""

    def __init__(self, mode):
        self.mode, self.seen = mode, []

    def __getattr__(self, name):
        return getattr(self.mode, name)

    def judge(self, cohort, state):
        judgement, after = self.mode.judge(cohort, state)
        self.seen.append((cohort, state, judgement, after))
        return judgement, after


@cache
def played(kind):
    """A mode, and for each round what it was shown, the state before, its judgement, and the state after."""
    settings = {"dataset": "synthetic", "clients": 20, "byzantine": 0.3, "rounds": 6, "participation": 0.7, "seed": 4}
    config = load_config(None, {**settings, "mode": kind})
    recorder = Recorder(build_simulation(config).workload.mode)
    simulation = build_simulation(config, mode=recorder)
    for _ in simulation.run(simulation.init()):
        pass
    return recorder.mode, tuple(recorder.seen)


def leaves(value, path=""):
    """Everything in plain data as (path, type, value); arrays as their type, shape and bytes."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield from leaves(item, f"{path}.{key}")
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            yield from leaves(item, f"{path}[{index}]")
    elif isinstance(value, np.ndarray):
        yield path, (value.dtype.str, value.shape, value.tobytes())
    else:
        yield path, (type(value), np.float64(value).tobytes() if isinstance(value, float) else value)


def plain_of(judgement):
    """A judgement as plain data."""
    data = asdict(judgement)
    return {**data, "verdicts": [{**verdict, "status": verdict["status"].value} for verdict in data["verdicts"]]}


def judgement_of(data):
    """And back."""
    verdicts = tuple(Verdict(**{**verdict, "status": Status(verdict["status"])}) for verdict in data["verdicts"])
    return Judgement(**{**data, "verdicts": verdicts})


@pytest.mark.parametrize("kind", KINDS)
def test_every_state_comes_back_with_the_same_types_shapes_and_bits(kind):
    mode, rounds = played(kind)
    for state in (rounds[0][1], *(after for *_, after in rounds)):
        back = unpack(pack(state))
        assert list(leaves(back)) == list(leaves(state))
        assert pack(back) == pack(state)
    if not isinstance(mode, Plain):
        assert any(isinstance(value, tuple) for _, value in leaves(rounds[-1][3])), "it should hold arrays"


@pytest.mark.parametrize("kind", KINDS)
def test_every_judgement_comes_back_the_same(kind):
    _, rounds = played(kind)
    for _, _, judgement, _ in rounds:
        data = plain_of(judgement)
        back = unpack(pack(data))
        assert list(leaves(back)) == list(leaves(data))
        again = judgement_of(back)
        assert again.aggregate.tobytes() == judgement.aggregate.tobytes()
        assert again.aggregate.dtype == judgement.aggregate.dtype
        assert (again.verdicts, again.digests) == (judgement.verdicts, judgement.digests)


@pytest.mark.parametrize("kind", KINDS)
def test_judging_on_from_a_stored_state_gives_the_same_bits_as_never_having_stopped(kind):
    mode, rounds = played(kind)
    stored = rounds[0][1]
    for cohort, _, judgement, after in rounds:
        with threadpool_limits(1):  # as every host runs a judge: sums on more threads add up in another order
            again, stored = mode.judge(cohort, unpack(pack(stored)))
        assert list(leaves(plain_of(again))) == list(leaves(plain_of(judgement)))
        assert pack(stored) == pack(after)
