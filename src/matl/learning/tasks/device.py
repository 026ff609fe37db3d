"""Where torch computes: devices by name, and how every one of them is made to give the same bits twice."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from matl.errors import InvalidValueError, MissingExtraError

__all__ = ["available_devices", "load_torch", "random_state", "repeatable", "resolve_device", "seeded"]


def load_torch() -> Any:
    """The module ``torch``.

    Raises
    ------
    MissingExtraError
        It is not installed.
    """
    try:
        import torch
    except ImportError as error:
        raise MissingExtraError("torch", extra="torch") from error
    return torch


def resolve_device(name: str = "auto") -> str:
    """The torch device that a name stands for, after a look whether it is there.

    Parameters
    ----------
    name : str
        ``"auto"`` for an NVIDIA or AMD GPU (torch calls both ``cuda``) where there is one and the CPU elsewhere, or any
        device torch knows: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ``"mps"``, ``"xpu"``, ... Apple's ``mps`` is never
        chosen by itself: torch promises no repeatable results there.

    Raises
    ------
    InvalidValueError
        There is no such device on this machine.
    MissingExtraError
        torch is not installed.

    Examples
    --------
    >>> resolve_device("cpu")
    'cpu'
    """
    torch = load_torch()
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    try:
        torch.zeros(1, device=name).cpu()
    # not a device, a build of torch without it, no such hardware, or (meta) a device without values
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        reason = str(error).strip().split("\n", 1)[0]
        raise InvalidValueError(
            f"device {name!r} cannot be used: {reason}; available: auto, {', '.join(available_devices())}"
        ) from error
    return name


def available_devices() -> list[str]:
    """Names of torch's devices on this machine: ``cpu`` first, then each accelerator."""
    torch = load_torch()
    names = ["cpu"]
    names += [f"cuda:{index}" for index in range(torch.cuda.device_count())]
    if torch.backends.mps.is_available():
        names.append("mps")
    if torch.xpu.is_available():
        names += [f"xpu:{index}" for index in range(torch.xpu.device_count())]
    return names


@contextmanager
def repeatable(device: str = "cpu") -> Iterator[None]:
    """Compute on one thread, with cuDNN's deterministic kernels and without TF32; what was set before comes back.

    Sums on several threads are rounded differently from sums on one, and cuDNN is free to choose another kernel, and so
    another rounding, each time. A few CUDA kernels of torch (of ``index_add`` or adaptive pooling, say) add in no fixed
    order; `matl.testing.check_task` finds a module that uses one.

    Parameters
    ----------
    device : str
        Where to compute.
    """
    torch = load_torch()
    cudnn = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
    threads = torch.get_num_threads()
    # Also where that is 1 already: threadpoolctl's limit, under which simulations run, misses the MKL inside torch.
    torch.set_num_threads(1)
    try:
        with cudnn if device.startswith("cuda") else nullcontext():
            yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def seeded(seed: int | None, device: str = "cpu") -> Iterator[None]:
    """Let torch's random numbers, on the CPU and on ``device``, come from a seed; their streams go on as before after.

    Parameters
    ----------
    seed : int or None
        Whole number in [0, 2^63); ``None`` where no random number is drawn.
    device : str
        Where random numbers are drawn.
    """
    torch = load_torch()
    kind = torch.device(device).type
    if seed is None:
        yield
    elif kind == "cpu":  # without a word to the accelerators, which would take a hundred times as long
        before = torch.get_rng_state()
        torch.default_generator.manual_seed(seed)
        try:
            yield
        finally:
            torch.set_rng_state(before)
    else:
        devices = range(torch.get_device_module(kind).device_count())
        with torch.random.fork_rng(devices=devices, device_type=kind):
            torch.manual_seed(seed)
            yield


def random_state(device: str) -> bytes:
    """Where torch's streams of random numbers stand, on the CPU and on ``device``."""
    torch = load_torch()
    kind = torch.device(device).type
    own = b"" if kind == "cpu" else torch.get_device_module(kind).get_rng_state(device).numpy().tobytes()
    return bytes(torch.get_rng_state().numpy().tobytes() + own)
