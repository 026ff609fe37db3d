"""The record that holds labelled samples, and the table of data sets that a configuration can name."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from matl import validate
from matl.errors import InvalidValueError
from matl.params import Float32
from matl.registry import Registry

__all__ = ["DATASETS", "Dataset", "Source", "load_dataset"]


@dataclass(frozen=True)
class Dataset:
    """Labelled samples.

    Parameters
    ----------
    name : str
        What it is called in results and reports.
    X : float32 array of shape (n, features)
        One flat sample per row.
    y : int64 array of shape (n,)
        Labels 0 .. num_classes - 1.
    num_classes : int
        How many classes there are, whether or not each occurs.
    shape : tuple of int or None
        Shape of one sample before it was flattened; an image is (channels, height, width). ``None`` for plain features.
    groups : int64 array of shape (n,) or None
        Where each sample comes from, as a number per writer, hospital, ...; what a natural partition goes by.
    class_names : tuple of str or None
        What the classes are called, in the order of their labels.

    Examples
    --------
    >>> images = Dataset("tiny", np.zeros((2, 12), np.float32), np.array([0, 1]), 2, shape=(3, 2, 2))
    >>> len(images), images.class_counts().tolist()
    (2, [1, 1])
    >>> images.take(np.array([1])).y.tolist()
    [1]
    """

    name: str
    X: Float32
    y: NDArray[np.int64]
    num_classes: int
    shape: tuple[int, ...] | None = None
    groups: NDArray[np.int64] | None = None
    class_names: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        validate.finite_matrix(X=self.X)
        if self.y.shape != (len(self.X),):
            raise InvalidValueError(f"expected one label per sample, got {len(self.X)} samples and y {self.y.shape}")
        if self.y.min() < 0 or self.y.max() >= self.num_classes:
            raise InvalidValueError(
                f"expected labels 0 to {self.num_classes - 1}, got {self.y.min()} to {self.y.max()} in {self.name}; "
                "number the classes without gaps, e.g. y = np.unique(y, return_inverse=True)[1]"
            )
        if self.shape is not None and math.prod(self.shape) != self.X.shape[1]:
            raise InvalidValueError(
                f"a sample of shape {self.shape} has {math.prod(self.shape)} values, but the rows of {self.name} have "
                f"{self.X.shape[1]}; an image is (channels, height, width)"
            )
        if self.groups is not None and self.groups.shape != self.y.shape:
            raise InvalidValueError(
                f"expected one group per sample, got {len(self.X)} samples and groups {self.groups.shape}"
            )
        if self.class_names is not None and len(self.class_names) != self.num_classes:
            raise InvalidValueError(
                f"expected {self.num_classes} class names, one for each class of {self.name}, got {self.class_names}"
            )

    def __len__(self) -> int:
        return len(self.y)

    def take(self, indices: NDArray[Any] | slice) -> Dataset:
        """The samples at ``indices``; a slice gives a view of them."""
        groups = None if self.groups is None else self.groups[indices]
        return replace(self, X=self.X[indices], y=self.y[indices], groups=groups)

    def class_counts(self) -> NDArray[np.int64]:
        """Samples per class, shape (num_classes,)."""
        return np.bincount(self.y, minlength=self.num_classes)


@dataclass(frozen=True, slots=True)
class Source:
    """A loaded data set: training samples, and the official test samples where there are any."""

    train: Dataset
    test: Dataset | None = None


DATASETS: Registry[Source] = Registry("dataset")


def load_dataset(spec: str | Mapping[str, Any]) -> Source:
    """Load a data set by name, or by a table of ``name`` and options.

    Raises
    ------
    UnknownNameError
        No data set has that name.
    InvalidValueError
        An option is missing, unknown or of the wrong type.
    DataNotFoundError, CorruptDataError
        Its files are missing or damaged; the message says which file goes where.
    MissingExtraError
        It needs a package that is not installed.

    Examples
    --------
    >>> load_dataset("synthetic").train.X.shape
    (4000, 20)
    """
    return DATASETS.create(spec)
