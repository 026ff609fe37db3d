"""The built-in models: right gradients, and the same numbers for a client whoever trains beside it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matl.errors import InvalidValueError
from matl.learning.tasks import MLPTask, SoftmaxTask, accuracy

TASKS = [SoftmaxTask(5, 3), MLPTask(5, 3, hidden=(4,)), MLPTask(5, 2, hidden=(6, 1, 4))]
ids = [f"{type(task).__name__}-{task.layout.size}" for task in TASKS]


def loss64(task, params, X, y):
    """Mean cross-entropy, written down independently in float64, one sample at a time."""
    arrays = [
        params[where].reshape(entry.shape)
        for entry, where in zip(task.layout.entries, task.layout.slices.values(), strict=True)
    ]
    total = 0.0
    for x, label in zip(X.astype(np.float64), y, strict=True):
        for index in range(0, len(arrays), 2):
            x = x @ arrays[index] + arrays[index + 1]
            if index + 2 < len(arrays):
                x = np.maximum(x, 0)
        total += np.logaddexp.reduce(x) - x[label]
    return total / len(y)


def batch(task, m, B, seed=0):
    rng = np.random.default_rng(seed)
    params = np.stack([task.init(rng) for _ in range(m)])
    params += rng.normal(size=params.shape).astype(np.float32) * np.float32(0.1)  # no bias stays zero
    X = rng.normal(size=(m, B, task.layout.entries[0].shape[0])).astype(np.float32)
    return params, X, rng.integers(0, task.num_classes, size=(m, B))


@pytest.mark.parametrize("task", TASKS, ids=ids)
@pytest.mark.parametrize("seed", range(5))
def test_loss_and_gradient_against_central_differences(task, seed):
    params, X, y = batch(task, m=2, B=7, seed=seed)
    losses, gradients = task.loss_and_gradient(params, X, y)
    assert losses.shape == (2,)
    assert gradients.shape == params.shape
    assert losses.dtype == gradients.dtype == np.float32
    for model in range(2):
        wide = params[model].astype(np.float64)
        assert losses[model] == pytest.approx(loss64(task, wide, X[model], y[model]), rel=1e-5)
        # The step is far below the distance to any ReLU kink here, and differences of float64 losses are good to 1e-9.
        # What remains is float32's own rounding in a few dozen sums of order one: a few times 1e-7.
        expected = [
            (loss64(task, wide + step, X[model], y[model]) - loss64(task, wide - step, X[model], y[model])) / 2e-6
            for step in np.eye(len(wide)) * 1e-6
        ]
        np.testing.assert_allclose(gradients[model], expected, atol=3e-6)


@pytest.mark.parametrize("task", TASKS, ids=ids)
@settings(max_examples=30)
@given(m=st.integers(1, 20), B=st.integers(1, 40), seed=st.integers(0, 100))
def test_a_model_does_not_notice_its_neighbours(task, m, B, seed):
    params, X, y = batch(task, m, B, seed)
    losses, gradients = task.loss_and_gradient(params.copy(), X, y)
    for i in {0, m // 2, m - 1}:
        loss, gradient = task.loss_and_gradient(params[i : i + 1].copy(), X[i : i + 1], y[i : i + 1])
        assert loss[0].tobytes() == losses[i].tobytes()
        assert gradient[0].tobytes() == gradients[i].tobytes()


def test_nor_does_a_model_of_real_size():
    task = MLPTask(196, 10, hidden=(64,))
    params, X, y = batch(task, m=17, B=32)
    losses, gradients = task.loss_and_gradient(params, X, y)
    for few in ([0], [16], [3, 9]):
        loss, gradient = task.loss_and_gradient(params[few], X[few], y[few])
        assert loss.tobytes() == losses[few].tobytes()
        assert gradient.tobytes() == gradients[few].tobytes()


@pytest.mark.parametrize("task", TASKS, ids=ids)
def test_inputs_are_left_as_they_were(task):
    given_ = batch(task, 3, 4)
    before = [array.copy() for array in given_]
    task.loss_and_gradient(*given_)
    for array, copy in zip(given_, before, strict=True):
        np.testing.assert_array_equal(array, copy)


def test_large_logits_do_not_overflow():
    task = SoftmaxTask(1, 2)
    params = np.array([[1e4, -1e4, 0, 0]], np.float32)
    loss, gradient = task.loss_and_gradient(params, np.ones((1, 1, 1), np.float32), np.array([[1]]))
    assert loss[0] == 2e4
    assert gradient.tolist() == [[1, -1, 1, -1]]


@pytest.mark.parametrize("task", TASKS, ids=ids)
def test_predict_is_the_most_likely_label(task):
    params, X, _ = batch(task, 1, 50)
    many = np.tile(X[0], (100, 1))  # more than one block
    labels = task.predict(params[0], many)
    wide = params[0].astype(np.float64)
    expected = [min(range(task.num_classes), key=lambda label: loss64(task, wide, x[None], [label])) for x in X[0]]
    assert labels.dtype == np.int64
    np.testing.assert_array_equal(labels, np.tile(expected, 100))
    assert accuracy(task, params[0], X[0], np.array(expected)) == 1
    assert accuracy(task, params[0], X[0], (np.array(expected) + 1) % task.num_classes) == 0


def test_init_is_he_normal_and_comes_from_the_generator():
    task = MLPTask(200, 10, hidden=(100,))
    params = task.init(np.random.default_rng(0))
    np.testing.assert_array_equal(params, task.init(np.random.default_rng(0)))
    weight, bias, *_ = (params[where] for where in task.layout.slices.values())
    assert not bias.any()
    # The standard deviation of 20,000 normal draws is known to .5 %; five times that is a false failure in 1e-6.
    assert weight.std() == pytest.approx(np.sqrt(2 / 200), rel=0.025)


def test_layout_names_the_layers():
    assert [(e.name, e.shape) for e in MLPTask(4, 3, hidden=(8,)).layout.entries] == [
        ("layer0.weight", (4, 8)),
        ("layer0.bias", (8,)),
        ("layer1.weight", (8, 3)),
        ("layer1.bias", (3,)),
    ]
    assert SoftmaxTask(4, 3).layout == MLPTask(4, 3, hidden=()).layout


@pytest.mark.parametrize(
    ("arguments", "message"),
    [((0, 2, ()), "features >= 1"), ((1, 1, ()), "num_classes >= 2"), ((1, 2, (3, 0)), "hidden >= 1, got hidden=0")],
)
def test_models_that_cannot_be(arguments, message):
    with pytest.raises(InvalidValueError, match=message):
        MLPTask(*arguments)
