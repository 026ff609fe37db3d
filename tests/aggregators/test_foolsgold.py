"""FoolsGold against its loops in float64, over several rounds."""

import numpy as np
import pytest

from matl.aggregators import NNM, Bucketing, Context, StaticClipping
from matl.aggregators.foolsgold import FoolsGold
from matl.errors import InvalidValueError, StateError
from matl.params import ParamLayout
from matl.state import pack, unpack


def naive_weights(histories):
    n = len(histories)
    directions = np.array([h / np.linalg.norm(h) if h.any() else h for h in histories])
    gaps = np.array([[np.sum((a - b) ** 2) / 2 for b in directions] for a in directions])
    zero = ~histories.any(axis=1)
    gaps[zero | zero[:, None]] = 1.0
    gaps[zero & zero[:, None]] = 0.0
    similarity = 1.0 - np.where(gaps < 1e-12, 0.0, gaps)
    np.fill_diagonal(similarity, 0.0)
    closest = similarity.max(axis=1)
    for i in range(n):
        for j in range(n):
            if closest[i] < closest[j]:
                similarity[i, j] *= closest[i] / closest[j]
    trust = np.clip(1 - similarity.max(axis=1), 0, 1)
    if not trust.any():
        return trust
    trust = np.minimum(trust / trust.max(), 0.99)
    logit = np.log(np.maximum(trust, 1e-300) / (1 - trust)) + 0.5
    return np.clip(logit, 0, 1)


def naive(X, histories=0.0):
    rows = np.asarray(X, np.float32).astype(float)
    weights = naive_weights(histories + rows)
    return weights @ rows / weights.sum() if weights.any() else np.zeros(rows.shape[1])


def empty(d):
    return FoolsGold().init(ParamLayout.of([np.empty(d)]))


def close(actual, expected, X):
    """To 1e-4 of the largest number: the logit stretches what single precision leaves of a cosine."""
    assert actual.dtype == np.float32
    np.testing.assert_allclose(actual, expected, rtol=0, atol=1e-4 * float(np.abs(X).max()))


KINDS = {
    "of all lengths, and zeros": lambda rng, n, d: (
        rng.normal(size=(n, d)) * rng.choice([0, 0.01, 1, 1, 1, 10], size=(n, 1))
    ).astype(np.float32),
    "float64": lambda rng, n, d: rng.normal(size=(n, d)) + 0.5,
}


@pytest.mark.parametrize("seed", range(34))
def test_random_matrices(kind, draw, seed):
    rng = np.random.default_rng([seed, *kind.encode()])
    X = draw(rng, int(rng.integers(1, 14)), int(rng.choice([1, 2, 3, 20, 300, 5000])))
    close(FoolsGold()(X), naive(X), X)


def test_foolsgold(X):
    close(FoolsGold()(X), naive(X), X)


def test_mixed_rows():
    X = np.random.default_rng(0).normal(size=(11, 400)).astype(np.float32)
    for chain in (StaticClipping(radius=15.0), NNM(f=2), Bucketing(size=2)):
        mixed = chain.mix(X)
        close((chain | FoolsGold())(X), naive(mixed), mixed)


@pytest.mark.parametrize("seed", range(10))
def test_histories_follow_the_clients(seed):
    """Rounds with some of the clients in any order, through packed states, against one table of sums."""
    rng = np.random.default_rng(seed)
    clients, d = [f"client {i}" for i in range(9)], 60
    sums, state = {name: np.zeros(d) for name in clients}, empty(d)
    for _ in range(6):
        present = tuple(rng.permutation(clients)[: rng.integers(1, 10)].tolist())
        X = (rng.normal(size=(len(present), d)) + np.linspace(-1, 1, d)).astype(np.float32)
        before = np.array([sums[name] for name in present])
        packed = pack(state)
        result, after = FoolsGold().aggregate(X, Context(clients=present), state)
        close(result.vector, naive(X, before), X)
        assert pack(state) == packed  # what was handed in is as it was
        state = unpack(pack(after))
        for name, row in zip(present, X, strict=True):
            sums[name] += row
        for name, row in zip(state["clients"], state["history"], strict=True):
            np.testing.assert_allclose(row, sums[name], atol=1e-5)
    assert state["history"].dtype == np.float32


def test_clients_without_names_are_numbers():
    X = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
    _, numbered = FoolsGold().aggregate(X, Context(), empty(5))
    _, named = FoolsGold().aggregate(X, Context(clients=("0", "1", "2")), empty(5))
    assert pack(numbered) == pack(named)
    assert numbered["clients"] == ["0", "1", "2"]


