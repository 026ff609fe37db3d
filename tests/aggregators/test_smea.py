"""SMEA against the singular values of all subsets in float64."""

from itertools import combinations

import numpy as np
import pytest

from matl.aggregators import NNM, Context, StaticClipping, smea
from matl.aggregators.smea import SMEA
from matl.errors import BoundError


def spread(rows):
    """Top eigenvalue of the covariance."""
    return np.linalg.svd(rows - rows.mean(axis=0), compute_uv=False)[0] ** 2 / len(rows)


def naive_kept(X, f):
    rows = np.asarray(X, np.float32).astype(float)
    return min(combinations(range(len(rows)), len(rows) - f), key=lambda kept: spread(rows[list(kept)]))


def naive(X, f):
    return np.asarray(X, np.float32).astype(float)[list(naive_kept(X, f))].mean(axis=0)


KINDS = {
    "outliers": lambda rng, n, d: rng.normal(size=(n, d)) * np.where(np.arange(n) < n // 3, 1e4, 1)[:, None],
}


@pytest.mark.parametrize("seed", range(34))
def test_random_matrices(kind, draw, seed, agree):
    rng = np.random.default_rng([seed, *kind.encode()])
    n, d = int(rng.integers(1, 11)), int(rng.choice([1, 2, 3, 20, 300, 2000]))
    X = draw(rng, n, d)
    f = int(rng.integers(0, (n + 1) // 2))
    agree(SMEA(f)(X), naive(X, f), X)


@pytest.mark.parametrize("f", [0, 1, 3])
def test_smea(X, agree, f):
    f = min(f, SMEA().max_f(len(X)), 1 if max(X.shape) > 50 else f)  # so many subsets
    agree(SMEA(f)(X), naive(X, f), X)


@pytest.mark.parametrize("attack", ["none", "far", "twelve orders of magnitude", "together"])
def test_many_subsets(attack):
    """All 8008 eigenvalues at once; the subset that comes back has the smallest."""
    rng = np.random.default_rng(3)
    X = rng.normal(size=(16, 40)).astype(np.float32)
    X[[2, 7, 8]] *= {"none": 1, "far": 30, "twelve orders of magnitude": 1e12, "together": 1}[attack]
    if attack == "together":
        X[[2, 7, 8, 11]] = X[2] / 2 + 1
    kept = np.array(list(combinations(range(16), 10)))
    rows = X.astype(float)[kept] - X.astype(float)[kept].mean(axis=1, keepdims=True)
    values = np.linalg.eigvalsh(rows @ rows.transpose(0, 2, 1))[:, -1] / 10
    result, _ = SMEA(6).aggregate(X, Context(), {})
    assert np.flatnonzero(result.unit_weights).tolist() == kept[values.argmin()].tolist()
    np.testing.assert_allclose(result.unit_weights[kept[values.argmin()]], 0.1)
    assert result.diagnostics["eigenvalue"] == pytest.approx(values.min(), rel=1e-5)


@pytest.mark.parametrize("seed", range(20))
def test_the_proven_coefficient(seed):
    """For every set of n - f rows, whatever the others are."""
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(9, 3)) * 10 ** rng.uniform(-1, 1, size=(9, 1))
    for f in (0, 1, 2, 4):
        result = SMEA(f)(X)
        for honest in combinations(range(9), 9 - f):
            rows = X[list(honest)]
            gap = ((result - rows.mean(axis=0)) ** 2).sum()
            assert gap <= SMEA().kappa(9, f) * spread(rows) * 1.0001 + 1e-9
    assert SMEA().kappa(9, 2) == pytest.approx(8 / 7 * (1 + 2 / 5) ** 2)


def test_equal_rows_and_equal_subsets(monkeypatch):
    np.testing.assert_array_equal(SMEA(2)(np.full((7, 3), 2.5)), np.full(3, 2.5))
    looked_at = []
    principal = smea._principal
    monkeypatch.setattr(smea, "_principal", lambda gram, rows: looked_at.append(rows) or principal(gram, rows))
    for seed in range(5):
        looked_at.clear()
        pair = np.random.default_rng(seed).normal(size=(2, 7)).astype(np.float32)
        result = SMEA(6)(np.repeat(pair, 15, axis=0))  # ten thousand subsets tie: six of either kind may go
        shares = np.array([[9, 15], [15, 9]]) / 24
        assert np.abs(shares @ pair - result).max(axis=1).min() < 1e-6
        assert len(looked_at) < 10


def test_mixed_rows(agree):
    X = np.random.default_rng(0).normal(size=(11, 400)).astype(np.float32)
    for before in (StaticClipping(radius=15.0), NNM(f=2)):
        mixed = before.mix(X)
        agree((before | SMEA(f=2))(X), naive(mixed, 2), mixed)


def test_too_many_subsets_and_too_few_honest_rows():
    with pytest.raises(BoundError, match=r"at most 1000000 sets of f rows to leave out, got 5852925 with n=30 and f=8"):
        SMEA(8)(np.eye(30))
    with pytest.raises(BoundError, match=r"SMEA with n=4 clients tolerates 0 <= f <= 1, got f=2"):
        SMEA(2)(np.eye(4))
