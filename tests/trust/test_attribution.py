from dataclasses import fields

import numpy as np
import pytest
from scipy.optimize import nnls as scipy_nnls

from matl.errors import InvalidValueError
from matl.matrix import UpdateMatrix
from matl.trust.attribution import attribute, attribute_both, nnls
from matl.trust.oracle import Atoms

CLASSES, SIZE = 4, 300


@pytest.fixture
def atoms():
    rng = np.random.default_rng(0)
    pairs = np.argwhere(~np.eye(CLASSES, dtype=bool))
    honest = rng.normal(size=(CLASSES, SIZE)).astype(np.float32)
    poison = rng.normal(size=(len(pairs), SIZE)).astype(np.float32)
    return Atoms(honest=3 * honest, poison=poison, pairs=pairs)


@pytest.mark.parametrize("seed", range(5))
def test_nnls_agrees_with_scipy(seed):
    rng = np.random.default_rng(seed)
    A, targets = rng.normal(size=(40, 12)), rng.normal(size=(7, 40))
    x = nnls(A.T @ A, targets @ A, steps=2000, ridge=0.0)
    expected = np.stack([scipy_nnls(A, target)[0] for target in targets])
    np.testing.assert_allclose(x, expected, atol=1e-6)
    assert (expected == 0).any()  # the constraint was active, so this was not plain least squares


def test_nnls_with_ridge_solves_the_augmented_problem():
    rng = np.random.default_rng(7)
    A, target, ridge = rng.normal(size=(20, 6)), rng.normal(size=20), 0.3
    padded = np.vstack([A, np.sqrt(ridge) * np.eye(6)])
    expected = scipy_nnls(padded, np.concatenate([target, np.zeros(6)]))[0]
    np.testing.assert_allclose(nnls(A.T @ A, (target @ A)[None], steps=1000, ridge=ridge)[0], expected, atol=1e-7)


def test_a_row_does_not_depend_on_the_other_rows():
    rng = np.random.default_rng(1)
    A, targets = rng.normal(size=(30, 8)), rng.normal(size=(5, 30))
    together = nnls(A.T @ A, targets @ A, steps=50)
    alone = nnls(A.T @ A, targets[2:3] @ A, steps=50)
    np.testing.assert_allclose(together[2:3], alone, rtol=1e-12)


def test_one_reading_explains_updates_and_the_same_sent_backwards_to_the_same_bits(atoms):
    X = np.random.default_rng(3).normal(size=(6, SIZE)).astype(np.float32)
    X[0], X[1] = 0.0, atoms.honest[1]
    for found, shown in zip(attribute_both(UpdateMatrix(X), atoms), (X, -X), strict=True):
        alone = attribute(UpdateMatrix(shown), atoms)
        for item in fields(alone):
            assert getattr(found, item.name).tobytes() == getattr(alone, item.name).tobytes(), item.name


def test_reach_is_the_norm_of_the_honest_directions(atoms):
    assert atoms.reach.tobytes() == np.linalg.norm(atoms.honest, axis=1).tobytes()


def test_clean_training_is_explained_without_relabelling(atoms):
    update = 0.5 * atoms.honest[0] + 2.0 * atoms.honest[3]
    found = attribute(UpdateMatrix(update[None]), atoms)
    assert found.share[0] < 0.02
    assert abs(found.gain[0]) < 0.01
    assert found.alien[0] < 0.01
    np.testing.assert_allclose(found.norms, np.linalg.norm(update), rtol=1e-5)


def test_the_relabelled_pair_is_named_with_its_amount(atoms):
    guilty = 5
    update = atoms.honest[1] + 4.0 * atoms.poison[guilty]
    found = attribute(UpdateMatrix(update[None]), atoms)
    assert found.relabelled[0].argmax() == guilty
    assert found.relabelled[0, guilty] == pytest.approx(4.0, rel=0.05)
    assert found.work[0] == pytest.approx(5.0, rel=0.1)
    assert found.share[0] > 0.5
    assert found.gain[0] > 0.2


def test_noise_is_alien_and_scale_free(atoms):
    noise = np.random.default_rng(3).normal(size=(1, SIZE)).astype(np.float32)
    clean = atoms.honest[:1]
    found = attribute(UpdateMatrix(np.vstack([noise, 100 * noise, clean])), atoms)
    assert found.alien[0] > 0.5 > 0.05 > found.alien[2]
    np.testing.assert_allclose(found.alien[0], found.alien[1], rtol=1e-5)


def test_a_zero_update_gives_zeros_and_not_nan(atoms):
    found = attribute(UpdateMatrix(np.zeros((1, SIZE), np.float32)), atoms)
    for value in (found.norms, found.gain, found.share, found.alien, found.relabelled, found.work):
        assert not value.any()


def test_atoms_of_another_model_are_refused(atoms):
    with pytest.raises(InvalidValueError, match="expected atoms of 7 parameters, got 300"):
        attribute(UpdateMatrix(np.ones((1, 7), np.float32)), atoms)
