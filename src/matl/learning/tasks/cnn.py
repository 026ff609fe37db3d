"""A small convolutional network for images."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import Any

from matl import validate
from matl.errors import InvalidValueError
from matl.learning.tasks.base import TASKS
from matl.learning.tasks.device import load_torch
from matl.learning.tasks.torch_task import TorchTask

__all__ = ["CNNTask"]


@TASKS.register("cnn")
class CNNTask(TorchTask):
    """Convolutional network: 3 x 3 convolutions with ReLU and 2 x 2 max pooling, one hidden layer, cross-entropy.

    Parameters
    ----------
    features : int
        Scalars per sample.
    num_classes : int
        Number of labels.
    shape : tuple of int or None
        Channels, height and width of one sample; ``None`` for samples that are no images, which are refused.
    channels : tuple of int
        Output channels of each convolution; every one is followed by a pooling that halves height and width.
    hidden : int
        Width of the hidden layer.
    device : str
        Where to compute; see `matl.learning.tasks.resolve_device`.

    Raises
    ------
    MissingExtraError
        torch is not installed.
    InvalidValueError
        The samples are no images, or too small for that many poolings.

    Examples
    --------
    >>> task = CNNTask(64, 10, shape=(1, 8, 8), device="cpu")
    >>> task.layout.size
    13706
    """

    def __init__(
        self,
        features: int,
        num_classes: int,
        shape: tuple[int, ...] | None,
        channels: tuple[int, ...] = (16, 32),
        hidden: int = 64,
        device: str = "auto",
    ) -> None:
        validate.at_least(1, features=features, hidden=hidden)
        validate.at_least(2, num_classes=num_classes)
        for width in channels:
            validate.at_least(1, channels=width)
        if shape is None or len(shape) != 3:
            raise InvalidValueError(
                f"task cnn needs images of shape (channels, height, width), got {features} features of shape {shape}; "
                "choose task mlp, or a data set of images"
            )
        if math.prod(shape) != features:
            raise InvalidValueError(f"a sample of shape {shape} has {math.prod(shape)} values, got features={features}")
        smallest = 2 ** len(channels)
        if min(shape[1:]) < smallest:
            raise InvalidValueError(
                f"{len(channels)} poolings need images of at least {smallest} x {smallest}, got {shape[1]} x "
                f"{shape[2]}; give fewer channels"
            )
        super().__init__(partial(_network, shape, channels, hidden, num_classes), shape=shape, device=device)


def _network(shape: Sequence[int], channels: Sequence[int], hidden: int, num_classes: int) -> Any:
    """The module, with He-normal weights and zero biases (He et al., ICCV 2015) like the perceptron's."""
    nn = load_torch().nn
    layers = []
    for before, after in pairwise((shape[0], *channels)):
        layers += [nn.Conv2d(before, after, kernel_size=3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    height, width = (size // 2 ** len(channels) for size in shape[1:])
    flat = (shape[0], *channels)[-1] * height * width
    module = nn.Sequential(*layers, nn.Flatten(), nn.Linear(flat, hidden), nn.ReLU(), nn.Linear(hidden, num_classes))
    for name, parameter in module.named_parameters():
        if name.endswith("weight"):
            nn.init.kaiming_normal_(parameter, nonlinearity="relu")
        else:
            nn.init.zeros_(parameter)
    return module
