"""Attacks that know every honest update, against their papers' formulas computed directly."""

from statistics import NormalDist

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from matl.attacks import Alie, AttackView, Ipm, Lie, MinMax, MinSum
from matl.errors import InvalidValueError

RNG = np.random.default_rng


@pytest.mark.parametrize(
    ("n", "f", "supporters"),
    [(50, 20, 6), (25, 5, 8), (20, 8, 3), (10, 4, 2), (10, 5, 1), (10, 7, 1)],
)
def test_alie_is_the_mean_minus_z_standard_deviations(view, n, f, supporters):
    honest = RNG(2).normal(size=(n - f, 30)).astype(np.float32)
    own = np.zeros((f, 30), np.float32)
    assert supporters == max(n // 2 + 1 - f, 1)
    z = NormalDist().inv_cdf((n - f - supporters) / (n - f))
    sent = Alie().craft(view(own, honest), RNG(0))
    expected = honest.astype(np.float64).mean(axis=0) - z * honest.astype(np.float64).std(axis=0)
    assert sent.shape == own.shape
    assert sent.dtype == np.float32
    np.testing.assert_allclose(sent, np.tile(expected, (f, 1)), rtol=1e-4, atol=1e-5)


@given(n=st.integers(3, 60), data=st.data())
def test_alie_stays_among_the_honest_whatever_the_numbers(n, data):
    f = data.draw(st.integers(1, n - 2))
    honest = RNG(n).normal(size=(n - f, 4)).astype(np.float32)
    seen = AttackView(round=0, own=np.zeros((f, 4), np.float32), honest=honest, clients=n)
    sent = Alie().craft(seen, RNG(0))
    assert np.isfinite(sent).all()
    assert (sent <= honest.mean(axis=0) + 1e-5).all()  # never the helpful way


@pytest.mark.parametrize("honest", [None, np.ones((1, 50), np.float32), np.ones((0, 50), np.float32)])
def test_alie_without_a_spread_to_hide_in_behaves(view, own, honest):
    assert Alie().craft(view(own, honest), RNG(0)) is own


def test_lie_is_the_mean_minus_a_probability_times_the_root_of_the_deviation(view, own, honest):
    everyone = np.concatenate([own, honest]).astype(np.float64)
    n, f, supporters = 11, 4, 2
    assert supporters == n // 2 + 1 - f
    expected = everyone.mean(axis=0) - NormalDist().cdf((n - f - supporters) / (n - f)) * everyone.std(axis=0) ** 0.5
    np.testing.assert_allclose(Lie().craft(view(own, honest), RNG(0)), np.tile(expected, (f, 1)), atol=1e-5)


def test_ipm_is_minus_epsilon_times_the_honest_mean(view, own, honest):
    sent = Ipm(epsilon=0.5).craft(view(own, honest), RNG(0))
    np.testing.assert_allclose(sent, np.tile(-0.5 * honest.mean(axis=0), (4, 1)), rtol=1e-6)


PERTURBATIONS = {
    "std": lambda U: -U.std(axis=0),
    "unit": lambda U: -U.mean(axis=0) / np.linalg.norm(U.mean(axis=0)),
    "sign": lambda U: -np.sign(U.mean(axis=0)),
}


def halved(fits):
    """The largest gamma that fits, as the papers find it."""
    low, high = 0.0, 1e4
    for _ in range(80):
        middle = (low + high) / 2
        low, high = (middle, high) if fits(middle) else (low, middle)
    return low


@pytest.mark.parametrize("perturbation", PERTURBATIONS)
def test_min_max_and_min_sum_go_as_far_as_their_papers_do(perturbation, view, own, honest):
    U = honest.astype(np.float64)
    mean, p = U.mean(axis=0), PERTURBATIONS[perturbation](U)
    between = np.square(U[:, None] - U).sum(axis=-1)

    def away(gamma):
        return np.square(mean + gamma * p - U).sum(axis=-1)

    for attack, fits in (
        (MinMax(perturbation), lambda gamma: away(gamma).max() <= between.max()),
        (MinSum(perturbation), lambda gamma: away(gamma).sum() <= between.sum(axis=1).max()),
    ):
        sent = attack.craft(view(own, honest), RNG(0))
        np.testing.assert_allclose(sent, np.tile(mean + halved(fits) * p, (4, 1)), rtol=1e-4, atol=1e-4)


def test_min_sum_stays_closer_than_min_max(view, own, honest):
    mean = honest.mean(axis=0)
    far, near = (np.linalg.norm(attack.craft(view(own, honest), RNG(0))[0] - mean) for attack in (MinMax(), MinSum()))
    assert 0 < near < far


@pytest.mark.parametrize(
    "wrong", [lambda: Ipm(epsilon=0), lambda: MinMax("normal"), lambda: MinSum("normal"), lambda: Ipm(float("nan"))]
)
def test_options_out_of_range_are_refused_with_the_value_seen(wrong):
    with pytest.raises(InvalidValueError, match=r"expected .*, got \w+=\S+"):
        wrong()
