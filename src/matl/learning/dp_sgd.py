"""Differentially private local training: clip the gradient of every sample, and add Gaussian noise to their sum.

Abadi et al., "Deep Learning with Differential Privacy", CCS 2016. Per-example gradients of torch modules and the
accountant are those of Opacus (extra ``dp``).
"""

from __future__ import annotations

import copy
import importlib
import warnings
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np
from numpy.typing import NDArray

from matl import validate
from matl.errors import InvalidValueError, MissingExtraError
from matl.learning.datasets import Dataset
from matl.learning.tasks import Task, TorchTask
from matl.learning.tasks.device import repeatable
from matl.params import Float32

__all__ = ["DPSGD", "per_example_gradients", "private_gradient", "private_step"]


@dataclass(frozen=True, slots=True)
class DPSGD:
    """How private a client's training is.

    Formal guarantee: after ``steps`` steps at ``sample_rate``, what a client sends is (epsilon, delta)-differentially
    private towards each of its samples (add or remove one), with the `epsilon` below. It holds for noise nobody can
    predict. Simulations draw theirs from the seed of the run, so that they can be repeated; a deployment has to draw it
    from the operating system's secure generator, and to keep floating-point rounding from showing it (Mironov, CCS
    2012).

    Parameters
    ----------
    noise_multiplier : float
        Standard deviation of the noise in units of ``max_grad_norm``; 0 for none, and no privacy.
    max_grad_norm : float
        L2 norm to which the gradient of every sample is shortened.
    delta : float
        Probability, in (0, 1), with which the guarantee may fail; take less than one over the number of samples.

    Examples
    --------
    >>> round(DPSGD(noise_multiplier=1.0).epsilon(steps=100, sample_rate=0.05), 2)
    4.04
    """

    noise_multiplier: float = 1.0
    max_grad_norm: float = 1.0
    delta: float = 1e-5

    def __post_init__(self) -> None:
        validate.non_negative(noise_multiplier=self.noise_multiplier)
        validate.positive(max_grad_norm=self.max_grad_norm)
        if not 0 < self.delta < 1:
            raise InvalidValueError(f"expected 0 < delta < 1, got delta={self.delta}")

    def epsilon(self, steps: int, sample_rate: float) -> float:
        """Epsilon that steps on Poisson samples cost, by Opacus' Rényi accountant; infinite without noise.

        Parameters
        ----------
        steps : int
            Steps a client took, over all rounds.
        sample_rate : float
            Probability with which each sample takes part in a step: batch size over number of samples.

        Raises
        ------
        MissingExtraError
            Opacus is not installed.
        """
        validate.whole(0, steps=steps)
        validate.fraction(sample_rate=sample_rate)
        accountants = _opacus("accountants")
        if not steps or not sample_rate:
            return 0.0
        if not self.noise_multiplier:
            return float("inf")
        accountant = accountants.RDPAccountant()
        accountant.history = [(self.noise_multiplier, sample_rate, steps)]
        with warnings.catch_warnings():  # that a finer grid of orders might give a smaller epsilon; this one holds too
            warnings.simplefilter("ignore", UserWarning)
            return float(accountant.get_epsilon(self.delta))


def private_step(
    task: Task, params: Float32, client: Dataset, batch_size: int, dp: DPSGD, rng: np.random.Generator
) -> Float32:
    """The private gradient of one step of a client.

    Parameters
    ----------
    task : Task
        The model.
    params : float32 array of shape (d,)
        Its parameters.
    client : Dataset
        The client's n samples; each is drawn with probability ``min(1, batch_size / n)`` (Poisson sampling).
    batch_size : int
        Expected number of samples.
    dp : DPSGD
        How private.
    rng : numpy.random.Generator
        Draws the samples and the noise.

    Returns
    -------
    float32 array of shape (d,)
    """
    expected = min(batch_size, len(client))
    drawn = np.flatnonzero(rng.random(len(client)) < expected / len(client))
    return private_gradient(task, params, client.X[drawn], client.y[drawn], expected, dp, rng)


