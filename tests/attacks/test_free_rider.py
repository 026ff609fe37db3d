"""Clients that do no work."""

import numpy as np
import pytest

from matl.attacks import FreeRider
from matl.errors import InvalidValueError

RNG = np.random.default_rng
D = 20_000


@pytest.mark.parametrize("send", ["replay", "zeros"])
def test_free_riders_send_what_took_no_training(view, send):
    own = RNG(0).normal(size=(3, D)).astype(np.float32)
    previous = RNG(1).normal(size=D).astype(np.float32)
    assert not FreeRider(send).craft(view(own), RNG(0)).any()  # nothing to replay, and no length to go by
    base = previous if send == "replay" else np.zeros_like(previous)
    exact = FreeRider(send, noise=0.0).craft(view(own, previous=previous), RNG(0))
    np.testing.assert_array_equal(exact, np.tile(base, (3, 1)))
    noisy = FreeRider(send, noise=0.1).craft(view(own, previous=previous), RNG(0)) - base
    np.testing.assert_allclose(np.linalg.norm(noisy, axis=1) / np.linalg.norm(previous), 0.1, rtol=0.05)
    assert abs(np.corrcoef(noisy)[0, 1]) < 0.05  # each its own


@pytest.mark.parametrize("wrong", [lambda: FreeRider("ones"), lambda: FreeRider(noise=-0.1)])
def test_options_out_of_range_are_refused_with_the_value_seen(wrong):
    with pytest.raises(InvalidValueError, match=r"expected .*, got \w+=\S+"):
        wrong()
