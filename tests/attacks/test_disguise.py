"""The attack in the dress of the root."""

import numpy as np
import pytest

from matl.attacks import Disguise, SignFlip
from matl.attacks._vectors import cone_mix, unit
from matl.errors import InvalidValueError

RNG = np.random.default_rng


@pytest.fixture
def seen(view, own, honest, root):
    return view(own, honest, params=np.zeros(own.shape[1], np.float32), oracle=root(honest))


def explained(rows, seen):
    directions = unit(seen.oracle.atoms(seen.params, seen.round % 2).honest)
    return (cone_mix(rows, directions) @ directions).astype(np.float32)


@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_it_goes_its_share_of_the_way_to_what_clean_training_explains(seen, share):
    sent, flipped = Disguise(SignFlip(), share).craft(seen, RNG(0)), -seen.own
    expected = (1 - share) * flipped + share * explained(flipped, seen)
    np.testing.assert_allclose(sent, expected, atol=1e-5)
    assert (np.abs(expected - flipped).max() > 0.1) == (share > 0)


def test_who_does_not_know_the_root_cannot_dress_as_it(view, own, honest):
    np.testing.assert_array_equal(Disguise(SignFlip()).craft(view(own, honest), RNG(0)), -own)


def test_it_cannot_go_beyond_what_is_explained():
    with pytest.raises(InvalidValueError, match=r"share=1\.5"):
        Disguise(share=1.5)
