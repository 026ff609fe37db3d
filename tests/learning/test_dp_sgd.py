"""DP-SGD: clipping bounds every sample, the noise has the right size, and epsilon is Opacus'."""

import numpy as np
import pytest

from matl.errors import InvalidValueError
from matl.learning.datasets import Dataset
from matl.learning.dp_sgd import DPSGD, per_example_gradients, private_gradient, private_step
from matl.learning.local import LocalTraining, train_locally
from matl.learning.tasks import MLPTask, TorchTask

OPEN = DPSGD(noise_multiplier=0.0, max_grad_norm=1e9)


def perceptron():
    from torch import nn

    return nn.Sequential(nn.Flatten(), nn.Linear(12, 7), nn.ReLU(), nn.Linear(7, 3))


def convolution():
    from torch import nn

    return nn.Sequential(nn.Conv2d(3, 4, 2, padding=1), nn.GroupNorm(2, 4), nn.ReLU(), nn.Flatten(), nn.Linear(36, 3))


def opacus_task(factory):
    pytest.importorskip("opacus", reason="opacus is not installed")
    return TorchTask(factory, shape=(3, 2, 2), device="cpu")


TASKS = {
    "numpy": lambda: MLPTask(12, 3, hidden=(7,)),
    "perceptron": lambda: opacus_task(perceptron),
    "convolution": lambda: opacus_task(convolution),
}


@pytest.fixture(params=TASKS)
def task(request):
    return TASKS[request.param]()


def client(n=40, seed=0):
    rng = np.random.default_rng(seed)
    X = rng.normal(size=(n, 12)).astype(np.float32)
    return Dataset("test", X, rng.integers(0, 3, n), 3)


def test_per_example_gradients_are_those_of_the_samples_alone(task):
    params, data = task.init(np.random.default_rng(0)), client(9)
    gradients = per_example_gradients(task, params, data.X, data.y)
    for sample in range(9):
        X, y = data.X[None, sample : sample + 1], data.y[None, sample : sample + 1]
        alone = task.loss_and_gradient(params[None], X, y)[1][0]
        np.testing.assert_allclose(gradients[sample], alone, atol=2e-6)
    again = per_example_gradients(task, params, data.X, data.y)
    assert gradients.tobytes() == again.tobytes()


def test_the_task_itself_is_left_alone(task):
    params, data = task.init(np.random.default_rng(0)), client(9)
    arguments = params[None], data.X[None], data.y[None]
    before = [part.tobytes() for part in task.loss_and_gradient(*arguments)]
    per_example_gradients(task, params * 2, data.X, data.y)
    assert [part.tobytes() for part in task.loss_and_gradient(*arguments)] == before


def test_without_noise_and_clipping_it_is_the_gradient_of_the_poisson_batch(task):
    params, data = task.init(np.random.default_rng(0)), client()
    gradient = private_step(task, params, data, 10, OPEN, np.random.default_rng(5))
    drawn = np.random.default_rng(5).random(40) < 10 / 40
    assert 0 < drawn.sum() != 10
    plain = task.loss_and_gradient(params[None], data.X[None, drawn], data.y[None, drawn])[1][0]
    np.testing.assert_allclose(gradient, plain * drawn.sum() / 10, atol=2e-6)


def test_every_sample_moves_the_sum_by_at_most_the_clipping_norm(task):
    params, data = task.init(np.random.default_rng(0)), client(20)
    data.X[0] *= 1e4  # one sample with a huge gradient
    dp = DPSGD(noise_multiplier=0.0, max_grad_norm=0.01)
    rng = np.random.default_rng(0)
    everyone = private_gradient(task, params, data.X, data.y, 20, dp, rng)
    for sample in range(20):
        rest = np.arange(20) != sample
        others = private_gradient(task, params, data.X[rest], data.y[rest], 20, dp, rng)
        # Every gradient here is longer than that, so each is cut to it exactly; the rest is float32 rounding.
        assert np.linalg.norm(everyone - others) * 20 == pytest.approx(0.01, rel=1e-3)


def test_short_gradients_are_not_lengthened():
    task, data = MLPTask(12, 3), client(1)
    params = task.init(np.random.default_rng(0))
    dp = DPSGD(noise_multiplier=0.0, max_grad_norm=1e6)
    gradient = private_gradient(task, params, data.X, data.y, 1, dp, np.random.default_rng(0))
    plain = task.loss_and_gradient(params[None], data.X[None], data.y[None])[1][0]
    np.testing.assert_allclose(gradient, plain, rtol=1e-6)


