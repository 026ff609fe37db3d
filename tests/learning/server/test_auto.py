"""The default adaptive optimiser: its formula, and what each part is there for."""

import numpy as np
import pytest

from matl.errors import InvalidValueError
from matl.learning.server import SERVER_OPTIMIZERS, DampedNadam, RoundSummary, ServerSGD
from matl.params import ParamLayout

SUMMARY = RoundSummary(mean_square_norm=1.0)
AGGREGATES = np.random.default_rng(0).normal(loc=0.5, size=(12, 6)) * np.array([3, 1, 0.1, 1, 2, 0.01])


def rounds(aggregates):
    return [(np.asarray(row, np.float32), SUMMARY) for row in aggregates]


def steps(history):
    return np.diff(np.vstack([np.zeros_like(history[:1]), history]), axis=0)


def by_hand(aggregates, b=0.9, c=0.99):
    """The docstring's formula in float64."""
    w = m = v = np.zeros(aggregates.shape[1])
    signal = power = 0.0
    history = []
    for t, delta in enumerate(aggregates):
        m = b * m + delta
        n = b * m + delta
        v = c * v + (1 - c) * delta**2
        u = n / (np.sqrt(v) + np.sqrt(v).mean())
        if t == 0:
            signal = power = delta @ delta
        else:
            before = aggregates[t - 1]
            signal = b * signal + (1 - b) * delta @ before
            power = b * power + (1 - b) * (delta @ delta + before @ before) / 2
        w = w + max(1 - b, signal / power) * np.linalg.norm(n) * u / np.linalg.norm(u)
        history.append(w)
    return np.array(history)


@pytest.mark.parametrize("constants", [{}, {"momentum": 0.5, "decay": 0.8}])
def test_formula(run, constants):
    expected = by_hand(AGGREGATES, *constants.values())
    np.testing.assert_allclose(run(DampedNadam(**constants), rounds(AGGREGATES))[0], expected, rtol=1e-4)


def test_it_is_what_auto_names():
    assert SERVER_OPTIMIZERS.create("auto") == DampedNadam()


@pytest.mark.parametrize("scale", [2.0**-60, 2.0**-10, 2.0**10, 2.0**50])
def test_no_constant_depends_on_the_scale(run, scale):
    plain = run(DampedNadam(), rounds(AGGREGATES))[0]
    scaled = run(DampedNadam(), rounds(scale * AGGREGATES))[0]
    np.testing.assert_allclose(scaled / scale, plain, rtol=1e-4)


def test_rounds_that_agree_add_up(run):
    taken = np.linalg.norm(steps(run(DampedNadam(), rounds(np.ones((80, 4))))[0]), axis=1)
    assert taken[0] == pytest.approx(2 * 1.9, rel=1e-5)  # the look ahead: 1.9 of an aggregate of norm 2
    assert (np.diff(taken) > -1e-4).all()
    assert taken[-1] == pytest.approx(2 * 10, rel=1e-2)


def test_a_coordinate_that_moves_little_catches_up_within_bounds(run):
    small, large = np.abs(run(DampedNadam(), rounds([[0.01, 1.0]]))[0][0])
    # sqrt(v) is proportional to D, so the factor between them is (1 + mean) / (0.01 + mean) with mean 0.505.
    assert small / large == pytest.approx(0.01 * 1.505 / 0.515, rel=1e-4)
    still = run(DampedNadam(), rounds([[0.0, 1.0]] * 5))[0][-1]
    assert still[0] == 0


def test_noise_shortens_the_step_to_an_average_of_rounds(run):
    rng = np.random.default_rng(1)
    # The cosine of two of these rounds has standard deviation 1/sqrt(2000) = 0.02 and the damping averages ten of
    # them: that it exceeds its floor of 0.1 after a hundred rounds is a matter of more than ten deviations.
    noise = rng.normal(size=(100, 2000))
    taken = np.linalg.norm(steps(run(DampedNadam(), rounds(noise))[0]), axis=1)
    length = np.sqrt(2000)
    # |n| of independent rounds is sqrt(1.9^2 + 0.81^2 (0.81 / 0.19)) = 2.53 |D|
    assert taken[-20:].mean() == pytest.approx(0.1 * 2.53 * length, rel=0.1)
    assert taken[0] > 10 * taken[-1] / 2


def test_a_spike_shortens_its_own_step(run):
    usual = np.ones(50)
    spike = 100 * np.random.default_rng(2).choice([-1.0, 1.0], size=50)
    history, _ = run(DampedNadam(), rounds([usual] * 30 + [spike]))
    assert np.linalg.norm(steps(history)[-1]) < 0.2 * 1.9 * np.linalg.norm(spike)


def test_an_aggregate_of_zeros_changes_nothing(run):
    zero = np.zeros(AGGREGATES.shape[1])
    history, _ = run(DampedNadam(), rounds([zero, *AGGREGATES[:5], zero, *AGGREGATES[5:]]))
    plain = run(DampedNadam(), rounds(AGGREGATES))[0]
    np.testing.assert_array_equal(history[[1, 5, 6, -1]], plain[[0, 4, 4, -1]])


def descend(optimizer, *, noise=0.0, count=400):
    """Rounds until a badly conditioned quadratic has fallen to a thousandth, and where it ends."""
    rng = np.random.default_rng(3)
    curvature = np.geomspace(0.01, 1, 20)
    w, state = np.ones(20, np.float32), optimizer.init(ParamLayout.of([np.ones(20, np.float32)]))
    losses = []
    for _ in range(count):
        aggregate = -0.5 * curvature * w + noise * rng.normal(size=20)
        w, state = optimizer.step(w, aggregate.astype(np.float32), state, SUMMARY)
        losses.append(curvature @ w**2 / 2)
    below = np.flatnonzero(np.array(losses) < 1e-3 * curvature.sum() / 2)
    return (int(below[0]) if len(below) else count), float(np.mean(losses[-50:]))


def test_half_the_rounds_of_averaging_and_no_worse_end():
    needed, end = descend(DampedNadam())
    averaging, reached = descend(ServerSGD())
    assert needed < averaging / 2
    assert end <= reached


def test_it_settles_under_noise():
    _, end = descend(DampedNadam(), noise=0.1)
    _, averaging = descend(ServerSGD(), noise=0.1)
    assert end < 2 * averaging


@pytest.mark.parametrize(("name", "value"), [("momentum", 1), ("momentum", -0.1), ("decay", 1), ("decay", np.nan)])
def test_refuses_constants_that_forget_nothing(name, value):
    with pytest.raises(InvalidValueError, match=f"0 <= {name} < 1, got {name}={value}"):
        DampedNadam(**{name: value})
