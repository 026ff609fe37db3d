"""Answers on a disk: what was judged once is not judged again."""

from __future__ import annotations

import re
from pathlib import Path

from matl import validate
from matl.files import make_directory, storage_error, write_atomic

__all__ = ["Answers"]


class Answers:
    """Files of answers, by the digest of their request. The oldest go when there are too many.

    A file is worth what its signature and evidence are: who reads it checks them.

    Parameters
    ----------
    folder : Path
        Where they are; its owner alone can read it.
    most : int
        How many are kept.
    """

    def __init__(self, folder: Path, most: int = 64) -> None:
        validate.whole(1, most=most)
        self._folder, self._most = make_directory(folder), most
        folder.chmod(0o700)

    def get(self, digest: str) -> bytes | None:
        """The answer to a request, if it is still there."""
        if not re.fullmatch("[0-9a-f]{64}", digest):
            return None
        try:
            return self._path(digest).read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            raise storage_error(self._path(digest), error) from error

    def put(self, digest: str, answer: bytes) -> None:
        """Keep an answer.

        Raises
        ------
        StorageError
            It cannot be written.
        """
        write_atomic(self._path(digest), answer)
        kept = sorted(self._folder.glob("*.answer"), key=lambda path: (path.stat().st_mtime_ns, path.name))
        for path in kept[: -self._most]:
            path.unlink()

    def _path(self, digest: str) -> Path:
        return self._folder / f"{digest}.answer"
