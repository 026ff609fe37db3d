"""Many clients with one voice."""

import numpy as np
import pytest

from matl.attacks import Collusion, Mimic, Scaling, Sybil
from matl.errors import InvalidValueError

RNG = np.random.default_rng


def cosines(rows):
    unit = rows / np.linalg.norm(rows, axis=1, keepdims=True)
    return unit @ unit.T


def test_colluders_share_a_direction_up_to_their_jitter(view):
    own = RNG(0).normal(size=(5, 20_000)).astype(np.float32) + 0.1
    sent = Collusion(jitter=0.5).craft(view(own), RNG(0))
    np.testing.assert_allclose(np.linalg.norm(sent, axis=1), np.linalg.norm(own, axis=1), rtol=1e-5)
    # 1 / (1 + 0.25), to within the 0.7 % that noise in 20,000 dimensions has
    np.testing.assert_allclose(cosines(sent)[np.triu_indices(5, 1)], 0.8, atol=0.03)
    exact = Collusion(jitter=0.0).craft(view(own), RNG(0))
    np.testing.assert_allclose(cosines(np.concatenate([exact, own.mean(axis=0)[None]]))[-1, :5], -1.0, atol=1e-5)


def test_sybils_are_clones_of_the_first_but_for_a_little_noise(view):
    own = RNG(0).normal(size=(5, 20_000)).astype(np.float32)
    sent = Sybil(Scaling(2.0), noise=0.05).craft(view(own), RNG(0))
    off = np.linalg.norm(sent - 2 * own[0], axis=1) / np.linalg.norm(2 * own[0])
    np.testing.assert_allclose(off, 0.05, rtol=0.05)
    assert len(np.unique(sent, axis=0)) == 5
    np.testing.assert_array_equal(Sybil(Scaling(2.0), noise=0.0).craft(view(own), RNG(0)), np.tile(2 * own[0], (5, 1)))


def test_mimics_copy_the_honest_update_that_stands_out(view, own, honest):
    honest[5] += 20
    np.testing.assert_array_equal(Mimic().craft(view(own, honest), RNG(0)), np.tile(honest[5], (4, 1)))


@pytest.mark.parametrize("wrong", [lambda: Collusion(jitter=-1), lambda: Sybil(noise=float("nan"))])
def test_options_out_of_range_are_refused_with_the_value_seen(wrong):
    with pytest.raises(InvalidValueError, match=r"expected .*, got \w+=\S+"):
        wrong()
