"""Error feedback: what one message loses is part of the next."""

import numpy as np
import pytest

from matl.codec import CODECS
from matl.errors import InvalidValueError, StateError
from matl.state import pack, unpack

TOPK = CODECS.create({"name": "topk", "fraction": 0.1})


def normal(size):
    return np.random.default_rng(0).normal(size=size).astype(np.float32)


def test_feedback_carries_what_was_lost():
    codec, x = TOPK, normal(200)
    assert codec.needs_state
    sent, state = np.zeros(200), None
    for _ in range(30):
        data, state = codec.encode(x, state=state)
        sent += codec.decode(data, size=200)
        state = unpack(pack(state))
    # What is missing is in the residual, and nowhere else.
    np.testing.assert_allclose(sent + state["residual"], 30 * x, atol=1e-3)
    assert np.linalg.norm(state["residual"]) < 10 * np.linalg.norm(x)


def test_without_feedback_there_is_no_state():
    assert CODECS.create("int8").encode(normal(5))[1] == {}
    assert not CODECS.create("int8").needs_state


@pytest.mark.parametrize(
    "state", [{"version": 2, "residual": np.zeros(5)}, {"version": 1}, {"version": 1, "residual": np.zeros(4)}]
)
def test_states_that_are_refused(state):
    with pytest.raises(StateError, match="for vectors of 5 numbers; got version"):
        TOPK.encode(normal(5), state=state)


def test_a_residual_that_is_not_finite_is_refused():
    with pytest.raises(InvalidValueError, match="NaN or infinite"):
        TOPK.encode(normal(2), state={"version": 1, "residual": np.array([np.nan, 0], np.float32)})
