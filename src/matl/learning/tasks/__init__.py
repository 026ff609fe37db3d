"""Tasks: what is learned. A task is a model with its loss, as a function of one flat parameter vector."""

from matl.learning.tasks.base import TASKS, Task, accuracy
from matl.learning.tasks.cnn import CNNTask
from matl.learning.tasks.device import available_devices, resolve_device
from matl.learning.tasks.mlp import MLPTask, SoftmaxTask
from matl.learning.tasks.sklearn_task import SklearnTask
from matl.learning.tasks.torch_task import TorchTask

__all__ = [
    "TASKS",
    "CNNTask",
    "MLPTask",
    "SklearnTask",
    "SoftmaxTask",
    "Task",
    "TorchTask",
    "accuracy",
    "available_devices",
    "resolve_device",
]
