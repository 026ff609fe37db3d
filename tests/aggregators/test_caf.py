"""CAF against float64 singular value decompositions of the weighted rows themselves."""

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

from matl.aggregators import NNM, Context, StaticClipping, caf
from matl.aggregators._threads import _blas
from matl.aggregators.caf import CAF, _lanczos, _principal
from matl.errors import BoundError


def naive_shares(X, f):
    rows = np.asarray(X, np.float32).astype(float)
    n = len(rows)
    counts, best, smallest = np.ones(n), np.ones(n) / n, np.inf
    rounds = 0
    while counts.sum() > n - 2 * f:
        rounds += 1
        shares = counts / counts.sum()
        centred = rows - shares @ rows
        _, values, directions = np.linalg.svd(np.sqrt(shares)[:, None] * centred, full_matrices=False)
        if values[0] ** 2 < smallest:
            best, smallest = shares, values[0] ** 2
        tau = (centred @ directions[0]) ** 2 * (counts > 0)
        if tau.max() <= 1e-24 * (rows**2).max():
            break
        counts = np.where(tau > (1 - 1e-5) * tau.max(), 0, counts * (1 - tau / tau.max()))
    assert rounds <= 2 * f
    return best


def naive(X, f):
    return naive_shares(X, f) @ np.asarray(X, np.float32).astype(float)


def close(actual, expected, X):
    """An eigenvector is only as accurate as distances are, over its gap to the next one."""
    assert actual.dtype == np.float32
    rows = np.asarray(X, float)
    values = np.linalg.svd(rows - rows.mean(axis=0), compute_uv=False) ** 2
    gap = 1 - values[1] / values[0] if len(values) > 1 and values[0] > 0 else 1.0
    tolerance = 1e-5 / np.clip(20 * gap, 0.1, 1)
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * float(np.abs(X).max()))


KINDS = {
    "outliers": lambda rng, n, d: rng.normal(size=(n, d)) + np.where(np.arange(n) < n // 3, 50, 0)[:, None],
}


@pytest.mark.parametrize("seed", range(34))
def test_random_matrices(kind, draw, seed):
    rng = np.random.default_rng([seed, *kind.encode()])
    n, d = int(rng.integers(1, 16)), int(rng.choice([1, 2, 3, 20, 300, 9000]))
    X = draw(rng, n, d)
    f = int(rng.integers(0, (n + 1) // 2))
    close(CAF(f)(X), naive(X, f), X)


@pytest.mark.parametrize("f", [0, 1, 4])
def test_caf(X, f):
    f = min(f, CAF().max_f(len(X)))
    close(CAF(f)(X), naive(X, f), X)


@pytest.mark.parametrize("n", [128, 129, 200])
def test_many_rows(n):
    """One more than a full decomposition is used for, and with as many large eigenvalues as there are outliers."""
    rng = np.random.default_rng(n)
    X = rng.normal(size=(n, 5)) @ rng.normal(size=(5, 300)) + 0.1 * rng.normal(size=(n, 300))
    X[:12] += 30 * rng.normal(size=(3, 300)).repeat(4, axis=0)
    result, _ = CAF(30).aggregate(X, Context(), {})
    close(result.vector, naive(X, 30), X)
    np.testing.assert_allclose(result.unit_weights, naive_shares(X, 30), atol=1e-6)
    assert result.unit_weights[:12].sum() < 0.002


def test_the_eigenpair_is_that_of_the_weighted_covariance():
    rng = np.random.default_rng(0)
    X, shares = rng.normal(size=(300, 40)) * 0.9 ** np.arange(40) + 7, rng.uniform(size=300) * (rng.random(300) < 0.8)
    shares /= shares.sum()
    distances = ((X[:, None] - X) ** 2).sum(axis=2)
    value, projections = _principal(distances, shares, rng.normal(size=300))
    centred = X - shares @ X
    values, vectors = np.linalg.eigh(centred.T * shares @ centred)
    assert value == pytest.approx(values[-1], rel=1e-12)
    wanted = centred @ vectors[:, -1]
    np.testing.assert_allclose(projections / projections[0], wanted / wanted[0], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("gap", [1.0, 1e-2, 1e-6, 0.0])
def test_lanczos(gap):
    """To 1e-10 of the eigenvalue where the vectors can be told apart, and to a thousandth of it in a crowd of them."""
    rng = np.random.default_rng(1)
    basis = np.linalg.qr(rng.normal(size=(400, 400)))[0]
    values = np.concatenate([1 + gap * rng.uniform(size=200), rng.uniform(size=200) * 0.5])
    values[0] = 1 + 1.2 * gap
    matrix = basis * values @ basis.T
    value, vector = _lanczos(lambda v: matrix @ v, rng.normal(size=400))
    assert np.linalg.norm(vector) == pytest.approx(1)
    assert value == pytest.approx(vector @ matrix @ vector)
    assert values.max() * (1 - 1e-3) <= value <= values.max() * (1 + 1e-12)
    if gap == 1.0:
        assert np.linalg.norm(matrix @ vector - value * vector) < 1e-9


def test_lanczos_of_nothing():
    assert _lanczos(lambda v: 0 * v, np.ones(200))[0] == 0
    np.testing.assert_allclose(CAF(20)(np.ones((200, 3))), 1)


def test_a_row_that_was_left_out_does_not_slow_the_filter_down():
    """Its projection stays the largest: a maximum that included it would take a million rounds."""
    X = np.random.default_rng(0).normal(size=(12, 30)).astype(np.float32)
    X[3] += 1e6
    result, _ = CAF(4).aggregate(X, Context(), {})
    assert result.unit_weights[3] == 0
    assert 1 < result.diagnostics["rounds"] <= 8


def test_rows_that_tie_with_the_farthest_leave_together():
    """Else what rounding leaves of them would set the largest projection of the next rounds."""
    rng = np.random.default_rng(0)
    X = rng.normal(size=(20, 3000)).astype(np.float32)
    X[:6] = (0.3 * X[0] + 1) * (1 + 1e-7 * rng.normal(size=(6, 1)))
    result, _ = CAF(6).aggregate(X, Context(), {})
    assert not result.unit_weights[:6].any()
    close(result.vector, naive(X, 6), X)


def test_without_malicious_rows_it_is_the_mean():
    X = np.random.default_rng(0).normal(size=(6, 4))
    np.testing.assert_allclose(CAF(0)(X), X.mean(axis=0), atol=1e-6)


def test_mixed_rows():
    X = np.random.default_rng(0).normal(size=(11, 400)).astype(np.float32)
    for before in (StaticClipping(radius=15.0), NNM(f=2)):
        mixed = before.mix(X)
        close((before | CAF(f=2))(X), naive(mixed, 2), mixed)


def test_blas_is_held_to_one_thread(monkeypatch):
    """Products with a matrix of a thousand rows are slower on more."""
    seen = []

    def watched(*arguments):
        seen.extend(library.num_threads for library in _blas())
        return filtered(*arguments)

    filtered = caf._filtered
    monkeypatch.setattr(caf, "_filtered", watched)
    with threadpool_limits(2, user_api="blas"):
        CAF(2)(np.eye(9))
    assert set(seen) == {1}


def test_it_needs_an_honest_majority():
    with pytest.raises(BoundError, match=r"CAF with n=4 clients tolerates 0 <= f <= 1, got f=2 \(2f < n\)"):
        CAF(2)(np.eye(4))
