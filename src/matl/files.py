"""Files that are either the old version or the new one, never half of one."""

from __future__ import annotations

import errno
import os
import tempfile
from pathlib import Path

from matl.errors import StorageError

__all__ = ["make_directory", "storage_error", "sync_directory", "write_atomic"]


def write_atomic(path: Path, content: bytes | str) -> None:
    """Replace ``path`` by ``content`` in one step.

    The content goes to a temporary file beside ``path``, is flushed to the disk, and takes the name only then:
    a crash or a full disk leaves the old file as it was.

    Raises
    ------
    StorageError
        The disk is full, or the folder cannot be written.
    """
    data = content.encode("utf-8") if isinstance(content, str) else content
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
        temporary = Path(name)
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            temporary.chmod(0o644)
            temporary.replace(path)
        except BaseException:  # a user who interrupts leaves nothing behind either
            temporary.unlink(missing_ok=True)
            raise
    except OSError as error:
        raise storage_error(path, error) from error


def make_directory(path: Path, *, private: bool = False) -> Path:
    """Create ``path`` with its parents and return it.

    Parameters
    ----------
    path : Path
        The folder; one that is there already stays as it is.
    private : bool
        Whether to make it for its owner alone (mode 0700).

    Raises
    ------
    StorageError
        It cannot be created, or a file stands in its place.
    """
    try:
        path.mkdir(0o700 if private else 0o777, parents=True, exist_ok=True)
    except OSError as error:
        raise storage_error(path, error) from error
    return path


def sync_directory(path: Path) -> None:
    """Bring the names of new files in a folder to the disk, which flushing the files alone does not.

    Raises
    ------
    OSError
        The disk does not take it.
    """
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def storage_error(path: Path, error: OSError) -> StorageError:
    """Say in the user's words why ``path`` could not be written."""
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        advice = "the disk is full: free some space, then resume; what was written before is intact"
    elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        advice = "no permission: choose another folder with --out"
    elif error.errno in (errno.EEXIST, errno.ENOTDIR):
        advice = "a file stands where a folder is needed: choose another folder with --out"
    else:
        advice = error.strerror or str(error)
    return StorageError(f"cannot write {path}: {advice}")
