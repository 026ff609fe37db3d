"""Files that are either the old version or the new one, never half of one, and files that hold a secret."""

from __future__ import annotations

import errno
import os
import stat
import tempfile
from pathlib import Path

from matl.errors import StateError, StorageError

__all__ = ["make_directory", "read_private", "storage_error", "sync_directory", "write_atomic"]


def write_atomic(path: Path, content: bytes | str, *, mode: int = 0o644) -> None:
    """Replace ``path`` by ``content`` in one step; when this returns, that survives a power cut.

    The content goes to a temporary file beside ``path``, is flushed to the disk, and takes the name only then:
    a crash or a full disk leaves the old file as it was.

    Parameters
    ----------
    path : Path
        The file.
    content : bytes or str
        What it is to hold.
    mode : int
        Who may read it; at no time may anybody else.

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
            temporary.chmod(mode)
            temporary.replace(path)
        except BaseException:  # a user who interrupts leaves nothing behind either
            temporary.unlink(missing_ok=True)
            raise
        sync_directory(path.parent)
    except OSError as error:
        raise storage_error(path, error) from error


def read_private(path: Path, most: int, *, given: bool = False) -> bytes:
    """The content of a file that holds a secret, if nobody else can read it.

    Parameters
    ----------
    path : Path
        The file.
    most : int
        Bytes that it may have.
    given : bool
        Whether somebody may have given it to this user, as tokens are. It may then be another user's, with a group that
        reads it, or a pipe; else it is a file of this user or root, of mode 0600 or less.

    Raises
    ------
    OSError
        It cannot be opened or read.
    StateError
        Others can read it, it is longer, or it is no file.
    """
    # Only a gift is waited for, lest a pipe in the place of a key stops everything.
    descriptor = os.open(path, os.O_RDONLY | (0 if given else os.O_NONBLOCK))
    try:
        status = os.fstat(descriptor)  # of what is read, whatever takes its name meanwhile
        mode, owner, user = stat.S_IMODE(status.st_mode), status.st_uid, os.geteuid()
        if not (stat.S_ISREG(status.st_mode) or (given and stat.S_ISFIFO(status.st_mode))):
            raise StateError(f"{path} is no file")
        # A secret that is mounted into a container is root's, and read by group (0440); an operator's group may be let
        # read a token; and root reads everybody's. What all the world can read is no secret, whosever it is.
        foreign = given and (owner != user or owner == 0)
        if mode & (0o007 if foreign else 0o077) or not (given or owner in (0, user)):
            raise StateError(
                f"{path} can be read by others: it has mode {mode:04o} and owner {owner}, and this is user {user}; "
                f"chmod {'o=' if foreign else '600'} it, and replace the secret if somebody may have read it"
            )
        with os.fdopen(descriptor, "rb", closefd=False) as stream:
            content = stream.read(most + 1)
    finally:
        os.close(descriptor)
    if len(content) > most:
        raise StateError(f"{path} is longer than {most} bytes, and so is not what it should hold")
    return content


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
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # some network disks do that by themselves, or never
            raise
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
