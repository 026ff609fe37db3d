"""Torch modules as tasks: the numbers of an independent model, on every device there is, and clear refusals."""

import contextlib
import copy
import math

import numpy as np
import pytest
from threadpoolctl import threadpool_limits

torch = pytest.importorskip("torch", reason="torch is not installed")

import matl  # noqa: E402
from matl.errors import InvalidValueError  # noqa: E402
from matl.learning.tasks import MLPTask, TorchTask, available_devices, device, torch_task  # noqa: E402
from matl.testing import check_task  # noqa: E402

nn = torch.nn


class Perceptron(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Flatten(), nn.Linear(12, 7), nn.ReLU(), nn.Linear(7, 3))


class Dropping(nn.Sequential):
    def __init__(self):
        super().__init__(nn.Flatten(), nn.Linear(12, 40), nn.ReLU(), nn.Dropout(0.5), nn.Linear(40, 3))


def batch(m=4, B=9, seed=0):
    rng = np.random.default_rng(seed)
    return rng.normal(size=(m, B, 12)).astype(np.float32), rng.integers(0, 3, size=(m, B))


def as_torch(reference, vector):
    """Parameters of the NumPy perceptron in torch's order; torch keeps weights as (out, in)."""
    arrays = reference.layout.unflatten(vector)
    return np.concatenate([value.T.ravel() for value in arrays.values()])


class FakeAccelerator:
    """Stands in for a GPU: its name goes where a GPU's would, its tensors lie on the CPU, and every move is seen."""

    def __init__(self, monkeypatch):
        self.moves = []
        real = torch.Tensor.to
        monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
        for name in ("zeros", "empty"):
            monkeypatch.setattr(torch, name, self._on_cpu(getattr(torch, name)))
        monkeypatch.setattr(torch.Tensor, "to", lambda tensor, where, *more: real(tensor, self._seen(where), *more))
        module_to = nn.Module.to
        monkeypatch.setattr(nn.Module, "to", lambda module, where: module_to(module, self._seen(where)))
        monkeypatch.setattr(torch_task, "seeded", lambda seed, where="cpu": device.seeded(seed))
        monkeypatch.setattr(torch_task, "random_state", lambda where: device.random_state("cpu"))

    def _seen(self, where):
        if str(where).startswith("cuda"):
            self.moves.append(where)
            return "cpu"
        return where

    def _on_cpu(self, function):
        def made(*args, device=None, **kwargs):
            return function(*args, device=self._seen(device), **kwargs)

        return made


@pytest.mark.parametrize("where", [*available_devices(), "fake"])
def test_parity_with_the_numpy_perceptron(where, monkeypatch):
    fake = FakeAccelerator(monkeypatch) if where == "fake" else None
    task = TorchTask(Perceptron, shape=(3, 2, 2), device="auto" if fake else where)
    assert task.device == ("cuda" if fake else where)
    reference = MLPTask(12, 3, hidden=(7,))
    rng = np.random.default_rng(1)
    models = np.stack([reference.init(rng) for _ in range(4)])
    models += rng.normal(scale=0.1, size=models.shape).astype(np.float32)
    X, y = batch()
    wanted, slope = reference.loss_and_gradient(models, X, y)
    translated = np.stack([as_torch(reference, model) for model in models])
    losses, gradients = task.loss_and_gradient(translated, X, y)
    # Two float32 implementations of a few dozen sums of order one: a few roundings of 6e-8 apart.
    np.testing.assert_allclose(losses, wanted, rtol=2e-6)
    np.testing.assert_allclose(gradients, [as_torch(reference, row) for row in slope], atol=1e-6)
    many = np.tile(X[0], (60, 1))  # more than one block
    np.testing.assert_array_equal(task.predict(translated[0], many), reference.predict(models[0], many))
    if fake:
        assert len(fake.moves) > 8  # module, buffers, and samples and labels of every model


