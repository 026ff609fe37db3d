"""Where blobs lie: a folder of this machine, or a bucket behind fsspec. Calls block; `Blobs` makes them in threads."""

from __future__ import annotations

import hashlib
import os
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from matl.files import make_directory, sync_directory

__all__ = ["PIECE", "Bucket", "Folder", "Place", "Writing"]

PIECE = 1 << 20
"""Bytes that are read or written at once."""
_MODE = 0o600  # updates are in the clear, and their owner's
_LEFT_BEHIND = 7 * 86_400  # seconds after which what is not whole belongs to nobody; no upload takes as long
_MOST_PIECES = 10_000  # of an upload to a bucket


class Writing(Protocol):
    """Something that is being written, and is not there yet."""

    def write(self, data: bytes) -> None:
        """Add to it."""

    def keep(self, name: str) -> None:
        """Bring it to the disk, under its name."""

    def drop(self) -> None:
        """Leave it; after `keep` nothing happens."""


class Place(Protocol):
    """What both offer. Names are checked by the caller. A file that is not there is a `FileNotFoundError`."""

    def begin(self) -> Writing:
        """Write a blob, which is kept under its SHA-256."""

    def begin_piece(self, upload: str, offset: int) -> Writing:
        """Write a piece of an upload, which is kept under the upload's id. What lies behind the offset is lost."""

    def join(self, upload: str, sha256: str) -> str:
        """Make an upload a blob if it has this SHA-256; the one that it has."""

    def discard(self, upload: str) -> None:
        """Delete an upload, if it is there."""

    def read(self, sha256: str, start: int, stop: int) -> bytes:
        """Bytes of a blob."""

    def size(self, sha256: str) -> int:
        """Bytes of a blob."""

    def delete(self, sha256: str) -> None:
        """Delete a blob, if it is there."""

    def path(self, sha256: str) -> Path | None:
        """A blob as a file of this machine."""

    def is_there(self) -> bool:
        """Whether the place itself is there, when something in it is not."""


class Folder:
    """A folder: ``aa/<sha256>``, ``uploads/<id>``, and ``new/`` for what is not finished.

    Parameters
    ----------
    root : Path
        Created where it is missing.
    """

    def __init__(self, root: Path) -> None:
        self._root = root
        self._new, self._uploads = (make_directory(root / name) for name in ("new", "uploads"))
        for path in (*self._new.iterdir(), *self._uploads.iterdir()):
            if path.stat().st_mtime < time.time() - _LEFT_BEHIND:
                path.unlink(missing_ok=True)

    def begin(self) -> Writing:
        """Write a blob."""
        path = self._new / uuid.uuid4().hex
        return _File(path, os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, _MODE), "wb"), self.path)

    def begin_piece(self, upload: str, offset: int) -> Writing:
        """Write a piece of an upload."""
        path = self._uploads / upload
        stream = os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, _MODE), "r+b")
        try:
            there = os.fstat(stream.fileno()).st_size
            if there < offset:
                raise FileNotFoundError(f"upload {upload} has {there} bytes, and goes on at {offset}")
            stream.truncate(offset)
            stream.seek(offset)
        except BaseException:
            stream.close()
            raise
        return _Piece(stream, self._uploads)

    def join(self, upload: str, sha256: str) -> str:
        """Make an upload a blob."""
        path = self._uploads / upload
        with path.open("rb") as stream:
            actual = hashlib.file_digest(stream, "sha256").hexdigest()
        if actual == sha256:
            _rename(path, self.path(sha256))
        return actual

    def discard(self, upload: str) -> None:
        """Delete an upload."""
        (self._uploads / upload).unlink(missing_ok=True)

    def read(self, sha256: str, start: int, stop: int) -> bytes:
        """Bytes of a blob."""
        with self.path(sha256).open("rb") as stream:
            stream.seek(start)
            return stream.read(stop - start)

    def size(self, sha256: str) -> int:
        """How many bytes a blob has."""
        return self.path(sha256).stat().st_size

    def delete(self, sha256: str) -> None:
        """Delete a blob."""
        self.path(sha256).unlink(missing_ok=True)

    def path(self, sha256: str) -> Path:
        """Where a blob lies."""
        return self._root / sha256[:2] / sha256

    def is_there(self) -> bool:
        """Whether the folder is; without a disk it may still be, and be empty."""
        return self._new.is_dir()


class _File:
    def __init__(self, path: Path, stream: BinaryIO, place: Any) -> None:
        self._path, self._stream, self._place = path, stream, place

    def write(self, data: bytes) -> None:
        self._stream.write(data)

    def keep(self, name: str) -> None:
        self._stream.flush()
        os.fsync(self._stream.fileno())
        self._stream.close()
        _rename(self._path, self._place(name))

    def drop(self) -> None:
        _close(self._stream)
        self._path.unlink(missing_ok=True)


