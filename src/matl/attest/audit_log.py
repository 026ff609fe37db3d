"""What operators did: an append-only log whose every line is chained to all before it."""

from __future__ import annotations

import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from matl import validate
from matl.attest.canonical import unix_ms
from matl.attest.claims import Clock, system_clock
from matl.errors import InvalidValueError, StateError, StorageError
from matl.journal import Head, Journal, read_journal

__all__ = ["AuditEntry", "AuditLog", "read_audit_log"]

_KIND = "matl audit log"
_ADVICE = "find out by whom, and compare it with a copy: that of a backup, or what a witness remembers"
_LONGEST = 256  # characters of a word


@dataclass(frozen=True, slots=True, kw_only=True)
class AuditEntry:
    """One action.

    Parameters
    ----------
    index : int
        Number of the line, from 1; the first says what the file is, and is no entry.
    time : int
        Unix milliseconds, by the host's clock.
    actor : str
        Who did it, such as the name of an operator's token.
    action : str
        What was done, such as ``"revoke"``.
    subject : str
        To whom or what.
    details : mapping
        The rest, as plain data for JSON.

    Raises
    ------
    InvalidValueError
        A word is empty, long or not printable: a log is read on terminals.
    """

    index: int
    time: int
    actor: str
    action: str
    subject: str
    details: Mapping[str, Any]

    def __post_init__(self) -> None:
        validate.whole(0, index=self.index, time=self.time)
        for name in ("actor", "action", "subject"):
            word = getattr(self, name)
            if not isinstance(word, str) or not 1 <= len(word) <= _LONGEST or not word.isprintable():
                raise InvalidValueError(f"expected {name} as 1 to {_LONGEST} printable characters, got {word!a:.80}")


class AuditLog:
    """Writes down actions, each on the disk before it is done; one process at a time.

    The file is a `matl.journal.Journal`: a line is a SHA-256 over the hash of the line before and its own JSON, so that
    position and predecessor are part of it. What cannot be seen from the inside is an end that was cut off, if the head
    beside the file was put back too; whoever keeps `head` elsewhere sees that.

    Use `create` once and `open` ever after.

    Examples
    --------
    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> path = Path(folder.name) / "audit.log"
    >>> with AuditLog.create(path) as log:
    ...     entry = log.append("carol", "revoke", "mallory", {"reason": "key stolen"})
    ...     witness = log.head
    >>> entries, _ = read_audit_log(path, witness)
    >>> [(entry.index, entry.actor, entry.action, entry.subject) for entry in entries]
    [(2, 'carol', 'revoke', 'mallory')]
    >>> path.write_bytes(path.read_bytes().replace(b"stolen", b"mislaid")) and None
    >>> read_audit_log(path)
    Traceback (most recent call last):
        ...
    matl.errors.StateError: .../audit.log is damaged: record 2 does not follow from those before; ...
    >>> folder.cleanup()
    """

    def __init__(self, journal: Journal, clock: Clock) -> None:
        self._journal, self._clock, self._lock = journal, clock, threading.Lock()
        self._closed, self._refused = False, False  # what was refused may be there in part or whole

    @classmethod
    def create(cls, path: Path, clock: Clock = system_clock) -> AuditLog:
        """Begin a log.

        Raises
        ------
        StateError
            There is one, or what is left of one.
        StorageError
            It cannot be written.
        """
        return cls(Journal.create(path, {"kind": _KIND}, advice=_ADVICE), clock)

    @classmethod
    def open(cls, path: Path, witness: Head | None = None, clock: Clock = system_clock) -> AuditLog:
        """Go on with a log.

        Raises
        ------
        StateError
            It was lost, cut off, rolled back or changed, as far as that can be seen, or another process uses it.
        """
        journal = Journal.open(path, witness, advice=_ADVICE)
        try:
            _entries(path, journal.records)
        except StateError:
            journal.close()
            raise
        return cls(journal, clock)

    @property
    def head(self) -> Head:
        """What a witness should remember."""
        return self._journal.head

    def append(self, actor: str, action: str, subject: str, details: Mapping[str, Any] | None = None) -> AuditEntry:
        """Write an action down; it is on the disk when this returns, and is done only then.

        What is refused is taken out of the file, at once if the disk lets and else before the next action is written,
        and so does not stand there as done. Once the disk takes it, the log goes on.

        Raises
        ------
        InvalidValueError
            A word is empty, long or not printable, or the details are not plain data.
        StorageError
            It cannot be written, and the action must not be done.
        StateError
            The file was changed meanwhile, and the action must not be done.
        """
        with self._lock:
            if self._closed:
                raise StorageError(f"{self._journal.path} was closed, and nothing more is written to it")
            if self._refused:
                self._go_on()
            entry = AuditEntry(
                index=self.head.records + 1,
                time=unix_ms(self._clock()),
                actor=actor,
                action=action,
                subject=subject,
                details=dict(details or {}),
            )
            # Without the index, which is where the line stands.
            record = {name: getattr(entry, name) for name in ("time", "actor", "action", "subject", "details")}
            try:
                self._journal.append(record)
            except (TypeError, ValueError, RecursionError) as error:
                raise InvalidValueError(f"expected details that JSON can hold, got {error}") from error
            except StorageError:
                self._refused = True
                with suppress(StorageError, StateError):  # which the next action meets
                    self._go_on()
                raise
            return entry

    def close(self) -> None:
        """Give the file back, once an action that is being written is there."""
        with self._lock:
            self._closed = True
            self._journal.close()

    def _go_on(self) -> None:
        self._journal.reopen()
        self._refused = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def read_audit_log(path: Path, witness: Head | None = None) -> tuple[list[AuditEntry], Head]:
    """Check a log, in use or not, and read it.

    Parameters
    ----------
    path : Path
        The file.
    witness : Head, optional
        What somebody else remembers of it.

    Returns
    -------
    list of AuditEntry, Head
        Every action, and what a witness should remember.

    Raises
    ------
    StateError
        It was lost, cut off, rolled back or changed, as far as that can be seen; the message names the first line that
        is broken.
    """
    records, head = read_journal(path, witness, advice=_ADVICE)
    return _entries(path, records), head


def _entries(path: Path, records: list[dict[str, Any]]) -> list[AuditEntry]:
    if not records or records[0] != {"kind": _KIND}:
        raise StateError(f"{path} is no audit log, it begins with {str(records[:1])[:80]}")
    entries = []
    for index, record in enumerate(records[1:], start=2):
        if record.keys() == {"torn"}:  # cut off by a crash before it was acknowledged: nothing was done
            continue
        try:
            entries.append(AuditEntry(index=index, **record))
        except (TypeError, InvalidValueError) as error:
            raise StateError(f"{path} holds what is no action in line {index}: {error}") from error
    return entries
