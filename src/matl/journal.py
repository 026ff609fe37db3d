"""An append-only file that is on the disk before anybody acts on it: every record chained to all before it.

A line is ``<sha256> <json>``, the hash being that of the hash before and this line's JSON. A second file, the head,
tells how many records there are and the last hash. It is replaced after every record, so that a journal that ends
before its head was cut off or rolled back, and one without its head, or a head without its journal, lost a part.

What cannot be seen from the inside: both files put back together as they were before, as by a restored backup or a
virtual machine's snapshot, or both deleted. Only a witness elsewhere helps, who remembers a `Head`.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, NamedTuple, Self

from matl.errors import StateError, StorageError
from matl.files import storage_error, sync_directory, write_atomic

__all__ = ["BUDGET", "Head", "Journal", "read_journal"]

_LONGEST = 1 << 20  # bytes of a line
_LARGEST = 1 << 30  # bytes of a file
_HASH = 64  # hexadecimal digits
BUDGET = "put the file back as it was, or take the worst of what it counted (all of a budget is spent) and begin anew"
"""What to do about a lost or damaged journal that counts what is used up."""


class Head(NamedTuple):
    """How many records a journal has, and the hash of the last, which stands for all of them."""

    records: int
    chain: str


class Journal:
    """Appends records to a file, each on the disk before `append` returns; one process at a time.

    Use `create` or `open`, and close it, or use it in a ``with`` statement. A last record that a crash left incomplete
    was never acknowledged: it is cut off when the journal is opened, and ``{"torn": its bytes}`` takes its place.

    Attributes
    ----------
    path : Path
        The file; its head lies beside it, with the suffix ``.head``.
    records : list of dict
        All records, the first being what `create` was given.

    Examples
    --------
    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> path = Path(folder.name) / "sent.journal"
    >>> with Journal.create(path, {"kind": "example"}) as journal:
    ...     journal.append({"round": 1})
    >>> with Journal.open(path) as journal:
    ...     journal.records
    [{'kind': 'example'}, {'round': 1}]
    >>> path.unlink()
    >>> Journal.open(path)
    Traceback (most recent call last):
        ...
    matl.errors.StateError: .../sent.journal is lost: its head is there, with 2 records; ...
    >>> folder.cleanup()
    """

    def __init__(self, path: Path, descriptor: int, advice: str = BUDGET) -> None:
        self.path, self.records = path, list[dict[str, Any]]()
        self._advice = advice
        self._chain, self._size = "0" * _HASH, 0
        self._refused = ""  # chain of the record that could not be written, which may be there all the same
        self._descriptor, self._owner = descriptor, os.getpid()

    @classmethod
    def create(cls, path: Path, first: Mapping[str, Any], *, advice: str = BUDGET) -> Journal:
        """Begin a journal, with a first record that says what it is; ``advice`` is that of `open`.

        Raises
        ------
        StateError
            There is one, or what is left of one.
        StorageError
            It cannot be written.
        """
        for trace in (path, _head_path(path)):
            if trace.exists():
                raise StateError(f"{trace} is there already: open the journal instead, or choose another name")
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_EXCL, 0o600)
        except OSError as error:
            raise storage_error(path, error) from error
        journal = cls(path, descriptor, advice)
        try:
            journal._lock()
            journal.append(first)
            sync_directory(path.parent)
        except BaseException:  # nothing rests on it yet
            journal.close()
            path.unlink(missing_ok=True)
            _head_path(path).unlink(missing_ok=True)
            raise
        return journal

    @classmethod
    def open(cls, path: Path, witness: Head | None = None, *, advice: str = BUDGET) -> Journal:
        """Go on with a journal.

        Parameters
        ----------
        path : Path
            The file.
        witness : Head, optional
            What somebody else remembers of it; it has to be this or a later state of the same journal.
        advice : str
            What messages tell to do where it was lost or damaged.

        Raises
        ------
        StateError
            It was lost, cut off, rolled back or changed, as far as that can be seen, or another process uses it.
        StorageError
            It cannot be written.
        """
        head = _read_head(path, advice)
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_APPEND)
        except FileNotFoundError as error:
            raise StateError(f"{path} is lost: its head is there, with {head.records} records; {advice}") from error
        except OSError as error:
            raise storage_error(path, error) from error
        journal = cls(path, descriptor, advice)
        try:
            journal._lock()
            if torn := journal._load([head] if witness is None else [head, witness]):
                os.ftruncate(descriptor, journal._size)
                journal.append({"torn": len(torn)})
        except BaseException:
            journal.close()
            raise
        return journal

    @property
    def head(self) -> Head:
        """What a witness should remember."""
        return Head(len(self.records), self._chain)

    def append(self, record: Mapping[str, Any]) -> None:
        """Write a record; it is on the disk when this returns.

        Raises
        ------
        StateError
            The file was changed meanwhile, or this is a copy of the process that opened it.
        StorageError
            It cannot be written. The journal is then closed; the record may be there when it is opened again, and is
            not after `reopen`.
        """
        text = json.dumps(dict(record), sort_keys=True, separators=(",", ":"), allow_nan=False)
        chain = _chained(self._chain, text)
        line = f"{chain} {text}\n".encode()
        if len(line) > _LONGEST or self._size + len(line) > _LARGEST:
            raise StateError(f"expected records of up to {_LONGEST} bytes in {_LARGEST} in all, got {len(line)} more")
        if self._owner != os.getpid():
            raise StateError(f"{self.path} belongs to process {self._owner}, and this is a copy of it: open it anew")
        try:
            if os.fstat(self._descriptor).st_size != self._size:
                raise StateError(f"{self.path} was changed by somebody else; {self._advice}")
            written = os.write(self._descriptor, line)
            if written != len(line):
                raise OSError(f"only {written} of {len(line)} bytes were taken")
            os.fsync(self._descriptor)
            _write_head(self.path, Head(len(self.records) + 1, chain))
        except OSError as error:
            self._refused = chain
            self.close()
            raise error if isinstance(error, StorageError) else storage_error(self.path, error) from error
        self._size, self._chain = self._size + len(line), chain
        self.records.append(json.loads(text))

    def reopen(self) -> None:
        """Go on after an `append` that failed, with what it left of its record taken out.

        Raises
        ------
        StateError
            The file was changed since, or another process uses it.
        StorageError
            It cannot be written; this may be tried again.
        """
        self.close()
        try:
            found = Journal(self.path, os.open(self.path, os.O_RDWR | os.O_APPEND), self._advice)
            try:
                found._lock()
                found._load([self.head])
                if found.head != self.head and found.head != Head(len(self.records) + 1, self._refused):
                    raise StateError(f"{self.path} was changed by somebody else; {self._advice}")
                if _read_head(self.path, self._advice) != self.head:
                    _write_head(self.path, self.head)  # first: a journal that ends before its head is lost
                os.ftruncate(found._descriptor, self._size)
                os.fsync(found._descriptor)
            except BaseException:
                found.close()
                raise
        except OSError as error:
            raise error if isinstance(error, StorageError) else storage_error(self.path, error) from error
        self._descriptor = found._descriptor

    def close(self) -> None:
        """Give the file back; a second time does nothing."""
        if self._descriptor >= 0:
            os.close(self._descriptor)  # and with it the lock
            self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _lock(self) -> None:
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise StateError(f"{self.path} is used by another process; wait for it, or stop it") from error

    def _load(self, known: Sequence[Head]) -> bytes:
        """Read all records, check that what is known of the journal is part of it; return half a line at its end."""
        with os.fdopen(os.dup(self._descriptor), "rb") as stream:
            stream.seek(0)
            while (line := stream.readline(_LONGEST)).endswith(b"\n"):
                self._take(line)
                if any(head.records == len(self.records) and head.chain != self._chain for head in known):
                    raise StateError(
                        f"{self.path} is another journal than is known: record {len(self.records)} differs; "
                        f"{self._advice}"
                    )
        longest = max(head.records for head in known)
        if len(self.records) < longest:
            raise StateError(
                f"{self.path} was cut off or rolled back: it had {longest} records, and has {len(self.records)}; "
                f"{self._advice}"
            )
        if len(line) == _LONGEST:
            raise StateError(f"{self.path} is damaged: what follows record {len(self.records)} is none; {self._advice}")
        return line

    def _take(self, line: bytes) -> None:
        number = len(self.records) + 1
        try:
            chain, _, text = line[:-1].decode("ascii").partition(" ")
            right = chain == _chained(self._chain, text)
            record = json.loads(text) if right else None
        except (ValueError, RecursionError):
            record = None
        if not isinstance(record, dict):
            raise StateError(
                f"{self.path} is damaged: record {number} does not follow from those before; {self._advice}"
            )
        self.records.append(record)
        self._chain, self._size = chain, self._size + len(line)


def read_journal(path: Path, witness: Head | None = None, *, advice: str = BUDGET) -> tuple[list[dict[str, Any]], Head]:
    """Look at a journal, in use or not, and change nothing; half a record at its end does not count.

    Parameters
    ----------
    path : Path
        The file. Its head lies beside it; a copy without one is read where there is a witness.
    witness, advice
        As for `Journal.open`.

    Returns
    -------
    list of dict, Head
        All records, and what a witness should remember.

    Raises
    ------
    StateError
        It was lost, cut off, rolled back or changed, as far as that can be seen; the message names the first record.
    """
    known = [] if witness is None else [witness]
    if witness is None or _head_path(path).exists():
        known.append(_read_head(path, advice))  # before the journal, which may grow meanwhile
    try:
        with Journal(path, os.open(path, os.O_RDONLY), advice) as journal:
            journal._load(known)
    except OSError as error:
        raise StateError(f"{path} cannot be read: {error.strerror}; {advice}") from error
    return journal.records, journal.head


def _head_path(path: Path) -> Path:
    return path.with_name(path.name + ".head")


def _read_head(path: Path, advice: str) -> Head:
    source = _head_path(path)
    try:
        content = json.loads(source.read_bytes())
        head = Head(content["records"], content["chain"])
        if not (type(head.records) is int and head.records > 0 and type(head.chain) is str):
            raise ValueError("not the fields of a head")
    except FileNotFoundError as error:
        if path.exists():
            raise StateError(f"{source} is lost: how many records {path} had cannot be known; {advice}") from error
        raise StateError(f"{path} does not exist; a new one has to be created on purpose, once") from error
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise StateError(f"{source} cannot be read: {error}; {advice}") from error
    return head


def _write_head(path: Path, head: Head) -> None:
    write_atomic(_head_path(path), json.dumps(head._asdict()) + "\n")


def _chained(before: str, text: str) -> str:
    return hashlib.sha256(f"{before} {text}".encode()).hexdigest()
