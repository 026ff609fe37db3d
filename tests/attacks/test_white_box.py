"""Attacks that rehearse: as strong as what passes, and no stronger."""

import numpy as np
import pytest

from matl.attacks import Backdoor, Knowledge, LabelFlip, Scaling, SignFlip, WhiteBox, WhiteBoxBlend
from matl.errors import InvalidValueError

RNG = np.random.default_rng


@pytest.mark.parametrize(("bar", "strength"), [(np.inf, 1.0), (4.0, 0.7), (2.5, 0.35), (1.05, 0.0)])
def test_the_blend_is_as_strong_as_the_judge_lets_pass(bar, strength, view, own, honest, judge):
    own /= np.linalg.norm(own, axis=1, keepdims=True)
    seen = view(own, honest, rehearse=judge(honest, bar))
    sent = WhiteBoxBlend(Scaling(5.0)).craft(seen, RNG(0))  # the norm of a blend of strength b is 1 + 4 b
    np.testing.assert_allclose(sent, (1 + 0.9 * 4 * strength) * own, rtol=1e-5)


def test_not_one_more_is_caught_than_honesty_would_have(view, own, honest, judge):
    own /= np.linalg.norm(own, axis=1, keepdims=True)
    own[2] *= 1.5  # alone too long for the bar at strengths .7 and .5
    seen = view(own, honest, rehearse=judge(honest, 4.0))
    np.testing.assert_allclose(WhiteBoxBlend(Scaling(5.0)).craft(seen, RNG(0)), (1 + 0.9 * 1.4) * own, rtol=1e-5)


def test_who_is_caught_anyway_does_not_hold_the_others_back(view, own, honest, judge):
    own /= np.linalg.norm(own, axis=1, keepdims=True)
    own[0] *= 100
    seen = view(own, honest, rehearse=judge(honest, 4.0))
    sent = WhiteBoxBlend(Scaling(5.0)).craft(seen, RNG(0))
    np.testing.assert_allclose(sent[1:], (1 + 0.9 * 2.8) * own[1:], rtol=1e-5)
    np.testing.assert_array_equal(sent[0], own[0])  # it behaves, to be released


def test_a_blend_needs_an_attack_on_updates():
    with pytest.raises(InvalidValueError, match="needs an attack on updates, got LabelFlip"):
        WhiteBoxBlend(LabelFlip())
    assert WhiteBoxBlend(Backdoor(scale=2.0)).knowledge is Knowledge.WHITE_BOX


@pytest.mark.parametrize("budget", [2, 8, 20])
def test_the_search_sends_the_most_harmful_that_passes_within_its_budget(budget, view, own, honest, judge, root):
    bar = 1.2 * np.linalg.norm(own, axis=1).max()
    seen = view(
        own, honest, rehearse=judge(honest, bar), oracle=root(honest), params=np.zeros(own.shape[1], np.float32)
    )
    sent = WhiteBox(budget).craft(seen, RNG(0))
    shown, ahead = seen.rehearse.shown, honest.mean(axis=0)
    assert len(shown) == budget
    np.testing.assert_array_equal(shown[0], own)
    np.testing.assert_array_equal(shown[1], SignFlip().craft(seen, RNG(0)))
    judged = [seen.rehearse(rows) for rows in list(shown)]
    harms = [-one.aggregate @ ahead if not one.caught.any() else -np.inf for one in judged]
    best = shown[int(np.argmax(harms))]
    np.testing.assert_allclose(sent, own + 0.9 * (best - own), atol=1e-5)
    if budget == 20:  # the search goes on from the best known attack, and finds better
        assert max(harms[8:]) > max(harms[:8])


def test_the_search_goes_on_from_where_it_succeeded(view, own, honest, judge):
    class AlwaysTheFirst:
        """Random numbers that step along the first attack of the search, which flips signs."""

        random, integers = RNG(0).random, RNG(0).integers

        def standard_normal(self, size):
            return np.eye(size)[0]

    own += honest.mean(axis=0)
    known, further = (view(own, honest, rehearse=judge(honest)) for _ in range(2))
    best = WhiteBox(8).craft(known, AlwaysTheFirst())
    AlwaysTheFirst.random = RNG(0).random
    sent = WhiteBox(11).craft(further, AlwaysTheFirst())
    np.testing.assert_allclose(sent - best, -0.9 * 2 * 0.3 * (1 + 1.5 + 1.5**2) * own, rtol=1e-3, atol=1e-4)


def test_the_search_needs_two_rehearsals():
    with pytest.raises(InvalidValueError, match="got rehearsals=1"):
        WhiteBox(1)
