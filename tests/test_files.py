"""Files are replaced whole or not at all, whatever happens in between."""

import errno
import os
from pathlib import Path

import pytest

from matl import files
from matl.errors import StorageError


def test_writes_text_and_bytes_and_replaces(tmp_path):
    path = tmp_path / "a.txt"
    files.write_atomic(path, "grün")
    assert path.read_bytes() == "grün".encode()
    files.write_atomic(path, b"\x00\xff")
    assert path.read_bytes() == b"\x00\xff"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("step", ["fsync", "replace", "chmod"])
@pytest.mark.parametrize(
    ("code", "advice"),
    [
        (errno.ENOSPC, "the disk is full"),
        (errno.EDQUOT, "the disk is full"),
        (errno.EROFS, "no permission"),
        (errno.EIO, "Input/output error"),
    ],
)
def test_a_failure_at_any_step_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch, step, code, advice):
    path = tmp_path / "run.state"
    path.write_bytes(b"old")

    def fail(*args, **kwargs):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os if step == "fsync" else Path, step, fail)
    with pytest.raises(StorageError, match=advice) as caught:
        files.write_atomic(path, b"new" * 100_000)
    monkeypatch.undo()
    assert str(path) in str(caught.value)
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full, the device that is always full")
def test_a_disk_that_is_really_full(tmp_path, monkeypatch):
    path = tmp_path / "run.state"
    path.write_bytes(b"old")
    honest = os.fdopen

    def onto_a_full_device(handle, mode):
        os.close(handle)
        return honest(os.open("/dev/full", os.O_WRONLY), mode)

    monkeypatch.setattr(os, "fdopen", onto_a_full_device)
    with pytest.raises(StorageError, match="the disk is full: free some space"):
        files.write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_an_interrupt_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "run.state"
    path.write_bytes(b"old")

    def interrupt(handle):
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupt)
    with pytest.raises(KeyboardInterrupt):
        files.write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_that_is_missing_or_a_file(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="No such file"):
        files.write_atomic(tmp_path / "missing" / "a", b"")
    with pytest.raises(StorageError, match="a file stands where a folder is needed"):
        files.write_atomic(tmp_path / "file" / "a", b"")


def test_make_directory(tmp_path):
    folder = files.make_directory(tmp_path / "a" / "b")
    assert folder.is_dir()
    assert files.make_directory(folder) == folder
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file", tmp_path / "file" / "a"):
        with pytest.raises(StorageError, match="a file stands where a folder is needed"):
            files.make_directory(path)


def test_the_names_in_a_folder_are_brought_to_the_disk(tmp_path, monkeypatch):
    synced = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_ino))
    files.sync_directory(tmp_path)
    assert synced == [tmp_path.stat().st_ino]
    with pytest.raises(FileNotFoundError):
        files.sync_directory(tmp_path / "none")
