"""What the process returns, in one table."""

from __future__ import annotations

from enum import IntEnum

from matl import errors

__all__ = ["ExitCode", "exit_code"]


class ExitCode(IntEnum):
    """Exit codes of ``matl``; they do not change between versions."""

    OK = 0  # it worked
    INTERNAL = 1  # a bug in MATL
    USAGE = 2  # the command line, a configuration or a value is wrong
    DATA = 3  # a data set is missing or damaged
    MISSING_EXTRA = 4  # an optional dependency is not installed
    STORAGE = 5  # a file, or standard output, cannot be written
    STATE = 6  # a run directory cannot be read, resumed or overwritten
    BOUND = 7  # the rule cannot tolerate that many malicious clients
    CELLS_FAILED = 8  # some cells of a sweep or a matrix failed, the others are finished
    WORKERS_LOST = 9  # worker processes were lost; can be resumed
    SERVICE = 10  # a coordinator or an oracle refused, or cannot be reached
    INTERRUPTED = 130  # stopped by the user; can be resumed


_TABLE: tuple[tuple[type[errors.MatlError], ExitCode], ...] = (
    (errors.RunInterrupted, ExitCode.INTERRUPTED),
    (errors.CellsFailedError, ExitCode.CELLS_FAILED),
    (errors.WorkerLostError, ExitCode.WORKERS_LOST),
    (errors.ServiceError, ExitCode.SERVICE),
    (errors.BoundError, ExitCode.BOUND),
    (errors.StateError, ExitCode.STATE),
    (errors.StorageError, ExitCode.STORAGE),
    (errors.MissingExtraError, ExitCode.MISSING_EXTRA),
    (errors.DataError, ExitCode.DATA),
    (errors.MatlError, ExitCode.USAGE),
)


def exit_code(error: errors.MatlError) -> ExitCode:
    """The exit code of an error."""
    return next(code for kind, code in _TABLE if isinstance(error, kind))
