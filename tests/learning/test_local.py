"""Local training: each recipe is what its paper says, and a client's update depends on nothing but itself."""

from dataclasses import replace

import numpy as np
import pytest

from matl.errors import InvalidValueError
from matl.learning.datasets import Dataset
from matl.learning.local import _BLOCK_CLIENTS, LocalTraining, train_locally
from matl.learning.tasks import MLPTask, SoftmaxTask

TASK = MLPTask(6, 3, hidden=(5,))


def client(seed, samples):
    rng = np.random.default_rng(seed)
    return Dataset("c", rng.normal(size=(samples, 6)).astype(np.float32), rng.integers(0, 3, samples), 3)


CLIENTS = [client(seed, 3 + 7 * seed % 40) for seed in range(2 * _BLOCK_CLIENTS + 3)]
START = TASK.init(np.random.default_rng(0))


def train(indices, recipe, task=TASK, **options):
    rngs = [np.random.default_rng([5, i]) for i in indices]
    return train_locally(task, START, [CLIENTS[i] for i in indices], recipe, rngs, **options)


@pytest.mark.parametrize(
    "recipe",
    [
        LocalTraining(steps=4),
        LocalTraining(steps=None, epochs=3, batch_size=8),
        LocalTraining(steps=None, epochs=3, batch_size=8, momentum=0.9, max_gradient_norm=0.5, normalize=True),
        LocalTraining(steps=None, epochs=3, batch_size=8, optimizer="adam", proximal=0.1, weight_decay=0.01),
    ],
    ids=["steps", "epochs", "momentum", "adam"],
)
def test_an_update_is_the_same_bits_whoever_trains_beside(recipe):
    together = train(range(len(CLIENTS)), recipe)
    assert together.dtype == np.float32
    for i in (0, 1, _BLOCK_CLIENTS - 1, _BLOCK_CLIENTS, len(CLIENTS) - 1):
        assert train([i], recipe).tobytes() == together[i].tobytes()
    backwards = train(range(len(CLIENTS))[::-1], recipe)
    assert backwards[::-1].tobytes() == together.tobytes()
    some = [30, 2, 17]
    assert train(some, recipe).tobytes() == together[some].tobytes()


def test_it_is_plain_sgd():
    """Against the update written down step by step, for one client."""
    recipe = LocalTraining(learning_rate=0.3, batch_size=4, steps=6)
    data, rng = CLIENTS[3], np.random.default_rng([5, 3])
    model = START.copy()
    for picked in rng.integers(len(data), size=(6, 4)):
        _, gradient = TASK.loss_and_gradient(model[None], data.X[picked][None], data.y[picked][None])
        model -= np.float32(0.3) * gradient[0]
    np.testing.assert_array_equal(train([3], recipe)[0], model - START)


def walk(recipe, step, *, index=3):
    """The update of one client in float64, by ``step(w, g, t)``, the parameters after step t along the gradient g."""
    data, rng = CLIENTS[index], np.random.default_rng([5, index])
    w = START.astype(np.float64)
    for t, picked in enumerate(rng.integers(len(data), size=(recipe.steps, recipe.batch_size))):
        _, g = TASK.loss_and_gradient(w.astype(np.float32)[None], data.X[picked][None], data.y[picked][None])
        w = step(w, g[0].astype(np.float64), t + 1)
    return w - START


def test_momentum():
    recipe, v = LocalTraining(learning_rate=0.1, batch_size=4, steps=9, momentum=0.9), np.zeros(START.size)

    def step(w, g, t):
        v[:] = 0.9 * v + g
        return w - 0.1 * v

    np.testing.assert_allclose(train([3], recipe)[0], walk(recipe, step), rtol=1e-4, atol=1e-6)


def test_adam():
    recipe = LocalTraining(learning_rate=0.01, batch_size=4, steps=9, optimizer="adam")
    m, v = np.zeros(START.size), np.zeros(START.size)

    def step(w, g, t):
        m[:] = 0.9 * m + 0.1 * g
        v[:] = 0.999 * v + 0.001 * g**2
        return w - 0.01 * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8)

    np.testing.assert_allclose(train([3], recipe)[0], walk(recipe, step), rtol=1e-3, atol=1e-5)


def clip(g, longest):
    return g * min(1, longest / np.linalg.norm(g))


