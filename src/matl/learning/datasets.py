"""Data sets by name, and the record that holds one.

A data set that is not bundled is looked for in ``$MATL_DATA_DIR``, then in the user's cache folder, and is otherwise
downloaded once through scikit-learn. Files are checked against a checksum before they are used.
"""

from __future__ import annotations

import gzip
import hashlib
import os
import warnings
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from matl import files, validate
from matl.errors import CorruptDataError, DataNotFoundError, InvalidValueError, MissingExtraError
from matl.params import Float32
from matl.registry import Registry

__all__ = ["DATASETS", "Dataset", "Source", "cache_directory", "load_dataset"]


@dataclass(frozen=True)
class Dataset:
    """Labelled samples.

    Parameters
    ----------
    name : str
        What it is called in reports.
    X : float32 array of shape (n, features)
        One flat sample per row.
    y : int64 array of shape (n,)
        Labels 0 .. num_classes - 1.
    num_classes : int
        How many classes there are, whether or not each occurs.
    image_shape : tuple of int or None
        (height, width) if a row is a grey image; validators may then shift it by a pixel.
    """

    name: str
    X: Float32
    y: NDArray[np.int64]
    num_classes: int
    image_shape: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        validate.finite_matrix(X=self.X)
        if self.y.shape != (len(self.X),):
            raise InvalidValueError(f"expected one label per sample, got {len(self.X)} samples and y {self.y.shape}")
        if self.y.min() < 0 or self.y.max() >= self.num_classes:
            raise InvalidValueError(
                f"expected labels 0 to {self.num_classes - 1}, got {self.y.min()} to {self.y.max()} in {self.name}"
            )

    def __len__(self) -> int:
        return len(self.y)

    def take(self, indices: NDArray[Any]) -> Dataset:
        """The samples at ``indices``."""
        return Dataset(self.name, self.X[indices], self.y[indices], self.num_classes, self.image_shape)

    def class_counts(self) -> NDArray[np.int64]:
        """Samples per class, shape (num_classes,)."""
        return np.bincount(self.y, minlength=self.num_classes)


@dataclass(frozen=True, slots=True)
class Source:
    """A loaded data set: training samples, and the official test samples where there are any."""

    train: Dataset
    test: Dataset | None = None


DATASETS: Registry[Source] = Registry("dataset")


def load_dataset(name: str) -> Source:
    """Load a data set by name.

    Raises
    ------
    UnknownNameError
        No data set has that name.
    DataNotFoundError, CorruptDataError
        Its files are missing or damaged; the message says which file goes where.
    MissingExtraError
        It needs scikit-learn, which is not installed.
    """
    return DATASETS.get(name)()


@DATASETS.register("digits")
def digits() -> Source:
    """Handwritten digits, 8 x 8 grey, 10 classes, 1,797 samples; bundled with scikit-learn."""
    bunch = _sklearn_datasets().load_digits()
    X = (bunch.data / 16.0).astype(np.float32)  # pixels are counts 0..16
    return Source(Dataset("digits", X, bunch.target.astype(np.int64), 10, (8, 8)))


@DATASETS.register("mnist")
def mnist() -> Source:
    """Handwritten digits, 28 x 28 grey, 10 classes, 60,000 + 10,000 samples; IDX files or download."""
    parts = {name: _read_idx(_find(name, sha256), name) for name, sha256 in _MNIST_FILES.items()}
    train_x, train_y, test_x, test_y = parts.values()
    return Source(_images("mnist", train_x, train_y), _images("mnist", test_x, test_y))


@DATASETS.register("synthetic")
def synthetic() -> Source:
    """Ten overlapping Gaussian classes in 20 dimensions, 4,000 samples; drawn from a fixed seed."""
    rng = np.random.default_rng(0)
    centres = rng.normal(size=(10, 20)) * 0.9
    y = np.arange(4000) % 10
    X = centres[y] + rng.normal(size=(4000, 20))
    return Source(Dataset("synthetic", X.astype(np.float32), y.astype(np.int64), 10))


