"""SCAFFOLD, FedDyn and FedNova: their formulas, and that they end where federated averaging does not, at the optimum.

Clients minimise a_i (w - b_i)^2 / 2 coordinate by coordinate, with curvatures and optima of their own. Many local steps
take each towards its own optimum, so that federated averaging ends elsewhere than the sum of the losses does.
"""

import numpy as np
import pytest

from matl.errors import InvalidValueError
from matl.learning.datasets import Dataset
from matl.learning.local import LocalTraining, train_locally
from matl.learning.server import FedDyn, FedNova, RoundSummary, Scaffold, ServerSGD, StatefulOptimizer
from matl.params import ParamLayout

D, CLIENTS = 3, 6
RNG = np.random.default_rng(0)
A = RNG.uniform(0.2, 2.0, size=(CLIENTS, D))
B = RNG.normal(scale=3.0, size=(CLIENTS, D))
OPTIMUM = (A * B).sum(axis=0) / A.sum(axis=0)
LAYOUT = ParamLayout.of([np.zeros(D, np.float32)])


class Quadratic:
    """A sample is (a, b), so that data tell the loss."""

    layout, num_classes = LAYOUT, 2

    def loss_and_gradient(self, params, X, y):
        a, b = X[:, 0, :D], X[:, 0, D:]
        gradient = a * (params - b)
        return (gradient * (params - b)).sum(axis=1) / 2, gradient


def clients(copies):
    """Client i holds its sample so many times: with ``epochs``, that is how many steps it takes."""
    samples = np.hstack([A, B]).astype(np.float32)
    return [Dataset("q", np.repeat(samples[[i]], n, axis=0), np.zeros(n, int), 2) for i, n in enumerate(copies)]


def train(optimizer, *, rounds, copies=(1,) * CLIENTS, groups=(range(CLIENTS),), **recipe):
    """Parameters after so many rounds in which the groups of clients take turns; every client counts alike."""
    data = clients(copies)
    recipe = LocalTraining(**{"batch_size": 1, **recipe, **optimizer.recipe})
    params, state = np.zeros(D, np.float32), optimizer.init(LAYOUT)
    memory = np.zeros((CLIENTS, D), np.float32)
    for number in range(rounds):
        who = list(groups[number % len(groups)])
        shift = None
        if isinstance(optimizer, StatefulOptimizer):
            shared = optimizer.shared(state)
            shift = optimizer.shift(memory[who], shared)
        rngs = [np.random.default_rng() for _ in who]  # the samples of a client are all the same
        updates = train_locally(Quadratic(), params, [data[i] for i in who], recipe, rngs, shift=shift)
        if isinstance(optimizer, StatefulOptimizer):
            memory[who] = optimizer.remember(memory[who], shared, updates, recipe.learning_rate)
        summary = RoundSummary(
            mean_square_norm=1.0,
            mean_steps=float(np.mean([recipe.steps_for(copies[i]) for i in who])),
            learning_rate=recipe.learning_rate,
            participation=len(who) / CLIENTS,
        )
        params, state = optimizer.step(params, updates.mean(axis=0), state, summary)
    return params, state, memory


def error(params):
    return float(np.abs(params - OPTIMUM).max())


LONG = {"steps": 40, "learning_rate": 0.1}


def test_federated_averaging_ends_elsewhere():
    params, *_ = train(ServerSGD(), rounds=30, **LONG)
    pull = 1 - (1 - 0.1 * A) ** 40  # how far 40 steps take a client towards its own optimum
    np.testing.assert_allclose(params, (pull * B).sum(axis=0) / pull.sum(axis=0), rtol=1e-4)
    assert error(params) > 0.8


@pytest.mark.parametrize("optimizer", [Scaffold(), FedDyn(alpha=0.5)], ids=["scaffold", "feddyn"])
def test_memory_leads_to_the_optimum(optimizer):
    assert error(train(optimizer, rounds=50, **LONG)[0]) < 1e-3


@pytest.mark.parametrize("optimizer", [Scaffold(), FedDyn(alpha=0.5)], ids=["scaffold", "feddyn"])
def test_so_it_does_where_clients_take_turns(optimizer):
    turns = ((0, 1, 2), (3, 4, 5), (0, 3, 4), (1, 2, 5))
    assert error(train(ServerSGD(), rounds=100, groups=turns, steps=10, learning_rate=0.2)[0]) > 0.8
    assert error(train(optimizer, rounds=100, groups=turns, steps=10, learning_rate=0.2)[0]) < 1e-3


def test_scaffold_ends_at_the_optimum_where_clients_take_unequally_many_steps():
    uneven = {"copies": (32, 1, 2, 4, 8, 16), "epochs": 1, "steps": None, "learning_rate": 0.05}
    assert error(train(ServerSGD(), rounds=50, **uneven)[0]) > 0.8
    assert error(train(Scaffold(), rounds=50, **uneven)[0]) < 1e-3


def test_fednova_weighs_clients_alike_however_many_steps_they_take():
    """With small steps, so that nearly all the error there is comes from their number."""
    uneven = {"copies": (20, 1, 2, 3, 4, 6), "epochs": 1, "steps": None, "learning_rate": 0.004}
    steps = np.array(uneven["copies"])[:, None]
    params, *_ = train(ServerSGD(), rounds=200, **uneven)
    np.testing.assert_allclose(params, (steps * A * B).sum(axis=0) / (steps * A).sum(axis=0), atol=0.15)
    assert error(params) > 0.8
    assert error(train(FedNova(), rounds=200, **uneven)[0]) < 0.05


