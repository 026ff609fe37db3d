"""Where files are looked for, and what is said when they are damaged, missing, or nowhere to be had."""

import gzip
import hashlib
import http.client
import sys

import pytest

from matl.errors import CorruptDataError, DataNotFoundError, MissingExtraError
from matl.learning.datasets import cache_directory, files, load_dataset

CONTENT = b"what was published"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


def test_the_cache_is_in_the_home_folder_by_default(monkeypatch, tmp_path):
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_directory() == tmp_path / ".cache" / "matl"


def test_the_users_own_folder_comes_first(monkeypatch, tmp_path):
    places = ["own/set", "own", "cache/matl/set", "cache/matl"]
    for place in places:
        (tmp_path / place).mkdir(parents=True, exist_ok=True)
        (tmp_path / place / "a.bin").write_bytes(b"")
    monkeypatch.setenv("MATL_DATA_DIR", str(tmp_path / "own"))
    for place in places:
        path = tmp_path / place / "a.bin"
        assert files.find(["a.bin"], ("set", ".")) == [path]
        path.unlink()
    assert files.find(["a.bin"], ("set", ".")) is None


def test_packed_files_are_found_too_and_a_set_must_be_whole(tmp_path):
    folder = tmp_path / "cache/matl/set"
    folder.mkdir(parents=True)
    (folder / "a.bin.gz").write_bytes(gzip.compress(CONTENT))
    assert files.find(["a.bin", "b.bin"], ("set",)) is None
    (path,) = files.find(["a.bin"], ("set",))
    assert files.read_checked(path, SHA256) == CONTENT


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a", b"\x00\x00\x08\x01", "is damaged: SHA-256"),
        ("a.gz", b"this is not gzip", "cannot read"),
        ("a.gz", gzip.compress(b"x" * 1000)[:-9], "cannot read"),
        ("a.gz", gzip.compress(b"x" * 1000)[:12] + b"\xff" * 30, "cannot read"),
        ("a.gz", gzip.compress(b"another file"), "is damaged: SHA-256"),
    ],
    ids=["plain", "no gzip", "cut", "garbled", "other content"],
)
def test_damaged_files_are_named(tmp_path, name, content, message):
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(CorruptDataError, match=message) as caught:
        files.read_checked(path, SHA256)
    assert str(path) in str(caught.value)
    assert "delete it and fetch it again" in str(caught.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(DataNotFoundError, match=r"nowhere.csv is not there; name an existing file"):
        files.read(tmp_path / "nowhere.csv")
    with pytest.raises(DataNotFoundError):
        files.read(tmp_path)


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
@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("mnist", ["train-images-idx3-ubyte", "t10k-labels-idx1-ubyte"]),
        ("cifar10", ["data_batch_5.bin", "test_batch.bin", "train.parquet"]),
        ("adult", ["adult.data", "adult.test"]),
        ("credit_default", ["credit_default.csv"]),
    ],
)
def test_offline_the_message_says_which_files_go_where(openml, tmp_path, name, wanted, failure):
    openml(failure)
    with pytest.raises(DataNotFoundError) as caught:
        load_dataset(name)
    for part in (*wanted, str(tmp_path / "cache/matl" / name), "MATL_DATA_DIR", str(failure)):
        assert part in str(caught.value)


@pytest.mark.parametrize("spec", ["digits", "mnist", "adult", {"name": "sklearn", "loader": "iris"}])
def test_without_scikit_learn_the_message_says_what_to_install(monkeypatch, spec):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'matl\[sim\]'"):
        load_dataset(spec)
