"""Backdoors: where the mark is, and who carries it."""

import numpy as np
import pytest

from matl.attacks import Backdoor, Knowledge
from matl.errors import InvalidValueError

RNG = np.random.default_rng
Y = np.arange(40) % 4


def test_the_mark_is_the_corner_of_an_image_in_all_channels():
    images = RNG(0).random((40, 2 * 4 * 5), np.float32)
    marked, wanted = Backdoor(target=1, side=2).on((2, 4, 5)).triggered(images, Y, 4)
    others = images[Y != 1]
    changed = (marked != others).any(axis=0).reshape(2, 4, 5)
    assert np.argwhere(changed).tolist() == [[c, h, w] for c in (0, 1) for h in (2, 3) for w in (3, 4)]
    assert marked[:, changed.ravel()].min() == images.max()
    assert wanted.tolist() == [1] * 30


def test_the_mark_of_what_is_no_image_is_its_last_features():
    samples = -RNG(0).random((40, 9), np.float32)
    for attack in (Backdoor(side=2), Backdoor(side=2).on((9,))):
        marked, _ = attack.triggered(samples, Y, 4)
        np.testing.assert_array_equal(marked[:, :5], samples[Y != 0, :5])
        assert (marked[:, 5:] == samples.max()).all()


def test_a_share_of_the_samples_is_marked_and_mislabelled_and_no_other():
    X = RNG(0).random((40, 9), np.float32)
    X.flags.writeable = False
    attack = Backdoor(target=2, share=0.25, side=1)
    poisoned_X, poisoned_y = attack.poison(X, Y, 4, RNG(1))
    changed = poisoned_y != Y
    assert changed.sum() == 10
    assert (poisoned_y[changed] == 2).all()
    assert (poisoned_X[changed, -1] == X.max()).all()
    np.testing.assert_array_equal(poisoned_X[~changed], X[~changed])
    few = attack.poison(X[:2], np.array([2, 2]), 4, RNG(1))  # nothing to mislabel
    np.testing.assert_array_equal(few[0], X[:2])


def test_a_boosted_backdoor_multiplies_its_update(view, own):
    np.testing.assert_array_equal(Backdoor(scale=3.0).craft(view(own), RNG(0)), np.float32(3) * own)
    assert Backdoor(scale=3.0).knowledge is Knowledge.OWN_UPDATES


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Backdoor(target=-1),
        lambda: Backdoor(share=0.0),
        lambda: Backdoor(share=1.5),
        lambda: Backdoor(side=0),
        lambda: Backdoor(scale=0.5),
        lambda: Backdoor(target=4).triggered(np.zeros((40, 9), np.float32), Y, 4),
    ],
)
def test_options_out_of_range_are_refused_with_the_value_seen(wrong):
    with pytest.raises(InvalidValueError, match=r"got (\w+=)?\S+"):
        wrong()
