"""Bulyan against float64 with every Krum score computed anew, and rows taken from others."""

import numpy as np
import pytest

from matl.aggregators import Context, Rows, StaticClipping, _rows
from matl.aggregators.bulyan import Bulyan, _picked
from matl.errors import BoundError
from matl.matrix import UpdateMatrix


def naive_distances(X):
    rows = np.asarray(X, np.float32).astype(float)
    return np.array([[np.sum((a - b) ** 2) for b in rows] for a in rows])


def naive_picks(distances, f):
    left, picked = list(range(len(distances))), []
    while len(picked) < len(distances) - 2 * f:
        neighbours = max(len(left) - f - 2, 1)
        scores = [sum(sorted(distances[i, j] for j in left if j != i)[:neighbours]) for i in left]
        picked.append(left.pop(int(np.argmin(scores))))
    return sorted(picked)


def naive(X, f):
    rows = np.asarray(X, np.float32).astype(float)
    means = []
    for column in np.sort(rows[naive_picks(naive_distances(X), f)], axis=0).T:
        gaps = np.abs(column - np.median(column))
        means.append(column[np.argsort(gaps, kind="stable")[: len(rows) - 4 * f]].mean())
    return np.array(means)


KINDS = {
    "outliers": lambda rng, n, d: rng.normal(size=(n, d)) * np.where(np.arange(n) < n // 4, 1e4, 1)[:, None],
}


@pytest.mark.parametrize("seed", range(34))
def test_random_matrices(kind, draw, seed, agree):
    rng = np.random.default_rng([seed, *kind.encode()])
    f = int(rng.integers(0, 5))
    n, d = 4 * f + 3 + int(rng.choice([0, 1, 6])), int(rng.choice([1, 2, 3, 20, 300, 9000]))
    X = draw(rng, n, d)
    agree(Bulyan(f)(X), naive(X, f), X)


@pytest.mark.parametrize("f", [0, 1, 2])
def test_bulyan(X, agree, f):
    f = min(f, Bulyan().max_f(len(X)))
    agree(Bulyan(f)(X), naive(X, f), X)


@pytest.mark.parametrize("f", [0, 1, 2, 5, 15])
@pytest.mark.parametrize("seed", range(5))
def test_lowered_scores_are_those_computed_anew(f, seed):
    """On a grid, where sums are exact and many rows and distances tie."""
    X = np.random.default_rng(seed).integers(0, 3, size=(4 * f + 5, 3)).astype(float)
    distances = naive_distances(X)
    assert _picked(distances, f).tolist() == naive_picks(distances, f)


@pytest.mark.parametrize("seed", range(10))
def test_a_score_that_loses_nearly_all_of_itself_is_summed_anew(seed):
    """A few rows together far away: their sums shrink from 1e18 to what is comparable with the others'."""
    X = np.random.default_rng(seed).normal(size=(26, 4))
    X[:6] = 1e9 + X[:6] * np.linspace(0.2, 2, 6)[:, None]
    distances = ((X[:, None] - X) ** 2).sum(axis=2)
    assert _picked(distances, 5).tolist() == naive_picks(distances, 5)


def test_mixed_rows(agree):
    X = np.random.default_rng(0).normal(size=(11, 400)).astype(np.float32)
    chain = StaticClipping(radius=20.0) | Bulyan(f=2)
    mixed = StaticClipping(radius=20.0).mix(X)
    agree(chain(X), naive(mixed, 2), mixed)


def test_a_quarter_of_huge_rows_leaves_no_trace(agree):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(11, 50)).astype(np.float32)
    X[[1, 4]] = 1e30
    honest = np.delete(X, [1, 4], axis=0)
    result = Bulyan(2)(X)
    assert (honest.min(axis=0) <= result).all()
    assert (result <= honest.max(axis=0)).all()


def test_it_needs_four_times_as_many_rows_and_three():
    assert [Bulyan().max_f(n) for n in (1, 2, 3, 6, 7, 10, 11)] == [0, 0, 0, 0, 1, 1, 2]
    with pytest.raises(BoundError, match=r"n=10 clients tolerates 0 <= f <= 1, got f=2 \(n >= 4f \+ 3\)"):
        Bulyan(2)(np.eye(10))
    result, _ = Bulyan().aggregate(np.eye(7), Context(f=1), {})
    assert result.unit_weights is None


ORDERS = [[0], [2, 3, 4], [0, 1, 4, 5, 8], [8, 3, 4, 0, 1], list(range(9))]


@pytest.mark.parametrize("indices", ORDERS, ids=repr)
@pytest.mark.parametrize("compared", [False, True])
def test_taken_rows(indices, compared, monkeypatch):
    X = np.random.default_rng(0).normal(size=(9, 40)).astype(np.float32) + np.float32(50)
    rows = Rows(UpdateMatrix([X[:3], X[3:4], X[4:]]))
    indices = np.array(indices)
    if compared:
        assert rows.squared_distances.shape == (9, 9)
        monkeypatch.setattr(_rows, "centred_gram", None)  # pairs are not compared again
    taken = rows.take(indices)
    np.testing.assert_array_equal(taken.dense(), X[indices])
    np.testing.assert_allclose(taken.squared_distances, naive_distances(X[indices]), rtol=1e-4, atol=1e-9)
    products = X[indices].astype(float) @ X[indices].astype(float).T
    np.testing.assert_allclose(taken.inner_products, products, rtol=1e-6)
    assert all(np.shares_memory(shard, X) for shard, _ in taken._X.shards())


def test_taken_mixtures():
    X = np.random.default_rng(0).normal(size=(9, 40)).astype(np.float32)
    mixing = np.random.default_rng(1).uniform(size=(5, 9))
    rows = Rows(UpdateMatrix.of(X)).mixed(mixing)
    assert rows.squared_distances.shape == (5, 5)
    taken = rows.take(np.array([3, 1]))
    np.testing.assert_allclose(taken.dense(), mixing[[3, 1]] @ X, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(taken.squared_distances, rows.squared_distances[np.ix_([3, 1], [3, 1])])
