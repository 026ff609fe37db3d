"""The audit log as it is read: checked as a whole, and again only once it has changed."""

from __future__ import annotations

import asyncio
from bisect import bisect_right
from pathlib import Path

from matl.attest.audit_log import AuditEntry, read_audit_log
from matl.journal import Head

__all__ = ["AuditReader"]

_Stamp = tuple[int, int, int, int]


class AuditReader:
    """Reads one audit log, for all who ask at once: to check it is to hash all of it, which may be a gigabyte.

    What was read stays in memory, as it does in the `matl.attest.audit_log.AuditLog` that writes it. Whoever changes
    the file changes its times, and has it checked again.

    Parameters
    ----------
    path : Path
        The file.
    """

    def __init__(self, path: Path) -> None:
        self._files = path, path.with_name(path.name + ".head")
        self._lock = asyncio.Lock()
        self._checked: tuple[list[_Stamp], list[AuditEntry], Head] | None = None

    async def page(self, after: int, limit: int) -> tuple[list[AuditEntry], Head]:
        """At most so many entries behind that line, and the head of the log.

        Raises
        ------
        StateError
            See `matl.attest.audit_log.read_audit_log`.
        """
        entries, head = await self.read()
        first = bisect_right(entries, after, key=lambda entry: entry.index)
        return entries[first : first + limit], head

    async def read(self) -> tuple[list[AuditEntry], Head]:
        """All entries, which nobody may change, and the head; who asks while it is checked waits for that.

        Raises
        ------
        StateError
            See `matl.attest.audit_log.read_audit_log`.
        """
        async with self._lock:
            return await asyncio.to_thread(self._read)

    def _read(self) -> tuple[list[AuditEntry], Head]:
        stamps = [_stamp(file) for file in self._files if file.exists()]
        if (known := self._checked) is None or known[0] != stamps:
            known = self._checked = None  # not both in memory
            known = self._checked = stamps, *read_audit_log(self._files[0])
        return known[1:]


def _stamp(file: Path) -> _Stamp:
    found = file.stat()
    return found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
