"""All pairwise distances from one Gram matrix, against explicit differences."""

import numpy as np
import pytest

from matl.aggregators._gram import squared_distances
from matl.matrix import UpdateMatrix


def explicit(X):
    rows = np.asarray(X, np.float32).astype(float)
    return np.array([[np.sum((a - b) ** 2) for b in rows] for a in rows])


def test_distances_and_norms(X):
    distances = squared_distances(UpdateMatrix(X))
    assert (np.diag(distances) == 0).all()
    assert (distances >= 0).all()
    np.testing.assert_array_equal(distances, distances.T)
    # |a|^2 + |b|^2 - 2 a.b loses what float64 loses of |a|^2.
    rows = np.asarray(X, np.float32).astype(float)
    np.testing.assert_allclose(distances, explicit(X), rtol=1e-9, atol=1e-14 * np.square(rows).sum(axis=1).max())
    np.testing.assert_allclose(UpdateMatrix(X).norms(), np.linalg.norm(rows, axis=1), rtol=1e-12)


@pytest.mark.parametrize("size", [1e10, 1e30, 3.4e38])
def test_one_huge_row_leaves_the_distances_of_the_others_alone(size):
    X = np.random.default_rng(0).normal(size=(6, 40)).astype(np.float32)
    alone = squared_distances(UpdateMatrix(X))
    X_with = np.vstack([X, np.full((1, 40), size, np.float32)])
    with_it = squared_distances(UpdateMatrix(X_with))
    np.testing.assert_allclose(with_it[:6, :6], alone, rtol=1e-12)
    np.testing.assert_allclose(with_it[6, :6], 40 * np.float32(size).astype(float) ** 2, rtol=1e-3)
