"""Attacks on rules that trust what points the right way."""

import numpy as np
import pytest

from matl.attacks import AdaptiveFLTrust, AdaptiveMix, Cone, Knowledge, LabelFlip, SignFlip
from matl.errors import InvalidValueError

RNG = np.random.default_rng


@pytest.mark.parametrize("cosine", [0.0, 0.7, 0.95])
def test_the_mix_has_its_cosine_to_the_honest_mean_and_the_length_of_the_other_attack(cosine, view, own, honest):
    sent = AdaptiveMix(SignFlip(2.0), cosine).craft(view(own, honest), RNG(0)).astype(np.float64)
    mean = honest.mean(axis=0) / np.linalg.norm(honest.mean(axis=0))
    np.testing.assert_allclose(np.linalg.norm(sent, axis=1), 2 * np.linalg.norm(own, axis=1), rtol=1e-5)
    np.testing.assert_allclose(sent @ mean / np.linalg.norm(sent, axis=1), cosine, atol=1e-5)
    assert (sent @ -own.mean(axis=0) > cosine * np.linalg.norm(sent, axis=1) * (mean @ -own.mean(axis=0))).all()


def test_the_mix_knows_what_the_other_attack_knows_and_the_honest():
    assert AdaptiveMix().knowledge is Knowledge.OMNISCIENT
    assert AdaptiveMix().attack == LabelFlip()
    assert AdaptiveMix(Cone()).knowledge is Knowledge.WHITE_BOX


def test_no_other_angle_does_more_damage_to_fltrust(view, own, honest, root):
    oracle, params = root(honest), np.zeros(own.shape[1], np.float32)
    sent = AdaptiveFLTrust().craft(view(own, honest, params=params, oracle=oracle), RNG(0))
    reference = oracle.goal.astype(np.float64)

    def aggregate(rows):
        rows = np.concatenate([honest, rows]).astype(np.float64)
        lengths = np.linalg.norm(rows, axis=1)
        trust = np.maximum(rows @ reference / lengths / np.linalg.norm(reference), 0)
        return np.linalg.norm(reference) * (trust / lengths) @ rows / trust.sum()

    s = np.sign(aggregate(np.empty((0, own.shape[1]))))
    r = reference / np.linalg.norm(reference)
    q = (s @ r) * r - s
    q /= np.linalg.norm(q)
    tried = [aggregate(np.tile(np.cos(a) * r + np.sin(a) * q, (4, 1))) @ s for a in np.linspace(0, 1.57, 400)]
    assert aggregate(sent) @ s == pytest.approx(min(tried), rel=1e-3)
    assert aggregate(sent) @ s < 0.8 * (aggregate(own[:0]) @ s)
    assert (sent @ r > 0).all()
    np.testing.assert_allclose(np.linalg.norm(sent, axis=1), np.linalg.norm(own, axis=1), rtol=1e-5)


@pytest.mark.parametrize("wrong", [lambda: AdaptiveMix(cosine=1.0), lambda: AdaptiveMix(cosine=-0.1)])
def test_options_out_of_range_are_refused_with_the_value_seen(wrong):
    with pytest.raises(InvalidValueError, match=r"expected .*, got \w+=\S+"):
        wrong()