def test_fednova_is_federated_averaging_where_all_take_as_many_steps():
    same = {"steps": 7, "learning_rate": 0.1, "rounds": 5}
    np.testing.assert_allclose(train(FedNova(), **same)[0], train(ServerSGD(), **same)[0], rtol=1e-5)
    twice = FedNova(learning_rate=2.0).step(np.ones(3, np.float32), np.ones(3, np.float32), {}, RoundSummary(1.0, 5.0))
    assert twice[0].tolist() == [11, 11, 11]


@pytest.mark.parametrize("groups", [(range(CLIENTS),), ((0, 1, 2), (1, 4), (5,))], ids=["all", "turns"])
@pytest.mark.parametrize(
    ("optimizer", "name"), [(Scaffold(0.7), "control"), (FedDyn(0.3), "drift")], ids=["scaffold", "feddyn"]
)
def test_the_server_knows_the_mean_of_what_clients_remember(optimizer, name, groups):
    _, state, memory = train(optimizer, rounds=7, groups=groups, **LONG)
    assert np.abs(memory).max() > 0.1
    np.testing.assert_allclose(state[name], memory.mean(axis=0), rtol=1e-4, atol=1e-5)


def test_a_client_of_scaffold_remembers_its_mean_gradient():
    params = np.zeros(D, np.float32)
    _, _, memory = train(Scaffold(), rounds=1, steps=5, learning_rate=0.1)
    for i in range(CLIENTS):
        w, gradients = params.copy(), []
        for _ in range(5):
            gradients.append(A[i] * (w - B[i]))
            w = w - 0.1 * gradients[-1]
        np.testing.assert_allclose(memory[i], np.mean(gradients, axis=0), rtol=1e-5)


def test_scaffold_by_numbers():
    optimizer, control = Scaffold(learning_rate=0.5), np.array([4.0, -2.0], np.float32)
    params, aggregate = np.array([1.0, 1.0], np.float32), np.array([0.1, 0.2], np.float32)
    summary = RoundSummary(1.0, mean_steps=10, learning_rate=0.05, participation=0.25)
    after, state = optimizer.step(params, aggregate, {"control": control}, summary)
    np.testing.assert_allclose(after, [1 + 0.5 * 10 * 0.1, 1 + 0.5 * 10 * 0.2])
    np.testing.assert_allclose(state["control"], [4 - 0.25 * (4 + 2), -2 - 0.25 * (-2 + 4)])
    memory, updates = np.array([[1.0, 1.0], [0.0, 5.0]], np.float32), np.array([[0.1, 0.0], [0.0, 0.1]], np.float32)
    assert optimizer.shift(memory, control).tolist() == [[3, -3], [4, -7]]
    np.testing.assert_allclose(optimizer.remember(memory, control, updates, 0.05), [[1 - 4 - 2, 3], [-4, 5 + 2 - 2]])
    assert control.tolist() == [4, -2]


def test_feddyn_by_numbers():
    optimizer, drift = FedDyn(alpha=0.5), np.array([4.0, -2.0], np.float32)
    params, aggregate = np.array([1.0, 1.0], np.float32), np.array([1.0, 2.0], np.float32)
    summary = RoundSummary(1.0, participation=0.5)
    after, state = optimizer.step(params, aggregate, {"drift": drift}, summary)
    np.testing.assert_allclose(state["drift"], [4 - 0.25, -2 - 0.5])
    np.testing.assert_allclose(after, [1 + 1 - 3.75 / 0.5, 1 + 2 + 2.5 / 0.5])
    memory, updates = np.array([[1.0, 3.0]], np.float32), np.array([[2.0, -4.0]], np.float32)
    assert optimizer.shared(state).size == 0
    assert optimizer.shift(memory, optimizer.shared(state)).tolist() == [[-1, -3]]
    assert optimizer.remember(memory, optimizer.shared(state), updates, 0.05).tolist() == [[1 - 1, 3 + 2]]
    assert memory.tolist() == [[1, 3]]


@pytest.mark.parametrize("optimizer", [Scaffold(), FedDyn(), FedNova()], ids=lambda optimizer: type(optimizer).__name__)
def test_steps_leave_their_arguments_alone_and_state_survives_storage(optimizer, run):
    summary = RoundSummary(1.0, mean_steps=3.0, learning_rate=0.1, participation=0.5)
    rounds = [(row, summary) for row in RNG.normal(size=(4, D)).astype(np.float32)]
    history, _ = run(optimizer, rounds)
    params, state = np.zeros(D, np.float32), optimizer.init(LAYOUT)
    for aggregate, _ in rounds:
        params, state = optimizer.step(params, aggregate, state, summary)
    assert params.tobytes() == history[-1].tobytes()


@pytest.mark.parametrize(
    "make", [lambda: Scaffold(0), lambda: FedNova(-1.0), lambda: FedDyn(0), lambda: FedDyn(np.inf)]
)
def test_what_cannot_be_is_refused(make):
    with pytest.raises(InvalidValueError, match=r"(learning_rate|alpha) "):
        make()
