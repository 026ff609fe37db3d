"""What every task offers: a model with its loss, as a function of one flat parameter vector."""

from __future__ import annotations

from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from matl.params import Float32, ParamLayout
from matl.registry import Registry

__all__ = ["PREDICT_BLOCK", "TASKS", "Task", "accuracy"]

PREDICT_BLOCK = 4096
"""Samples that a built-in task predicts at a time."""


class Task(Protocol):
    """A classification model and its loss; `matl.testing.check_task` tries an implementation.

    Results are a function of the arguments alone, bit for bit: not of what was computed before, nor of who else is in
    the stack. A task may also have ``features`` (inputs per sample) and ``shape`` (of one sample), against which data
    is checked; ``device`` (a name), which results record; ``metrics(params, X, y)``, a dict of numbers about the final
    model; and ``pseudo_gradient = True``, for a step that follows no loss.

    Attributes
    ----------
    layout : ParamLayout
        Names and shapes behind the flat vector.
    num_classes : int
        Number of labels.
    """

    layout: ParamLayout
    num_classes: int

    def init(self, rng: np.random.Generator) -> Float32:
        """Fresh parameters, shape (d,)."""

    def loss_and_gradient(self, params: Float32, X: Float32, y: NDArray[np.int64]) -> tuple[Float32, Float32]:
        """Mean loss and its gradient for each of m models.

        Parameters
        ----------
        params : float32 array of shape (m, d)
        X : float32 array of shape (m, B, features)
        y : int64 array of shape (m, B)

        Returns
        -------
        losses : float32 array of shape (m,)
        gradients : float32 array of shape (m, d)
        """

    def predict(self, params: Float32, X: Float32) -> NDArray[np.int64]:
        """Labels, shape (n,), that the model with parameters (d,) gives to samples (n, features)."""


TASKS: Registry[Task] = Registry("task")


def accuracy(task: Task, params: Float32, X: Float32, y: NDArray[np.int64]) -> float:
    """Share of samples the model labels correctly, in [0, 1]."""
    return float(np.mean(task.predict(params, X) == y))