def private_gradient(
    task: Task,
    params: Float32,
    X: Float32,
    y: NDArray[np.int64],
    expected: int,
    dp: DPSGD,
    rng: np.random.Generator,
) -> Float32:
    """Sum of clipped per-example gradients plus noise, over the expected number of samples.

    Parameters
    ----------
    task : Task
        The model.
    params : float32 array of shape (d,)
        Its parameters.
    X, y : arrays of shape (n, features) and (n,)
        The samples that were drawn; there may be none.
    expected : int
        How many are drawn in the mean. Dividing by n itself would tell how many there are.
    dp : DPSGD
        How private.
    rng : numpy.random.Generator
        Draws the noise.

    Returns
    -------
    float32 array of shape (d,)
    """
    total = rng.normal(scale=dp.noise_multiplier * dp.max_grad_norm, size=params.size).astype(np.float32)
    if len(X):
        gradients = per_example_gradients(task, params, X, y)
        norms = np.linalg.norm(gradients, axis=1)
        total += np.minimum(1, dp.max_grad_norm / np.maximum(norms, np.finfo(np.float32).tiny)) @ gradients
    return total / np.float32(expected)


def per_example_gradients(task: Task, params: Float32, X: Float32, y: NDArray[np.int64]) -> Float32:
    """The gradient of every sample's own loss, float32 of shape (n, d).

    A torch module gets them all from one backward pass of Opacus; any other task sees n models with one sample each.

    Raises
    ------
    MissingExtraError
        The task is a torch module and Opacus is not installed.
    InvalidValueError
        Opacus does not know a layer of the module, or one that mixes samples.
    """
    if not isinstance(task, TorchTask):
        return task.loss_and_gradient(np.repeat(params[None], len(X), axis=0), X[:, None], y[:, None])[1]
    twin = _hooked(task)
    twin.load(params)
    twin.module.train()
    with repeatable(task.device), warnings.catch_warnings():
        # torch tells everybody with such hooks that samples themselves have no gradients, which none here asks for.
        warnings.filterwarnings("ignore", message="Full backward hook is firing", category=UserWarning)
        twin.backward(X, y, np.empty_like(params))
        trained = [parameter for parameter in twin.module.parameters() if parameter.requires_grad]
        gradients = np.hstack([_of_samples(parameter, len(X)) for parameter in trained])
        twin.module.set_grad_sample_to_none()
    return gradients


def _of_samples(parameter: Any, n: int) -> Float32:
    """The gradients (n, size) that Opacus left at a parameter; none where the module did not use it."""
    if parameter.grad_sample is None:
        return np.zeros((n, parameter.numel()), np.float32)
    gradients: Float32 = parameter.grad_sample.flatten(start_dim=1).cpu().numpy()
    return gradients


_HOOKED: WeakKeyDictionary[TorchTask, TorchTask] = WeakKeyDictionary()


def _hooked(task: TorchTask) -> TorchTask:
    """A copy of a task with its module under Opacus' hooks, which would slow the task itself down."""
    if task not in _HOOKED:
        twin = copy.copy(task)
        problems = _opacus("validators").ModuleValidator.validate(twin.module, strict=False)
        if problems:
            raise InvalidValueError(
                "expected a module whose layers keep samples apart, got "
                f"{'; '.join(str(problem) for problem in problems)}; use GroupNorm instead of BatchNorm"
            )
        try:
            twin.module = _opacus("grad_sample").GradSampleModule(twin.module)
        except NotImplementedError as error:
            raise InvalidValueError(
                f"Opacus cannot take the gradients of single samples here: {error}; keep parameters and constant "
                "buffers in modules of their own"
            ) from error
        _HOOKED[task] = twin
    return _HOOKED[task]


def _opacus(part: str) -> Any:
    try:
        return importlib.import_module(f"opacus.{part}")
    except ModuleNotFoundError as error:
        raise MissingExtraError("opacus", extra="dp") from error
