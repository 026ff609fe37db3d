"""Minimum-diameter averaging against all subsets in float64, and its search for covers against all covers."""

from itertools import combinations

import numpy as np
import pytest

from matl.aggregators import NNM, Context, StaticClipping, mda
from matl.aggregators.mda import MinimumDiameterAveraging
from matl.errors import BoundError

EQUAL = 1e-5  # squared diameters that count as equal


def naive_kept(X, f):
    """Of the sets of smallest diameter the first, when rows are ranked by their Krum score."""
    rows = np.asarray(X, np.float32).astype(float)
    n = len(rows)
    distances = np.array([[np.sum((a - b) ** 2) for b in rows] for a in rows])
    scores = [np.sort(line)[: max(n - f - 1, 1) + 1].sum() for line in distances]
    ranked = np.argsort(np.round(np.divide(scores, max(max(scores), 1e-300)), 9), kind="stable")
    sets = [list(kept) for kept in combinations(ranked.tolist(), n - f)]
    diameters = [distances[np.ix_(kept, kept)].max() for kept in sets]
    return next(kept for kept, size in zip(sets, diameters, strict=True) if size <= min(diameters) * (1 + EQUAL))


def naive(X, f):
    return np.asarray(X, np.float32).astype(float)[naive_kept(X, f)].mean(axis=0)