def test_auto_is_the_gpu_where_there_is_one(monkeypatch):
    assert device.resolve_device("cpu") == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert device.resolve_device("auto") == "cpu"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert device.resolve_device("auto") == "cuda"


@pytest.mark.parametrize("name", ["gpu", "cuda:99", "meta", ""])
def test_a_device_that_is_not_there(name):
    with pytest.raises(InvalidValueError, match=rf"device '{name}' cannot be used: .*; available: auto, cpu"):
        TorchTask(Perceptron, shape=(12,), device=name)


def test_a_module_that_torch_trains_step_by_step_ends_at_the_same_parameters():
    task = TorchTask(Perceptron, shape=(12,), device="cpu")
    params = task.init(np.random.default_rng(0))
    X, y = batch(m=1)
    module = Perceptron()
    nn.utils.vector_to_parameters(torch.tensor(params), module.parameters())
    for _ in range(5):
        module.zero_grad()
        nn.functional.cross_entropy(module(torch.tensor(X[0])), torch.tensor(y[0])).backward()
        with torch.no_grad():
            for parameter in module.parameters():
                parameter -= 0.1 * parameter.grad
        params -= np.float32(0.1) * task.loss_and_gradient(params[None], X, y)[1][0]
    np.testing.assert_allclose(params, nn.utils.parameters_to_vector(module.parameters()).detach(), atol=1e-6)


@pytest.mark.parametrize("factory", [Perceptron, Dropping])
def test_the_contract_holds(factory):
    check_task(TorchTask(factory, shape=(3, 2, 2), device="cpu"))


def test_dropout_comes_from_the_batch_and_the_global_stream_goes_on():
    task = TorchTask(Dropping, shape=(12,), device="cpu")
    params = task.init(np.random.default_rng(0))[None]
    X, y = batch(m=1)
    torch.manual_seed(3)
    expected = torch.rand(2)
    torch.manual_seed(3)
    assert torch.rand(1) == expected[0]
    first = task.loss_and_gradient(params, X, y)[0]
    assert torch.rand(1) == expected[1]
    assert first == task.loss_and_gradient(params, X, y)[0]
    np.testing.assert_array_equal(task.predict(params[0], X[0]), task.predict(params[0], X[0]))


# Of this shape, gradients on two threads have other bits than on one.
def test_results_do_not_depend_on_threads_and_the_setting_comes_back():
    task = TorchTask(lambda: nn.Linear(512, 10), shape=(512,), device="cpu")
    rng = np.random.default_rng(0)
    params = task.init(rng)[None]
    X, y = rng.normal(size=(1, 256, 512)).astype(np.float32), rng.integers(0, 10, size=(1, 256))
    before, seen = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            seen.append([part.tobytes() for part in task.loss_and_gradient(params, X, y)])
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    assert seen[0] == seen[1]


def test_dropout_differs_from_batch_to_batch():
    task = TorchTask(Dropping, shape=(12,), loss=lambda outputs, labels: outputs.square().mean(), device="cpu")
    params = task.init(np.random.default_rng(0))[None]
    X, y = batch(m=1)
    other = X.copy()
    other[0, 0] = -other[0, 0]
    losses = [task.loss_and_gradient(params, *one)[0][0] for one in ((X, y), (X, (y + 1) % 3), (other, y))]
    plain = [np.square(task.outputs(params[0], one[0]).numpy()).mean() for one in (X, X, other)]
    assert losses[0] != losses[1]  # the loss ignores labels, the masks do not
    assert losses[0] - plain[0] != losses[2] - plain[2]


def test_results_do_not_depend_on_threads_under_the_limit_of_a_simulation():
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(1, 256, 512)).astype(np.float32), rng.integers(0, 10, size=(1, 256))
    before, seen = torch.get_num_threads(), []
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            task = TorchTask(lambda: nn.Linear(512, 10), shape=(512,), device="cpu")
            params = task.init(np.random.default_rng(0))[None]
            with threadpool_limits(1):  # which the MKL inside torch does not hear of
                seen.append([part.tobytes() for part in task.loss_and_gradient(params, X, y)])
    finally:
        torch.set_num_threads(before)
    assert seen[0] == seen[1]


