"""FLAME against float64 with explicit clusters, and its clustering against scikit-learn's HDBSCAN."""

import contextlib

import numpy as np
import pytest
from sklearn.cluster import HDBSCAN

from matl.aggregators import NNM, Context, StaticClipping
from matl.aggregators._cosine import cosine_distances
from matl.aggregators._rows import Rows
from matl.aggregators.flame import FLAME, majority_cluster
from matl.errors import BoundError, InvalidValueError
from matl.matrix import UpdateMatrix


def naive_distances(X):
    rows = np.asarray(X, np.float32).astype(float)
    distances = np.ones((len(rows), len(rows)))
    for i, a in enumerate(rows):
        for j, b in enumerate(rows):
            if a.any() and b.any():
                gap = a / np.linalg.norm(a) - b / np.linalg.norm(b)
                distances[i, j] = gap @ gap / 2
            elif not a.any() and not b.any():
                distances[i, j] = 0.0
    return np.where(distances < 1e-13, 0.0, distances)


def naive_cluster(distances):
    """Grow clusters from every point under a rising bound, until one holds more than half."""
    n = len(distances)
    for bound in np.unique(distances):
        for start in range(n):
            cluster = {start}
            while True:
                reached = {j for i in cluster for j in range(n) if distances[i, j] <= bound}
                if reached <= cluster:
                    break
                cluster |= reached
            if 2 * len(cluster) > n:
                return np.isin(np.arange(n), list(cluster))
    raise AssertionError


def naive(X):
    rows = np.asarray(X, np.float32).astype(float)
    norms = np.linalg.norm(rows, axis=1)
    kept = naive_cluster(naive_distances(X))
    clipped = rows * np.minimum(1, np.median(norms) / np.where(norms > 0, norms, 1))[:, None]
    return clipped[kept].mean(axis=0)