@pytest.mark.parametrize(
    ("options", "step"),
    [
        ({"weight_decay": 0.5}, lambda w, g, t: w - 0.1 * (g + 0.5 * w)),
        ({"proximal": 2.0}, lambda w, g, t: w - 0.1 * (g + 2 * (w - START))),
        ({"max_gradient_norm": 0.7}, lambda w, g, t: w - 0.1 * clip(g, 0.7)),
        (
            {"max_gradient_norm": 0.7, "proximal": 2.0, "weight_decay": 0.5},  # the loss alone is clipped
            lambda w, g, t: w - 0.1 * (clip(g, 0.7) + 2 * (w - START) + 0.5 * w),
        ),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, dict) else "",
)
def test_what_is_added_to_a_gradient_and_what_is_taken_away(options, step):
    recipe = LocalTraining(learning_rate=0.1, batch_size=4, steps=9, **options)
    expected = walk(recipe, step)
    np.testing.assert_allclose(train([3], recipe)[0], expected, rtol=1e-4, atol=1e-6)
    plain = LocalTraining(learning_rate=0.1, batch_size=4, steps=9)
    assert np.abs(expected - train([3], plain)[0]).max() > 0.01  # the option makes a difference


@pytest.mark.parametrize(
    "options",
    [
        {"momentum": 0.9, "weight_decay": 0.1},
        {"optimizer": "adam", "weight_decay": 0.1, "learning_rate": 0.01},
        {"max_gradient_norm": 0.7, "weight_decay": 0.1},
    ],
    ids=lambda options: "+".join(options),
)
def test_steps_are_those_of_torch(options):
    torch = pytest.importorskip("torch", reason="torch is not installed")
    recipe = LocalTraining(**{"learning_rate": 0.1, "batch_size": 4, "steps": 9, **options})
    weights = torch.nn.Parameter(torch.tensor(START.copy()))
    kinds = {"sgd": torch.optim.SGD, "adam": torch.optim.Adam}
    extra = {"momentum": recipe.momentum} if recipe.momentum else {}
    optimizer = kinds[recipe.optimizer]([weights], lr=recipe.learning_rate, weight_decay=0.1, **extra)

    def step(w, g, t):
        weights.grad = torch.tensor(g, dtype=torch.float32)
        if recipe.max_gradient_norm is not None:
            torch.nn.utils.clip_grad_norm_([weights], recipe.max_gradient_norm)
        optimizer.step()
        return weights.detach().numpy().astype(np.float64)

    np.testing.assert_allclose(train([3], recipe)[0], walk(recipe, step), rtol=1e-3, atol=2e-6)


def test_a_shift_is_added_to_every_gradient_of_its_own_client():
    recipe = LocalTraining(learning_rate=0.1, batch_size=4, steps=5)
    shift = np.random.default_rng(0).normal(size=(len(CLIENTS), START.size)).astype(np.float32)
    shifted = train(range(len(CLIENTS)), recipe, shift=shift)
    for index in (0, 3, len(CLIENTS) - 1):
        step = walk(recipe, lambda w, g, t, own=shift[index]: w - 0.1 * (g + own), index=index)
        np.testing.assert_allclose(shifted[index], step, rtol=1e-4, atol=1e-5)
    ragged = LocalTraining(steps=None, epochs=2, batch_size=4)  # trained in another order than given
    together = train(range(len(CLIENTS)), ragged, shift=shift)
    for index in (0, 7, len(CLIENTS) - 1):
        assert train([index], ragged, shift=shift[[index]]).tobytes() == together[index].tobytes()


def test_a_normalised_update_is_the_mean_of_its_steps():
    ragged = LocalTraining(steps=None, epochs=2, batch_size=4)
    steps = np.array([ragged.steps_for(len(client)) for client in CLIENTS])
    assert len(set(steps)) > 5
    mean = train(range(len(CLIENTS)), replace(ragged, normalize=True))
    np.testing.assert_allclose(mean * steps[:, None], train(range(len(CLIENTS)), ragged), rtol=1e-5, atol=1e-7)


class Slope(SoftmaxTask):
    """One and the same gradient always, in one and the same array."""

    def __init__(self, gradient):
        super().__init__(6, 3)
        self.gradient = np.array([gradient], np.float32)

    def loss_and_gradient(self, params, X, y):
        return np.zeros(1, np.float32), self.gradient


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"momentum": 0.5},
        {"optimizer": "adam"},
        {"proximal": 1.0},
        {"weight_decay": 1.0},
        {"max_gradient_norm": 1.0},
    ],
    ids=str,
)
@pytest.mark.parametrize("shift", [None, np.ones((1, 21), np.float32)], ids=["", "shift"])
def test_what_a_task_returns_stays_its_own(options, shift):
    task, start = Slope(np.full(21, 3.0)), np.ones(21, np.float32)
    train_locally(task, start, CLIENTS[:1], LocalTraining(steps=3, **options), [np.random.default_rng()], shift=shift)
    assert (task.gradient == 3).all()
    assert (start == 1).all()
    assert shift is None or (shift == 1).all()


