"""Rows and mixtures of rows against explicit float64 arithmetic on the written-out matrix."""

import numpy as np
import pytest

from matl.aggregators import Rows, _gram
from matl.errors import InvalidValueError
from matl.matrix import UpdateMatrix


def rows_of(X, mixing=None):
    return Rows(UpdateMatrix.of(X), mixing)


def explicit(X):
    rows = np.asarray(X, np.float32).astype(float)
    return np.array([[np.sum((a - b) ** 2) for b in rows] for a in rows])


def typical(distances):
    n = len(distances)
    return np.partition(distances, n // 2, axis=1)[:, n // 2].min()


def test_distances_of_all_pairs(X):
    distances = rows_of(X).squared_distances
    wanted = explicit(X)
    assert (np.diag(distances) == 0).all()
    assert (distances >= 0).all()
    np.testing.assert_array_equal(distances, distances.T)
    # Single precision, relative to the lengths from the middle of the crowd.
    scale = wanted + typical(wanted) + np.median(wanted, axis=1)[:, None] + np.median(wanted, axis=1)[None, :]
    assert (np.abs(distances - wanted) <= 2e-5 * scale).all()


@pytest.mark.parametrize("size", [1e3, 1e6, 1e10, 1e30, 3.4e38])
@pytest.mark.parametrize("where", [0, 3, 11])
def test_a_huge_minority_leaves_the_distances_of_the_others_alone(size, where):
    rng = np.random.default_rng(0)
    X = rng.normal(size=(12, 3000)).astype(np.float32) + np.float32(5)
    honest = explicit(X)
    bad = [where, 5, 6, 7, 8]
    X[bad] = np.float32(size)
    keep = np.setdiff1d(np.arange(12), bad)
    distances = rows_of(X).squared_distances
    np.testing.assert_allclose(distances[np.ix_(keep, keep)], honest[np.ix_(keep, keep)], rtol=1e-5)
    np.testing.assert_allclose(distances[where, keep], 3000 * float(np.float32(size)) ** 2, rtol=0.02)


@pytest.mark.parametrize("cheap", [True, False])
def test_a_sample_that_was_deceived_costs_time_and_nothing_else(cheap, monkeypatch):
    """Attackers look like the middle in the sampled columns, and are far away everywhere else."""
    monkeypatch.setattr(_gram, "_CHEAP", np.inf if cheap else 0)
    rng = np.random.default_rng(1)
    X = rng.normal(size=(11, 50_000)).astype(np.float32) + np.float32(50)
    sampled = np.zeros(50_000, bool)
    starts = np.linspace(0, 50_000 - _gram._SAMPLE_WIDTH, _gram._SAMPLE_BLOCKS).astype(int)
    for start in starts:
        sampled[start : start + _gram._SAMPLE_WIDTH] = True
    X[:5, ~sampled] = 1e6
    X[:5, sampled] = 50
    tried = []
    real = _gram._gram

    def watched(X, centre, dtype):
        tried.append((centre, dtype))
        return real(X, centre, dtype)

    monkeypatch.setattr(_gram, "_gram", watched)
    distances = rows_of(X).squared_distances
    np.testing.assert_allclose(distances[5:, 5:], explicit(X[5:]), rtol=1e-4, atol=1)
    assert all(dtype is np.float32 for _, dtype in tried)
    assert len(tried) <= 4
    assert tried[-1][0] >= 5
    if not cheap:
        assert 0 <= tried[0][0] < 5


def test_a_centre_beyond_all_measure_is_left_again(monkeypatch):
    X = np.random.default_rng(6).normal(size=(9, 2000)).astype(np.float32)
    honest = explicit(X[4:])
    X[:4] = np.float32(3e30)
    monkeypatch.setattr(_gram, "_CHEAP", 0)
    monkeypatch.setattr(_gram, "_guessed_centre", lambda X: 2)
    np.testing.assert_allclose(rows_of(X).squared_distances[4:, 4:], honest, rtol=1e-6)


@pytest.mark.parametrize("offset", [0.0, 100.0, 1e4])
def test_neighbours_do_not_swap_under_a_common_offset(offset):
    rng = np.random.default_rng(2)
    X = np.round(rng.normal(size=(60, 4000)) * 2**8) / 2**8  # so that float32 holds the moved rows exactly
    moved = rows_of(X + offset).squared_distances
    np.testing.assert_allclose(moved, explicit(X), rtol=2e-5, atol=1e-3)


def mixings(n, rng):
    means = rng.integers(0, 2, size=(5, n)) + np.eye(5, n)
    return {
        "means": means / means.sum(axis=1, keepdims=True),
        "scales": np.diag(rng.uniform(0, 1, n)),
        "any": rng.normal(size=(4, n)),
        "square": rng.normal(size=(n, n)),
    }


@pytest.mark.parametrize("name", ["means", "scales", "any", "square"])
@pytest.mark.parametrize("offset", [0.0, 30.0])
@pytest.mark.parametrize("compared", [True, False], ids=["pairs known", "pairs unknown"])
def test_mixtures_behave_like_the_matrix_they_stand_for(name, offset, compared):
    rng = np.random.default_rng(3)
    X = (rng.normal(size=(9, 700)) + offset).astype(np.float32)
    mixing = mixings(9, rng)[name]
    rows = rows_of(X)
    if compared:
        assert rows.squared_distances.shape == (9, 9)
    mixed, wide = rows.mixed(mixing), mixing @ X.astype(float)
    scale = np.abs(wide).max()
    assert mixed.shape == wide.shape
    assert len(mixed) == len(wide)
    np.testing.assert_allclose(mixed.dense(), wide, atol=1e-5 * scale)
    np.testing.assert_allclose(mixed.columns(3, 9), wide[:, 3:9], atol=1e-5 * scale)
    assert [block.shape[1] for block in mixed.blocks(400)] == [400, 300]
    products = wide @ wide.T
    np.testing.assert_allclose(mixed.inner_products, products, atol=2e-5 * np.abs(products).max())
    np.testing.assert_allclose(mixed.norms(), np.linalg.norm(wide, axis=1), rtol=1e-4)
    gaps = ((wide[:, None] - wide[None]) ** 2).sum(axis=2)
    np.testing.assert_allclose(mixed.squared_distances, gaps, atol=1e-4 * gaps.max())
    weights = rng.uniform(size=len(wide))
    np.testing.assert_allclose(mixed.combine(weights), weights @ wide, atol=1e-5 * np.abs(weights @ wide).max())
    point = (weights @ wide).astype(np.float32)
    to_point = ((wide - point) ** 2).sum(axis=1)
    np.testing.assert_allclose(mixed.squared_distances_to(weights), to_point, rtol=1e-3)
    np.testing.assert_allclose(mixed.squared_distances_to_point(point), to_point, rtol=1e-3)
    np.testing.assert_allclose(mixed.products(point), wide @ point, atol=1e-5 * np.abs(wide @ point).max())
    again = rng.normal(size=(3, len(wide)))
    np.testing.assert_allclose(mixed.mixed(again).dense(), again @ wide, atol=1e-4 * scale)


def test_distances_to_a_point_do_not_depend_on_whether_pairs_were_compared():
    X = np.random.default_rng(4).normal(size=(8, 5000)).astype(np.float32) + np.float32(2)
    weights = np.full(8, 1 / 8)
    compared = rows_of(X)
    assert compared.squared_distances.any()
    for wanted in (weights, np.zeros(8), np.eye(8)[3]):
        direct = rows_of(X).squared_distances_to(wanted)
        np.testing.assert_allclose(compared.squared_distances_to(wanted), direct, rtol=1e-4, atol=1e-2)
        point = wanted @ X.astype(float)
        np.testing.assert_allclose(direct, ((X - point) ** 2).sum(axis=1), rtol=1e-5, atol=1e-6)


def test_rows_of_weight_zero_are_not_read():
    X = np.array([[1.0, 2.0], [np.nan, np.inf], [3.0, 4.0]], np.float32)
    np.testing.assert_array_equal(rows_of(X).combine(np.array([0.5, 0.0, 0.5])), [2, 3])
    np.testing.assert_array_equal(rows_of(X).combine(np.array([0.0, 0.0, 1.0])), [3, 4])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize(
    "read",
    [
        lambda rows: rows.squared_distances,
        lambda rows: rows.inner_products,
        lambda rows: rows.norms(),
        lambda rows: rows.squared_distances_to(np.ones(3)),
        lambda rows: rows.squared_distances_to_point(np.ones(40_000, np.float32)),
        lambda rows: rows.products(np.ones(40_000, np.float32)),
        lambda rows: rows.combine(np.ones(3)),
        lambda rows: rows.combine(np.eye(3)[1]),
        lambda rows: rows.dense(),
        lambda rows: list(rows.blocks(999)),
        lambda rows: rows.mixed(np.ones((2, 3))).dense(),
        lambda rows: rows.by_sorted_columns(lambda ranked, scratch, out: None),
    ],
)
def test_whatever_reads_first_refuses_what_is_not_finite(read, bad):
    X = np.ones((3, 40_000), np.float32)
    X[1, 23_456] = bad
    with pytest.raises(InvalidValueError, match=r"NaN or infinity in row\(s\) \[1\]"):
        read(rows_of(X))


def test_a_sum_beyond_single_precision_is_refused():
    with pytest.raises(InvalidValueError, match=r"sum beyond 3\.4e38"):
        rows_of([[3e38], [3e38]]).combine(np.ones(2))
    assert rows_of([[3e38], [3e38]]).combine(np.full(2, 0.5)) == np.float32(3e38)


@pytest.mark.parametrize("shards", [[9], [4, 5], [1, 1, 7]])
@pytest.mark.parametrize("d", [1, 127, 128, 2176, 2177, 40_000])
def test_columns_come_sorted_whatever_the_storage(shards, d):
    X = np.random.default_rng(5).normal(size=(9, d)).astype(np.float32)
    X[:, 0] = [0.0, -0.0, 1e-45, -1e-45, 3.4e38, -3.4e38, 1.0, 1.0, -1.0]
    seen = []

    def keep(ranked, scratch, out):
        seen.append(np.array(ranked[:, : len(out)]))
        out[:] = ranked[2, : len(out)]

    parts = np.split(X, np.cumsum(shards)[:-1])
    result = Rows(UpdateMatrix(parts)).by_sorted_columns(keep)
    np.testing.assert_array_equal(result, np.sort(X, axis=0)[2])
    assert sum(block.nbytes for block in seen) == X.nbytes
    assert all((np.diff(block, axis=0) >= 0).all() for block in seen)
