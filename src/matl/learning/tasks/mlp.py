"""Softmax regression and multi-layer perceptrons in NumPy, many clients at a time.

Parameters are stacked as (m, d), mini-batches as (m, B, features), and every layer is one batched matrix product. Each
client's numbers are the same whoever else is in the stack.
"""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from matl import validate
from matl.learning.tasks.base import PREDICT_BLOCK, TASKS
from matl.params import Float32, ParamEntry, ParamLayout

__all__ = ["MLPTask", "SoftmaxTask"]


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
        self.features, self.num_classes = features, num_classes
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
            hidden = np.matmul(inputs[-1], weight)
            hidden += bias[:, None, :]
            np.maximum(hidden, 0, out=hidden)
            inputs.append(hidden)
        logits = np.matmul(inputs[-1], layers[-1][0])
        logits += layers[-1][1][:, None, :]
        losses, delta = _softmax_loss(logits, y)

        gradients = np.empty((len(X), self.layout.size), np.float32)
        slots = self._layers(gradients)
        for index in range(len(layers) - 1, -1, -1):
            grad_weight, grad_bias = slots[index]
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
        for start in range(0, len(X), PREDICT_BLOCK):
            out = X[start : start + PREDICT_BLOCK]
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
    m, batch, classes = logits.shape
    samples, true = logits.reshape(m * batch, classes), (np.arange(m * batch), y.reshape(-1))
    logits -= logits.max(axis=2, keepdims=True)
    true_logit = samples[true].reshape(m, batch)
    np.exp(logits, out=logits)
    total = logits.sum(axis=2, keepdims=True)
    losses: Float32 = (np.log(total[:, :, 0]) - true_logit).mean(axis=1)
    logits /= total
    samples[true] -= np.float32(1)
    logits /= np.float32(batch)
    return losses, logits
