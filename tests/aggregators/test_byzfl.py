"""Every rule that ByzFL 0.0.11 has as well gives ByzFL's answer, on 200 random matrices.

ByzFL computes in the precision of its input, so it is given float64 and is the exact side. Tolerances are shares of the
largest entry of the matrix. Where a tie makes several answers right, both sides have to give one of them.
"""

from __future__ import annotations

import importlib.util
import sys
import warnings
from itertools import combinations

import numpy as np
import pytest

from matl.aggregators import (
    ARC,
    CAF,
    NNM,
    SMEA,
    Bucketing,
    CenteredClipping,
    Context,
    GeometricMedian,
    Krum,
    Meamed,
    Mean,
    Median,
    MinimumDiameterAveraging,
    MoNNA,
    MultiKrum,
    StaticClipping,
    TrimmedMean,
)

MISSING = "compares with ByzFL, which is not installed; get it with `make venv-all`"
torch = pytest.importorskip("torch", reason=MISSING)
if "byzfl" not in sys.modules and (spec := importlib.util.find_spec("byzfl")) is not None:
    # The package imports all that its training needs, torchvision and seaborn among it. Its rules need none of that.
    sys.modules["byzfl"] = importlib.util.module_from_spec(spec)
byzfl = pytest.importorskip("byzfl.aggregators", reason=MISSING)

COUNT = 200
# Sums run in float64 here too. What is left is the rounding of the result to float32 and, where the matrix came in
# float64, that of its entries: half a unit in the last place each.
ROUNDING = 2.0**-23
# These measure distances from a point that was rounded to float32 at every step before.
STEPS = 4 * ROUNDING
# Mixtures that are written out are float32 sums of at most ten rows, with one rounding each.
MIXED = 6 * ROUNDING
# Weights that follow from eigenvectors feel the error of the distances over the gap between two eigenvalues.
EIGENVECTORS = 1e-4
# Squared distances are about 1e-6 accurate, and with an offset of 100 sigma float64 entries lose 1e-5 of theirs when
# they are stored as float32; costs closer than this share of themselves count as tied.
TIE = 3e-5