KINDS = {
    "near duplicates": lambda rng, n, d: (
        rng.normal(size=(n, d))[rng.integers(1 + n // 2, size=n)] * (1 + 3e-7 * rng.normal(size=(n, 1)))
    ),
    "outliers": lambda rng, n, d: rng.normal(size=(n, d)) * np.where(np.arange(n) < n // 3, 1e4, 1)[:, None],
}


@pytest.mark.parametrize("seed", range(34))
def test_random_matrices(kind, draw, seed, agree):
    rng = np.random.default_rng([seed, *kind.encode()])
    n, d = int(rng.integers(1, 13)), int(rng.choice([1, 2, 3, 20, 300, 9000]))
    X = draw(rng, n, d)
    f = int(rng.integers(0, (n + 1) // 2))
    agree(MinimumDiameterAveraging(f)(X), naive(X, f), X)


@pytest.mark.parametrize("f", [0, 1, 3])
def test_minimum_diameter(X, agree, f):
    if len(X) > 20:
        f = min(f, 2)  # so many subsets
    f = min(f, MinimumDiameterAveraging().max_f(len(X)))
    agree(MinimumDiameterAveraging(f)(X), naive(X, f), X)


@pytest.mark.parametrize("n", [17, 60, 200])
def test_the_diameter_of_many_rows(n):
    """A set of that diameter is what comes back, and outliers are not in it."""
    rng = np.random.default_rng(n)
    X = rng.normal(size=(n, 3)).astype(np.float32)
    f = int(0.4 * n)
    X[: f // 2] += 20
    result, _ = MinimumDiameterAveraging(f).aggregate(X, Context(), {})
    kept = np.flatnonzero(result.unit_weights)
    assert len(kept) == n - f
    np.testing.assert_allclose(result.unit_weights[kept], 1 / (n - f))
    gaps = np.linalg.norm(X[kept, None] - X[kept], axis=2)
    assert gaps.max() == pytest.approx(result.diagnostics["diameter"], rel=1e-5)
    assert kept.min() >= f // 2


@pytest.mark.parametrize("seed", range(100))
def test_covers(seed):
    """On random graphs, unions of paths and cycles, and stars."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(1, 11))
    adjacent = np.zeros((n, n), bool)
    if seed % 2:
        adjacent = rng.random((n, n)) < rng.choice([0.1, 0.3, 0.6, 1.0])
    else:
        steps = [i for i in range(n - 1) if rng.random() < 0.7]
        adjacent[steps, np.add(steps, 1).astype(int)] = True
        adjacent[0, n - 1] = rng.random() < 0.5
        adjacent[0] |= rng.random(n) < 0.2
    adjacent = np.triu(adjacent, 1)
    edges = list(zip(*np.nonzero(adjacent), strict=True))
    covers = [c for k in range(n + 1) for c in combinations(range(n), k) if all(a in c or b in c for a, b in edges)]
    graph = mda._farther((adjacent | adjacent.T).astype(float), 0.5)
    for size in range(n + 1):
        found = mda._Search().cover(graph, (1 << n) - 1, size)
        if size < len(covers[0]):
            assert found is None
        else:
            chosen = [i for i in range(n) if found >> i & 1]
            assert len(chosen) <= size
            assert all(a in chosen or b in chosen for a, b in edges)


@pytest.mark.parametrize("seed", range(200))
def test_the_first_of_many_sets(seed):
    """Distances 1 and 2 leave many sets of smallest diameter: the first in lexicographic order counts."""
    rng = np.random.default_rng(seed)
    n = int(rng.integers(3, 11))
    far = np.triu(rng.random((n, n)) < rng.choice([0.1, 0.2, 0.4]), 1)
    distances = 1.0 + (far | far.T)
    np.fill_diagonal(distances, 0)
    for f in range((n + 1) // 2):
        sets = [list(kept) for kept in combinations(range(n), n - f)]
        kept, diameter = mda._closest(distances, f)
        assert kept == min(sets, key=lambda kept: distances[np.ix_(kept, kept)].max())
        assert diameter == np.sqrt(distances[np.ix_(kept, kept)].max())


def test_a_row_that_stays_against_the_first_cover_changes_what_the_others_may_do():
    distances = 1.0 - np.eye(9)
    for a, b in [(0, 3), (0, 4), (3, 8), (4, 6), (5, 6), (5, 8)]:
        distances[a, b] = distances[b, a] = 2
    assert mda._closest(distances, 3)[0] == [0, 1, 2, 6, 7, 8]


def test_of_two_that_may_stay_the_more_central_does():
    """The far pairs are (0, 1), (2, 3) and (4, 5): one of each has to go, and index would say the second."""
    X = np.array([[3.0, 0, 0], [-2.9, 0, 0], [0, -2.8, 0], [0, 3.1, 0], [0, 0, 3.2], [0, 0, -2.7], [0, 0, 0]])
    result, _ = MinimumDiameterAveraging(3).aggregate(X, Context(), {})
    assert np.flatnonzero(result.unit_weights).tolist() == [1, 2, 5, 6]


@pytest.mark.parametrize("seed", range(20))
def test_the_order_of_rows_does_not_matter(seed):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(15, 4)).astype(np.float32)
    order = rng.permutation(15)
    result, _ = MinimumDiameterAveraging(6).aggregate(X, Context(), {})
    again, _ = MinimumDiameterAveraging(6).aggregate(X[order], Context(), {})
    np.testing.assert_array_equal(again.unit_weights, result.unit_weights[order])


@pytest.mark.parametrize("seed", range(20))
def test_the_distance_from_the_honest_mean_is_bounded(seed):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(11, 5))
    X[:4] = rng.normal(size=(4, 5)) * 10 ** rng.uniform(-1, 2, size=(4, 1))
    honest = X[4:]
    diameter = np.linalg.norm(honest[:, None] - honest, axis=2).max()
    gap = np.linalg.norm(MinimumDiameterAveraging(4)(X) - honest.mean(axis=0))
    assert gap <= 2 * 4 / 7 * diameter


def test_mixed_rows(agree):
    X = np.random.default_rng(0).normal(size=(11, 400)).astype(np.float32)
    for before in (StaticClipping(radius=15.0), NNM(f=2)):
        mixed = before.mix(X)
        agree((before | MinimumDiameterAveraging(f=2))(X), naive(mixed, 2), mixed)


def hard(copies, alone):
    """Rows whose pairs are all sqrt(7) apart but for those of Petersen graphs, which are 3 apart, and rows alone."""
    ring = np.arange(5)
    petersen = np.zeros((10, 10))
    petersen[ring, (ring + 1) % 5] = petersen[5 + ring, 5 + (ring + 2) % 5] = petersen[ring, 5 + ring] = 1
    block = 3.5 * np.eye(10) - petersen - petersen.T
    gram = np.kron(np.eye(copies), block)
    return np.pad(np.linalg.cholesky(gram), ((0, alone), (0, alone))) + np.diag(
        np.repeat([0.0, np.sqrt(3.5)], [10 * copies, alone])
    )


def test_a_search_that_would_take_too_long_is_given_up(monkeypatch):
    """Each Petersen graph needs 6 rows of 10 in a cover, which no bound shows; the search for one less is in vain."""
    monkeypatch.setattr(mda, "_NODES", 3000)
    X = hard(copies=12, alone=30)
    with pytest.raises(BoundError, match=r"within 3000 branchings, got no answer for n=150; lower f or choose"):
        MinimumDiameterAveraging(71)(X)
    small = hard(copies=2, alone=9)
    result, _ = MinimumDiameterAveraging(12).aggregate(small, Context(), {})
    assert result.diagnostics["diameter"] == pytest.approx(np.sqrt(7))
    result, _ = MinimumDiameterAveraging(11).aggregate(small, Context(), {})
    assert result.diagnostics["diameter"] == pytest.approx(3)


def test_it_needs_an_honest_majority():
    with pytest.raises(BoundError, match=r"n=4 clients tolerates 0 <= f <= 1, got f=2 \(2f < n\)"):
        MinimumDiameterAveraging(2)(np.eye(4))
    assert MinimumDiameterAveraging().kappa(10, 2) is None
