"""Data sets of grey images: digits, MNIST, and any pair of IDX files."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from matl import validate
from matl.errors import CorruptDataError, InvalidValueError
from matl.learning.datasets import files
from matl.learning.datasets.record import DATASETS, Dataset, Source
from matl.params import Float32

__all__ = ["digits", "idx", "mnist", "pooled", "scale_pixels"]


@DATASETS.register("digits")
def digits() -> Source:
    """Handwritten digits, 8 x 8 grey, 10 classes, 1,797 samples; bundled with scikit-learn."""
    bunch = files.sklearn_datasets().load_digits()
    X = (bunch.data / 16.0).astype(np.float32)  # pixels are counts 0..16
    return Source(Dataset("digits", X, bunch.target.astype(np.int64), 10, (1, 8, 8)))


@DATASETS.register("mnist")
def mnist(pool: int = 1) -> Source:
    """Handwritten digits, 28 x 28 grey, 10 classes, 60,000 + 10,000 samples; IDX files or download.

    ``pool`` is that of `pooled`.
    """
    paths = files.find(list(_MNIST_FILES), ("mnist", "."))
    if paths is None:
        _download_mnist()
        paths = [files.cache_directory() / "mnist" / name for name in _MNIST_FILES]
    arrays = [
        _read_idx(files.read_checked(path, digest), path)
        for path, digest in zip(paths, _MNIST_FILES.values(), strict=True)
    ]
    train_x, train_y, test_x, test_y = arrays
    return pooled(Source(_grey("mnist", train_x, train_y, 10), _grey("mnist", test_x, test_y, 10)), pool)


@DATASETS.register("idx")
def idx(
    images: Path, labels: Path, test_images: Path | None = None, test_labels: Path | None = None, pool: int = 1
) -> Source:
    """Grey images from a pair of IDX files (MNIST's format), plain or .gz, and perhaps a second pair to test on.

    ``pool`` is that of `pooled`.
    """
    if (test_images is None) != (test_labels is None):
        raise InvalidValueError(f"expected test_images and test_labels or neither, got {test_images} and {test_labels}")
    train_x, train_y = _read_pair(images, labels)
    if test_images is None or test_labels is None:
        return pooled(Source(_grey(images.name, train_x, train_y, int(train_y.max()) + 1)), pool)
    test_x, test_y = _read_pair(test_images, test_labels)
    if test_x.shape[1:] != train_x.shape[1:]:
        raise CorruptDataError(
            f"{test_images} has images of {_size(test_x)} pixels, but {images} has {_size(train_x)}; "
            "training and test images must have the same size"
        )
    classes = int(max(train_y.max(), test_y.max())) + 1
    train = _grey(images.name, train_x, train_y, classes)
    return pooled(Source(train, _grey(test_images.name, test_x, test_y, classes)), pool)


def scale_pixels(pixels: NDArray[np.uint8]) -> Float32:
    """Pixels 0..255 as 0..1 and one row per image, without a second copy in between."""
    return np.divide(pixels.reshape(len(pixels), -1), np.float32(255), dtype=np.float32)


def pooled(source: Source, pool: int) -> Source:
    """Images made smaller: every square of ``pool`` x ``pool`` pixels becomes its mean.

    Raises
    ------
    InvalidValueError
        The squares do not fill the images.

    Examples
    --------
    >>> pooled(digits(), 2).train.shape
    (1, 4, 4)
    """
    validate.whole(1, pool=pool)
    if pool == 1:
        return source
    return Source(_pooled(source.train, pool), None if source.test is None else _pooled(source.test, pool))


def _pooled(data: Dataset, pool: int) -> Dataset:
    channels, height, width = data.shape or (1, 1, data.X.shape[1])
    if height % pool or width % pool:
        raise InvalidValueError(f"expected pool to divide {height} x {width} pixels of {data.name}, got pool={pool}")
    rows, columns = height // pool, width // pool
    X = data.X.reshape(len(data), channels, rows, pool, columns, pool).mean(axis=(3, 5)).reshape(len(data), -1)
    return replace(data, name=f"{data.name}, {rows} x {columns}", X=X, shape=(channels, rows, columns))


def _grey(name: str, images: NDArray[np.uint8], labels: NDArray[np.uint8], classes: int) -> Dataset:
    height, width = images.shape[1:]
    return Dataset(name, scale_pixels(images), labels.astype(np.int64), classes, (1, height, width))


def _size(images: NDArray[np.uint8]) -> str:
    return f"{images.shape[1]} x {images.shape[2]}"


def _read_pair(images: Path, labels: Path) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    x, y = (_read_idx(files.read(path), path) for path in (images, labels))
    if x.ndim != 3 or y.ndim != 1:
        raise CorruptDataError(
            f"expected images of three dimensions and labels of one, got {x.ndim} in {images} and {y.ndim} in {labels}"
        )
    if len(x) != len(y) or not len(x):
        raise CorruptDataError(f"expected one label per image, got {len(x)} images in {images}, {len(y)} in {labels}")
    return x, y


def _read_idx(content: bytes, path: Path) -> NDArray[np.uint8]:
    """Parse the IDX format: two zero bytes, type 8 (uint8), number of dimensions, big-endian sizes, data."""
    if content[:3] != b"\x00\x00\x08" or len(content) < 4:
        raise CorruptDataError(f"{path} is not an IDX file of bytes; it starts with {content[:4].hex() or 'nothing'}")
    start = 4 + 4 * content[3]
    sizes = [int.from_bytes(content[i : i + 4], "big") for i in range(4, start, 4)]
    expected = start + math.prod(sizes)  # Python's own integers: sizes in a damaged header may be anything
    if len(content) != expected:
        raise CorruptDataError(
            f"{path} says it holds {sizes} bytes, {expected:,} with its header, got {len(content):,}"
        )
    try:
        return np.frombuffer(content, np.uint8, offset=start).reshape(sizes)
    except ValueError as error:  # more dimensions, or larger ones beside a zero, than an array can have
        raise CorruptDataError(f"{path} is not an IDX file of images or labels: {error}") from error


# Digests of the uncompressed IDX files as published with the data set in 1998; every mirror agrees on them.
_MNIST_FILES = {
    "train-images-idx3-ubyte": "ba891046e6505d7aadcbbe25680a0738ad16aec93bde7f9b65e87a2fc25776db",
    "train-labels-idx1-ubyte": "65a50cbbf4e906d70832878ad85ccda5333a97f0f4c3dd2ef09a8a9eef7101c5",
    "t10k-images-idx3-ubyte": "0fa7898d509279e482958e8ce81c8e77db3f2f8254e26661ceb7762c4d494ce7",
    "t10k-labels-idx1-ubyte": "ff7bcfd416de33731a308c3f266cc351222c34898ecbeaf847f06e48f7ec33f2",
}
# OpenML's `mnist_784` holds the same 70,000 images, training first, in the same order.
_MNIST_AT_OPENML = 554


def _download_mnist() -> None:
    """Fetch MNIST and store it as the published IDX files, whose checksums are then checked as ever."""
    bunch = files.fetch_openml(_MNIST_AT_OPENML, dataset="mnist", wanted=f"{', '.join(_MNIST_FILES)} (plain or .gz)")
    images = np.asarray(bunch.data).astype(np.uint8).reshape(-1, 28, 28)
    labels = np.asarray(bunch.target).astype(np.uint8)
    parts = (images[:60_000], labels[:60_000], images[60_000:], labels[60_000:])
    headers = [bytes([0, 0, 8, part.ndim]) + np.array(part.shape, ">u4").tobytes() for part in parts]
    contents = [header + part.tobytes() for header, part in zip(headers, parts, strict=True)]
    files.store("mnist", dict(zip(_MNIST_FILES, contents, strict=True)))