def test_init_is_the_modules_own_and_comes_from_the_generator():
    task = TorchTask(Perceptron, shape=(12,), device="cpu")
    one, two = (task.init(np.random.default_rng(seed)) for seed in (0, 1))
    np.testing.assert_array_equal(one, task.init(np.random.default_rng(0)))
    assert (one != two).all()
    assert np.abs(one[task.layout.slices["1.weight"]]).max() <= 1 / math.sqrt(12)  # torch's own bound for Linear


class Partly(nn.Module):
    """A frozen parameter, a constant float buffer and a constant integer one beside what is trained."""

    def __init__(self):
        super().__init__()
        self.base = nn.Linear(12, 5).requires_grad_(False)
        self.head = nn.Linear(5, 3)
        self.register_buffer("scale", torch.full((5,), 2.0))
        self.register_buffer("order", torch.arange(5).flip(0))

    def forward(self, X):
        return self.head((self.base(X) * self.scale)[:, self.order])


def test_what_is_not_trained_stays_out_of_the_vector_and_as_it_was():
    task = TorchTask(Partly, shape=(12,), device="cpu")
    assert [entry.name for entry in task.layout.entries] == ["head.weight", "head.bias"]
    base = task.module.base.weight.clone()
    X, y = batch(m=1)
    for seed in (1, 2):
        task.loss_and_gradient(task.init(np.random.default_rng(seed))[None], X, y)
    assert torch.equal(task.module.base.weight, base)
    check_task(task)


