"""Grey images: bundled digits, MNIST from its files or from a download, and IDX files of one's own."""

import gzip
import hashlib
import os

import numpy as np
import pytest

from matl.errors import CorruptDataError, DataNotFoundError, InvalidValueError
from matl.learning.datasets import images, load_dataset

NAMES = list(images._MNIST_FILES)
TRAIN = np.arange(7 * 4 * 3, dtype=np.uint8).reshape(7, 4, 3)
TEST = 255 - TRAIN[:2]
PARTS = [TRAIN, np.array([0, 1, 2, 3, 4, 5, 9], np.uint8), TEST, np.array([8, 7], np.uint8)]


def idx(array):
    """The IDX format as its specification writes it."""
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return bytes([0, 0, 0x08, array.ndim]) + sizes + array.tobytes()


@pytest.fixture
def tiny(monkeypatch):
    """The checksums of four tiny files in place of the real ones."""
    contents = {name: idx(part) for name, part in zip(NAMES, PARTS, strict=True)}
    monkeypatch.setattr(images, "_MNIST_FILES", {name: hashlib.sha256(c).hexdigest() for name, c in contents.items()})
    return contents


def store(folder, contents, *, compress=False):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (folder / (f"{name}.gz" if compress else name)).write_bytes(gzip.compress(content) if compress else content)


def assert_tiny(source, *, classes=10):
    np.testing.assert_array_equal(source.train.X, TRAIN.reshape(7, 12).astype(np.float32) / np.float32(255))
    np.testing.assert_array_equal(source.test.X, TEST.reshape(2, 12).astype(np.float32) / np.float32(255))
    assert source.train.y.tolist() == PARTS[1].tolist()
    assert source.test.y.tolist() == [8, 7]
    assert source.train.X.dtype == np.float32
    assert source.train.y.dtype == np.int64
    assert source.train.shape == source.test.shape == (1, 4, 3)
    assert source.train.num_classes == source.test.num_classes == classes


@pytest.mark.parametrize("compress", [False, True], ids=["plain", "gz"])
@pytest.mark.parametrize("place", ["cache/matl", "cache/matl/mnist", "own", "own/mnist"])
def test_files_are_found_where_the_documentation_says(tiny, tmp_path, monkeypatch, compress, place):
    if place.startswith("own"):
        monkeypatch.setenv("MATL_DATA_DIR", str(tmp_path / "own"))
    store(tmp_path / place, tiny, compress=compress)
    assert_tiny(load_dataset("mnist"))


def test_a_damaged_file_is_refused(tiny, tmp_path):
    store(tmp_path / "cache/matl", tiny | {NAMES[0]: b"damaged"})
    with pytest.raises(CorruptDataError, match=f"{NAMES[0]} is damaged: SHA-256"):
        load_dataset("mnist")


def test_a_download_is_stored_as_the_published_files(openml, tmp_path):
    """The fake answer has the real one's shape: 70,000 float rows, training first, labels as text."""
    pixels = np.zeros((70_000, 784), np.float16)  # holds 0..255 exactly, in a quarter of the memory
    pixels[:, 0] = np.arange(70_000) % 256
    labels = (np.arange(70_000) % 10).astype(str).astype(object)
    asked = openml({"data": pixels, "target": labels})
    # What was downloaded is not what was published, and is refused on the spot.
    with pytest.raises(CorruptDataError, match="is damaged"):
        load_dataset("mnist")
    assert asked == [554]
    folder = tmp_path / "cache/matl/mnist"
    assert sorted(path.name for path in folder.iterdir()) == sorted(NAMES)
    train_x, train_y, test_x, test_y = ((folder / name).read_bytes() for name in NAMES)
    assert train_x == idx(pixels[:60_000].astype(np.uint8).reshape(-1, 28, 28))
    assert test_x[:16] == bytes.fromhex("00000803 00002710 0000001c 0000001c")
    assert train_y[:8] == bytes.fromhex("00000801 0000ea60")
    assert test_y == idx((np.arange(60_000, 70_000) % 10).astype(np.uint8))


def test_a_download_is_used_at_once(tiny, tmp_path, monkeypatch):
    monkeypatch.setattr(images, "_download_mnist", lambda: store(tmp_path / "cache/matl/mnist", tiny))
    assert_tiny(load_dataset("mnist"))


def test_any_idx_files_can_be_read_by_path(tmp_path):
    contents = dict(zip(("x", "y", "tx", "ty"), map(idx, PARTS), strict=True))
    store(tmp_path, contents)
    store(tmp_path, contents, compress=True)
    spec = {"name": "idx", "images": str(tmp_path / "x"), "labels": str(tmp_path / "y.gz")}
    alone = load_dataset(spec)
    assert alone.test is None
    assert (alone.train.name, alone.train.num_classes) == ("x", 10)
    both = load_dataset(spec | {"test_images": str(tmp_path / "tx"), "test_labels": str(tmp_path / "ty")})
    assert_tiny(both)
    with pytest.raises(InvalidValueError, match="expected test_images and test_labels or neither"):
        load_dataset(spec | {"test_images": str(tmp_path / "tx")})


BIG = b"\x00\x00\x08\x03" + b"\xff\xff\xff\xff" * 3


