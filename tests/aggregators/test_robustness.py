"""What is promised under attack: proven coefficients, and results that stay near the honest whatever f rows hold."""

import numpy as np
import pytest

from matl.aggregators import (
    AGGREGATORS,
    ARC,
    CAF,
    FLAME,
    NNM,
    SMEA,
    Bulyan,
    FoolsGold,
    GeometricMedian,
    Krum,
    Meamed,
    Mean,
    Median,
    MinimumDiameterAveraging,
    MoNNA,
    MultiKrum,
    SignGuard,
    TrimmedMean,
)

EXACT = GeometricMedian(nu=1e-9, iterations=200, tolerance=0)
PROVEN = [Krum(neighbors="n-f-1"), Median(), TrimmedMean(), EXACT, MinimumDiameterAveraging(), SMEA()]
CHAINED = [NNM(rule=rule) for rule in PROVEN] + [ARC(rule=rule) for rule in PROVEN] + [ARC() | NNM() | TrimmedMean()]
COEFFICIENTS = [rule for rule in [*PROVEN, *CHAINED] if rule.kappa(11, 2) is not None]
BOUNDED = [
    *PROVEN,
    *CHAINED,
    Krum(),
    MultiKrum(),
    Meamed(),
    Bulyan(),
    CAF(),
    MoNNA(index=10),  # an honest row
    SignGuard(),
    FLAME(noise=0.0),
]
ATTACKS = {
    "huge": lambda H, f, rng: np.full((f, H.shape[1]), 1e30),
    "huge and apart": lambda H, f, rng: (
        rng.choice([-1.0, 1.0], size=(f, H.shape[1])) * 10.0 ** rng.uniform(3, 30, (f, 1))
    ),
    "just outside": lambda H, f, rng: np.tile(H.mean(axis=0) + 2 * H.std(axis=0), (f, 1)),
    "a little": lambda H, f, rng: np.tile(H.mean(axis=0) - 0.8 * H.std(axis=0), (f, 1)),
    "opposite": lambda H, f, rng: np.tile(-4 * H.mean(axis=0), (f, 1)),
    "far together": lambda H, f, rng: (
        H.mean(axis=0)
        + 30 * np.linalg.norm(H.std(axis=0)) * np.eye(H.shape[1])[0]
        + 0.01 * rng.normal(size=(f, H.shape[1]))
    ),
    "copies": lambda H, f, rng: np.repeat(H[:1], f, axis=0),
    "a line": lambda H, f, rng: H.mean(axis=0) + np.outer(np.arange(1.0, f + 1), np.ones(H.shape[1])),
}


def names(rule):
    return repr(rule).replace("aggregators.", "")


def cohorts(attack, trials=25):
    """Malicious rows first, then honest ones: (rows, f, honest)."""
    rng = np.random.default_rng(0)
    for _ in range(trials):
        f = int(rng.integers(1, 3))
        honest = rng.normal(size=(11 - f, int(rng.integers(1, 9)))) * rng.uniform(0.1, 3) + rng.normal() * 3
        yield np.vstack([ATTACKS[attack](honest, f, rng), honest]), f, honest


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("rule", COEFFICIENTS, ids=names)
def test_the_proven_coefficient_holds(rule, attack):
    for X, f, honest in cohorts(attack):
        error = float(((rule(X, f=f) - honest.mean(axis=0)) ** 2).sum())
        variance = float(((honest - honest.mean(axis=0)) ** 2).sum(axis=1).mean())
        assert error <= rule.kappa(11, f) * variance * (1 + 1e-4)


@pytest.mark.parametrize("attack", ATTACKS)
@pytest.mark.parametrize("rule", BOUNDED, ids=names)
def test_f_rows_of_any_values_cannot_move_the_result_beyond_the_honest_scale(rule, attack):
    """No farther than six times the distance of the farthest honest row; the mean would be 1e29 away."""
    for X, f, honest in cohorts(attack):
        if f > rule.max_f(11):
            continue
        centre = honest.mean(axis=0)
        reach = np.linalg.norm(honest - centre, axis=1).max() + np.linalg.norm(centre) * isinstance(
            rule, SignGuard | FLAME
        )
        assert np.linalg.norm(rule(X, f=f).astype(float) - centre) <= 6 * reach


def test_the_mean_would_fail_these():
    X, _, honest = next(cohorts("huge"))
    assert np.abs(Mean()(X) - honest.mean(axis=0)).max() > 1e28


def test_without_malicious_rows_the_best_coefficients_are_zero():
    assert TrimmedMean().kappa(20, 0) == 0
    assert (NNM() | Median()).kappa(20, 0) == 0
    assert (NNM() | TrimmedMean()).kappa(20, 4) < TrimmedMean().kappa(20, 9)
    assert Meamed().kappa(20, 4) is (NNM() | Meamed()).kappa(20, 4) is None


def test_every_rule_declares_itself():
    for name in AGGREGATORS:
        rule = AGGREGATORS.get(name)()
        assert all(isinstance(word, str) and word for word in (rule.condition, rule.breakdown, rule.cost)), name
        assert isinstance(rule.needs, frozenset)
        assert isinstance(rule.keeps_state, bool)
        assert rule.max_f(50) >= 0


def test_sybils_lose_their_weight():
    """Eight sybils of twenty send the same; what is left points where the honest do."""
    rng = np.random.default_rng(1)
    honest = rng.normal(size=(12, 50)) + 0.3
    X = np.vstack([np.tile(-honest.mean(axis=0), (8, 1)) + 0.001 * rng.normal(size=(8, 50)), honest])
    assert FoolsGold()(X) @ honest.mean(axis=0) > 0.5 * (honest.mean(axis=0) ** 2).sum()
