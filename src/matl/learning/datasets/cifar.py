"""CIFAR-10 from the official binary files, from Parquet files of encoded images, or from OpenML."""

from __future__ import annotations

import contextlib
import hashlib
import io
import struct
import warnings
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from matl.errors import CorruptDataError, MissingExtraError, StorageError
from matl.learning.datasets import files
from matl.learning.datasets.images import pooled, scale_pixels
from matl.learning.datasets.record import DATASETS, Dataset, Source

__all__ = ["cifar10"]

Bytes = NDArray[np.uint8]

_SHAPE = (3, 32, 32)
_CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
_PER_CLASS = {"training": 5000, "test": 1000}
_BINARY = (*(f"data_batch_{i}.bin" for i in range(1, 6)), "test_batch.bin")
_PARQUET = ("train.parquet", "test.parquet")
_RECORD = 1 + 3 * 32 * 32  # label, then the red, green and blue plane
_AT_OPENML = 40927


@DATASETS.register("cifar10")
def cifar10(pool: int = 1) -> Source:
    """Photographs, 32 x 32 colour, 10 classes, 50,000 + 10,000 samples; binary or Parquet files, or download.

    ``pool`` is that of `matl.learning.datasets.images.pooled`.
    """
    return pooled(_load(), pool)


def _load() -> Source:
    for root in files.roots():
        if paths := files.find(_BINARY, ("cifar10", "cifar10/cifar-10-batches-bin", "cifar-10-batches-bin"), [root]):
            return _from_binary(paths)
        if paths := files.find(_PARQUET, ("cifar10",), [root]):
            return _from_parquet(*paths)
    return _download()


def _from_binary(paths: list[Path]) -> Source:
    records = [_read_records(path) for path in paths]
    train = np.concatenate(records[:-1])
    return Source(
        _dataset("cifar10", "training", train[:, 1:], train[:, 0], paths[0].parent),
        _dataset("cifar10", "test", records[-1][:, 1:], records[-1][:, 0], paths[-1]),
    )


def _read_records(path: Path) -> Bytes:
    content = files.read(path)
    if not content or len(content) % _RECORD:
        raise CorruptDataError(
            f"{path} is no CIFAR-10 batch: expected records of {_RECORD} bytes, got {len(content):,}"
        )
    return np.frombuffer(content, np.uint8).reshape(-1, _RECORD)


def _from_parquet(train: Path, test: Path) -> Source:
    (train_x, train_y, lossy), (test_x, test_y, test_lossy) = _decoded(train), _decoded(test)
    # JPEG loses detail: what was measured on such a copy is not comparable to what was measured on the original.
    name = "cifar10 (JPEG re-encoded)" if lossy or test_lossy else "cifar10"
    return Source(_dataset(name, "training", train_x, train_y, train), _dataset(name, "test", test_x, test_y, test))


def _dataset(name: str, part: str, pixels: Bytes, labels: NDArray[Any], where: Path | str) -> Dataset:
    counts = np.bincount(labels.astype(np.int64), minlength=len(_CLASSES)).tolist()
    if counts != [_PER_CLASS[part]] * len(_CLASSES):
        raise CorruptDataError(
            f"{where} is not CIFAR-10: expected {_PER_CLASS[part]} {part} images of each of {len(_CLASSES)} classes, "
            f"got {counts}"
        )
    return Dataset(name, scale_pixels(pixels), labels.astype(np.int64), len(_CLASSES), _SHAPE, class_names=_CLASSES)


