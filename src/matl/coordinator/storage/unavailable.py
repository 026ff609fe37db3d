"""Which errors of a database pass by themselves: it is down, locked or full, and nothing is wrong with the request."""

from __future__ import annotations

import asyncio
import sqlite3

from sqlalchemy.exc import DBAPIError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError

from matl.errors import MatlError, ServiceError
from matl.protocol.problems import Code, refusal

__all__ = ["busy", "unavailable"]

_SQLITE = {
    sqlite3.SQLITE_BUSY: "locked by another process",
    sqlite3.SQLITE_LOCKED: "locked by another process",
    sqlite3.SQLITE_FULL: "full: free some space on its disk",
    sqlite3.SQLITE_IOERR: "not readable or writable: look after its disk",
    sqlite3.SQLITE_CANTOPEN: "not there or not readable: look after its file and folder",
    sqlite3.SQLITE_READONLY: "read-only: look after the permissions of its file and folder",
    sqlite3.SQLITE_PROTOCOL: "locked by another process",
}
# Classes and codes of SQLSTATE, the longer first.
_POSTGRESQL = {
    "55P03": "locked by another process",
    "40001": "locked by another process",
    "40P01": "locked by another process",
    "57014": "too slow: it did not answer in time",
    "53100": "full: free some space on its disk",
    "53300": "out of connections",
    "25P03": "too slow: the connection was ended",
    "25006": "read-only: is it a standby?",
    "08": "down",
    "53": "out of memory",
    "57P": "down",
    "58": "not readable or writable: look after its disk",
}


def unavailable(error: BaseException) -> str:
    """What the database is, such as ``"down"``, if the error passes by itself; nothing otherwise."""
    if isinstance(error, MatlError):  # ours, such as a StorageError, which is an OSError too
        return ""
    if isinstance(error, DBAPIError):
        # The driver's own error is the cause of the adapter's.
        causes = [error.orig, getattr(error.orig, "driver_exception", None), getattr(error.orig, "__cause__", None)]
        words = [word for cause in causes if cause is not None for word in [_of_driver(cause)] if word]
        return words[0] if words else "down" if error.connection_invalidated else ""
    if isinstance(error, PoolTimeoutError):
        return "out of connections: too much is read at once"
    return _of_driver(error)


def busy(error: BaseException) -> ServiceError:
    """The refusal for such an error: later it may work."""
    return refusal(Code.BUSY, f"the database is {unavailable(error)}", reason="database", retry_after=1.0)


def _of_driver(error: BaseException) -> str:
    if isinstance(error, sqlite3.Error):
        return _SQLITE.get(getattr(error, "sqlite_errorcode", 0) & 0xFF, "")
    state = getattr(error, "sqlstate", None)
    if isinstance(state, str):
        return next((words for code, words in _POSTGRESQL.items() if state.startswith(code)), "")
    # Connecting fails with errors of the operating system, or with none of an own kind.
    return "down" if isinstance(error, OSError | asyncio.TimeoutError | EOFError) else ""
