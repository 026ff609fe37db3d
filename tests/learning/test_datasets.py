"""Loading data: MNIST from IDX files, plain, compressed, damaged, missing, downloaded."""

import gzip
import hashlib
import http.client
import os
import sys
from types import SimpleNamespace

import numpy as np
import pytest

from matl.errors import CorruptDataError, DataNotFoundError, InvalidValueError, MissingExtraError
from matl.learning import datasets
from matl.learning.datasets import Dataset, load_dataset

NAMES = list(datasets._MNIST_FILES)
TRAIN = np.arange(7 * 4 * 3, dtype=np.uint8).reshape(7, 4, 3)
TEST = 255 - TRAIN[:2]
PARTS = [TRAIN, np.array([0, 1, 2, 3, 4, 5, 9], np.uint8), TEST, np.array([8, 7], np.uint8)]


def idx(array):
    """The IDX format as its specification writes it."""
    sizes = b"".join(size.to_bytes(4, "big") for size in array.shape)
    return bytes([0, 0, 0x08, array.ndim]) + sizes + array.tobytes()


@pytest.fixture
def tiny(tmp_path, monkeypatch):
    """Folders of our own, and the checksums of four tiny files in place of the real ones."""
    contents = {name: idx(part) for name, part in zip(NAMES, PARTS, strict=True)}
    monkeypatch.setattr(datasets, "_MNIST_FILES", {name: hashlib.sha256(c).hexdigest() for name, c in contents.items()})
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("MATL_DATA_DIR", raising=False)

    def no_network():
        raise AssertionError("the test reached for the network")

    monkeypatch.setattr(datasets, "_sklearn_datasets", no_network)
    return contents


def store(folder, contents, *, compress=False):
    folder.mkdir(parents=True)
    for name, content in contents.items():
        (folder / (f"{name}.gz" if compress else name)).write_bytes(gzip.compress(content) if compress else content)


def assert_tiny(source):
    np.testing.assert_array_equal(source.train.X, TRAIN.reshape(7, 12).astype(np.float32) / np.float32(255))
    np.testing.assert_array_equal(source.test.X, TEST.reshape(2, 12).astype(np.float32) / np.float32(255))
    assert source.train.y.tolist() == PARTS[1].tolist()
    assert source.test.y.tolist() == [8, 7]
    assert source.train.X.dtype == np.float32
    assert source.train.y.dtype == np.int64
    assert source.train.image_shape == (4, 3)


@pytest.mark.parametrize("compress", [False, True], ids=["plain", "gz"])
@pytest.mark.parametrize("place", ["cache/matl", "cache/matl/mnist", "own", "own/mnist"])
def test_files_are_found_where_the_documentation_says(tiny, tmp_path, monkeypatch, compress, place):
    if place.startswith("own"):
        monkeypatch.setenv("MATL_DATA_DIR", str(tmp_path / "own"))
    store(tmp_path / place, tiny, compress=compress)
    assert_tiny(load_dataset("mnist"))


def test_the_users_own_folder_comes_first(tiny, tmp_path, monkeypatch):
    store(tmp_path / "cache/matl", dict.fromkeys(tiny, b"damaged"))
    store(tmp_path / "own", tiny)
    monkeypatch.setenv("MATL_DATA_DIR", str(tmp_path / "own"))
    assert_tiny(load_dataset("mnist"))


def test_the_cache_is_in_the_home_folder_by_default(monkeypatch, tmp_path):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert datasets.cache_directory() == tmp_path / ".cache" / "matl"


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        (NAMES[0], b"\x00\x00\x08\x01", "is damaged: SHA-256"),
        (f"{NAMES[0]}.gz", b"this is not gzip", "cannot read"),
        (f"{NAMES[0]}.gz", gzip.compress(b"x" * 1000)[:-9], "cannot read"),
        (f"{NAMES[0]}.gz", gzip.compress(b"x" * 1000)[:12] + b"\xff" * 30, "cannot read"),
        (f"{NAMES[0]}.gz", gzip.compress(b"another file"), "is damaged: SHA-256"),
    ],
    ids=["plain", "no gzip", "cut", "garbled", "other content"],
)
def test_damaged_files_are_named(tiny, tmp_path, name, content, message):
    store(tmp_path / "cache/matl", tiny)
    (tmp_path / "cache/matl" / NAMES[0]).unlink()
    path = tmp_path / "cache/matl" / name
    path.write_bytes(content)
    with pytest.raises(CorruptDataError, match=message) as caught:
        load_dataset("mnist")
    assert str(path) in str(caught.value)
    assert "delete it and fetch it again" in str(caught.value)


