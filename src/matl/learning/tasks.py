"""What is learned: a model with its loss, as a function of one flat parameter vector.

The built-in tasks train many clients at a time: parameters are stacked as (m, d), mini-batches as (m, B, features), and
every layer is one batched matrix product. Each client's numbers are the same whoever else is in the stack.
"""

from __future__ import annotations

import math
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from matl import validate
from matl.params import Float32, ParamEntry, ParamLayout
from matl.registry import Registry

__all__ = ["TASKS", "MLPTask", "SoftmaxTask", "Task", "accuracy"]

_PREDICT_BLOCK = 4096


class Task(Protocol):
    """A classification model and its loss.

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


@TASKS.register("mlp")
class MLPTask:
    """Multi-layer perceptron: ReLU hidden layers, softmax cross-entropy.

    Parameters
    ----------
    features : int
        Inputs per sample.
    num_classes : int
        Number of labels.
    hidden : tuple of int
        Width of each hidden layer; empty for softmax regression.

    Examples
    --------
    >>> task = MLPTask(features=4, num_classes=3, hidden=(8,))
    >>> task.layout.size
    67
    >>> params = task.init(np.random.default_rng(0))
    >>> X, y = np.zeros((1, 2, 4), np.float32), np.zeros((1, 2), np.int64)
    >>> loss, gradient = task.loss_and_gradient(params[None], X, y)
    >>> loss.round(4), gradient.shape
    (array([1.0986], dtype=float32), (1, 67))
    """

    def __init__(self, features: int, num_classes: int, hidden: tuple[int, ...] = (64,)) -> None:
        validate.at_least(1, features=features)
        validate.at_least(2, num_classes=num_classes)
        for width in hidden:
            validate.at_least(1, hidden=width)
        self.num_classes = num_classes
        self._widths = (features, *hidden, num_classes)
        entries = []
        for index, (fan_in, fan_out) in enumerate(zip(self._widths, self._widths[1:], strict=False)):
            entries.append(ParamEntry(f"layer{index}.weight", (fan_in, fan_out), "float32"))
            entries.append(ParamEntry(f"layer{index}.bias", (fan_out,), "float32"))
        self.layout = ParamLayout(tuple(entries))

    def init(self, rng: np.random.Generator) -> Float32:
        """He-normal weights, zero biases (He et al., ICCV 2015)."""
        params = np.zeros(self.layout.size, np.float32)
        for weight, _ in self._layers(params[None]):
            fan_in = weight.shape[1]
            weight[:] = rng.normal(scale=math.sqrt(2.0 / fan_in), size=weight.shape)
        return params

    def loss_and_gradient(self, params: Float32, X: Float32, y: NDArray[np.int64]) -> tuple[Float32, Float32]:
        """See `Task.loss_and_gradient`; one forward and one backward pass without intermediate copies."""
        layers = self._layers(params)
        inputs = [X]
        for weight, bias in layers[:-1]:
            out = np.matmul(inputs[-1], weight)
            out += bias[:, None, :]
            np.maximum(out, 0, out=out)
            inputs.append(out)
        logits = np.matmul(inputs[-1], layers[-1][0])
        logits += layers[-1][1][:, None, :]
        losses, delta = _softmax_loss(logits, y)

        gradients = np.empty((len(X), self.layout.size), np.float32)
        for index in range(len(layers) - 1, -1, -1):
            grad_weight, grad_bias = self._layers(gradients)[index]
            np.matmul(inputs[index].transpose(0, 2, 1), delta, out=grad_weight)
            np.sum(delta, axis=1, out=grad_bias)
            if index:
                delta = np.matmul(delta, layers[index][0].transpose(0, 2, 1))
                delta *= inputs[index] > 0
        return losses, gradients

    def predict(self, params: Float32, X: Float32) -> NDArray[np.int64]:
        """See `Task.predict`."""
        layers = self._layers(params[None])
        labels = np.empty(len(X), np.int64)
        for start in range(0, len(X), _PREDICT_BLOCK):
            out = X[start : start + _PREDICT_BLOCK]
            for weight, bias in layers[:-1]:
                out = np.maximum(out @ weight[0] + bias[0], 0)
            labels[start : start + len(out)] = np.argmax(out @ layers[-1][0][0] + layers[-1][1][0], axis=1)
        return labels

    def _layers(self, params: Float32) -> list[tuple[Float32, Float32]]:
        """Views (m, in, out) and (m, out) of stacked parameters (m, d)."""
        where = self.layout.slices
        return [
            (
                params[:, where[f"layer{index}.weight"]].reshape(-1, fan_in, fan_out),
                params[:, where[f"layer{index}.bias"]],
            )
            for index, (fan_in, fan_out) in enumerate(zip(self._widths, self._widths[1:], strict=False))
        ]


@TASKS.register("softmax")
class SoftmaxTask(MLPTask):
    """Softmax regression: one linear layer, softmax cross-entropy.

    Parameters
    ----------
    features : int
        Inputs per sample.
    num_classes : int
        Number of labels.
    """

    def __init__(self, features: int, num_classes: int) -> None:
        super().__init__(features, num_classes, hidden=())


def _softmax_loss(logits: Float32, y: NDArray[np.int64]) -> tuple[Float32, Float32]:
    """Mean cross-entropy (m,) of logits (m, B, K), and its gradient, written over the logits."""
    batch = logits.shape[1]
    logits -= logits.max(axis=2, keepdims=True)
    true_logit = np.take_along_axis(logits, y[:, :, None], axis=2)
    np.exp(logits, out=logits)
    total = logits.sum(axis=2, keepdims=True)
    losses: Float32 = (np.log(total) - true_logit).mean(axis=(1, 2))
    logits /= total
    np.put_along_axis(logits, y[:, :, None], np.take_along_axis(logits, y[:, :, None], axis=2) - np.float32(1), axis=2)
    logits /= np.float32(batch)
    return losses, logits
