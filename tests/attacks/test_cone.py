"""The attack from inside the cone of clean training."""

import numpy as np
import pytest

from matl.attacks import Cone
from matl.attacks._vectors import cone_mix
from matl.errors import InvalidValueError

RNG = np.random.default_rng
D, K = 50, 4


@pytest.fixture
def seen(view, own, honest, root, judge):
    """A round whose honest mean goes along two of the four classes and against the other two."""
    honest[:, :K] += np.array([5, 5, -3, -1], np.float32)
    params = np.zeros(D, np.float32)
    return view(own, honest, params=params, oracle=root(honest), rehearse=judge(honest, 2 * np.linalg.norm(own[0])))


def test_the_nearest_point_of_a_cone_is_that_of_nonnegative_least_squares():
    optimize = pytest.importorskip("scipy.optimize")
    directions, targets = RNG(0).normal(size=(6, 20)).astype(np.float32), RNG(1).normal(size=(5, 20)).astype(np.float32)
    expected = [optimize.nnls(directions.T.astype(np.float64), target.astype(np.float64))[0] for target in targets]
    np.testing.assert_allclose(cone_mix(targets, directions), expected, atol=1e-6)
    directions[2] = 0
    assert not cone_mix(targets, directions)[:, 2].any()


def test_clean_training_is_swapped_for_that_which_opposes_the_honest_mean(seen):
    sent, own = Cone().craft(seen, RNG(0)), seen.own
    np.testing.assert_allclose(sent[:, K:], own[:, K:], atol=1e-6)  # what clean training does not explain
    clean = np.maximum(own[:, :K], 0)
    np.testing.assert_allclose(
        sent[:, :K] - np.minimum(own[:, :K], 0), np.maximum(sent[:, :K] - np.minimum(own[:, :K], 0), 0), atol=1e-6
    )
    swapped = sent[:, :K] - np.minimum(own[:, :K], 0)
    assert swapped.min() > -1e-5
    np.testing.assert_allclose(np.linalg.norm(swapped, axis=1), np.linalg.norm(clean, axis=1), rtol=1e-4)
    against = np.maximum(-seen.honest.mean(axis=0)[:K], 0)
    np.testing.assert_allclose(swapped @ against / np.linalg.norm(swapped, axis=1), np.linalg.norm(against), rtol=1e-4)


def test_where_no_clean_training_opposes_the_honest_mean_it_behaves(seen):
    seen.honest[:, :K] = 5
    assert Cone().craft(seen, RNG(0)) is seen.own


def test_adapted_it_keeps_the_most_harmful_of_its_rehearsals_that_passes(seen):
    sent = Cone(rehearsals=9).craft(seen, RNG(0))
    shown, ahead = seen.rehearse.shown, seen.honest.mean(axis=0)
    assert len(shown) == 9
    np.testing.assert_array_equal(shown[0], seen.own)
    np.testing.assert_allclose(shown[2], Cone().craft(seen, RNG(0)), atol=1e-5)
    judged = [seen.rehearse(rows) for rows in list(shown)]
    harms = [-one.aggregate @ ahead if not one.caught.any() else -np.inf for one in judged]
    best = shown[int(np.argmax(harms))]
    np.testing.assert_allclose(sent, seen.own + 0.9 * (best - seen.own), atol=1e-5)
    assert max(harms) > harms[2] > harms[0]
    assert harms[2] > harms[1]
    going_on, alone, balanced = (rows[1, :K] / np.linalg.norm(rows[1, :K]) for rows in (shown[3], shown[2], shown[1]))
    assert going_on @ alone > going_on @ balanced  # it goes on from the better of the two


def test_it_cannot_rehearse_once():
    with pytest.raises(InvalidValueError, match="got rehearsals=1"):
        Cone(rehearsals=1)