@pytest.mark.parametrize(
    ("x", "y", "message"),
    [
        (b"", idx(PARTS[1]), "x is not an IDX file of bytes; it starts with nothing"),
        (b"\x00\x00\x0d\x01\x00", idx(PARTS[1]), "starts with 00000d01"),
        (idx(TRAIN)[:-1], idx(PARTS[1]), r"says it holds \[7, 4, 3\] bytes, 100 with its header, got 99"),
        (idx(TRAIN) + b"\0", idx(PARTS[1]), "100 with its header, got 101"),
        (idx(TRAIN)[:9], idx(PARTS[1]), "got 9"),
        (BIG, idx(PARTS[1]), "79,228,162,458,924,105,385,300,197,391 with its header, got 16"),
        (idx(TRAIN), idx(PARTS[1][:6]), "one label per image, got 7 images in .*x, 6 in .*y"),
        (idx(TRAIN[:0]), idx(PARTS[1][:0]), "got 0 images"),
        (idx(PARTS[1]), idx(TRAIN), "images of three dimensions and labels of one, got 1 in .*x and 3 in"),
    ],
    ids=["empty", "floats", "cut", "more", "no sizes", "huge", "labels missing", "no images", "swapped"],
)
def test_idx_files_that_are_none(tmp_path, x, y, message):
    store(tmp_path, {"x": x, "y": y})
    with pytest.raises(CorruptDataError, match=message):
        load_dataset({"name": "idx", "images": tmp_path / "x", "labels": tmp_path / "y"})


def test_test_images_have_the_size_of_those_that_are_learned(tmp_path):
    store(tmp_path, dict(zip(("x", "y", "tx", "ty"), map(idx, PARTS), strict=True)) | {"tx": idx(TEST[:, :3])})
    with pytest.raises(CorruptDataError, match=r"has images of 3 x 3 pixels, but .* has 4 x 3"):
        load_dataset(
            {"name": "idx"}
            | {"images": tmp_path / "x", "labels": tmp_path / "y"}
            | {"test_images": tmp_path / "tx", "test_labels": tmp_path / "ty"}
        )
    with pytest.raises(DataNotFoundError, match="nowhere is not there"):
        load_dataset({"name": "idx", "images": tmp_path / "nowhere", "labels": tmp_path / "y"})


@pytest.mark.parametrize(("sizes", "data"), [([1] * 65, b"x"), ([0, 2**32 - 1, 2**32 - 1], b"")])
def test_sizes_that_no_array_can_have(tmp_path, sizes, data):
    header = bytes([0, 0, 8, len(sizes)]) + b"".join(size.to_bytes(4, "big") for size in sizes)
    (tmp_path / "x").write_bytes(header + data)
    with pytest.raises(CorruptDataError, match="x is not an IDX file of images or labels"):
        load_dataset({"name": "idx", "images": tmp_path / "x", "labels": tmp_path / "x"})


@pytest.mark.skipif("MATL_DATA_DIR" not in os.environ, reason="needs the real MNIST files in MATL_DATA_DIR")
def test_real_mnist():
    source = load_dataset("mnist")
    assert source.train.X.shape == (60_000, 784)
    assert source.test.X.shape == (10_000, 784)
    assert source.train.class_counts().tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert source.train.y[:5].tolist() == [5, 0, 4, 1, 9]
    assert (source.train.X.min(), source.train.X.max()) == (0, 1)
    assert source.train.X.mean(dtype=float) == pytest.approx(0.1307, abs=5e-5)


def test_digits():
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    source = load_dataset("digits")
    assert source.train.X.shape == (1797, 64)
    assert source.train.shape == (1, 8, 8)
    assert source.train.X.dtype == np.float32
    assert (source.train.X.min(), source.train.X.max()) == (0, 1)
    assert source.train.y[:4].tolist() == [0, 1, 2, 3]
    assert source.test is None


@pytest.mark.parametrize("name", ["mnist", "idx"])
def test_images_are_pooled_by_the_mean_of_squares(name, tmp_path, monkeypatch, tiny):
    store(tmp_path, tiny)
    monkeypatch.setenv("MATL_DATA_DIR", str(tmp_path))
    files = dict(zip(("images", "labels", "test_images", "test_labels"), (tmp_path / n for n in NAMES), strict=True))
    spec = {"name": "mnist"} if name == "mnist" else {"name": "idx", **files}
    with pytest.raises(InvalidValueError, match=r"expected pool to divide 4 x 3 pixels of .*, got pool=2"):
        load_dataset({**spec, "pool": 2})
    with pytest.raises(InvalidValueError, match="pool"):
        load_dataset({**spec, "pool": 0})
    source = images.pooled(images.Source(*(images._grey("tiny", TRAIN[:, :, :2], PARTS[1], 10),) * 2), 2)
    assert (source.train.shape, source.train.name) == ((1, 2, 1), "tiny, 2 x 1")
    assert source.test is not None
    np.testing.assert_allclose(source.test.X[3, 1], TRAIN[3, 2:4, :2].mean() / 255, rtol=1e-6)


def test_colours_are_pooled_apart():
    X = np.arange(2 * 3 * 4 * 4, dtype=np.float32).reshape(2, -1)
    source = images.pooled(images.Source(images.Dataset("tiny", X, np.array([0, 1]), 2, shape=(3, 4, 4))), 4)
    assert source.train.shape == (3, 1, 1)
    np.testing.assert_array_equal(source.train.X, X.reshape(2, 3, 16).mean(axis=2))
