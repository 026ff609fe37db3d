"""CIFAR-10 in each of its forms, and its name where the images were re-encoded."""

import io
import os

import numpy as np
import pytest

from matl.errors import CorruptDataError
from matl.learning.datasets import cifar, load_dataset

RNG = np.random.default_rng(0)
# Two images of each class in each of five batches, one in the test batch; smooth, so that JPEG keeps them nearly.
TRAIN_Y = np.tile(np.arange(10), 10)
TEST_Y = np.arange(10)[::-1].copy()


def pictures(labels):
    """One colour each, different from image to image and brighter towards the foot: shape (n, 3, 32, 32)."""
    colours = RNG.integers(0, 150, size=(len(labels), 3), dtype=np.uint8)
    ramp = 3 * np.arange(32, dtype=np.uint8)
    return np.broadcast_to(colours[:, :, None, None] + ramp[:, None], (len(labels), 3, 32, 32)).copy()


TRAIN_X, TEST_X = pictures(TRAIN_Y), pictures(TEST_Y)


@pytest.fixture(autouse=True)
def tiny(monkeypatch):
    """As many images as these tests hold, in place of 5,000 and 1,000 of each class."""
    monkeypatch.setattr(cifar, "_PER_CLASS", {"training": 10, "test": 1})


def binary(images, labels):
    return b"".join(bytes([label]) + image.tobytes() for image, label in zip(images, labels, strict=True))


def store_binary(folder):
    folder.mkdir(parents=True)
    for i in range(5):
        rows = slice(20 * i, 20 * (i + 1))
        (folder / f"data_batch_{i + 1}.bin").write_bytes(binary(TRAIN_X[rows], TRAIN_Y[rows]))
    (folder / "test_batch.bin").write_bytes(binary(TEST_X, TEST_Y))


def encoded(image, kind, size=None):
    pillow = pytest.importorskip("PIL.Image", reason="pillow is not installed")
    buffer = io.BytesIO()
    picture = pillow.fromarray(image.transpose(1, 2, 0))
    (picture.resize(size) if size else picture).save(buffer, kind)
    return buffer.getvalue()


def write_parquet(path, images, labels, *, names=("image", "label"), struct=False):
    pa = pytest.importorskip("pyarrow", reason="pyarrow is not installed")
    import pyarrow.parquet as pq

    path.parent.mkdir(parents=True, exist_ok=True)
    cells = [{"bytes": image, "path": "x"} for image in images] if struct else images
    pq.write_table(pa.table({names[0]: cells, names[1]: labels}), path)


def store_parquet(folder, kind="JPEG", **form):
    for name, images, labels in (("train", TRAIN_X, TRAIN_Y), ("test", TEST_X, TEST_Y)):
        write_parquet(folder / f"{name}.parquet", [encoded(image, kind) for image in images], labels, **form)


def assert_pictures(source, name, *, tolerance=0):
    assert source.train.name == source.test.name == name
    assert source.train.shape == source.test.shape == (3, 32, 32)
    assert source.train.class_names[:2] == ("airplane", "automobile")
    assert source.train.y.tolist() == TRAIN_Y.tolist()
    assert source.test.y.tolist() == TEST_Y.tolist()
    assert source.train.X.dtype == np.float32
    for data, images in ((source.train, TRAIN_X), (source.test, TEST_X)):
        difference = data.X * 255 - images.reshape(len(images), -1)
        assert np.abs(difference).max() <= tolerance + 1e-4


@pytest.mark.parametrize("place", ["cifar10", "cifar10/cifar-10-batches-bin", "cifar-10-batches-bin"])
def test_the_official_binary_files(tmp_path, place):
    store_binary(tmp_path / "cache/matl" / place)
    assert_pictures(load_dataset("cifar10"), "cifar10")


@pytest.mark.parametrize("struct", [False, True])
@pytest.mark.parametrize("names", [("image", "label"), ("img", "label")])
def test_re_encoded_images_say_so_in_their_name(tmp_path, names, struct):
    store_parquet(tmp_path / "cache/matl/cifar10", names=names, struct=struct)
    assert_pictures(load_dataset("cifar10"), "cifar10 (JPEG re-encoded)", tolerance=9)


def test_losslessly_encoded_images_are_the_original(tmp_path):
    store_parquet(tmp_path / "cache/matl/cifar10", "PNG")
    assert_pictures(load_dataset("cifar10"), "cifar10")


def test_the_users_own_folder_comes_before_the_better_form(tmp_path, monkeypatch):
    store_binary(tmp_path / "cache/matl/cifar10")
    store_parquet(tmp_path / "own/cifar10")
    assert load_dataset("cifar10").train.name == "cifar10"
    monkeypatch.setenv("MATL_DATA_DIR", str(tmp_path / "own"))
    assert load_dataset("cifar10").train.name == "cifar10 (JPEG re-encoded)"


def test_images_are_decoded_once(tmp_path, monkeypatch):
    folder = tmp_path / "cache/matl/cifar10"
    store_parquet(folder)
    first = load_dataset("cifar10")
    kept = sorted(folder.glob("decoded-*.npz"))
    assert len(kept) == 2
    decode = cifar._decode
    monkeypatch.setattr(cifar, "_decode", None)
    again = load_dataset("cifar10")
    np.testing.assert_array_equal(again.train.X, first.train.X)
    assert again.train.name == first.train.name
    monkeypatch.setattr(cifar, "_decode", decode)
    for damage in (b"", kept[0].read_bytes()[:-9], b"PK\x05\x06" + bytes(18)):
        kept[0].write_bytes(damage)
        np.testing.assert_array_equal(load_dataset("cifar10").train.X, first.train.X)


