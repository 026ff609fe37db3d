"""Files are replaced whole or not at all, whatever happens in between."""

import errno
import os
import stat
import threading
from pathlib import Path

import pytest

from matl import files
from matl.errors import StateError, StorageError


def test_writes_text_and_bytes_and_replaces(tmp_path):
    path = tmp_path / "a.txt"
    files.write_atomic(path, "grün")
    assert path.read_bytes() == "grün".encode()
    files.write_atomic(path, b"\x00\xff")
    assert path.read_bytes() == b"\x00\xff"
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize(("options", "mode"), [({}, 0o644), ({"mode": 0o600}, 0o600)])
def test_who_may_read_it(tmp_path, options, mode):
    path = tmp_path / "a.txt"
    path.touch(0o666)
    files.write_atomic(path, "new", **options)
    assert stat.S_IMODE(path.stat().st_mode) == mode


def test_the_new_name_is_on_the_disk_when_it_is_written(tmp_path, monkeypatch):
    path, synced = tmp_path / "a.txt", []

    def fsync(descriptor):
        synced.append((os.fstat(descriptor).st_ino, path.exists()))

    monkeypatch.setattr(os, "fsync", fsync)
    files.write_atomic(path, "new")
    assert synced == [(path.stat().st_ino, False), (tmp_path.stat().st_ino, True)]


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


def test_a_disk_that_cannot_flush_folders_is_taken_as_it_is(tmp_path, monkeypatch):
    def fail(code):
        def fsync(_):
            raise OSError(code, os.strerror(code))

        return fsync

    for code in (errno.EINVAL, errno.ENOTSUP):
        monkeypatch.setattr(os, "fsync", fail(code))
        files.sync_directory(tmp_path)
    monkeypatch.setattr(os, "fsync", fail(errno.EIO))
    with pytest.raises(OSError, match="Input/output error"):
        files.sync_directory(tmp_path)


# Secrets


@pytest.fixture
def secret(tmp_path):
    path = tmp_path / "secret"
    files.write_atomic(path, b"secret", mode=0o600)
    return path


def owned_by(monkeypatch, owner):
    """Let files be another user's."""
    fstat = os.fstat

    def changed(descriptor):
        found = list(fstat(descriptor))
        found[4] = owner
        return os.stat_result(found)

    monkeypatch.setattr(os, "fstat", changed)


@pytest.mark.parametrize("given", [False, True])
@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o644, 0o610])
def test_a_secret_that_others_can_read_is_none(secret, monkeypatch, mode, given):
    monkeypatch.setattr(os, "geteuid", lambda: 1000)
    owned_by(monkeypatch, 1000)
    assert files.read_private(secret, 6, given=given) == b"secret"
    secret.chmod(mode)
    with pytest.raises(StateError, match=f"can be read by others: it has mode {mode:04o} and owner .*; chmod 600 it"):
        files.read_private(secret, 6, given=given)


@pytest.mark.parametrize("mode", [0o600, 0o440, 0o444])
@pytest.mark.parametrize(("owner", "user"), [(1001, 1000), (0, 1000), (0, 0)])
def test_only_tokens_are_taken_from_another_user_and_none_that_all_can_read(secret, monkeypatch, mode, owner, user):
    """What is mounted into a container is root's, whoever runs there, and may be its group's."""
    secret.chmod(mode)
    monkeypatch.setattr(os, "geteuid", lambda: user)
    owned_by(monkeypatch, owner)
    if mode == 0o444:
        with pytest.raises(StateError, match=rf"mode 0444 and owner {owner}, and this is user {user}; chmod o= it"):
            files.read_private(secret, 6, given=True)
    else:
        assert files.read_private(secret, 6, given=True) == b"secret"
    if owner == 0 and mode == 0o600:
        assert files.read_private(secret, 6) == b"secret"
    else:
        with pytest.raises(StateError, match="can be read by others"):
            files.read_private(secret, 6)


def test_a_secret_is_short_and_a_file(tmp_path, secret):
    with pytest.raises(StateError, match="is longer than 5 bytes"):
        files.read_private(secret, 5)
    with pytest.raises(FileNotFoundError):
        files.read_private(tmp_path / "none", 5)
    for given in (False, True):
        with pytest.raises(StateError, match="is no file"):
            files.read_private(tmp_path, 5, given=given)


def test_a_token_may_come_through_a_pipe(tmp_path):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe, 0o600)
    with pytest.raises(StateError, match="is no file"):  # and is not waited for
        files.read_private(pipe, 6)
    writer = threading.Thread(target=lambda: pipe.write_bytes(b"secret"))
    writer.start()
    assert files.read_private(pipe, 6, given=True) == b"secret"
    writer.join()
