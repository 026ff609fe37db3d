"""The results of a matrix as they come: a line of JSON per cell, which is also all that is needed to go on."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from matl.errors import StateError
from matl.files import storage_error

__all__ = ["JOURNAL", "Journal", "read_rows"]

JOURNAL = "cells.jsonl"
"""The file's name in the folder of a matrix."""


class Journal:
    """Appends the rows of cells to a file, each whole or not at all; one process at a time.

    Parameters
    ----------
    folder : Path
        Where the file lies.

    Raises
    ------
    StateError
        Another process writes to it, or it is damaged elsewhere than at its end.
    StorageError
        It cannot be written.
    """

    def __init__(self, folder: Path) -> None:
        self.path = folder / JOURNAL
        try:
            self._stream = self.path.open("a+b")
        except OSError as error:
            raise storage_error(self.path, error) from error
        try:
            fcntl.flock(self._stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            self._stream.close()
            raise StateError(f"{folder} is being worked on by another process; wait for it, or stop it") from error
        try:
            self.rows = read_rows(folder)
        except StateError:
            self._stream.close()
            raise
        self._cut()

    def append(self, row: Mapping[str, Any]) -> None:
        """Write a row; it is on the disk when this returns."""
        try:
            self._stream.write(json.dumps(row, allow_nan=False, separators=(",", ":")).encode() + b"\n")
            self._stream.flush()
            os.fsync(self._stream.fileno())
        except OSError as error:
            raise storage_error(self.path, error) from error
        self.rows.append(dict(row))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.close()  # which gives the lock back

    def _cut(self) -> None:
        """Cut off half a line that a process left behind when it was killed."""
        content = self.path.read_bytes()
        os.truncate(self.path, content.rfind(b"\n") + 1)


def read_rows(folder: Path) -> list[dict[str, Any]]:
    """The rows of a journal; half a line at its end does not count.

    Raises
    ------
    StateError
        There is none, or it is damaged elsewhere than at its end.
    """
    path = folder / JOURNAL
    try:
        lines = path.read_bytes().split(b"\n")[:-1]
        rows = [json.loads(line) for line in lines]
    except (OSError, ValueError) as error:
        raise StateError(f"{path} cannot be read: {error}; start the matrix anew in another folder") from error
    if not all(isinstance(row, dict) and isinstance(row.get("cell"), str) for row in rows):
        raise StateError(f"{path} holds lines that are no results of cells; start the matrix anew in another folder")
    return rows