def _decoded(path: Path) -> tuple[Bytes, NDArray[np.int64], bool]:
    """Pixels, labels and whether any image is a JPEG; decoded once, then kept in the cache."""
    try:
        from PIL import __version__ as decoder
    except ImportError as error:
        raise MissingExtraError("pillow", extra="data") from error
    content = files.read(path)
    digest = hashlib.sha256(content).hexdigest()
    kept = f"decoded-{digest[:32]}-pillow-{decoder}.npz"  # decoders may differ by a grey level
    with (
        contextlib.suppress(OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile),  # then it is decoded again
        (files.cache_directory() / "cifar10" / kept).open("rb") as stream,
        np.load(stream, allow_pickle=False) as arrays,
    ):
        return arrays["pixels"], arrays["labels"], bool(arrays["lossy"])
    pixels, labels, lossy = _decode(content, path)
    buffer = io.BytesIO()
    np.savez(buffer, pixels=pixels, labels=labels, lossy=np.array(lossy))
    with contextlib.suppress(StorageError):  # without a cache it only takes longer the next time
        files.store("cifar10", {kept: buffer.getvalue()})
    return pixels, labels, lossy


def _decode(content: bytes, path: Path) -> tuple[Bytes, NDArray[np.int64], bool]:
    from PIL import Image

    encoded, labels = _read_columns(content, path)
    pixels = np.empty((len(encoded), *_SHAPE), np.uint8)
    formats = set()
    for row, one in enumerate(encoded):
        try:
            with warnings.catch_warnings(), Image.open(io.BytesIO(one or b""), formats=("JPEG", "PNG")) as image:
                if image.size != _SHAPE[1:]:
                    raise ValueError(f"expected 32 x 32 pixels, got {image.size[0]} x {image.size[1]}")
                formats.add(image.format)
                pixels[row] = np.asarray(image.convert("RGB")).transpose(2, 0, 1)
        except (OSError, SyntaxError, ValueError, struct.error, Image.DecompressionBombError) as error:
            raise CorruptDataError(f"{path}, row {row + 1}: not an image of CIFAR-10: {error}") from error
    return pixels, labels, "JPEG" in formats


def _read_columns(content: bytes, path: Path) -> tuple[list[bytes | None], NDArray[np.int64]]:
    """Encoded images and labels; an image is bytes, or a struct that has them under ``bytes``."""
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise MissingExtraError("pyarrow", extra="data") from error
    try:
        table = pq.read_table(pa.BufferReader(content))
    except (pa.ArrowException, OSError) as error:
        raise CorruptDataError(f"{path} is not a Parquet file: {error}") from error
    image = next((name for name in ("image", "img") if name in table.column_names), None)
    if image is None or "label" not in table.column_names:
        raise CorruptDataError(f"expected columns image (or img) and label in {path}, got {table.column_names}")
    encoded = [one.get("bytes") if isinstance(one, dict) else one for one in table.column(image).to_pylist()]
    labels = table.column("label").to_pylist()
    for row, (one, label) in enumerate(zip(encoded, labels, strict=True)):
        if not isinstance(one, bytes) or not isinstance(label, int) or not 0 <= label < len(_CLASSES):
            raise CorruptDataError(
                f"{path}, row {row + 1}: expected an encoded image and a label 0 to {len(_CLASSES) - 1}, got "
                f"{type(one).__name__} and {label!r}"
            )
    return encoded, np.array(labels, np.int64)


def _download() -> Source:
    """Fetch CIFAR-10 and store it as the official binary files."""
    wanted = f"{', '.join(_BINARY)} (of the official binary version) or {' and '.join(_PARQUET)}"
    bunch = files.fetch_openml(_AT_OPENML, dataset="cifar10", wanted=wanted)
    pixels = np.asarray(bunch.data).astype(np.uint8)
    labels = np.asarray(bunch.target).astype(np.uint8)
    cut = _PER_CLASS["training"] * len(_CLASSES)
    parts = [("training", slice(cut)), ("test", slice(cut, None))]
    source = Source(*(_dataset("cifar10", part, pixels[rows], labels[rows], "the download") for part, rows in parts))
    records = np.column_stack([labels, pixels])
    batches = np.split(records, len(_BINARY))  # all six are of the same size
    files.store("cifar10", {name: batch.tobytes() for name, batch in zip(_BINARY, batches, strict=True)})
    return source
