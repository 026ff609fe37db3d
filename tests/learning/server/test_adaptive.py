"""FedAdam, FedYogi and FedExP against the formulas of their papers."""

import numpy as np
import pytest

from matl.errors import InvalidValueError
from matl.learning.server import FedAdam, FedExP, FedYogi, RoundSummary, ServerSGD

# Ups and downs, so that the second moment grows and shrinks.
AGGREGATES = np.random.default_rng(0).normal(size=(9, 5)) * np.array([3, 1, 0.1, 1, 2, 0.01, 5, 0.1, 0.5])[:, None]
ROUNDS = [(row, RoundSummary(mean_square_norm=1.0)) for row in AGGREGATES.astype(np.float32)]


def by_hand(second_moment, *, rate=0.3, b1=0.9, b2=0.99, tau=1e-3):
    """Algorithm 2 of the paper in float64: no correction of the bias, and v starts at tau^2."""
    w, m, v, history = np.zeros(5), np.zeros(5), np.full(5, tau**2), []
    for delta in AGGREGATES:
        m = b1 * m + (1 - b1) * delta
        v = second_moment(v, delta**2, b2)
        w = w + rate * m / (np.sqrt(v) + tau)
        history.append(w)
    return np.array(history)


def test_fedadam(run):
    expected = by_hand(lambda v, square, b2: b2 * v + (1 - b2) * square)
    np.testing.assert_allclose(run(FedAdam(learning_rate=0.3), ROUNDS)[0], expected, rtol=1e-5)


def test_fedyogi(run):
    expected = by_hand(lambda v, square, b2: v - (1 - b2) * square * np.sign(v - square))
    assert np.abs(expected - by_hand(lambda v, square, b2: b2 * v + (1 - b2) * square)).max() > 0.01
    np.testing.assert_allclose(run(FedYogi(learning_rate=0.3), ROUNDS)[0], expected, rtol=1e-5)


def test_other_constants(run):
    expected = by_hand(lambda v, square, b2: b2 * v + (1 - b2) * square, rate=1.0, b1=0.5, b2=0.9, tau=0.1)
    optimizer = FedAdam(learning_rate=1.0, momentum=0.5, decay=0.9, tau=0.1)
    np.testing.assert_allclose(run(optimizer, ROUNDS)[0], expected, rtol=1e-5)


def test_a_large_update_is_forgotten_more_slowly_by_yogi(run):
    rounds = [(np.full(1, value, np.float32), ROUNDS[0][1]) for value in (10.0, *[0.01] * 200)]
    adam, yogi = (run(kind(), rounds)[1]["second_moment"][0] for kind in (FedAdam, FedYogi))
    assert adam < 0.2
    assert yogi > 0.9


def extrapolation(updates, weights=None, epsilon=1e-9):
    """The factor by which FedExP stretches the mean of updates."""
    aggregate = np.average(updates, axis=0, weights=weights)
    summary = RoundSummary(mean_square_norm=float(np.average(np.square(updates).sum(axis=1), weights=weights)))
    params, _ = FedExP(epsilon).step(np.zeros_like(aggregate), aggregate, {}, summary)
    return float(params @ aggregate / (aggregate @ aggregate))


@pytest.mark.parametrize("n", [2, 3, 8, 20])
def test_fedexp_goes_as_far_as_clients_disagree(n):
    assert extrapolation(np.ones((n, 4), np.float32)) == 1  # of one mind: half of one, and never less than one
    orthogonal = 3 * np.eye(n, dtype=np.float32)
    assert extrapolation(orthogonal) == pytest.approx(max(1, n / 2), rel=1e-5)


def test_fedexp_against_its_formula():
    updates = np.random.default_rng(1).normal(size=(12, 6)).astype(np.float32)
    mean = updates.mean(axis=0)
    eta = np.square(updates).sum() / (2 * 12 * (mean @ mean + 0.05))
    assert eta > 1.5
    assert extrapolation(updates, epsilon=0.05) == pytest.approx(eta, rel=1e-5)


def test_fedexp_stays_put_where_the_clients_cancel_out():
    summary = RoundSummary(mean_square_norm=1e6)
    params, _ = FedExP().step(np.ones(3, np.float32), np.zeros(3, np.float32), {}, summary)
    assert params.tolist() == [1, 1, 1]
    near, _ = FedExP().step(np.zeros(3, np.float32), np.full(3, 1e-6, np.float32), {}, summary)
    np.testing.assert_allclose(near, 1e-6 * 1e6 / (2 * 1e-3), rtol=1e-5)  # bounded by epsilon


def test_fedexp_on_clients_of_one_mind_is_fedavg(run):
    rounds = [(row, RoundSummary(mean_square_norm=float(row @ row))) for row, _ in ROUNDS]
    np.testing.assert_array_equal(run(FedExP(), rounds)[0], run(ServerSGD(), rounds)[0])


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: FedAdam(learning_rate=0), "learning_rate > 0"),
        (lambda: FedAdam(tau=0), "tau > 0"),
        (lambda: FedAdam(momentum=1), "0 <= momentum < 1"),
        (lambda: FedYogi(decay=np.nan), "0 <= decay < 1"),
        (lambda: FedYogi(decay=1), "0 <= decay < 1"),
        (lambda: FedExP(epsilon=0), "epsilon > 0"),
    ],
)
def test_what_cannot_be_is_refused(make, message):
    with pytest.raises(InvalidValueError, match=message):
        make()
