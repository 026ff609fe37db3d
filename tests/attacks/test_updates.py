"""Attacks on the own update against their formulas."""

import numpy as np
import pytest

from matl.attacks import GaussianNoise, Scaling, SignFlip
from matl.errors import InvalidValueError

RNG = np.random.default_rng


def test_sign_flip_is_minus_k_times_the_update(view, own):
    np.testing.assert_array_equal(SignFlip().craft(view(own), RNG(0)), -own)
    np.testing.assert_array_equal(SignFlip(scale=2.5).craft(view(own), RNG(0)), np.float32(-2.5) * own)


def test_scaling_is_k_times_the_update(view, own):
    np.testing.assert_array_equal(Scaling().craft(view(own), RNG(0)), np.float32(10) * own)
    np.testing.assert_array_equal(Scaling(scale=4).craft(view(own), RNG(0)), np.float32(4) * own)


def test_gaussian_noise_has_k_times_the_norm_and_no_direction(view):
    own = RNG(1).normal(size=(3, 20_000)).astype(np.float32) * np.array([[1], [10], [100]], np.float32)
    noise = GaussianNoise(scale=2.0).craft(view(own), RNG(0))
    assert noise.dtype == np.float32
    # |z| / sqrt(d) has standard deviation 1 / sqrt(2 d) = 0.5 %, the cosine 1 / sqrt(d) = 0.7 %: 6 sigma each.
    ratio = np.linalg.norm(noise, axis=1) / np.linalg.norm(own, axis=1)
    np.testing.assert_allclose(ratio, 2.0, rtol=0.03)
    unit = noise / np.linalg.norm(noise, axis=1, keepdims=True)
    cosines = np.concatenate(
        [(unit @ unit.T)[np.triu_indices(3, 1)], (unit * own).sum(1) / np.linalg.norm(own, axis=1)]
    )
    assert np.abs(cosines).max() < 0.043
    np.testing.assert_array_equal(noise, GaussianNoise(scale=2.0).craft(view(own), RNG(0)))


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: SignFlip(scale=0),
        lambda: SignFlip(scale=float("inf")),
        lambda: GaussianNoise(scale=-1),
        lambda: Scaling(scale=1),
        lambda: Scaling(scale=float("inf")),
        lambda: Scaling(scale=float("nan")),
    ],
)
def test_impossible_strengths_are_refused_with_the_value_seen(wrong):
    with pytest.raises(InvalidValueError, match=r"expected .*, got \w+=\S+"):
        wrong()
