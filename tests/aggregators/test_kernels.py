"""Every kernel compiled, as plain Python, and against NumPy in float64."""

import numba
import numpy as np
import pytest

from matl.aggregators import _kernels

X = np.random.default_rng(0).normal(size=(7, 50)).astype(np.float32)
Z = np.random.default_rng(1).normal(size=50).astype(np.float32)
WIDE, POINT = X.astype(float), Z.astype(float)
PART = slice(3, 41)


@pytest.fixture(params=["compiled", "plain"])
def kernel(request):
    return lambda name: getattr(_kernels, name) if request.param == "compiled" else getattr(_kernels, name).py_func


@pytest.mark.parametrize("rows", [[], [4], [0, 1, 2, 3], [0, 2, 3, 5, 6], [6, 5, 4, 3, 2, 1, 0]], ids=str)
def test_add_rows(kernel, rows):
    total, weights = np.ones(38), np.arange(1.0, 1.0 + len(rows))
    kernel("add_rows")(X, np.array(rows, np.int64), weights, 3, 41, total)
    np.testing.assert_allclose(total, 1 + weights @ WIDE[rows, PART], rtol=1e-14)


def test_how_rows_are_grouped_does_not_change_a_bit():
    weights = np.random.default_rng(2).normal(size=7)
    once, singly = np.zeros(50), np.zeros(50)
    _kernels.add_rows(X, np.arange(7), weights, 0, 50, once)
    for i in range(7):
        _kernels.add_rows(X, np.array([i]), weights[[i]], 0, 50, singly)
    np.testing.assert_array_equal(once, singly)


def test_sums_of_squares_and_products(kernel):
    for name, vectors, wanted in (
        ("add_squares", (), (WIDE[:, PART] ** 2).sum(axis=1)),
        ("add_squared_gaps", (Z,), ((WIDE - POINT)[:, PART] ** 2).sum(axis=1)),
        ("add_products", (Z,), WIDE[:, PART] @ POINT[PART]),
    ):
        total = np.full(7, 2.0)
        kernel(name)(X, *vectors, 3, 41, total)
        np.testing.assert_allclose(total, 2 + wanted, rtol=1e-13, err_msg=name)


@pytest.mark.parametrize(("first", "last"), [(0, 7), (2, 5), (3, 4)])
def test_mean_of_sorted(kernel, first, last):
    ranked, out = np.sort(X, axis=0), np.empty(40, np.float32)
    kernel("mean_of_sorted")(ranked, first, last, np.full(50, np.nan), out)
    np.testing.assert_allclose(out, np.sort(WIDE, axis=0)[first:last, :40].mean(axis=0), rtol=1e-6)


@pytest.mark.parametrize("n", [1, 2, 5, 6])
def test_mean_near_median(kernel, n):
    ranked = np.sort(X[:n], axis=0)
    for keep in range(n // 2 + 1, n + 1):
        out = np.empty(40, np.float32)
        kernel("mean_near_median")(ranked, keep, np.full(50, np.nan), out)
        for value, column in zip(out, ranked.astype(float).T, strict=False):
            nearest = column[np.argsort(np.abs(column - np.median(column)), kind="stable")[:keep]]
            assert value == pytest.approx(nearest.mean(), rel=1e-6)


def test_they_run_where_compiled_code_cannot_be_kept(monkeypatch):
    real = numba.njit

    def nowhere_to_write(**options):
        if options.get("cache"):
            raise RuntimeError("cannot cache function: no locator available")
        return real(**options)

    monkeypatch.setattr(numba, "njit", nowhere_to_write)
    total = np.zeros(7)
    _kernels._sum(_kernels.add_squares.py_func)(X, 0, 50, total)
    np.testing.assert_allclose(total, (WIDE**2).sum(axis=1))