KINDS = {
    "plain": lambda rng, n, d: rng.normal(size=(n, d)).astype(np.float32),
    "offset of 100 sigma": lambda rng, n, d: (rng.normal(size=(n, d)) + 100).astype(np.float32),
    "duplicates": lambda rng, n, d: rng.normal(size=(n, d))[rng.integers(n, size=n)].astype(np.float32),
    "of all lengths, and zeros": lambda rng, n, d: (
        rng.normal(size=(n, d)) * rng.choice([0, 0.01, 1, 1, 1, 10], size=(n, 1))
    ).astype(np.float32),
    "float64": lambda rng, n, d: rng.normal(size=(n, d)) + 0.5,
    "every other column": lambda rng, n, d: rng.normal(size=(n, 2 * d)).astype(np.float32)[:, ::2],
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("seed", range(34))
def test_random_matrices(kind, seed, agree):
    rng = np.random.default_rng([seed, *kind.encode()])
    X = KINDS[kind](rng, int(rng.integers(1, 14)), int(rng.choice([1, 2, 3, 20, 300, 5000])))
    agree(FLAME(noise=0.0)(X), naive(X), X)


def test_flame(X, agree):
    agree(FLAME(noise=0.0)(X), naive(X), X)


def test_mixed_rows(agree):
    X = np.random.default_rng(0).normal(size=(11, 400)).astype(np.float32)
    for chain in (StaticClipping(radius=15.0), NNM(f=2)):
        mixed = chain.mix(X)
        agree((chain | FLAME(noise=0.0))(X), naive(mixed), mixed)


@pytest.mark.parametrize("seed", range(60))
def test_the_cluster_is_that_of_hdbscan(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(2, 60))
    centres = rng.normal(size=(int(rng.integers(1, 4)), 8))
    X = centres[rng.integers(len(centres), size=n)] + rng.normal(size=(n, 8)) * rng.choice([0.1, 0.5, 2.0])
    distances = naive_distances(X)
    clusterer = HDBSCAN(
        min_cluster_size=n // 2 + 1, min_samples=1, allow_single_cluster=True, metric="precomputed", copy=True
    )
    np.testing.assert_array_equal(majority_cluster(distances), clusterer.fit_predict(distances) == 0)


def test_ties_stay_together():
    """HDBSCAN keeps all that the last bound links at once; so nothing hangs on the order of the rows."""
    steps = np.abs(np.subtract.outer(np.arange(9.0), np.arange(9.0)))  # a chain of equal links
    assert majority_cluster(steps).all()
    gap = np.abs(np.subtract.outer(*[np.array([0, 1, 2, 3, 4, 6, 7, 30.0])] * 2))
    assert majority_cluster(gap).tolist() == [True] * 5 + [False] * 3


def test_parallel_rows_are_ties():
    """Rounding of single precision must not pick among rows of one direction."""
    direction = np.random.default_rng(0).normal(size=3000)
    X = direction * np.random.default_rng(1).uniform(0.5, 20, size=(14, 1))
    distances = cosine_distances(Rows(UpdateMatrix.of(X)))
    assert not distances.any()
    result, _ = FLAME(noise=0.0).aggregate(np.concatenate([X, -X[:4]]), Context(), {})
    assert result.diagnostics["kept"] == 14


@pytest.mark.parametrize("offset", [0, 1, 100, 10_000])
def test_cosine_distances(offset):
    X = (np.random.default_rng(0).normal(size=(30, 400)) + offset).astype(np.float32)
    expected = naive_distances(X)
    np.testing.assert_allclose(cosine_distances(Rows(UpdateMatrix.of(X))), expected, atol=1e-5 * expected.max())


@pytest.mark.parametrize("offset", [0, 10, 10_000])
@pytest.mark.parametrize("length", [1e-12, 1e-6, 0.1, 0.99, 1.01, 3.0, 1e6, 1e12])
def test_lengths_do_not_matter(length, offset):
    """Among rows far shorter and longer; what is scaled is rounded to float32 once more, as the input was."""
    X = (np.random.default_rng(0).normal(size=(30, 400)) + offset).astype(np.float32)
    X[[0, 3, 4]] = X[[0, 3, 4]] * np.float32(length)
    expected = naive_distances(X)
    crowd = expected[5:, 5:].max()
    np.testing.assert_allclose(cosine_distances(Rows(UpdateMatrix.of(X))), expected, atol=2e-4 * crowd)


@pytest.mark.parametrize("length", [1e-20, 1e-5, 1e-3, 1.0, 1e5, 1e20])
def test_opposite_rows_are_at_distance_two(length):
    X = np.random.default_rng(0).normal(size=(9, 300)).astype(np.float32)
    X[0] *= np.float32(length)
    X[1] = -X[0]
    assert cosine_distances(Rows(UpdateMatrix.of(X)))[0, 1] == pytest.approx(2.0, abs=1e-5)


@pytest.mark.parametrize("offset", [0, 10_000])
@pytest.mark.parametrize("length", [1e-6, 1e-5, 1e5, 1e6])
@pytest.mark.parametrize("scaled", [0, 4, 9])
def test_one_short_or_long_row_changes_nothing_for_the_others(scaled, length, offset):
    rng = np.random.default_rng(0)
    honest = rng.normal(size=2000) + 0.3 * rng.normal(size=(10, 2000)) + offset
    honest[:4] *= -1
    result, _ = FLAME().aggregate(honest, Context(), {})
    kept = result.unit_weights > 0
    assert not kept[:4].any()
    honest[scaled] *= length
    result, _ = FLAME().aggregate(honest, Context(), {})
    np.testing.assert_array_equal(result.unit_weights > 0, kept)


def test_noise_for_rows_at_the_end_of_single_precision():
    """Whatever comes of it, no warning."""
    with contextlib.suppress(InvalidValueError):
        FLAME()(np.full((5, 1000), 3.4e38, np.float32))


def test_zeros_are_alike_and_far_from_all_others():
    X = np.array([[0.0, 0.0], [3.0, 4.0], [0.0, 0.0], [-3.0, -4.0]])
    expected = [[0, 1, 0, 1], [1, 0, 1, 2], [0, 1, 0, 1], [1, 2, 1, 0]]
    np.testing.assert_allclose(cosine_distances(Rows(UpdateMatrix.of(X))), expected, atol=1e-6)
    assert FLAME()(np.zeros((5, 3))).tolist() == [0, 0, 0]


@pytest.mark.parametrize("length", [0.1, 1.0, 50.0])
def test_a_backdoor_is_dropped(length):
    """Attackers who share a direction of their own, short, ordinary or boosted; all are left out, most honest stay."""
    rng = np.random.default_rng(0)
    goal, backdoor = rng.normal(size=(2, 2000))
    honest = goal + rng.normal(size=(14, 2000))
    malicious = length * (goal + 2 * backdoor + 0.1 * rng.normal(size=(6, 2000)))
    X = np.concatenate([honest, malicious]).astype(np.float32)
    result, _ = FLAME().aggregate(X, Context(), {})
    assert not result.unit_weights[14:].any()
    assert result.diagnostics["kept"] > 10
    clean = honest.mean(axis=0)
    assert np.linalg.norm(result.vector - clean) < 0.3 * np.linalg.norm(clean)


def test_rows_are_clipped_to_the_median_of_all():
    rng = np.random.default_rng(0)
    X = (rng.normal(size=(9, 50)) + 3) * np.linspace(1, 9, 9)[:, None]
    result, _ = FLAME(noise=0.0).aggregate(X, Context(), {})
    limit = np.median(np.linalg.norm(X, axis=1))
    assert result.diagnostics["clip_norm"] == pytest.approx(limit)
    lengths = result.unit_weights * np.linalg.norm(X, axis=1) * result.diagnostics["kept"]
    assert (lengths < limit * 1.000001).all()
    np.testing.assert_allclose(result.unit_weights @ X, result.vector, atol=1e-5)


def test_noise_has_the_asked_deviation_and_comes_from_the_seed():
    """The deviation of 40,000 draws; 4 percent off would be 11 standard errors."""
    X = np.random.default_rng(0).normal(size=(7, 40_000))
    plain, result = FLAME(noise=0.0)(X), FLAME(noise=0.01)
    noise = result(X, seed=1) - plain
    assert noise.std() == pytest.approx(0.01 * np.median(np.linalg.norm(X, axis=1)), rel=0.04)
    assert abs(noise.mean()) < 5 * noise.std() / 200
    assert result(X, seed=1).tobytes() == result(X, seed=1).tobytes()
    assert result(X, seed=1).tobytes() != result(X, seed=2).tobytes()
    assert FLAME().noise == 0.001


def test_bounds_and_values():
    assert FLAME().max_f(5) == 2
    with pytest.raises(BoundError, match="n=5 clients tolerates 0 <= f <= 2, got f=3"):
        FLAME()(np.eye(5), f=3)
    with pytest.raises(InvalidValueError, match=r"expected noise >= 0, got noise=-0.1"):
        FLAME(noise=-0.1)
    with pytest.raises(InvalidValueError, match=r"row\(s\) \[1\]"):
        FLAME()([[1.0], [np.nan], [1.0]])
