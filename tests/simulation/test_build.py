"""A task has to be made for the samples, the classes and the device of its run."""

import json

import numpy as np
import pytest

import matl
from matl.errors import InvalidValueError
from matl.learning.datasets import Dataset
from matl.learning.tasks import MLPTask

RNG = np.random.default_rng(0)
IMAGES = Dataset("tiny", RNG.random((200, 12), np.float32), np.arange(200) % 2, 2, shape=(3, 2, 2))
FEW = {"clients": 4, "rounds": 1, "byzantine": 0.0, "mode": "plain", "root_size": 8}


class Shaped(MLPTask):
    """A perceptron that says what its samples look like."""

    def __init__(self, shape, features=12):
        super().__init__(features, 2)
        self.shape = shape


@pytest.mark.parametrize(
    ("task", "message"),
    [
        (
            MLPTask(64, 2),
            r"task expects samples of 64 features, tiny has shape \(3, 2, 2\) = 12 features and 2 classes",
        ),
        (Shaped((2, 2, 3)), r"task expects samples of shape \(2, 2, 3\) = 12 features, tiny has shape \(3, 2, 2\)"),
        (Shaped((3, 4, 4), 48), r"samples of shape \(3, 4, 4\) = 48 features, tiny has"),
        (MLPTask(12, 3), "task tells 3 classes apart, tiny has .* and 2 classes; make the task for these"),
    ],
)
def test_a_task_for_other_samples(task, message):
    with pytest.raises(InvalidValueError, match=message):
        matl.simulate(dataset=IMAGES, task=task, **FEW)


@pytest.mark.parametrize("task", [Shaped((3, 2, 2)), Shaped((12,)), MLPTask(12, 2), "mlp"])
def test_a_task_for_these(task):
    assert len(matl.simulate(dataset=IMAGES, task=task, **FEW).history) == 1


def test_a_device_the_task_does_not_compute_on():
    with pytest.raises(InvalidValueError, match="MLPTask computes on cpu, got device='cuda'; leave device out"):
        matl.simulate(dataset=IMAGES, device="cuda", **FEW)
    matl.simulate(dataset=IMAGES, device="cpu", **FEW)


def test_metrics_of_the_task_are_in_the_result():
    class Measuring(MLPTask):
        def metrics(self, params, X, y):
            return {"samples": float(len(y)), "norm": np.linalg.norm(params), "lost": float("nan")}

    result = matl.simulate(dataset=IMAGES, task=Measuring(12, 2), **FEW)
    assert result.metrics["norm"] == pytest.approx(np.linalg.norm(result.params))
    assert result.metrics["samples"] > 0
    assert result.as_dict()["metrics"] == {**result.metrics, "lost": None}  # JSON has no NaN
    json.dumps(result.as_dict())  # nor NumPy's numbers
    assert matl.simulate(dataset=IMAGES, **FEW).as_dict()["metrics"] == {}
