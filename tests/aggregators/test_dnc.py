"""Divide and conquer against a singular value decomposition in float64."""

import numpy as np
import pytest

from matl.aggregators import NNM, Context, StaticClipping
from matl.aggregators._sampling import sampled_columns
from matl.aggregators.dnc import DnC
from matl.errors import BoundError, InvalidValueError


def naive_kept(X, f, iterations=1, subsample=10_000, seed=0):
    rows = np.asarray(X, np.float32).astype(float)
    n, d = rows.shape
    rng = np.random.default_rng(seed)
    kept = []
    for _ in range(iterations):
        columns = [c for run in sampled_columns(d, min(subsample, d), rng) for c in range(*run)]
        centred = rows[:, columns] - rows[:, columns].mean(axis=0)
        top = np.linalg.svd(centred, full_matrices=False)[2][0]
        kept.append(set(np.argsort((centred @ top) ** 2, kind="stable")[: n - f].tolist()))
    return sorted(set.intersection(*kept))


def naive(X, f, **fields):
    return np.asarray(X, np.float32).astype(float)[naive_kept(X, f, **fields)].mean(axis=0)


KINDS = {
    "one far off": lambda rng, n, d: rng.normal(size=(n, d)) * np.where(np.arange(n) == 1, 1e6, 1)[:, None],
}


@pytest.mark.parametrize("seed", range(34))
def test_random_matrices(kind, draw, seed, agree):
    rng = np.random.default_rng([seed, *kind.encode()])
    n, d = int(rng.integers(1, 16)), int(rng.choice([1, 2, 3, 20, 300, 12_000]))
    X = draw(rng, n, d)
    f = int(rng.integers(0, (n + 1) // 2))
    agree(DnC(f)(X, seed=seed), naive(X, f, seed=seed), X)


@pytest.mark.parametrize("seed", range(30))
def test_several_iterations_keep_what_all_of_them_keep(seed, agree):
    X = np.random.default_rng(seed).normal(size=(12, 700)).astype(np.float32)
    rule = DnC(f=1, iterations=5, subsample=150)
    result, _ = rule.aggregate(X, Context(seed=seed), {})
    agree(result.vector, naive(X, 1, iterations=5, subsample=150, seed=seed), X)
    assert result.diagnostics == {"iterations_agree": True}
    assert np.count_nonzero(result.unit_weights) < 11  # one iteration keeps eleven


@pytest.mark.parametrize("f", [0, 1, 3])
def test_dnc(X, agree, f):
    f = min(f, DnC().max_f(len(X)))
    agree(DnC(f)(X), naive(X, f), X)


def test_mixed_rows(agree):
    X = np.random.default_rng(0).normal(size=(11, 400)).astype(np.float32)
    for chain in (StaticClipping(radius=15.0), NNM(f=2)):
        mixed = chain.mix(X)
        agree((chain | DnC(f=2))(X), naive(mixed, 2), mixed)


@pytest.mark.parametrize("share", [0.1, 0.25, 0.4])
def test_attackers_who_shift_together_are_dropped(share):
    """A shift of half a deviation in every coordinate, which no coordinate alone shows."""
    rng = np.random.default_rng(0)
    n, f, d = 40, round(40 * share), 20_000
    X = rng.normal(size=(n, d)).astype(np.float32)
    X[:f] += np.float32(0.5)
    result, _ = DnC().aggregate(X, Context(f=f, seed=1), {})
    assert np.flatnonzero(result.unit_weights).tolist() == list(range(f, n))
    np.testing.assert_allclose(result.vector, X[f:].mean(axis=0), atol=1e-6)


def test_two_rows_can_defeat_it():
    """What the notes warn of: the second malicious row hides at a right angle to the first."""
    X = np.random.default_rng(0).normal(size=(50, 20))
    X[0] = X[1] = 0.0
    X[0, 0] = 1e6
    X[1, :2] = 1e6 / 50, 3e5
    result, _ = DnC(f=2).aggregate(X, Context(), {})
    assert result.unit_weights[0] == 0
    assert result.unit_weights[1] > 0
    assert np.abs(result.vector).max() > 1000


def test_one_row_far_off_cannot():
    X = np.random.default_rng(0).normal(size=(50, 20)).astype(np.float32)
    X[7] = np.random.default_rng(1).normal(size=20) * 1e6
    result, _ = DnC(f=1).aggregate(X, Context(), {})
    assert np.flatnonzero(result.unit_weights == 0).tolist() == [7]


def test_iterations_that_share_no_row():
    """Every coordinate has its own outlier, so each iteration removes others, until those removed least are kept."""
    n = 5
    X = np.eye(n) * 100 + np.random.default_rng(0).normal(size=(n, n))
    result, _ = DnC(f=2, iterations=60, subsample=1).aggregate(X, Context(), {})
    assert result.diagnostics == {"iterations_agree": False}
    assert result.unit_weights.sum() == pytest.approx(1.0)


@pytest.mark.parametrize(("factor", "f", "removed"), [(1.0, 2, 2), (0.5, 3, 2), (0.07, 100, 7), (0.29, 100, 29)])
def test_the_factor_is_rounded_up(factor, f, removed):
    X = np.random.default_rng(0).normal(size=(250, 3))
    result, _ = DnC(f=f, factor=factor).aggregate(X, Context(), {})
    assert np.count_nonzero(result.unit_weights == 0) == removed


def test_the_seed_decides_what_is_drawn():
    X = np.random.default_rng(0).normal(size=(9, 60))
    rule = DnC(f=2, subsample=5)
    weights = [rule.aggregate(X, Context(seed=seed), {})[0].unit_weights for seed in (0, 0, 1, 2, 3)]
    assert (weights[0] == weights[1]).all()
    assert any((weights[0] != other).any() for other in weights[2:])


def test_bounds():
    assert [DnC().max_f(n) for n in (1, 2, 3, 4, 5)] == [0, 0, 1, 1, 2]
    assert [DnC(factor=4.0).max_f(n) for n in (1, 4, 5, 8, 9)] == [0, 0, 1, 1, 2]
    assert [DnC(factor=0.5).max_f(n) for n in (1, 5)] == [0, 2]
    with pytest.raises(BoundError, match=r"n=5 clients tolerates 0 <= f <= 2, got f=3 \(2f < n and c f < n\)"):
        DnC(f=3)(np.eye(5))
    with pytest.raises(BoundError, match="n=8 clients tolerates 0 <= f <= 1, got f=2"):
        DnC(f=2, factor=4.0)(np.eye(8))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"iterations": 0}, "expected iterations to be a whole number >= 1, got iterations=0"),
        ({"subsample": 0}, "expected subsample to be a whole number >= 1, got subsample=0"),
        ({"factor": 0.0}, r"expected factor > 0, got factor=0.0"),
        ({"f": -1}, "expected f to be a whole number >= 0, got f=-1"),
    ],
)
def test_fields_that_are_none(fields, message):
    with pytest.raises(InvalidValueError, match=message):
        DnC(**fields)


def test_values_that_are_none():
    with pytest.raises(InvalidValueError, match=r"row\(s\) \[1\]"):
        DnC()([[1.0], [np.nan], [1.0]])