def test_the_noise_has_the_right_size_with_and_without_samples():
    task = MLPTask(500, 10, hidden=(100,))
    d = task.layout.size
    dp, rng = DPSGD(noise_multiplier=2.0, max_grad_norm=0.5), np.random.default_rng(0)
    nobody = np.empty((0, 500), np.float32), np.empty(0, np.int64)
    noise = private_gradient(task, np.zeros(d, np.float32), *nobody, 8, dp, rng) * 8
    # 51,110 normal draws know their mean to .0044 standard deviations and their deviation to .31 %; five times that is
    # a false failure in 1e-6.
    assert abs(noise.mean()) < 0.022
    assert noise.std() == pytest.approx(2.0 * 0.5, rel=0.016)
    assert noise.dtype == np.float32


def test_a_client_with_fewer_samples_than_a_batch_uses_all_of_them():
    task, data = MLPTask(12, 3), client(5)
    params = task.init(np.random.default_rng(0))
    gradient = private_step(task, params, data, 32, OPEN, np.random.default_rng(0))
    plain = task.loss_and_gradient(params[None], data.X[None], data.y[None])[1][0]
    np.testing.assert_allclose(gradient, plain, atol=1e-6)


def test_training_is_repeatable_and_depends_on_the_noise():
    task, data = MLPTask(12, 3), client()
    params = task.init(np.random.default_rng(0))

    def update(seed, **options):
        recipe = LocalTraining(steps=3, batch_size=8, dp=DPSGD(**options))
        return train_locally(task, params, [data], recipe, [np.random.default_rng(seed)])[0]

    assert update(1).tobytes() == update(1).tobytes()
    assert (update(1) != update(2)).all()
    assert (update(1) != update(1, noise_multiplier=2.0)).all()


def test_epsilon_is_that_of_opacus():
    accountants = pytest.importorskip("opacus.accountants", reason="opacus is not installed")
    for noise, rate, steps, delta in [(1.0, 0.05, 100, 1e-5), (0.7, 0.5, 30, 1e-4), (2.0, 1.0, 10, 1e-5)]:
        accountant = accountants.RDPAccountant()
        for _ in range(steps):
            accountant.step(noise_multiplier=noise, sample_rate=rate)
        epsilon = DPSGD(noise_multiplier=noise, delta=delta).epsilon(steps, rate)
        assert epsilon == pytest.approx(accountant.get_epsilon(delta))
    assert DPSGD().epsilon(0, 0.1) == DPSGD().epsilon(10, 0.0) == 0
    assert DPSGD(noise_multiplier=0.0).epsilon(1, 0.1) == np.inf
    # Abadi et al. 2016, fig. 2: q = .01, sigma = 4, delta = 1e-5, 10,000 steps: 1.26 by their moments accountant, and
    # Renyi accounting is no worse.
    assert 1.0 < DPSGD(noise_multiplier=4.0).epsilon(10_000, 0.01) <= 1.26


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"noise_multiplier": -1.0}, "noise_multiplier >= 0, got noise_multiplier=-1.0"),
        ({"max_grad_norm": 0.0}, "max_grad_norm > 0"),
        ({"delta": 0.0}, "0 < delta < 1, got delta=0.0"),
        ({"delta": 1.0}, "0 < delta < 1, got delta=1.0"),
    ],
)
def test_options_out_of_range(options, message):
    with pytest.raises(InvalidValueError, match=message):
        DPSGD(**options)


def test_layers_that_mix_samples_are_refused():
    pytest.importorskip("opacus", reason="opacus is not installed")
    from torch import nn

    def mixing():
        return nn.Sequential(nn.Linear(12, 4), nn.BatchNorm1d(4, track_running_stats=False), nn.Linear(4, 3))

    task, data = TorchTask(mixing, shape=(12,), device="cpu"), client(5)
    with pytest.raises(InvalidValueError, match="layers keep samples apart, got BatchNorm cannot support training"):
        per_example_gradients(task, task.init(np.random.default_rng(0)), data.X, data.y)


def test_a_layer_that_is_not_used_has_no_gradient_and_one_that_opacus_refuses_is_named():
    pytest.importorskip("opacus", reason="opacus is not installed")
    import torch
    from torch import nn

    class Idle(nn.Module):
        def __init__(self):
            super().__init__()
            self.used, self.idle = nn.Linear(12, 3), nn.Linear(2, 2)

        def forward(self, x):
            return self.used(x)

    class Constant(Idle):
        def __init__(self):
            super().__init__()
            self.scale = nn.Parameter(torch.ones(3))
            self.register_buffer("constant", torch.ones(3))

    data = client(5)
    task = TorchTask(Idle, shape=(12,), device="cpu")
    gradients = per_example_gradients(task, task.init(np.random.default_rng(0)), data.X, data.y)
    assert (gradients.shape, gradients[:, -6:].any(), gradients[:, :-6].any()) == ((5, 45), False, True)
    task = TorchTask(Constant, shape=(12,), device="cpu")
    with pytest.raises(InvalidValueError, match="Opacus cannot take the gradients of single samples here"):
        per_example_gradients(task, task.init(np.random.default_rng(0)), data.X, data.y)
