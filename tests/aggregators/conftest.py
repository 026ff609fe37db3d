"""Matrices that every rule is compared on with a plain float64 implementation of its paper."""

from __future__ import annotations

import numpy as np
import pytest


def _normal(n, d, seed=0):
    return np.random.default_rng(seed).normal(size=(n, d)).astype(np.float32)


CASES = {
    "plain": lambda: _normal(9, 6),
    "one coordinate": lambda: _normal(9, 1),
    "wide": lambda: _normal(7, 9000),  # more than two of the blocks that rules read
    "many": lambda: _normal(60, 5),
    "offset of 100 sigma": lambda: _normal(9, 500) + np.float32(100),
    "offset of 10,000 sigma": lambda: _normal(9, 500) + np.float32(10_000),
    "duplicates": lambda: np.repeat(_normal(3, 8), 3, axis=0),
    "integers": lambda: np.arange(36).reshape(9, 4) ** 2 % 17,
    "float64": lambda: np.random.default_rng(1).normal(size=(9, 6)),
    "every other column": lambda: _normal(9, 12)[:, ::2],
    "Fortran order": lambda: np.asfortranarray(_normal(9, 6)),
    "backwards": lambda: _normal(9, 6)[::-1, ::-1],
    "heavy tails": lambda: np.random.default_rng(2).standard_cauchy(size=(9, 40)).astype(np.float32),
    "tiny": lambda: _normal(9, 6) * np.float32(1e-25),
    "huge": lambda: _normal(9, 6) * np.float32(1e30),
    "one row": lambda: _normal(1, 6),
    "two rows": lambda: _normal(2, 6),
}


KINDS = {
    "plain": lambda rng, n, d: rng.normal(size=(n, d)).astype(np.float32),
    "offset of 100 sigma": lambda rng, n, d: (rng.normal(size=(n, d)) + 100).astype(np.float32),
    "duplicates": lambda rng, n, d: rng.normal(size=(n, d))[rng.integers(n, size=n)].astype(np.float32),
    "float64": lambda rng, n, d: rng.normal(size=(n, d)),
    "every other column": lambda rng, n, d: rng.normal(size=(n, 2 * d)).astype(np.float32)[:, ::2],
}
"""Ways to draw a random matrix; a module may have more, or others of the same name, in a ``KINDS`` of its own."""


def pytest_generate_tests(metafunc):
    """Run every test that asks for ``kind`` and ``draw`` on each kind of random matrix."""
    if "draw" in metafunc.fixturenames:
        metafunc.parametrize(("kind", "draw"), (KINDS | metafunc.module.KINDS).items())


@pytest.fixture(params=CASES)
def X(request):  # noqa: N802 - the matrix keeps its letter
    """A matrix of updates; rules must agree with float64 on it and leave it as it was."""
    matrix = CASES[request.param]()
    before = matrix.copy()
    yield matrix
    np.testing.assert_array_equal(matrix, before)


@pytest.fixture
def agree():
    """Compare with a float64 result, to float32's rounding of the largest number involved."""

    def compare(actual, expected, X):
        assert actual.dtype == np.float32
        np.testing.assert_allclose(actual, expected, rtol=0, atol=2e-6 * float(np.abs(X).max()))

    return compare