def test_huge_gradients_are_shortened_and_not_lost():
    """Their squares overflow in float32."""
    recipe, start = LocalTraining(steps=1, learning_rate=1.0, max_gradient_norm=2.0), np.zeros(21, np.float32)
    direction = np.eye(21)[0] + np.eye(21)[1]
    [update] = train_locally(Slope(1e30 * direction), start, CLIENTS[:1], recipe, [np.random.default_rng()])
    np.testing.assert_allclose(update, -np.sqrt(2) * direction, rtol=1e-6)


def test_training_learns_and_leaves_the_start_alone():
    task, before = SoftmaxTask(6, 3), np.zeros(21, np.float32)
    rng = np.random.default_rng(0)
    X = rng.normal(size=(60, 6)).astype(np.float32)
    data = Dataset("easy", X, X[:, :3].argmax(axis=1), 3)
    update = train_locally(task, before, [data], LocalTraining(steps=200, learning_rate=0.5), [rng])[0]
    assert not before.any()
    assert np.mean(task.predict(before + update, X) == data.y) > 0.9


def test_epochs_draw_as_many_samples_as_the_client_has():
    recipe = LocalTraining(steps=None, epochs=2, batch_size=8)
    assert [recipe.steps_for(n) for n in (1, 4, 5, 8, 100)] == [1, 1, 2, 2, 25]
    assert LocalTraining(steps=7).steps_for(100) == 7


def test_an_epoch_visits_every_sample_once_before_any_twice():
    recipe = LocalTraining(steps=None, epochs=2, batch_size=8)
    drawn = recipe._batches(20, np.random.default_rng(0))
    assert drawn.shape == (5, 8)
    visits = np.bincount(drawn.ravel(), minlength=20)
    assert visits.tolist() == [2] * 20
    assert len(set(drawn.ravel()[:20])) == 20
    ragged = LocalTraining(steps=None, epochs=1, batch_size=8)._batches(17, np.random.default_rng(0))
    assert ragged.shape == (3, 8)
    assert set(ragged.ravel()) == set(range(17))


def test_the_recipe_is_plain_data():
    assert {
        "learning_rate": 0.1,
        "batch_size": 32,
        "steps": 10,
        "epochs": None,
    }.items() <= LocalTraining().as_dict().items()
    assert LocalTraining(**LocalTraining(steps=3).as_dict()) == LocalTraining(steps=3)


def test_no_clients_is_no_updates():
    assert train([], LocalTraining()).shape == (0, TASK.layout.size)


def test_one_generator_per_client():
    with pytest.raises(InvalidValueError, match="got 1 for 2 clients"):
        train_locally(TASK, START, CLIENTS[:2], LocalTraining(), [np.random.default_rng(0)])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"learning_rate": 0}, "learning_rate > 0"),
        ({"learning_rate": np.nan}, "learning_rate to be finite"),
        ({"batch_size": 0}, "batch_size to be a whole number >= 1"),
        ({"batch_size": 2.5}, "batch_size to be a whole number >= 1"),
        ({"steps": 0}, "steps to be a whole number >= 1"),
        ({"steps": None, "epochs": 0}, "epochs to be a whole number >= 1"),
        ({"steps": 5, "epochs": 5}, "either steps or epochs, got steps=5 and epochs=5"),
        ({"steps": None}, "either steps or epochs, got steps=None and epochs=None"),
        ({"optimizer": "rmsprop"}, "expected optimizer sgd or adam, got 'rmsprop'"),
        ({"momentum": 1.0}, "0 <= momentum < 1"),
        ({"momentum": np.nan}, "0 <= momentum < 1"),
        ({"optimizer": "adam", "momentum": 0.9}, "momentum is SGD's"),
        ({"weight_decay": -0.1}, "weight_decay >= 0"),
        ({"proximal": np.inf}, "proximal to be finite"),
        ({"max_gradient_norm": 0.0}, "max_gradient_norm > 0"),
    ],
)
def test_recipes_that_cannot_be(arguments, message):
    with pytest.raises(InvalidValueError, match=message):
        LocalTraining(**arguments)
