"""Feature shift: clients hold the same classes, but see them differently."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, field, replace

import numpy as np

from matl import validate
from matl.errors import InvalidValueError
from matl.learning.datasets import Dataset
from matl.learning.partition.base import PARTITIONS, Partition
from matl.learning.partition.label import IidPartition
from matl.params import Float32

__all__ = ["BrightnessPartition", "RotationPartition"]


class _ImagePartition(Partition):
    """Deals by another partition, then changes each client's images by an amount of the client's own."""

    base: Partition

    def deal(self, data: Dataset, clients: int, rng: np.random.Generator) -> list[Dataset]:
        """See `Partition.deal`."""
        if data.shape is None or len(data.shape) != 3:
            raise InvalidValueError(
                f"{self} changes images, and the samples of {data.name} are none: expected a shape (channels, height, "
                f"width), got {data.shape}"
            )
        parts = self.base.deal(data, clients, rng)
        amounts = rng.uniform(-1.0, 1.0, size=clients)
        return [
            replace(part, X=self._changed(part.X, data.shape, float(amount)))
            for part, amount in zip(parts, amounts, strict=True)
        ]

    @abstractmethod
    def _changed(self, X: Float32, shape: tuple[int, ...], amount: float) -> Float32:
        """A client's images, changed by an amount between -1 and 1."""


@PARTITIONS.register("rotation")
@dataclass(frozen=True, slots=True)
class RotationPartition(_ImagePartition):
    """Feature shift: every client holds its images at an angle of its own, drawn uniformly.

    Root and test images stay upright.

    Parameters
    ----------
    degrees : float
        Largest angle to either side, > 0 and at most 180.
    base : Partition
        How the images are dealt out before.
    """

    degrees: float = 45.0
    base: Partition = field(default_factory=IidPartition)

    def __post_init__(self) -> None:
        validate.positive(degrees=self.degrees)
        if self.degrees > 180:
            raise InvalidValueError(f"expected degrees <= 180, got degrees={self.degrees}")

    def _changed(self, X: Float32, shape: tuple[int, ...], amount: float) -> Float32:
        turned = rotated(X.reshape(len(X), *shape), self.degrees * amount)
        return turned.reshape(X.shape)


@PARTITIONS.register("brightness")
@dataclass(frozen=True, slots=True)
class BrightnessPartition(_ImagePartition):
    """Feature shift: every client's images are brighter or darker by an amount of its own, drawn uniformly.

    Root and test images stay as they are. Pixels are expected in [0, 1] and cut off there.

    Parameters
    ----------
    change : float
        Largest amount added to or taken from every pixel, > 0 and at most 1.
    base : Partition
        How the images are dealt out before.
    """

    change: float = 0.5
    base: Partition = field(default_factory=IidPartition)

    def __post_init__(self) -> None:
        validate.positive(change=self.change)
        validate.fraction(change=self.change)

    def _changed(self, X: Float32, shape: tuple[int, ...], amount: float) -> Float32:
        changed: Float32 = np.clip(X + np.float32(self.change * amount), 0.0, 1.0)
        return changed


def rotated(images: Float32, degrees: float) -> Float32:
    """Images turned anticlockwise about their centre, bilinearly; what comes from outside is 0.

    Parameters
    ----------
    images : float32 array of shape (n, channels, height, width)
        The images.
    degrees : float
        The angle.

    Examples
    --------
    >>> rotated(np.array([[[[0, 1], [0, 0]]]], np.float32), 90.0)[0, 0].round(3).tolist()
    [[1.0, 0.0], [0.0, 0.0]]
    """
    height, width = images.shape[2:]
    angle = np.deg2rad(degrees)
    down, right = np.meshgrid(np.arange(height) - (height - 1) / 2, np.arange(width) - (width - 1) / 2, indexing="ij")
    # Where each pixel of the result comes from: turned back by the angle (rows grow downwards).
    row = np.cos(angle) * down + np.sin(angle) * right + (height - 1) / 2
    column = np.cos(angle) * right - np.sin(angle) * down + (width - 1) / 2
    top, left = np.floor(row).astype(int), np.floor(column).astype(int)
    turned = np.zeros_like(images)
    for i, j in ((0, 0), (0, 1), (1, 0), (1, 1)):
        weight = np.abs(1 - i - (row - top)) * np.abs(1 - j - (column - left))
        y, x = top + i, left + j
        weight[(y < 0) | (y >= height) | (x < 0) | (x >= width)] = 0
        turned += weight.astype(np.float32) * images[..., y.clip(0, height - 1), x.clip(0, width - 1)]
    return turned
