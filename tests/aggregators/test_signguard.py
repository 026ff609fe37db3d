"""SignGuard against float64 loops, and its clustering against scikit-learn's."""

from itertools import pairwise

import numpy as np
import pytest
from sklearn.cluster import MeanShift, estimate_bandwidth

from matl.aggregators import NNM, Context, StaticClipping
from matl.aggregators._sampling import sampled_columns
from matl.aggregators.signguard import SignGuard, largest_cluster
from matl.errors import BoundError, InvalidValueError


def drawn_columns(d, fraction, seed):
    runs = sampled_columns(d, max(round(fraction * d), 1), np.random.default_rng(seed))
    return [column for run in runs for column in range(*run)]


def naive_cluster(points):
    n = len(points)
    k = max(n // 2, min(n, 2))
    reach = np.mean([sorted(np.linalg.norm(points - p, axis=1))[k - 1] for p in points]) + 1e-9
    modes = []
    for point in points:
        mode = point
        while True:
            near = points[np.linalg.norm(points - mode, axis=1) <= reach]
            before, mode = mode, near.mean(axis=0)
            if np.linalg.norm(mode - before) <= 1e-3 * reach:
                break
        modes.append((len(near), *mode))
    centres = []
    for mode in sorted(modes, reverse=True):
        if all(np.linalg.norm(np.subtract(mode[1:], centre)) > reach for centre in centres):
            centres.append(mode[1:])
    gaps = np.array([[np.linalg.norm(point - centre) for centre in centres] for point in points])
    members = [(gaps.argmin(axis=1) == c) & (gaps.min(axis=1) <= reach) for c in range(len(centres))]
    return max(members, key=lambda member: member.sum())


def naive(X, fraction, seed):
    rows = np.asarray(X, np.float32).astype(float)
    norms = np.linalg.norm(rows, axis=1)
    median = np.median(norms)
    ordinary = (0.1 * median <= norms) & (norms <= 3 * median)
    signs = np.sign(rows[:, drawn_columns(rows.shape[1], fraction, seed)])
    alike = naive_cluster(np.stack([(signs == s).mean(axis=1) for s in (1, 0, -1)], axis=1))
    kept = ordinary & alike if (ordinary & alike).any() else ordinary
    scaled = rows * np.minimum(1, median / np.where(norms > 0, norms, 1))[:, None]
    return scaled[kept].mean(axis=0)


KINDS = {
    "sparse and of all lengths": lambda rng, n, d: (
        rng.normal(size=(n, d)) * (rng.random((n, d)) < 0.5) * rng.choice([0, 0.01, 1, 1, 1, 10], size=(n, 1))
    ).astype(np.float32),
    "float64": lambda rng, n, d: rng.normal(size=(n, d)) + 0.5,
}


@pytest.mark.parametrize("seed", range(34))
def test_random_matrices(kind, draw, seed, agree):
    rng = np.random.default_rng([seed, *kind.encode()])
    X = draw(rng, int(rng.integers(1, 14)), int(rng.choice([1, 2, 3, 20, 300, 5000])))
    fraction = float(rng.choice([0.1, 0.5, 1.0]))
    agree(SignGuard(fraction=fraction)(X, seed=seed), naive(X, fraction, seed), X)


def test_signguard(X, agree):
    agree(SignGuard()(X, seed=3), naive(X, 0.1, 3), X)


def test_mixed_rows(agree):
    X = np.random.default_rng(0).normal(size=(11, 400)).astype(np.float32)
    for chain in (StaticClipping(radius=15.0), NNM(f=2)):
        mixed = chain.mix(X)
        agree((chain | SignGuard(fraction=0.5))(X, seed=1), naive(mixed, 0.5, 1), mixed)


@pytest.mark.parametrize("seed", range(20))
def test_the_largest_cluster_is_that_of_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    n = int(rng.integers(4, 30))
    centres = rng.normal(size=(int(rng.integers(1, 5)), 3))
    points = centres[rng.integers(len(centres), size=n)] + rng.normal(size=(n, 3)) * rng.choice([0.05, 0.3, 1.0])
    bandwidth = estimate_bandwidth(points, quantile=0.5)
    labels = MeanShift(bandwidth=bandwidth, cluster_all=False).fit_predict(points)
    largest = np.bincount(labels[labels >= 0]).argmax()
    np.testing.assert_array_equal(largest_cluster(points), labels == largest)


def test_no_bandwidth_is_needed():
    """Equal features are one cluster, of two equal groups that with the larger features."""
    assert largest_cluster(np.tile([0.3, 0.1, 0.6], (7, 1))).all()
    groups = np.repeat([[0.3, 0.1, 0.6], [0.6, 0.1, 0.3]], 3, axis=0)
    assert largest_cluster(groups).tolist() == [False] * 3 + [True] * 3


@pytest.mark.parametrize("attack", ["sign flip", "little is enough", "scaled up", "noise"])
def test_attackers_are_dropped(attack):
    rng = np.random.default_rng(0)
    honest = rng.normal(size=(19, 5000)) + 0.5
    mean, deviation = honest.mean(axis=0), honest.std(axis=0)
    malicious = {
        "sign flip": -honest[:6],
        "little is enough": np.tile(mean - 1.0 * deviation, (6, 1)),
        "scaled up": 5 * honest[:6],
        "noise": rng.normal(size=(6, 5000)),
    }[attack]
    X = np.concatenate([honest, malicious]).astype(np.float32)
    result, _ = SignGuard().aggregate(X, Context(seed=1), {})
    assert not result.unit_weights[19:].any()
    assert np.count_nonzero(result.unit_weights) >= 8
    assert result.diagnostics["filters_agree"]
    cosine = result.vector @ mean / np.linalg.norm(result.vector) / np.linalg.norm(mean)
    assert cosine > 0.85


def test_filters_that_share_no_row():
    """The largest cluster of signs may hold none of an ordinary norm; then the norms decide."""
    X = np.ones((9, 4), np.float32)
    X[:4] *= 100  # four of one direction, all too long, and five of as many directions
    X[4:] = [[-1, -1, -1, -1], [1, -1, -1, 0], [0, 0, 0, -1], [0, -1, -1, 1], [1, -1, 0, 0]]
    result, _ = SignGuard(fraction=1.0).aggregate(X, Context(), {})
    assert result.diagnostics["filters_agree"] is False
    assert result.diagnostics["passed_norms"] == 5
    assert np.flatnonzero(result.unit_weights).tolist() == [4, 5, 6, 7, 8]


def test_zeros():
    result, _ = SignGuard().aggregate(np.zeros((5, 3)), Context(), {})
    assert result.vector.tolist() == [0, 0, 0]
    X = np.concatenate([np.zeros((3, 4)), np.ones((2, 4))])
    assert SignGuard()(X).tolist() == [0, 0, 0, 0]


def test_nothing_is_longer_than_the_median():
    X = np.random.default_rng(0).normal(size=(9, 30)) * np.linspace(0.5, 2, 9)[:, None]
    result, _ = SignGuard().aggregate(X, Context(), {})
    assert result.diagnostics["clip_norm"] == pytest.approx(np.median(np.linalg.norm(X, axis=1)))
    assert np.linalg.norm(result.vector) <= result.diagnostics["clip_norm"]
    np.testing.assert_allclose(result.unit_weights @ X, result.vector, atol=1e-6)


@pytest.mark.parametrize(("d", "count"), [(1, 1), (10, 3), (997, 100), (5000, 4999), (30_000, 10_000), (10**6, 10**5)])
def test_columns_are_drawn_once_and_as_many_as_asked_for(d, count):
    runs = sampled_columns(d, count, np.random.default_rng(0))
    width = runs[0][1] - runs[0][0]
    assert all(0 <= start < stop <= d for start, stop in runs)
    assert all(before[1] <= after[0] for before, after in pairwise(runs))
    assert count - width < sum(stop - start for start, stop in runs) < count + width


def test_every_column_is_drawn_alike_often():
    """1003 columns of which 300 are drawn 4000 times; a count off by 6 deviations has probability 2e-6 for any."""
    times = np.zeros(1003)
    rng = np.random.default_rng(0)
    for _ in range(4000):
        for run in sampled_columns(1003, 300, rng):
            times[slice(*run)] += 1
    share = 34 / 112  # runs of nine columns
    np.testing.assert_allclose(times, 4000 * share, atol=6 * np.sqrt(4000 * share * (1 - share)))


def test_the_seed_decides_what_is_drawn():
    X = np.random.default_rng(0).normal(size=(9, 60))
    weights = [SignGuard().aggregate(X, Context(seed=seed), {})[0].unit_weights for seed in (0, 0, 1, 2, 3)]
    assert (weights[0] == weights[1]).all()
    assert any((weights[0] != other).any() for other in weights[2:])


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"lower": -0.1}, "expected 0 <= lower <= 1, got lower=-0.1"),
        ({"lower": 1.5}, "expected 0 <= lower <= 1, got lower=1.5"),
        ({"upper": 1.9}, r"expected upper >= 2.0, got upper=1.9"),
        ({"upper": np.inf}, "expected upper to be finite"),
        ({"fraction": 0.0}, r"expected fraction > 0, got fraction=0.0"),
        ({"fraction": 1.1}, "expected 0 <= fraction <= 1, got fraction=1.1"),
    ],
)
def test_fields_that_are_none(fields, message):
    with pytest.raises(InvalidValueError, match=message):
        SignGuard(**fields)


def test_bounds_and_values():
    assert SignGuard().max_f(5) == 2
    with pytest.raises(BoundError, match="n=5 clients tolerates 0 <= f <= 2, got f=3"):
        SignGuard()(np.eye(5), f=3)
    with pytest.raises(InvalidValueError, match=r"row\(s\) \[1\]"):
        SignGuard()([[1.0], [np.nan], [1.0]])