class _Piece:
    def __init__(self, stream: BinaryIO, folder: Path) -> None:
        self._stream, self._folder = stream, folder

    def write(self, data: bytes) -> None:
        self._stream.write(data)

    def keep(self, name: str) -> None:
        self._stream.flush()
        os.fsync(self._stream.fileno())
        self._stream.close()
        sync_directory(self._folder)

    def drop(self) -> None:
        _close(self._stream)


class Bucket:
    """Objects of a file system of fsspec: ``aa/<sha256>``, and ``uploads/<id>/<offset>`` for pieces.

    What is not finished lies under ``new/`` and is moved then, since an object may be visible before it is whole.

    Parameters
    ----------
    system : fsspec.AbstractFileSystem
        Which.
    root : str
        Prefix of all names.
    """

    def __init__(self, system: Any, root: str) -> None:
        self._system, self._root = system, root.rstrip("/")

    def begin(self) -> Writing:
        """Write a blob."""
        return _Object(self._system, self._name("new", uuid.uuid4().hex), self._blob)

    def begin_piece(self, upload: str, offset: int) -> Writing:
        """Write a piece of an upload."""
        folder = self._name("uploads", upload)
        pieces = self._system.ls(folder, detail=False) if self._system.exists(folder) else []
        if len(pieces) >= _MOST_PIECES:
            raise OSError(f"an upload has at most {_MOST_PIECES} pieces; send larger ones")
        final = self._piece(upload, offset)
        return _Object(self._system, self._name("new", uuid.uuid4().hex), lambda name: final)

    def join(self, upload: str, sha256: str) -> str:
        """Make an upload a blob."""
        if not self._system.exists(self._piece(upload, 0)):
            raise FileNotFoundError(f"there is no upload {upload}")
        hasher, new = hashlib.sha256(), self.begin()
        try:
            for data in self._pieces(upload):
                hasher.update(data)
                new.write(data)
            if hasher.hexdigest() == sha256:
                new.keep(sha256)
                self.discard(upload)
        finally:
            new.drop()
        return hasher.hexdigest()

    def discard(self, upload: str) -> None:
        """Delete an upload."""
        folder = self._name("uploads", upload)
        if self._system.exists(folder):
            self._system.rm(folder, recursive=True)

    def read(self, sha256: str, start: int, stop: int) -> bytes:
        """Bytes of a blob."""
        data: bytes = self._system.cat_file(self._blob(sha256), start=start, end=stop)
        return data

    def size(self, sha256: str) -> int:
        """How many bytes a blob has."""
        self._system.invalidate_cache()
        return int(self._system.size(self._blob(sha256)))

    def delete(self, sha256: str) -> None:
        """Delete a blob."""
        if self._system.exists(self._blob(sha256)):
            self._system.rm_file(self._blob(sha256))

    def path(self, sha256: str) -> None:
        """Where a blob lies."""
        return

    def is_there(self) -> bool:
        """Whether the store is: a store that is out of reach says so by another error."""
        return True

    def _pieces(self, upload: str) -> Iterator[bytes]:
        """An upload's bytes. A piece that was begun and not acknowledged lies at an offset where none ends."""
        offset = 0
        while self._system.exists(name := self._piece(upload, offset)):
            with self._system.open(name, "rb") as stream:
                before = offset
                while data := stream.read(PIECE):
                    offset += len(data)
                    yield data
            if offset == before:
                return

    def _piece(self, upload: str, offset: int) -> str:
        return self._name("uploads", upload, f"{offset:020d}")

    def _blob(self, sha256: str) -> str:
        return self._name(sha256[:2], sha256)

    def _name(self, *parts: str) -> str:
        return "/".join([self._root, *parts])


class _Object:
    def __init__(self, system: Any, name: str, place: Any) -> None:
        self._system, self._name, self._place = system, name, place
        system.makedirs(name.rpartition("/")[0], exist_ok=True)
        self._stream = system.open(name, "wb")

    def write(self, data: bytes) -> None:
        self._stream.write(data)

    def keep(self, name: str) -> None:
        self._stream.close()
        final = self._place(name)
        self._system.makedirs(final.rpartition("/")[0], exist_ok=True)
        self._system.mv(self._name, final)

    def drop(self) -> None:
        _close(self._stream)
        if self._system.exists(self._name):
            self._system.rm_file(self._name)


def _close(stream: Any) -> None:
    """Close a file that nobody wants; on a full disk that fails once more, and it is closed all the same."""
    with suppress(OSError):
        stream.close()


def _rename(path: Path, final: Path) -> None:
    if not final.parent.exists():
        final.parent.mkdir(exist_ok=True)  # and none above it: where the disk is gone, nothing takes its place
        sync_directory(final.parent.parent)
    path.replace(final)
    sync_directory(final.parent)