def matrix(seed):
    """A random matrix and a number of Byzantine rows that every rule tolerates; ten kinds in turn."""
    rng = np.random.default_rng(seed)
    n, d = int(rng.integers(2, 11)), int(rng.choice([2, 7, 60, 400]))
    f = int(rng.integers(0, (n - 1) // 2 + 1))
    X = rng.normal(size=(n, d)).astype(np.float32)
    match seed % 10:
        case 0:
            X[: max(f, 1)] += 50
        case 1:
            X += 100
        case 2:
            X = rng.permutation(np.repeat(X, 3, axis=0)[:n])  # few different rows
        case 3:
            f = int(rng.integers(1, 5))
            X = rng.normal(size=(2 * f + 1, d)).astype(np.float32)
        case 4:
            X = X[:, :1]
        case 5:
            X = rng.normal(size=(n, d)) + 100
        case 6:
            X = rng.normal(size=(n, 2 * d)).astype(np.float32)[:, ::2]
        case 7:
            X = np.asfortranarray(X)
        case 8:
            X, f = X[:1], 0
        case 9:
            X = rng.normal(size=(n, 40_000)).astype(np.float32)  # several of the blocks that rules read
    return X, f


CASES = [matrix(seed) for seed in range(COUNT)]


def by_byzfl(rule, X):
    """ByzFL's answer; it clips in place, divides by zero, and takes a mean of nothing if there is one row."""
    with warnings.catch_warnings(), np.errstate(all="ignore"):
        warnings.filterwarnings("ignore", "Mean of empty slice", RuntimeWarning)
        return rule(np.array(X, np.float64))


def close(actual, expected, X, tolerance):
    return actual.shape == expected.shape and np.abs(actual - expected).max() <= tolerance * np.abs(X).max()


def chain(*rules):
    """ByzFL's way to apply one after the other."""

    def apply(X):
        for rule in rules:
            X = rule(X)
        return X

    return apply


ONE_ANSWER = {
    "median": (lambda f: Median(), lambda f: byzfl.Median(), ROUNDING),
    "trimmed mean": (TrimmedMean, byzfl.TrMean, ROUNDING),
    "geometric median": (
        lambda f: GeometricMedian(nu=0.1, iterations=3, tolerance=0.0),
        lambda f: byzfl.GeometricMedian(nu=0.1, T=3),
        STEPS,
    ),
    "centered clipping": (
        lambda f: CenteredClipping(radius=5.0),
        lambda f: byzfl.CenteredClipping(tau=5.0),
        ROUNDING,
    ),
    "centered clipping, 3 steps": (
        lambda f: CenteredClipping(radius=5.0, iterations=3),
        lambda f: byzfl.CenteredClipping(L=3, tau=5.0),
        STEPS,
    ),
    "static clipping": (
        lambda f: StaticClipping(radius=5.0) | Mean(),
        lambda f: chain(byzfl.Clipping(5.0), byzfl.Average()),
        ROUNDING,
    ),
    "ARC": (lambda f: ARC(f) | Mean(), lambda f: chain(byzfl.ARC(f), byzfl.Average()), ROUNDING),
    "ARC, trimmed mean": (lambda f: ARC() | TrimmedMean(f), lambda f: chain(byzfl.ARC(f), byzfl.TrMean(f)), ROUNDING),
}


@pytest.mark.parametrize("name", ONE_ANSWER)
def test_rules_with_one_answer(name):
    ours, theirs, tolerance = ONE_ANSWER[name]
    for seed, (X, f) in enumerate(CASES):
        assert close(ours(f)(X), by_byzfl(theirs(f), X), X, tolerance), f"matrix {seed}, {X.shape}, f={f}"


def squared_distances(X):
    X = np.asarray(X, np.float64)
    return np.array([((X - row) ** 2).sum(axis=1) for row in X])


def means_of_least(X, costs, k):
    """Every mean of k rows that cost least: where costs tie at the k-th place, of any of those rows."""
    X, last = np.asarray(X, np.float64), np.sort(costs)[k - 1]
    tied = np.flatnonzero(np.abs(costs - last) <= TIE * last)
    sure = np.setdiff1d(np.flatnonzero(costs <= last), tied)
    return [X[[*sure, *some]].mean(axis=0) for some in combinations(tied, k - len(sure))]


def krum_answers(X, f, k):
    distances = squared_distances(X)
    return means_of_least(X, np.sort(distances, axis=1)[:, 1 : len(X) - f].sum(axis=1), k)


def meamed_answers(X, f):
    """Both ends of what ties allow: the tied values below the median kept first, or those above."""
    X = np.asarray(X, np.float64)
    middle = np.median(X, axis=0)
    for ranked in np.sort(X, axis=0), -np.sort(-X, axis=0):
        nearest = np.argsort(np.abs(ranked - middle), axis=0, kind="stable")[: len(X) - f]
        yield np.take_along_axis(ranked, nearest, axis=0).mean(axis=0)


def means_of_best_sets(X, f, cost):
    """Every mean of n - f rows whose set costs least."""
    X = np.asarray(X, np.float64)
    means = {rows: X[list(rows)].mean(axis=0) for rows in combinations(range(len(X)), len(X) - f)}
    costs = {rows: cost(list(rows)) for rows in means}
    least = min(costs.values())
    return [means[rows] for rows in means if costs[rows] <= (1 + TIE) * least]


def mda_answers(X, f):
    distances = squared_distances(X)
    return means_of_best_sets(X, f, lambda rows: distances[np.ix_(rows, rows)].max())


def smea_answers(X, f):
    """By the top eigenvalue of the covariance, from the inner products of the centred rows."""
    X = np.asarray(X, np.float64)
    inner = (X - X.mean(axis=0)) @ (X - X.mean(axis=0)).T

    def spread(rows):
        gram = inner[np.ix_(rows, rows)]
        return np.linalg.eigvalsh(gram - gram.mean(axis=0) - gram.mean(axis=1)[:, None] + gram.mean())[-1]

    return means_of_best_sets(X, f, spread)


SEVERAL_ANSWERS = {
    "Krum": (lambda f: Krum(f, neighbors="n-f-1"), byzfl.Krum, lambda X, f: krum_answers(X, f, 1)),
    "MultiKrum": (
        lambda f: MultiKrum(f, neighbors="n-f-1"),
        byzfl.MultiKrum,
        lambda X, f: krum_answers(X, f, len(X) - f),
    ),
    "MDA": (MinimumDiameterAveraging, byzfl.MDA, mda_answers),
}


@pytest.mark.parametrize("name", SEVERAL_ANSWERS)
def test_rules_that_choose_rows(name):
    ours, theirs, answers = SEVERAL_ANSWERS[name]
    agreed = 0
    for seed, (X, f) in enumerate(CASES):
        actual, expected = ours(f)(X), by_byzfl(theirs(f), X)
        if close(actual, expected, X, ROUNDING):
            agreed += 1
            continue
        where = f"matrix {seed}, {X.shape}, f={f}"
        allowed = answers(X, f)
        assert any(close(actual, answer, X, ROUNDING) for answer in allowed), where
        assert any(close(expected, answer, X, ROUNDING) for answer in allowed), f"ByzFL on {where}"
    assert agreed > 0.9 * COUNT  # a tie is what few matrices have


def test_monna():
    for seed, (X, f) in enumerate(CASES):
        own = seed % len(X)
        actual, expected = MoNNA(f, index=own)(X), by_byzfl(byzfl.MoNNA(f, idx=own), X)
        if not close(actual, expected, X, ROUNDING):
            allowed = means_of_least(X, squared_distances(X)[own], len(X) - f)
            for vector in actual, expected:
                assert any(close(vector, answer, X, ROUNDING) for answer in allowed), f"matrix {seed}, {X.shape}, f={f}"


def test_smea():
    """ByzFL estimates eigenvalues by one power step from a random start, which is exact in one dimension alone."""
    for seed, (X, f) in enumerate(CASES):
        allowed = smea_answers(X, f)
        assert any(close(SMEA(f)(X), answer, X, ROUNDING) for answer in allowed), f"matrix {seed}, {X.shape}, f={f}"
        if X.shape[1] == 1:
            expected = by_byzfl(byzfl.SMEA(f), X)
            assert any(close(expected, answer, X, ROUNDING) for answer in allowed), f"ByzFL on matrix {seed}, f={f}"


def caf(X, f):
    """CAF's definition, with singular vectors and among the rows that still count.

    ByzFL approximates it by one power step from a random start, and measures by rows without weight as well, upon
    which it need not end.
    """
    X = np.asarray(X, np.float64)
    weights, best, least = np.ones(len(X)), X.mean(axis=0), np.inf
    while weights.sum() > len(X) - 2 * f:
        mean = weights @ X / weights.sum()
        _, spread, directions = np.linalg.svd(
            np.sqrt(weights / weights.sum())[:, None] * (X - mean), full_matrices=False
        )
        if spread[0] < least:
            best, least = mean, spread[0]
        projections = np.where(weights > 0, np.abs((X - mean) @ directions[0]), 0.0)
        if projections.max() <= ROUNDING * np.abs(X).max():
            break
        weights = weights * (1 - (projections / projections.max()) ** 2)
    return best


def test_caf():
    for seed, (X, f) in enumerate(CASES):
        assert close(CAF(f)(X), caf(X, f), X, EIGENVECTORS), f"matrix {seed}, {X.shape}, f={f}"


def test_caf_with_many_rows():
    X = np.random.default_rng(0).normal(size=(200, 30)).astype(np.float32)
    X[:20] += 10
    assert close(CAF(20)(X), caf(X, 20), X, EIGENVECTORS)


def test_caf_where_one_power_step_is_enough(monkeypatch):
    """One row far out is what a random start finds; without it the mean moves by 125."""
    for seed in range(20):
        rng = np.random.default_rng(seed)
        monkeypatch.setattr(np.random, "randn", rng.standard_normal)
        X = rng.normal(size=(8, 50))
        X[seed % 8] += 1000
        np.testing.assert_allclose(CAF(1)(X), by_byzfl(byzfl.CAF(1), X), atol=0.1)


def test_meamed():
    agreed = 0
    for seed, (X, f) in enumerate(CASES):
        actual, expected = Meamed(f)(X), by_byzfl(byzfl.Meamed(f), X)
        if close(actual, expected, X, ROUNDING):
            agreed += 1
            continue
        low, high = meamed_answers(X, f)
        slack = ROUNDING * np.abs(X).max()
        for vector in actual, expected:
            assert ((vector >= low - slack) & (vector <= high + slack)).all(), f"matrix {seed}, {X.shape}, f={f}"
    assert agreed > 0.9 * COUNT


def test_nearest_neighbour_mixing():
    for seed, (X, f) in enumerate(CASES):
        actual, expected = NNM(f).mix(X), by_byzfl(byzfl.NNM(f), X)
        for i, costs in enumerate(squared_distances(X)):
            if not close(actual[i], expected[i], X, MIXED):
                allowed = means_of_least(X, costs, len(X) - f)
                for row in actual[i], expected[i]:
                    assert any(close(row, answer, X, MIXED) for answer in allowed), f"matrix {seed}, {X.shape}, f={f}"


def test_bucketing(monkeypatch):
    for seed, (X, _) in enumerate(CASES):
        for size in 1, 2, 3:
            order = np.random.default_rng(seed).permutation(len(X))
            with monkeypatch.context() as patch:
                patch.setattr(np.random, "permutation", lambda rows, order=order: rows[order])
                expected = by_byzfl(byzfl.Bucketing(size), X)
            assert close(Bucketing(size).mix(X, seed=seed), expected, X, MIXED), f"matrix {seed}, {X.shape}"


def test_centered_clipping_remembers_its_last_result():
    rng = np.random.default_rng(0)
    ours, theirs = CenteredClipping(radius=2.0), byzfl.CenteredClipping(tau=2.0)
    state = {"centre": None}
    for _ in range(5):
        X = (rng.normal(size=(7, 30)) + 3).astype(np.float32)
        result, state = ours.aggregate(X, Context(), state)
        assert close(result.vector, by_byzfl(theirs, X), X, STEPS)


@pytest.mark.parametrize("name", [*ONE_ANSWER, "Krum", "MultiKrum"])
def test_tensors(name):
    """Torch sums in float32, in an order of its own: 1e-5 of the largest entry, where nothing is close to a tie."""
    ours, theirs, _ = {**ONE_ANSWER, **SEVERAL_ANSWERS}[name]
    for seed in range(20):
        rng = np.random.default_rng(seed)
        X = torch.from_numpy((rng.normal(size=(9, 200)) * np.linspace(0.5, 1.5, 9)[:, None]).astype(np.float32))
        actual = ours(3)(X)
        assert isinstance(actual, torch.Tensor)
        torch.testing.assert_close(actual, theirs(3)(X.clone()), rtol=0, atol=1e-5 * float(X.abs().max()))
