"""The clipping norm that follows a quantile: the norm is kept, and the quantile is found."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from matl.errors import InvalidValueError
from matl.privacy.clipping import AdaptiveClip


@given(st.floats(1e-6, 1e6), st.floats(1e-6, 1e6), st.floats(0.01, 0.9), st.integers(1, 50), st.integers(0, 2**32 - 1))
def test_what_is_sent_is_never_longer_than_the_norm(size, clip, share, length, seed):
    update = np.random.default_rng(seed).normal(size=length).astype(np.float32)
    update *= np.float32(size) / max(np.linalg.norm(update), 1e-20)
    sent = AdaptiveClip(share=share).attached(update, clip)
    assert sent.dtype == np.float32
    assert np.linalg.norm(sent.astype(np.float64)) <= clip * (1 + 1e-5)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_what_is_not_finite_counts_as_too_long_and_is_left_to_the_encoder(bad):
    sent = AdaptiveClip().attached(np.array([bad, 1.0], np.float32), 1.0)
    assert sent[-1] < 0
    assert not np.isfinite(sent).all()


@pytest.mark.parametrize("quantile", [0.2, 0.5, 0.9])
def test_the_quantile_of_the_norms_is_found_from_far_off(quantile):
    norms = np.random.default_rng(0).lognormal(1.0, 0.7, size=200)
    adaptive, clip = AdaptiveClip(quantile=quantile), 0.01
    for _ in range(200):
        sent = [adaptive.attached(np.array([norm], np.float32), clip) for norm in norms]
        _, within = adaptive.detached(np.mean(sent, axis=0), clip)
        assert within == pytest.approx(np.mean(norms <= clip), abs=1e-4)
        clip = adaptive.next(clip, within)
    assert clip == pytest.approx(np.quantile(norms, quantile), rel=0.1)


def test_noise_cannot_take_the_share_out_of_its_range():
    adaptive = AdaptiveClip()
    assert [adaptive.detached(np.array([0.0, told], np.float32), 1.0)[1] for told in (-9.0, 9.0)] == [0.0, 1.0]


@pytest.mark.parametrize("wrong", [{"quantile": 0.0}, {"quantile": 1.0}, {"share": 1.0}, {"learning_rate": 0.0}])
def test_settings_that_mean_nothing_are_refused(wrong):
    with pytest.raises(InvalidValueError, match=next(iter(wrong))):
        AdaptiveClip(**wrong)