# Digests of the uncompressed IDX files as published with the data set in 1998; every mirror agrees on them.
_MNIST_FILES = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
# OpenML's `mnist_784` holds the same 70,000 images, training first, in the same order.
_OPENML_ID = 554


def cache_directory() -> Path:
    """Where downloaded data sets are kept: ``$XDG_CACHE_HOME/matl`` or ``~/.cache/matl``."""
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "matl"


def _search_path() -> list[Path]:
    roots = [cache_directory()]
    if own := os.environ.get("MATL_DATA_DIR"):
        roots.insert(0, Path(own).expanduser())
    return [folder for root in roots for folder in (root / "mnist", root)]


def _find(name: str, sha256: str) -> bytes:
    """Content of an MNIST file, plain or gzip, from the search path or freshly downloaded."""
    for folder in _search_path():
        for path in (folder / name, folder / f"{name}.gz"):
            if path.is_file():
                return _checked(path, sha256)
    _download_mnist()
    return _checked(cache_directory() / "mnist" / name, sha256)


def _checked(path: Path, sha256: str) -> bytes:
    advice = "delete it and fetch it again, or point MATL_DATA_DIR at a good copy"
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise CorruptDataError(f"cannot read {path}: {error}; {advice}") from error
    actual = hashlib.sha256(content).hexdigest()
    if actual != sha256:
        raise CorruptDataError(f"{path} is damaged: SHA-256 {actual[:16]}..., expected {sha256[:16]}...; {advice}")
    return content


def _read_idx(content: bytes, name: str) -> NDArray[np.uint8]:
    """Parse the IDX format: two zero bytes, type 8 (uint8), number of dimensions, big-endian sizes, data."""
    dimensions = content[3]
    shape = np.frombuffer(content, ">u4", count=dimensions, offset=4).astype(int)
    data = np.frombuffer(content, np.uint8, offset=4 + 4 * dimensions)
    if content[:3] != b"\x00\x00\x08" or data.size != shape.prod():
        raise CorruptDataError(f"{name} is not an IDX file of bytes")  # pragma: no cover - the checksum came first
    return data.reshape(shape)


def _images(name: str, images: NDArray[np.uint8], labels: NDArray[np.uint8]) -> Dataset:
    X = images.reshape(len(images), -1).astype(np.float32) / np.float32(255)
    height, width = images.shape[1:]
    return Dataset(name, X, labels.astype(np.int64), 10, (height, width))


def _download_mnist(fetch: Callable[..., Any] | None = None) -> None:
    """Fetch MNIST through scikit-learn's OpenML loader and store it as IDX files in the cache folder."""
    folder = cache_directory() / "mnist"
    try:
        with warnings.catch_warnings():  # of a retry; what comes of it is said below
            warnings.simplefilter("ignore", UserWarning)
            bunch = (fetch or _sklearn_datasets().fetch_openml)(data_id=_OPENML_ID, as_frame=False, parser="liac-arff")
    # no network, refused, cut off, or an answer that is not the data set
    except (OSError, ValueError, EOFError, zlib.error, HTTPException) as error:
        raise DataNotFoundError(
            f"the mnist files are not on this machine and cannot be downloaded ({error}); put "
            f"{', '.join(_MNIST_FILES)} (plain or .gz) into {folder} or into a folder named by MATL_DATA_DIR"
        ) from error
    images = np.asarray(bunch.data).astype(np.uint8).reshape(-1, 28, 28)
    labels = np.asarray(bunch.target).astype(np.uint8)
    files.make_directory(folder)
    parts = (images[:60_000], labels[:60_000], images[60_000:], labels[60_000:])
    for name, part in zip(_MNIST_FILES, parts, strict=True):
        header = bytes([0, 0, 8, part.ndim]) + np.array(part.shape, ">u4").tobytes()
        files.write_atomic(folder / name, header + part.tobytes())


def _sklearn_datasets() -> Any:
    try:
        import sklearn.datasets
    except ImportError as error:
        raise MissingExtraError("scikit-learn", extra="sim") from error
    return sklearn.datasets