def test_a_cache_that_cannot_be_written_only_costs_time(tmp_path, monkeypatch):
    store_parquet(tmp_path / "own/cifar10")
    monkeypatch.setenv("MATL_DATA_DIR", str(tmp_path / "own"))
    (tmp_path / "cache").write_text("a file stands where the cache would be")
    assert load_dataset("cifar10").train.y.tolist() == TRAIN_Y.tolist()


def damage(folder, row=None, label=None, **form):
    """A training file in which one image or label is another."""
    images, labels = [encoded(image, "JPEG") for image in TRAIN_X], list(TRAIN_Y)
    if row is not None:
        images[4] = row
    if label is not None:
        labels[4] = label
    write_parquet(folder / "train.parquet", images, labels, **form)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"row": b"no image"}, "train.parquet, row 5: not an image of CIFAR-10"),
        ({"row": b""}, "train.parquet, row 5: not an image of CIFAR-10"),
        ({"row": encoded(TRAIN_X[0], "JPEG")[:-200]}, "row 5: not an image"),
        ({"row": encoded(TRAIN_X[0], "JPEG", (28, 28))}, "row 5: .*expected 32 x 32 pixels, got 28 x 28"),
        ({"row": encoded(TRAIN_X[0], "GIF")}, "row 5: not an image of CIFAR-10"),
        ({"row": encoded(TRAIN_X[0], "PNG")[:80]}, "row 5: not an image"),
        ({"label": 10}, "row 5: expected an encoded image and a label 0 to 9, got bytes and 10"),
        ({"label": 3}, r"expected 10 training images of each of 10 classes, got \[10, 10, 10, 11, 9, 10"),
        (
            {"names": ("picture", "label")},
            r"expected columns image \(or img\) and label in .*, got \['picture', 'label'\]",
        ),
    ],
    ids=["text", "empty", "cut", "size", "format", "cut png", "label", "counts", "columns"],
)
def test_parquet_files_that_are_not_cifar10(tmp_path, change, message):
    folder = tmp_path / "cache/matl/cifar10"
    store_parquet(folder)
    damage(folder, **change)
    with pytest.raises(CorruptDataError, match=message):
        load_dataset("cifar10")


def test_files_of_another_kind(tmp_path):
    folder = tmp_path / "cache/matl/cifar10"
    store_parquet(folder)
    (folder / "train.parquet").write_bytes(b"PAR1 no more")
    with pytest.raises(CorruptDataError, match=r"train.parquet is not a Parquet file"):
        load_dataset("cifar10")
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()
    store_binary(folder)
    batch = folder / "data_batch_3.bin"
    batch.write_bytes(batch.read_bytes()[:-1])
    with pytest.raises(
        CorruptDataError, match=r"data_batch_3.bin is no CIFAR-10 batch: expected records of 3073 bytes"
    ):
        load_dataset("cifar10")
    batch.write_bytes(binary(TRAIN_X[:20], np.full(20, 77)))
    with pytest.raises(CorruptDataError, match="is not CIFAR-10: expected 10 training images of each of 10 classes"):
        load_dataset("cifar10")


def test_a_download_is_checked_and_stored_as_the_official_files(openml, tmp_path, monkeypatch):
    monkeypatch.setattr(cifar, "_PER_CLASS", {"training": 10, "test": 2})
    tests = np.concatenate([TEST_X, TEST_X])
    pixels = np.concatenate([TRAIN_X, tests]).reshape(120, -1).astype(np.float32)
    labels = np.concatenate([TRAIN_Y, TEST_Y, TEST_Y])
    asked = openml({"data": pixels, "target": labels.astype(str).astype(object)})
    source = load_dataset("cifar10")
    assert asked == [40927]
    again = load_dataset("cifar10")  # from the files now
    assert asked == [40927]
    assert source.train.name == again.train.name == "cifar10"
    np.testing.assert_array_equal(again.train.X, source.train.X)
    np.testing.assert_array_equal(again.test.y, np.concatenate([TEST_Y, TEST_Y]))

    (tmp_path / "cache").rename(tmp_path / "elsewhere")
    openml({"data": pixels, "target": np.sort(labels).astype(str)})  # as if the order were another
    with pytest.raises(CorruptDataError, match="the download is not CIFAR-10"):
        load_dataset("cifar10")
    assert not (tmp_path / "cache").exists()


@pytest.mark.slow
@pytest.mark.skipif("MATL_DATA_DIR" not in os.environ, reason="needs the real CIFAR-10 files in MATL_DATA_DIR")
def test_real_cifar10_test_images(monkeypatch):
    """The test file alone: decoding all 60,000 images takes long."""
    from pathlib import Path

    path = Path(os.environ["MATL_DATA_DIR"]) / "cifar10/test.parquet"
    pixels, labels, lossy = cifar._decode(path.read_bytes(), path)
    assert lossy
    assert np.bincount(labels).tolist() == [1000] * 10
    scaled = pixels.transpose(1, 0, 2, 3).reshape(3, -1) / 255
    assert scaled.mean(axis=1) == pytest.approx([0.4941, 0.4851, 0.4504], abs=2e-3)
    assert scaled.std(axis=1) == pytest.approx([0.2448, 0.2422, 0.2606], abs=2e-3)