def test_a_tied_parameter_is_there_once_and_gets_both_gradients():
    class Tied(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.second = nn.Linear(3, 3), nn.Linear(3, 3)
            self.second.weight = self.first.weight

        def forward(self, X):
            return self.second(torch.tanh(self.first(X)))

    task = TorchTask(Tied, shape=(3,), device="cpu")
    assert task.layout.size == 9 + 3 + 3
    check_task(task)


class Counting(nn.Module):
    """A float buffer that a training step changes."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(12, 3)
        self.register_buffer("seen", torch.zeros(1))

    def forward(self, X):
        if self.training:
            self.seen += 1
        return self.layer(X)


@pytest.mark.parametrize(
    ("factory", "shape", "message"),
    [
        (lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 3)), (3, 4, 4),
         r"changes the buffer '1\.running_mean' .*; use GroupNorm, or BatchNorm with track_running_stats=False"),
        (Counting, (12,), "changes the buffer 'seen' of type torch.float32"),
        (lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(4 * 30 * 30, 3)), (3, 28, 28),
         r"cannot be trained on samples of shape \(3, 28, 28\): .*; give the shape of one sample"),
        (lambda: nn.Conv2d(3, 4, 3), (3, 8, 8), r"outputs \(2, K\) with K >= 2 classes, got shape \(2, 4, 6, 6\)"),
        (lambda: nn.Linear(12, 1), (12,), r"got shape \(2, 1\)|cannot be trained"),
        (lambda: nn.Linear(12, 3).double(), (12,), r"expected float32 parameters, got 'weight' of type torch.float64"),
        (lambda: nn.Linear(12, 3).requires_grad_(False), (12,), "Linear has no trainable parameter"),
        (lambda: nn.Linear, (12,), r"expected module_factory\(\) to return a torch.nn.Module, got a type"),
        (Perceptron, (0,), r"expected shape\[0\] to be a whole number >= 1"),
    ],
)  # fmt: skip
def test_modules_that_cannot_be_trained_here(factory, shape, message):
    with pytest.raises(InvalidValueError, match=message):
        TorchTask(factory, shape=shape, device="cpu")


def test_only_integers_change_too():
    """An integer buffer that counts, as BatchNorm's, is found even where no float does."""

    class Batches(Counting):
        def __init__(self):
            super().__init__()
            self.seen = torch.zeros(1, dtype=torch.int64)

    with pytest.raises(InvalidValueError, match=r"changes the buffer 'seen' of type torch.int64"):
        TorchTask(Batches, shape=(12,), device="cpu")


@pytest.mark.parametrize(
    ("loss", "shown"),
    [
        (lambda out, y: nn.functional.cross_entropy(out, y, reduction="none"), r"shape \(2,\)"),
        (lambda out, y: nn.functional.cross_entropy(out.detach(), y), "requires_grad=False"),
    ],
)
def test_losses_that_cannot_be_followed(loss, shown):
    with pytest.raises(InvalidValueError, match=shown):
        TorchTask(Perceptron, shape=(12,), loss=loss, device="cpu")


def test_samples_of_another_size():
    task = TorchTask(Perceptron, shape=(3, 2, 2), device="cpu")
    with pytest.raises(InvalidValueError, match=r"shape \(3, 2, 2\) = 12 features, got 13 features"):
        task.predict(task.init(np.random.default_rng(0)), np.zeros((2, 13), np.float32))


def test_own_loss_and_metrics():
    def squared(outputs, labels):
        return ((outputs - nn.functional.one_hot(labels, 3)) ** 2).mean()

    def top2(outputs, labels):
        return (outputs.topk(2).indices == labels[:, None]).any(dim=1).float().mean()

    task = TorchTask(Perceptron, shape=(12,), loss=squared, metrics={"top2": top2}, device="cpu")
    check_task(task)
    params, (X, y) = task.init(np.random.default_rng(0)), batch(m=1, B=50)
    outputs = task.outputs(params, X[0]).numpy()
    among = [label in row for label, row in zip(y[0], np.argsort(-outputs)[:, :2], strict=True)]
    assert task.metrics(params, X[0], y[0]) == {"top2": pytest.approx(np.mean(among))}
    result = matl.simulate(
        dataset=(X[0].repeat(20, axis=0), np.arange(1000) % 3), task=task, clients=4, rounds=1, mode="plain",
        root_size=6, seed=1,
    )  # fmt: skip
    assert 0 < result.metrics["top2"] <= 1
    assert result.as_dict()["metrics"] == result.metrics
    assert result.settings["device"] == "cpu"


def test_a_copy_computes_the_same_and_shares_nothing():
    cloudpickle = pytest.importorskip("cloudpickle", reason="cloudpickle is not installed")
    width = 7
    task = TorchTask(
        lambda: nn.Sequential(nn.Linear(12, width), nn.ReLU(), nn.Linear(width, 3)), shape=(12,),
        loss=lambda outputs, labels: nn.functional.cross_entropy(outputs, labels, label_smoothing=0.1), device="cpu",
    )  # fmt: skip
    params, (X, y) = task.init(np.random.default_rng(0)), batch(m=1)
    expected = [part.tobytes() for part in task.loss_and_gradient(params[None], X, y)]
    for other in (cloudpickle.loads(cloudpickle.dumps(task)), copy.copy(task)):
        other.load(np.zeros_like(params))
        assert [part.tobytes() for part in other.loss_and_gradient(params[None], X, y)] == expected


def test_seeded_on_an_accelerator_saves_and_restores_its_streams(monkeypatch):
    seen = []

    @contextlib.contextmanager
    def fork(devices, device_type):
        seen.append((list(devices), device_type))
        yield

    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.random, "fork_rng", fork)
    state = torch.get_rng_state()
    with device.seeded(5, "cuda:1"):
        one = torch.rand(3)
    torch.set_rng_state(state)
    with device.seeded(5):
        assert torch.equal(torch.rand(3), one)
    assert seen == [([0, 1], "cuda")]


def test_a_module_in_place_of_its_factory_is_told_so():
    with pytest.raises(InvalidValueError, match="a function that makes the module, got a module, Linear"):
        TorchTask(torch.nn.Linear(4, 2), shape=(4,))