@pytest.mark.parametrize(
    "failure",
    [
        OSError("no route to host"),
        ValueError("Dataset 554 not found"),
        http.client.IncompleteRead(b"half"),
        EOFError("Compressed file ended"),
    ],
    ids=lambda error: type(error).__name__,
)
def test_offline_the_message_says_which_files_go_where(tiny, tmp_path, monkeypatch, failure):
    def fetch_openml(**kwargs):
        raise failure

    monkeypatch.setattr(datasets, "_sklearn_datasets", lambda: SimpleNamespace(fetch_openml=fetch_openml))
    with pytest.raises(DataNotFoundError) as caught:
        load_dataset("mnist")
    message = str(caught.value)
    for wanted in (*NAMES, str(tmp_path / "cache/matl/mnist"), "MATL_DATA_DIR", str(failure)):
        assert wanted in message


def test_a_download_is_stored_as_the_published_files(tmp_path, monkeypatch):
    """The fake answer has the real one's shape: 70,000 float rows, training first, labels as text."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    images = np.zeros((70_000, 784), np.float16)  # holds 0..255 exactly, in a quarter of the memory
    images[:, 0] = np.arange(70_000) % 256
    labels = (np.arange(70_000) % 10).astype(str).astype(object)
    asked = []

    def fetch(**kwargs):
        asked.append(kwargs["data_id"])
        return SimpleNamespace(data=images, target=labels)

    datasets._download_mnist(fetch)
    assert asked == [554]
    assert sorted(path.name for path in (tmp_path / "matl/mnist").iterdir()) == sorted(NAMES)
    train_x, train_y, test_x, test_y = ((tmp_path / "matl/mnist" / name).read_bytes() for name in NAMES)
    assert train_x == idx(images[:60_000].astype(np.uint8).reshape(-1, 28, 28))
    assert test_x[:16] == bytes.fromhex("00000803 00002710 0000001c 0000001c")
    assert train_y[:8] == bytes.fromhex("00000801 0000ea60")
    assert test_y == idx((np.arange(60_000, 70_000) % 10).astype(np.uint8))
    # What was downloaded is not what was published, and is refused on the spot.
    with pytest.raises(CorruptDataError, match="is damaged"):
        load_dataset("mnist")


def test_a_download_is_used_at_once(tiny, tmp_path, monkeypatch):
    asked = []

    def download():
        asked.append(1)
        store(tmp_path / "cache/matl/mnist", tiny)

    monkeypatch.setattr(datasets, "_download_mnist", download)
    assert_tiny(load_dataset("mnist"))
    assert asked == [1]


def test_without_scikit_learn_the_message_says_what_to_install(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    monkeypatch.delenv("MATL_DATA_DIR", raising=False)
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    for name in ("digits", "mnist"):
        with pytest.raises(MissingExtraError, match=r"pip install 'matl\[sim\]'"):
            load_dataset(name)


@pytest.mark.skipif("MATL_DATA_DIR" not in os.environ, reason="needs the real MNIST files in MATL_DATA_DIR")
def test_real_mnist(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    source = load_dataset("mnist")
    assert source.train.X.shape == (60_000, 784)
    assert source.test.X.shape == (10_000, 784)
    assert source.train.class_counts().tolist() == [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]
    assert source.train.y[:5].tolist() == [5, 0, 4, 1, 9]
    assert (source.train.X.min(), source.train.X.max()) == (0, 1)


def test_digits():
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    source = load_dataset("digits")
    assert source.train.X.shape == (1797, 64)
    assert source.train.X.dtype == np.float32
    assert (source.train.X.min(), source.train.X.max()) == (0, 1)
    assert source.train.y[:4].tolist() == [0, 1, 2, 3]
    assert source.test is None


def test_synthetic_is_the_same_everywhere():
    first, second = load_dataset("synthetic").train, load_dataset("synthetic").train
    np.testing.assert_array_equal(first.X, second.X)
    assert first.class_counts().tolist() == [400] * 10
    assert first.X.shape == (4000, 20)


def small():
    return Dataset("small", np.arange(6, dtype=np.float32).reshape(3, 2), np.array([0, 2, 2]), 4, (1, 2))


def test_take_and_counts():
    data = small()
    assert len(data) == 3
    assert data.class_counts().tolist() == [1, 0, 2, 0]
    part = data.take(np.array([2, 0]))
    assert part.X.tolist() == [[4, 5], [0, 1]]
    assert part.y.tolist() == [2, 0]
    assert (part.name, part.num_classes, part.image_shape) == ("small", 4, (1, 2))


@pytest.mark.parametrize(
    ("X", "y", "message"),
    [
        (np.zeros((2, 2)), np.array([0]), "one label per sample, got 2 samples"),
        (np.zeros((1, 2)), np.array([-1]), "expected labels 0 to 1, got -1 to -1 in bad"),
        (np.zeros((1, 2)), np.array([2]), "got 2 to 2"),
        (np.array([[np.nan]]), np.array([0]), r"row\(s\) \[0\]"),
        (np.zeros((0, 2)), np.array([], int), "shape"),
    ],
)
def test_data_sets_that_cannot_be(X, y, message):
    with pytest.raises(InvalidValueError, match=message):
        Dataset("bad", X, y, 2)
