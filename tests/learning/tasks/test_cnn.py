"""The convolutional network: its layers, what it refuses, and that it learns among liars."""

import numpy as np
import pytest

pytest.importorskip("torch", reason="torch is not installed")

import matl
from matl.errors import ConfigError, InvalidValueError
from matl.learning.tasks import TASKS, CNNTask
from matl.testing import check_task


def test_layers():
    task = CNNTask(128, 5, shape=(2, 8, 8), channels=(3, 4), hidden=6, device="cpu")
    shapes = [entry.shape for entry in task.layout.entries]
    assert shapes == [(3, 2, 3, 3), (3,), (4, 3, 3, 3), (4,), (6, 4 * 2 * 2), (6,), (5, 6), (5,)]
    assert task.num_classes == 5


def test_init_is_he_normal():
    task = CNNTask(256, 10, shape=(1, 16, 16), channels=(64,), hidden=50, device="cpu")
    params = task.layout.unflatten(task.init(np.random.default_rng(0)))
    weight = next(value for value in params.values() if value.shape == (50, 64 * 8 * 8))
    # 204,800 normal draws know their standard deviation to .16 %; five times that is a false failure in 1e-6.
    assert weight.std() == pytest.approx(np.sqrt(2 / (64 * 8 * 8)), rel=0.008)
    assert not any(value.any() for value in params.values() if value.ndim == 1)


@pytest.mark.parametrize(("shape", "channels"), [((1, 4, 4), (2,)), ((3, 6, 5), (2, 3)), ((1, 2, 3), ())])
def test_the_contract_holds(shape, channels):
    check_task(CNNTask(int(np.prod(shape)), 3, shape=shape, channels=channels, hidden=5, device="cpu"))


@pytest.mark.parametrize(
    ("shape", "options", "message"),
    [
        (None, {}, "needs images of shape .*, got 64 features of shape None; choose task mlp"),
        ((64,), {}, r"got 64 features of shape \(64,\)"),
        ((1, 8, 8), {"channels": (4, 4, 4, 4)}, "4 poolings need images of at least 16 x 16, got 8 x 8"),
        ((1, 8, 8), {"channels": (0,)}, "expected channels >= 1, got channels=0"),
        ((1, 8, 8), {"hidden": 0}, "expected hidden >= 1"),
        ((3, 8, 8), {}, r"a sample of shape \(3, 8, 8\) has 192 values, got features=64"),
    ],
)
def test_networks_that_cannot_be(shape, options, message):
    with pytest.raises(InvalidValueError, match=message):
        CNNTask(64, 10, shape=shape, device="cpu", **options)


def test_by_name_with_the_shape_and_device_of_the_run():
    settings = {"dataset": "digits", "clients": 6, "byzantine": 0.34, "rounds": 8, "mode": "mode0", "seed": 1}
    result = matl.simulate(**settings, task={"name": "cnn", "channels": [4], "hidden": 16}, device="cpu", alpha=5.0)
    assert result.accuracy > 0.5
    assert set(result.quarantined) == set(result.malicious)
    assert result.settings["device"] == "cpu"


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        ({"dataset": "synthetic", "task": "cnn"}, InvalidValueError, "needs images"),
        ({"task": {"name": "cnn", "hiden": 3}}, ConfigError, r"no option 'hiden' \(did you mean 'hidden'\?\)"),
        ({"task": {"name": "cnn", "device": "cpu"}}, ConfigError, "no option 'device'"),
        ({"task": "cnn", "device": "warp"}, InvalidValueError, "device 'warp' cannot be used"),
    ],
)
def test_what_does_not_fit_is_refused(settings, error, message):
    with pytest.raises(error, match=message):
        matl.simulate(**settings)


def test_listed_with_a_summary():
    assert TASKS.summary("cnn").startswith("Convolutional network")
