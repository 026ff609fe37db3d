"""Krum and Multi-Krum against float64, with explicit distances."""

import numpy as np
import pytest

from matl.aggregators import Context, Krum, MultiKrum
from matl.errors import BoundError, InvalidValueError


def naive_order(X, f):
    """Row indices from the best Krum score to the worst."""
    rows = np.asarray(X, np.float32).astype(float)
    scores = []
    for i, row in enumerate(rows):
        others = sorted(float(np.sum((row - other) ** 2)) for j, other in enumerate(rows) if j != i)
        scores.append(sum(others[: max(len(rows) - f - 2, 1)]))
    return np.argsort(scores, kind="stable")


@pytest.mark.parametrize("f", [0, 1, 3])
def test_krum(X, agree, f):
    f = min(f, Krum().max_f(len(X)))
    agree(Krum(f)(X), np.asarray(X, float)[naive_order(X, f)[0]], X)


@pytest.mark.parametrize("f", [0, 1, 3])
@pytest.mark.parametrize("m", [None, 1, 2])
def test_multi_krum(X, agree, f, m):
    n = len(X)
    f, m = min(f, MultiKrum().max_f(n)), m and min(m, n)
    chosen = naive_order(X, f)[: n - f if m is None else m]
    agree(MultiKrum(f, m)(X), np.asarray(X, float)[chosen].mean(axis=0), X)


def test_the_weights_name_the_chosen():
    X = np.array([[0.0], [0.1], [0.2], [0.35], [9.0]])
    result, _ = Krum(1).aggregate(X, Context(), {})
    assert result.unit_weights.tolist() == [0, 1, 0, 0, 0]
    result, _ = MultiKrum(1).aggregate(X, Context(), {})
    assert result.unit_weights.tolist() == [0.25] * 4 + [0]


def test_ties_go_to_the_smaller_index():
    X = np.array([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])  # a square: every score is alike
    result, _ = Krum(0).aggregate(X, Context(), {})
    assert result.unit_weights.tolist() == [1, 0, 0, 0]


def test_more_rows_than_there_are():
    with pytest.raises(BoundError, match="expected m <= n, got m=6 and n=5"):
        MultiKrum(m=6)(np.eye(5))
    with pytest.raises(InvalidValueError, match="expected m to be a whole number >= 1, got m=0"):
        MultiKrum(m=0)
    with pytest.raises(InvalidValueError, match=r"expected m to be a whole number >= 1, got m=2.5"):
        MultiKrum(m=2.5)
