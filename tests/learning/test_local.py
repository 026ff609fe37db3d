"""Local training: plain SGD, and a client's update depends on nothing but itself."""

import numpy as np
import pytest

from matl.errors import InvalidValueError
from matl.learning.datasets import Dataset
from matl.learning.local import _BLOCK, LocalTraining, train_locally
from matl.learning.tasks import MLPTask, SoftmaxTask

TASK = MLPTask(6, 3, hidden=(5,))


def client(seed, samples):
    rng = np.random.default_rng(seed)
    return Dataset("c", rng.normal(size=(samples, 6)).astype(np.float32), rng.integers(0, 3, samples), 3)


CLIENTS = [client(seed, 3 + 7 * seed % 40) for seed in range(2 * _BLOCK + 3)]
START = TASK.init(np.random.default_rng(0))


def train(indices, recipe, task=TASK):
    rngs = [np.random.default_rng([5, i]) for i in indices]
    return train_locally(task, START, [CLIENTS[i] for i in indices], recipe, rngs)


@pytest.mark.parametrize(
    "recipe", [LocalTraining(steps=4), LocalTraining(steps=None, epochs=3, batch_size=8)], ids=repr
)
def test_an_update_is_the_same_bits_whoever_trains_beside(recipe):
    together = train(range(len(CLIENTS)), recipe)
    assert together.dtype == np.float32
    for i in (0, 1, _BLOCK - 1, _BLOCK, len(CLIENTS) - 1):
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
    # Epochs that come to the same number of steps are the same training.
    assert len(CLIENTS[2]) == 17
    assert train([2], LocalTraining(steps=5, batch_size=8)).tobytes() == train([2], recipe).tobytes()


def test_the_recipe_is_plain_data():
    assert LocalTraining().as_dict() == {"learning_rate": 0.1, "batch_size": 32, "steps": 10, "epochs": None}
    assert LocalTraining(**LocalTraining(steps=3).as_dict()) == LocalTraining(steps=3)


def test_no_clients_is_no_updates():
    assert train([], LocalTraining()).shape == (0, TASK.layout.size)


def test_one_generator_per_client():
    with pytest.raises(ValueError, match="zip"):
        train_locally(TASK, START, CLIENTS[:2], LocalTraining(), [np.random.default_rng(0)])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"learning_rate": 0}, "learning_rate > 0"),
        ({"learning_rate": np.nan}, "learning_rate to be finite"),
        ({"batch_size": 0}, "batch_size >= 1"),
        ({"steps": 0}, "steps >= 1"),
        ({"steps": None, "epochs": 0}, "epochs >= 1"),
        ({"steps": 5, "epochs": 5}, "either steps or epochs, got steps=5 and epochs=5"),
        ({"steps": None}, "either steps or epochs, got steps=None and epochs=None"),
    ],
)
def test_recipes_that_cannot_be(arguments, message):
    with pytest.raises(InvalidValueError, match=message):
        LocalTraining(**arguments)