@pytest.mark.parametrize("sybils", [2, 5, 30])
def test_sybils_lose_their_weight(sybils):
    """Any number of clients that push in one direction; five honest ones with data of their own keep theirs."""
    rng = np.random.default_rng(0)
    honest = rng.normal(size=(5, 1000)) + 0.2
    malicious = 3 * rng.normal(size=1000) + 0.05 * rng.normal(size=(sybils, 1000))
    X = np.concatenate([honest, malicious]).astype(np.float32)
    result, _ = FoolsGold().aggregate(X, Context(), empty(1000))
    assert not result.unit_weights[5:].any()
    np.testing.assert_allclose(result.unit_weights[:5], 0.2)
    np.testing.assert_allclose(result.vector, honest.mean(axis=0), atol=1e-5)


def test_histories_reveal_what_a_round_hides():
    """Sybils whose noise drowns their goal in every round: the sums of their updates become alike."""
    rng = np.random.default_rng(0)
    goal, tasks = rng.normal(size=1000), rng.normal(size=(6, 1000))
    state, weights = empty(1000), []
    for _ in range(30):
        honest = tasks + rng.normal(size=(6, 1000))
        malicious = goal + 3 * rng.normal(size=(4, 1000))
        result, state = FoolsGold().aggregate(np.concatenate([honest, malicious]), Context(), state)
        weights.append(result.unit_weights)
    assert weights[0][6:].sum() > 0.3  # trusted like any others
    assert not weights[-1][6:].any()
    assert (weights[-1][:6] > 0.1).all()


def test_nothing_is_trusted_where_all_are_alike():
    X = np.tile(np.random.default_rng(0).normal(size=700), (4, 1)) * np.array([[1.0], [2.0], [3.0], [0.5]])
    result, state = FoolsGold().aggregate(X, Context(), empty(700))
    assert not result.vector.any()
    assert result.unit_weights.tolist() == [0] * 4
    assert result.diagnostics == {"weight_total": 0.0}
    assert len(state["clients"]) == 4


def test_one_client_is_trusted():
    np.testing.assert_array_equal(FoolsGold()([[3.0, 4.0]]), [3, 4])
    assert FoolsGold()(np.zeros((1, 2))).tolist() == [0, 0]
    assert FoolsGold().max_f(5) == 4


@pytest.mark.parametrize(
    "state",
    [
        {"clients": ["0"], "history": np.zeros((1, 4), np.float32)},
        {"clients": ["0", "1"], "history": np.zeros((1, 3), np.float32)},
        {"clients": ["0", "0"], "history": np.zeros((2, 3), np.float32)},
    ],
    ids=["other d", "more names", "a name twice"],
)
def test_states_of_another_run(state):
    with pytest.raises(StateError, match="the state belongs to another run"):
        FoolsGold().aggregate(np.eye(3), Context(), state)


@pytest.mark.parametrize("state", [{}, {"clients": []}, {"history": np.empty((0, 3), np.float32)}])
def test_states_that_lack_something(state):
    with pytest.raises(StateError, match="expected a state with clients and history, got none of"):
        FoolsGold().aggregate(np.eye(3), Context(), state)


def test_histories_are_single_precision():
    _, state = FoolsGold().aggregate(np.eye(3), Context(), {"clients": ["9"], "history": np.ones((1, 3))})
    assert state["history"].dtype == np.float32


def test_values_that_are_none():
    with pytest.raises(InvalidValueError, match=r"row\(s\) \[1\]"):
        FoolsGold()([[1.0], [np.nan], [1.0]])


@pytest.mark.parametrize("length", [1e-6, 1e-5, 1e5, 1e6])
@pytest.mark.parametrize("offset", [0.0, 100.0])
def test_one_short_or_long_row_changes_no_weight(length, offset):
    X = np.random.default_rng(0).normal(size=(10, 2000)) + offset
    plain, _ = FoolsGold().aggregate(X, Context(), empty(2000))
    X[0] *= length
    scaled, _ = FoolsGold().aggregate(X, Context(), empty(2000))
    assert scaled.diagnostics["weight_total"] == pytest.approx(plain.diagnostics["weight_total"], abs=1e-3)
    np.testing.assert_allclose(scaled.unit_weights, plain.unit_weights, atol=1e-3)


def test_histories_beyond_single_precision_keep_their_direction():
    rng = np.random.default_rng(0)
    X = rng.normal(size=(6, 400)).astype(np.float32)
    X[0] = 2e38 * np.sign(X[0])
    state = empty(400)
    for _ in range(5):
        result, state = FoolsGold().aggregate(X, Context(), state)
        assert np.isfinite(state["history"]).all()
        np.testing.assert_allclose(result.unit_weights, 1 / 6)
        np.testing.assert_array_equal(np.sign(state["history"][0]), np.sign(X[0]))
