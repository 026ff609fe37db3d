"""Server optimisers."""

import numpy as np
import pytest

from matl import state
from matl.errors import InvalidValueError
from matl.learning.server import FedAvgM, RoundSummary, ServerSGD
from matl.params import ParamLayout

LAYOUT = ParamLayout.of([np.zeros(3, np.float32)])
SUMMARY = RoundSummary(mean_square_norm=1.0)
AGGREGATES = np.random.default_rng(0).normal(size=(4, 3)).astype(np.float32)


def run(optimizer):
    params, carried = np.zeros(3, np.float32), optimizer.init(LAYOUT)
    for aggregate in AGGREGATES:
        before = params.copy()
        new, carried_after = optimizer.step(params, aggregate, carried, SUMMARY)
        np.testing.assert_array_equal(params, before)  # what it is given stays as it was
        # A stop and a resume between any two rounds changes nothing.
        params, carried = new, state.unpack(state.pack(carried_after))
    assert params.dtype == np.float32
    return params


def test_sgd_adds_up():
    np.testing.assert_allclose(run(ServerSGD()), AGGREGATES.sum(axis=0), rtol=1e-6)
    np.testing.assert_allclose(run(ServerSGD(0.5)), 0.5 * AGGREGATES.sum(axis=0), rtol=1e-6)


def test_momentum_against_its_closed_form():
    """An aggregate of round t is counted 1 + b + b^2 + ... times, once for itself and each round after it."""
    counts = [sum(0.9**k for k in range(4 - t)) for t in range(4)]
    np.testing.assert_allclose(run(FedAvgM(0.3, 0.9)), 0.3 * np.array(counts) @ AGGREGATES, rtol=1e-5)


def test_no_momentum_is_sgd():
    np.testing.assert_array_equal(run(FedAvgM(0.7, 0.0)), run(ServerSGD(0.7)))


@pytest.mark.parametrize("make", [lambda: ServerSGD(0), lambda: FedAvgM(0), lambda: ServerSGD(np.inf)])
def test_the_rate_is_positive(make):
    with pytest.raises(InvalidValueError, match="learning_rate"):
        make()


@pytest.mark.parametrize("momentum", [-0.1, 1, 1.5, np.nan])
def test_momentum_is_below_one(momentum):
    with pytest.raises(InvalidValueError, match="momentum"):
        FedAvgM(momentum=momentum)
