"""Data that are arrays already: a user's own, .npz files, scikit-learn's bundled sets, and Gaussian blobs."""

from __future__ import annotations

import io
import math
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import IO, Any, Literal

import numpy as np
from numpy.typing import NDArray

from matl.errors import CorruptDataError, InvalidValueError
from matl.learning.datasets.files import read, sklearn_datasets
from matl.learning.datasets.record import DATASETS, Dataset, Source, load_dataset
from matl.learning.datasets.tables import standardised

__all__ = ["as_source", "from_arrays", "npz", "sklearn_loader", "synthetic"]


@DATASETS.register("synthetic")
def synthetic() -> Source:
    """Ten overlapping Gaussian classes in 20 dimensions, 4,000 samples; drawn from a fixed seed."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(10, 20)) * 0.9
    y = np.arange(4000) % 10
    X = centres[y] + rng.normal(size=(4000, 20))
    return Source(Dataset("synthetic", X.astype(np.float32), y.astype(np.int64), 10))


@DATASETS.register("sklearn")
def sklearn_loader(loader: Literal["breast_cancer", "digits", "iris", "wine"]) -> Source:
    """A data set bundled with scikit-learn, by its loader; features are standardised, pixels scaled to 0 to 1."""
    bunch = getattr(sklearn_datasets(), f"load_{loader}")()
    names = tuple(str(name) for name in bunch.target_names)
    if loader == "digits":
        data = from_arrays(loader, (bunch.images / 16.0)[:, None], bunch.target)
    else:
        data = from_arrays(loader, standardised(bunch.data), bunch.target)
    return Source(replace(data, class_names=names))


@DATASETS.register("npz")
def npz(path: Path) -> Source:
    """Arrays X and y of a NumPy .npz file, and perhaps X_test, y_test and groups; pixels as bytes become 0 to 1."""
    arrays = _read_npz(path)
    missing = [name for name in ("X", "y") if name not in arrays]
    if missing or ("X_test" in arrays) != ("y_test" in arrays):
        raise CorruptDataError(
            f"expected arrays X and y in {path}, and X_test and y_test or neither, got {', '.join(arrays) or 'none'}"
        )
    try:
        train = from_arrays(path.name, _pixels(arrays["X"]), arrays["y"])
        if "groups" in arrays:
            train = replace(train, groups=arrays["groups"].astype(np.int64))
        if "X_test" not in arrays:
            return Source(train)
        test = from_arrays(path.name, _pixels(arrays["X_test"]), arrays["y_test"])
        if test.X.shape[1:] != train.X.shape[1:]:
            raise InvalidValueError(f"X_test has {test.X.shape[1]} features, but X has {train.X.shape[1]}")
        classes = max(train.num_classes, test.num_classes)
        return Source(replace(train, num_classes=classes), replace(test, num_classes=classes))
    except (ValueError, TypeError) as error:  # our own, or of text where numbers belong
        raise CorruptDataError(f"{path}: {error}") from error


def _pixels(X: NDArray[Any]) -> NDArray[Any]:
    return X / np.float32(255) if X.dtype == np.uint8 else X


def _read_npz(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of a file that may have been made to do harm: nothing is unpickled, no size is believed unchecked."""
    try:
        arrays = {}
        with zipfile.ZipFile(io.BytesIO(read(path))) as archive:
            for member in archive.infolist():
                with archive.open(member) as stream:
                    _check_size(stream, member)
                with archive.open(member) as stream:
                    arrays[member.filename.removesuffix(".npy")] = np.lib.format.read_array(stream, allow_pickle=False)
        return arrays
    except (zipfile.BadZipFile, zlib.error, EOFError, ValueError, NotImplementedError, RuntimeError) as error:
        raise CorruptDataError(f"{path} is not an .npz file of plain arrays: {error}") from error


_MOST_PACKED = 1100
"""Bytes that one byte of a deflated archive can stand for, and some more."""


def _check_size(stream: IO[bytes], member: zipfile.ZipInfo) -> None:
    version = np.lib.format.read_magic(stream)
    reader = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = reader(stream)
    size = stream.tell() + math.prod(shape) * dtype.itemsize
    if dtype.hasobject or size != member.file_size or size > _MOST_PACKED * member.compress_size:
        raise ValueError(
            f"{member.filename} says that it is {dtype} of shape {shape}, which its {member.compress_size:,} packed "
            "bytes cannot hold"
        )


def as_source(dataset: str | Mapping[str, Any] | Source | Dataset | tuple[Any, Any]) -> Source:
    """A data set given by name or table, as a record, or as arrays ``(X, y)`` with labels 0 .. K - 1."""
    if isinstance(dataset, str | Mapping):
        return load_dataset(dataset)
    if isinstance(dataset, Source):
        return dataset
    if isinstance(dataset, Dataset):
        return Source(dataset)
    given: Any = dataset  # what a caller passes need not be what the signature says
    if not (isinstance(given, tuple | list) and len(given) == 2):
        raise InvalidValueError(
            f"expected dataset as a name, Source, Dataset, FederatedData or arrays (X, y), got a {type(given).__name__}"
        )
    return Source(from_arrays("custom", *given))


def from_arrays(name: str, X: Any, y: Any) -> Dataset:
    """Samples and whole-number labels as a data set; samples of more than one dimension keep their shape."""
    samples, labels = np.asarray(X), np.asarray(y)
    if labels.dtype.kind not in "biuf" or labels.ndim != 1 or not labels.size or (labels % 1 != 0).any():
        raise InvalidValueError(
            "expected (X, y) with one whole-number label 0 .. K - 1 per sample, got y of shape "
            f"{labels.shape} and {labels.dtype}"
        )
    if samples.dtype.kind in "cmMV":  # which astype would cut down to something else without an error
        raise InvalidValueError(f"expected X of numbers, got {samples.dtype}")
    flat = samples.reshape(len(samples), -1) if samples.size else samples
    shape = samples.shape[1:] if samples.ndim > 2 else None
    whole = labels.astype(np.int64)
    return Dataset(name, flat.astype(np.float32), whole, int(whole.max()) + 1, shape)
