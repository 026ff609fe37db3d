"""Behavioural entropy: a fixed alphabet, whatever was seen of it, and the same value however often one looked."""

import numpy as np
import pytest

from matl.matrix import UpdateMatrix
from matl.trust.attribution import attribute
from matl.trust.entropy import ROUNDS, behaviour, composition, entropy
from matl.trust.oracle import Atoms

A = 12


def drawn(p, times, rows=1, seed=0):
    """Symbols drawn from a distribution, as observations (rows, times, A)."""
    return np.eye(A)[np.random.default_rng(seed).choice(A, size=(rows, times), p=p)]


def two_patterns():
    return np.array([0.5, 0.5, *[0.0] * (A - 2)])


@pytest.mark.parametrize("times", [1, 2, 5, 500])
def test_a_constant_bot_has_none_however_often_it_is_seen(times):
    assert entropy(np.repeat(np.eye(A)[None, :1], times, axis=1))[0] == 0.0


@pytest.mark.parametrize("times", [1, 2, 5, 500])
def test_a_fixed_mix_has_the_same_entropy_however_often_it_is_seen(times):
    mix = np.random.default_rng(0).dirichlet(np.ones(A))
    expected = -(mix * np.log(mix)).sum() / np.log(A)
    assert entropy(np.repeat(mix[None, None], times, axis=1))[0] == pytest.approx(expected)


def test_a_bot_with_two_patterns_is_far_from_one():
    expected = np.log(2) / np.log(A)
    assert entropy(np.eye(A)[[0, 1] * 250][None])[0] == pytest.approx(expected, abs=0.005)
    assert entropy(np.eye(A)[[0, 1, 0, 1, 0]][None])[0] < 0.35


def test_behaviour_that_is_even_over_the_alphabet_comes_to_one():
    assert entropy(np.eye(A)[None])[0] == pytest.approx(1.0, abs=1e-9)
    assert entropy(drawn(np.full(A, 1 / A), 500))[0] == pytest.approx(1.0, abs=0.01)


def test_five_observations_and_five_hundred_agree():
    for p in (two_patterns(), np.array([0.8, 0.1, 0.1, *[0.0] * (A - 3)])):
        few, many = entropy(drawn(p, 5, rows=4000)).mean(), entropy(drawn(p, 500, rows=50)).mean()
        assert few == pytest.approx(many, abs=0.03)  # standard errors are below .003


def test_the_correction_takes_most_of_the_bias_out_where_five_observations_cannot_tell():
    few = drawn(np.full(A, 1 / A), 5, rows=4000)
    shares = few.mean(axis=1)
    plug_in = -(shares * np.log(np.maximum(shares, 1e-300))).sum(axis=1).mean() / np.log(A)
    assert plug_in < 0.6
    assert entropy(few).mean() > 0.8


def update_of(coefficients, atoms):
    return np.einsum("nk,kd->nd", coefficients, np.concatenate([atoms.honest, atoms.poison])).astype(np.float32)


def test_a_composition_is_a_distribution_over_what_training_can_do():
    classes = 3
    pairs = np.array([(a, b) for a in range(classes) for b in range(classes) if a != b])
    axes = np.eye(10, dtype=np.float32)  # nine atoms at right angles, and one direction that is none of them
    atoms = Atoms(honest=axes[:3], poison=axes[3:9], pairs=pairs)
    wanted = np.zeros((5, 9))
    wanted[0, 0] = wanted[1, :3] = wanted[2, 4] = 1.0
    X = update_of(wanted, atoms)
    X[3] = axes[9]
    shares = composition(attribute(UpdateMatrix(X), atoms))
    expected = [[1, 0, 0, 0, 0], [1 / 3, 1 / 3, 1 / 3, 0, 0], [0, 0, 0, 1, 0], [0, 0, 0, 0, 1]]
    np.testing.assert_allclose(shares[:4], expected, atol=1e-3)
    assert np.isnan(shares[4]).all(), "an all-zero update says nothing"


def windows(rows, seed):
    """Honest clients: mixes of clean classes of all kinds, the same every round but for noise."""
    rng = np.random.default_rng(seed)
    mixes = np.stack([rng.dirichlet(np.full(A, a)) for a in np.geomspace(0.2, 5.0, rows)])
    noisy = mixes[:, None] + 0.05 * rng.random((rows, ROUNDS + 3, A))
    return noisy / noisy.sum(axis=2, keepdims=True)


def test_too_little_and_too_much_variety_are_both_atypical():
    clients = windows(20, 1)
    clients[0], clients[1] = np.eye(A)[0], 1 / A
    found = behaviour(clients, windows(100, 2))
    assert found.entropy[0] == 0.0
    assert found.entropy[1] == pytest.approx(1.0)
    assert found.typical[:2].max() < 0.02
    assert np.median(found.typical[2:]) > 0.2


def test_only_the_recent_rounds_count_and_a_client_is_compared_over_those_it_came_to():
    clients, shadows = windows(20, 1), windows(100, 2)
    old = clients.copy()
    old[:, :-ROUNDS] = np.nan
    np.testing.assert_array_equal(behaviour(old, shadows).typical, behaviour(clients, shadows).typical)
    clients[0, -1] = np.nan  # absent from the last round
    clients[1, -ROUNDS:] = np.nan  # and from all
    found = behaviour(clients, shadows)
    assert found.entropy[0] == pytest.approx(entropy(clients[:1, -ROUNDS:-1])[0])
    assert np.flatnonzero(np.isnan(found.typical)).tolist() == [1]
    shadows[:, -1] = np.eye(A)[0]  # a round that client 0 did not come to
    assert behaviour(clients, shadows).typical[0] == found.typical[0]
