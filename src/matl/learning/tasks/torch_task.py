"""A torch module as a task: any ``nn.Module`` that maps samples to one output per class."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from matl import validate
from matl.errors import InvalidValueError
from matl.learning.tasks.device import load_torch, random_state, repeatable, resolve_device, seeded
from matl.params import Float32, ParamEntry, ParamLayout

__all__ = ["TorchTask"]

_BLOCK = 256
"""Samples predicted at a time: the activations of a small convolution stay within a few dozen MiB."""


class TorchTask:
    """A torch module, its loss and its gradient over one flat parameter vector.

    The vector holds the module's trainable parameters in their own order; frozen parameters (``requires_grad=False``)
    and constant buffers are left out of it and stay as the factory made them. Results are a function of the arguments
    alone: dropout is drawn from a checksum of the mini-batch, and everything is computed on one thread. A module draws
    its random numbers from torch, in every training pass or in none.

    Parameters
    ----------
    module_factory : callable
        Called without arguments; returns a new ``torch.nn.Module`` that maps samples (n, *shape) to outputs (n, K). A
        module class will do. It is called once for the task, and again for each fresh set of parameters.
    shape : tuple of int
        Shape of one sample, channels first: ``(3, 32, 32)``.
    loss : callable, optional
        ``loss(outputs (n, K), labels (n,))``: a scalar tensor, the mean over the samples. Cross-entropy by default.
    metrics : mapping of str to callable, optional
        ``metric(outputs (n, K), labels (n,))``: a number, for `matl.RunResult.metrics`.
    device : str
        Where to compute; see `matl.learning.tasks.resolve_device`.

    Attributes
    ----------
    layout : ParamLayout
        The module's trainable parameters.
    num_classes : int
        Width K of its output.
    features : int
        Scalars per sample.
    shape : tuple of int
        Shape of one sample.
    device : str
        Where it computes.

    Raises
    ------
    MissingExtraError
        torch is not installed.
    InvalidValueError
        There is no such device, the module does not take samples of that shape, its loss is no scalar, it has nothing
        to train, a parameter is not float32, or a training step changes a buffer, as BatchNorm does: buffers are
        neither judged nor averaged.

    Examples
    --------
    >>> def network():
    ...     from torch import nn
    ...
    ...     return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))
    >>> task = TorchTask(network, shape=(1, 8, 8), device="cpu")
    >>> [entry.name for entry in task.layout.entries], task.num_classes
    (['1.weight', '1.bias'], 10)
    """

    def __init__(
        self,
        module_factory: Callable[[], Any],
        *,
        shape: Sequence[int],
        loss: Callable[[Any, Any], Any] | None = None,
        metrics: Mapping[str, Callable[[Any, Any], Any]] | None = None,
        device: str = "auto",
    ) -> None:
        torch = load_torch()
        validate.whole(1, **{f"shape[{axis}]": size for axis, size in enumerate(shape)})
        self.shape, self.features = tuple(shape), math.prod(shape)
        self.device = resolve_device(device)
        self.loss = loss if loss is not None else torch.nn.functional.cross_entropy
        self._factory, self._metrics = module_factory, dict(metrics or {})
        self.module = self._build(seed=0).to(self.device)
        trainable = _trainable(self.module)
        self.layout = ParamLayout(
            tuple(ParamEntry(name, tuple(parameter.shape), "float32") for name, parameter in trainable.items())
        )
        self._trainable = list(trainable.values())
        self._flat = torch.empty(self.layout.size, device=self.device)
        self._parts = [
            self._flat[where].view(parameter.shape)
            for parameter, where in zip(self._trainable, self.layout.slices.values(), strict=True)
        ]
        self._random = True
        self.num_classes = self._probe()

    def init(self, rng: np.random.Generator) -> Float32:
        """Fresh parameters, as the module's own initialisation draws them, shape (d,)."""
        trainable = _trainable(self._build(seed=int(rng.integers(2**63))))
        return self.layout.flatten({name: parameter.detach() for name, parameter in trainable.items()})

    def loss_and_gradient(self, params: Float32, X: Float32, y: NDArray[np.int64]) -> tuple[Float32, Float32]:
        """See `Task.loss_and_gradient`; the models take turns in one module, in training mode."""
        losses = np.empty(len(X), np.float32)
        gradients = np.empty((len(X), self.layout.size), np.float32)
        if not self.module.training:
            self.module.train()
        with repeatable(self.device):
            for index in range(len(X)):
                self.load(params[index])
                losses[index] = self.backward(X[index], y[index], gradients[index])
        return losses, gradients

    def predict(self, params: Float32, X: Float32) -> NDArray[np.int64]:
        """See `Task.predict`; the module is in evaluation mode."""
        labels: NDArray[np.int64] = self.outputs(params, X).argmax(dim=1).numpy()
        return labels

    def metrics(self, params: Float32, X: Float32, y: NDArray[np.int64]) -> dict[str, float]:
        """Each metric's value for the model with parameters (d,), over samples (n, features) and labels (n,)."""
        if not self._metrics:
            return {}
        outputs, labels = self.outputs(params, X), _tensor(y)
        with repeatable(self.device):
            return {name: float(metric(outputs, labels)) for name, metric in self._metrics.items()}

    def outputs(self, params: Float32, X: Float32) -> Any:
        """The module's outputs in evaluation mode, a tensor (n, K) on the CPU."""
        torch = load_torch()
        self.load(params)
        self.module.eval()
        with torch.no_grad(), repeatable(self.device):
            return torch.cat(
                [self.module(self.samples(X[start : start + _BLOCK])).cpu() for start in range(0, len(X), _BLOCK)]
            )

    def load(self, params: Float32) -> None:
        """Give the module parameters (d,)."""
        self._flat.copy_(load_torch().from_numpy(np.require(params, requirements=["C", "W"])))
        for parameter, part in zip(self._trainable, self._parts, strict=True):
            # Copied, though the part itself would do: kernels take longer on memory that begins anywhere.
            parameter.data.copy_(part)

    def samples(self, X: Float32) -> Any:
        """Rows (n, features) as a tensor (n, *shape) on the device."""
        if X.shape[-1] != self.features:
            raise InvalidValueError(
                f"expected samples of shape {self.shape} = {self.features} features, got {X.shape[-1]} features"
            )
        return _tensor(X.reshape(-1, *self.shape)).to(self.device)

    def backward(self, X: Float32, y: NDArray[np.int64], gradient: Float32) -> float:
        """The loss of the loaded parameters on one mini-batch; its gradient is written to ``gradient`` (d,)."""
        torch = load_torch()
        samples, labels = self.samples(X), _tensor(y).to(self.device)
        for parameter in self._trainable:
            parameter.grad = None  # a gradient that is set, not added, costs no pass over memory
        # Two batches with the same labels and the same first sample drop the same units; others hardly ever do.
        seed = zlib.crc32(X[0].tobytes(), zlib.crc32(y.tobytes())) if self._random else None
        with torch.enable_grad(), seeded(seed, self.device):
            loss = self.loss(self.module(samples), labels)
            loss.backward()
        parts = [torch.zeros_like(p) if p.grad is None else p.grad for p in self._trainable]
        flat, out = [part.reshape(-1) for part in parts], torch.from_numpy(gradient)
        if self.device == "cpu":
            torch.cat(flat, out=out)
        else:
            out.copy_(torch.cat(flat))
        return float(loss.item())

    def _build(self, seed: int) -> Any:
        """A new module whose own initialisation draws from the seed."""
        if isinstance(self._factory, load_torch().nn.Module):
            raise InvalidValueError(
                f"expected a function that makes the module, got a module, {type(self._factory).__name__}: fresh "
                "parameters and worker processes need new ones; write lambda: ... before it, or give its class"
            )
        with seeded(seed):
            module = self._factory()
        if not isinstance(module, load_torch().nn.Module):
            raise InvalidValueError(
                f"expected module_factory() to return a torch.nn.Module, got a {type(module).__name__}; "
                "give a module class, or a function without arguments that builds one"
            )
        return module

    def _probe(self) -> int:
        """Number of outputs, after one training pass over blank samples; what cannot be trained is refused here."""
        torch = load_torch()
        buffers = {name: buffer.clone() for name, buffer in self.module.named_buffers()}
        self.module.train()
        with repeatable(self.device), seeded(0, self.device), torch.enable_grad():
            before = random_state(self.device)
            with _explained(self.shape):
                outputs = self.module(torch.zeros((2, *self.shape), device=self.device))
            if outputs.ndim != 2 or len(outputs) != 2 or outputs.shape[1] < 2:
                raise InvalidValueError(
                    "expected the module to map samples (2, ...) to outputs (2, K) with K >= 2 classes, got shape "
                    f"{tuple(outputs.shape)}"
                )
            with _explained(self.shape):
                loss = self.loss(outputs, torch.zeros(2, dtype=torch.int64, device=self.device))
            self._random = random_state(self.device) != before
        if loss.ndim or not loss.requires_grad:
            raise InvalidValueError(
                f"expected the loss to be one number with a gradient, got shape {tuple(loss.shape)} and "
                f"requires_grad={loss.requires_grad}; return the mean over the samples"
            )
        for name, buffer in self.module.named_buffers():
            if not torch.equal(buffer, buffers[name]):
                raise InvalidValueError(
                    f"a training step changes the buffer {name!r} of type {buffer.dtype}, and buffers are neither "
                    "judged nor averaged; use GroupNorm, or BatchNorm with track_running_stats=False"
                )
        return int(outputs.shape[1])

    # A worker process builds the module anew; modules and devices are not for sending.
    def __getstate__(self) -> dict[str, Any]:
        return {
            "module_factory": self._factory,
            "shape": self.shape,
            "loss": self.loss,
            "metrics": self._metrics,
            "device": self.device,
        }

    def __setstate__(self, state: dict[str, Any]) -> None:
        TorchTask.__init__(self, **state)


def _tensor(array: NDArray[Any]) -> Any:
    """A copy as a tensor. It begins where torch aligns memory; kernels may round otherwise on memory that does not."""
    return load_torch().tensor(np.ascontiguousarray(array))


@contextmanager
def _explained(shape: tuple[int, ...]) -> Iterator[None]:
    """Say what samples a module was given when it fails on them."""
    try:
        yield
    except (RuntimeError, ValueError, TypeError, IndexError) as error:
        raise InvalidValueError(
            f"the module cannot be trained on samples of shape {shape}: {error}; "
            "give the shape of one sample, channels first, that the module is made for"
        ) from error


def _trainable(module: Any) -> dict[str, Any]:
    """The parameters that are trained, by name."""
    named = {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
    if not named:
        raise InvalidValueError(
            f"{type(module).__name__} has no trainable parameter; set requires_grad=True on what is to be learned"
        )
    for name, parameter in named.items():
        if parameter.dtype is not load_torch().float32:
            raise InvalidValueError(
                f"expected float32 parameters, got {name!r} of type {parameter.dtype}; build the module with .float()"
            )
    return named
