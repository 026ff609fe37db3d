"""Nearest-neighbour averaging around a participant's own row, against float64."""

import numpy as np
import pytest

from matl.aggregators import NNM, Context, Krum, _rows
from matl.aggregators.bucketing import Bucketing
from matl.aggregators.monna import MoNNA
from matl.errors import BoundError, InvalidValueError


def naive(X, f, own):
    rows = np.asarray(X, np.float32).astype(float)
    others = sorted((i for i in range(len(rows)) if i != own), key=lambda i: float(np.sum((rows[i] - rows[own]) ** 2)))
    return rows[[own, *others[: len(rows) - f - 1]]].mean(axis=0)


KINDS = {
    "outliers": lambda rng, n, d: rng.normal(size=(n, d)) * np.where(np.arange(n) < n // 3, 1e4, 1)[:, None],
}


@pytest.mark.parametrize("seed", range(34))
def test_random_matrices(kind, draw, seed, agree):
    rng = np.random.default_rng([seed, *kind.encode()])
    n, d = int(rng.integers(1, 16)), int(rng.choice([1, 2, 3, 20, 300, 9000]))
    X = draw(rng, n, d)
    f, own = int(rng.integers(0, (n + 1) // 2)), int(rng.integers(n))
    agree(MoNNA(f)(X, self_index=own), naive(X, f, own), X)
    np.testing.assert_array_equal(MoNNA(index=own)(X, f=f, self_index=0), MoNNA(f)(X, self_index=own))


def test_monna(X, agree):
    f = MoNNA().max_f(len(X))
    for own in (0, len(X) - 1):
        agree(MoNNA(f)(X, self_index=own), naive(X, f, own), X)


def test_the_weights_name_the_neighbours():
    X = np.array([[0.0], [4.0], [5.0], [9.0], [1.0]])
    result, _ = MoNNA(2).aggregate(X, Context(self_index=2), {})
    assert result.unit_weights.tolist() == [0, 1 / 3, 1 / 3, 1 / 3, 0]
    result, _ = MoNNA(2).aggregate(X, Context(self_index=4), {})  # rows 1 and 2 are farther than 0, and 1 the nearer
    assert result.unit_weights.tolist() == [1 / 3, 1 / 3, 0, 0, 1 / 3]


def test_ties_go_to_the_smaller_index_but_the_own_row_stays():
    result, _ = MoNNA(2).aggregate(np.ones((5, 3)), Context(self_index=4), {})
    assert result.unit_weights.tolist() == [1 / 3, 1 / 3, 0, 0, 1 / 3]


def test_pairs_of_others_are_not_compared(monkeypatch):
    monkeypatch.setattr(_rows, "centred_gram", None)
    X = np.random.default_rng(0).normal(size=(9, 30))
    np.testing.assert_allclose(MoNNA(2)(X, self_index=3), naive(X, 2, 3), atol=1e-6)


def test_mixed_rows(agree):
    X = np.random.default_rng(0).normal(size=(9, 400)).astype(np.float32)
    mixed = NNM(f=2, rule=Krum()).mix(X)
    for own in range(9):
        agree((NNM() | MoNNA(2))(X, self_index=own), naive(mixed, 2, own), mixed)
        agree((NNM() | MoNNA(2, index=own))(X), naive(mixed, 2, own), mixed)


def test_whose_row_it_is_has_to_be_known():
    X = np.eye(5)
    with pytest.raises(InvalidValueError, match=r"got neither index nor self_index; give the rule an index or"):
        MoNNA(1)(X)
    with pytest.raises(InvalidValueError, match=r"expected index < n=5, got index=5"):
        MoNNA(1, index=5)(X)
    with pytest.raises(InvalidValueError, match="self_index to be a whole number >= 0, got self_index=-1"):
        MoNNA(1)(X, self_index=-1)
    with pytest.raises(InvalidValueError, match="expected index to be a whole number >= 0, got index=-1"):
        MoNNA(index=-1)
    with pytest.raises(InvalidValueError, match="needs no row of its own after Bucketing, got MoNNA"):
        Bucketing(rule=MoNNA())


def test_it_needs_an_honest_majority():
    with pytest.raises(BoundError, match=r"n=4 clients tolerates 0 <= f <= 1, got f=2"):
        MoNNA(2, index=0)(np.eye(4))
