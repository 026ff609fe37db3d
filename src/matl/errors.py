"""Every exception MATL raises on purpose.

::

    MatlError
    ├── InvalidValueError (ValueError)     an argument is outside what is allowed
    │   ├── UnknownNameError               no such data set, attack, rule, mode, ...
    │   ├── BoundError                     a rule cannot tolerate that many Byzantine clients
    │   └── LayoutError                    arrays do not fit the declared parameter layout
    ├── ConfigError                        a configuration has problems; all are listed at once
    ├── DataError                          a data set cannot be used
    │   ├── DataNotFoundError              its files are not on this machine
    │   └── CorruptDataError               its files are not what they should be
    ├── MissingExtraError (ImportError)    an optional dependency is not installed
    ├── StateError                         a checkpoint or state cannot be read or does not fit
    ├── StorageError (OSError)             a file cannot be written
    ├── ContractError (AssertionError)     an implementation does not keep what its protocol promises
    ├── WorkerLostError                    worker processes were lost again and again; the run can be resumed
    ├── CellsFailedError                   some cells of a sweep or a matrix failed; the others stand
    ├── UndecidedError                     a judge cannot decide a round; the round fails, the run goes on
    ├── ProtocolError                      a peer broke a protocol: its message is malformed, forged or out of turn
    ├── AttestationError                   evidence does not prove what a policy asks for
    ├── ServiceError                       a coordinator or an oracle refuses a request, or cannot be reached
    ├── AggregationAborted                 too few clients are left for a secure aggregation; nothing was revealed
    └── RunInterrupted                     the user stopped a run; it can be resumed

A message says what was wrong, the value seen, the value allowed and what to do.
A misbehaving *client* is not an exception: it is a `matl.records.Rejection`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from difflib import get_close_matches
from typing import Any

__all__ = [
    "AggregationAborted",
    "AttestationError",
    "BoundError",
    "CellsFailedError",
    "ConfigError",
    "ContractError",
    "CorruptDataError",
    "DataError",
    "DataNotFoundError",
    "InvalidValueError",
    "LayoutError",
    "MatlError",
    "MissingExtraError",
    "ProtocolError",
    "RunInterrupted",
    "ServiceError",
    "StateError",
    "StorageError",
    "UndecidedError",
    "UnknownNameError",
    "WorkerLostError",
    "nearest",
]


class MatlError(Exception):
    """Base of every error MATL raises on purpose. It can cross a process boundary whatever its constructor takes."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.args), self.__dict__


class InvalidValueError(MatlError, ValueError):
    """An argument is outside what is allowed."""


class UnknownNameError(InvalidValueError):
    """A name is not registered.

    Parameters
    ----------
    kind : str
        What was looked up, e.g. ``"attack"``.
    name : str
        The name that was not found.
    known : iterable of str
        The names that exist.
    """

    def __init__(self, kind: str, name: str, known: Iterable[str]) -> None:
        self.kind, self.name, self.known = kind, name, sorted(known)
        super().__init__(
            f"unknown {kind} {name!r}{nearest(name, self.known)}; known: {', '.join(self.known) or 'none'}"
        )


class BoundError(InvalidValueError):
    """A rule cannot tolerate the number of Byzantine clients it was given."""


class LayoutError(InvalidValueError):
    """Arrays do not fit the declared parameter layout.

    ``code`` is one of ``"names"``, ``"shape"``, ``"dtype"``, ``"size"``.
    """

    def __init__(self, code: str, message: str) -> None:
        self.code = code
        super().__init__(message)


class ConfigError(MatlError):
    """A configuration has problems; the message lists all of them."""

    def __init__(self, source: str, problems: Sequence[str]) -> None:
        self.source, self.problems = source, list(problems)
        count = f"{len(self.problems)} problem{'s' if len(self.problems) != 1 else ''}"
        super().__init__(f"{source}: {count}\n" + "\n".join(f"  - {line}" for line in self.problems))


class DataError(MatlError):
    """A data set cannot be used."""


class DataNotFoundError(DataError):
    """The files of a data set are not on this machine."""


class CorruptDataError(DataError):
    """The files of a data set are not what they should be."""


class MissingExtraError(MatlError, ImportError):
    """An optional dependency is not installed.

    Examples
    --------
    >>> raise MissingExtraError("scikit-learn", extra="sim")
    Traceback (most recent call last):
        ...
    matl.errors.MissingExtraError: scikit-learn is not installed; install it with: pip install 'matl[sim]'
    """

    def __init__(self, package: str, *, extra: str) -> None:
        self.package, self.extra = package, extra
        super().__init__(f"{package} is not installed; install it with: pip install 'matl[{extra}]'")


class StateError(MatlError):
    """A checkpoint or state cannot be read, or does not belong to this run."""


class StorageError(MatlError, OSError):
    """A file cannot be written."""


class WorkerLostError(MatlError):
    """Worker processes ended before their work was done, again and again; the last whole round is checkpointed."""


class CellsFailedError(MatlError):
    """Some cells of a sweep or a matrix failed; the others have their results."""


class ContractError(MatlError, AssertionError):
    """An implementation does not keep what its protocol promises; raised by the checks of `matl.testing`."""


class UndecidedError(MatlError):
    """A judge cannot decide a round. The round fails with this reason, and the run goes on."""


class ProtocolError(MatlError):
    """A peer broke a protocol: its message is malformed, forged, out of turn, or contradicts an earlier one.

    ``code`` is the stable short name of what is wrong, which a host passes on in a `matl.records.Rejection`.
    """

    def __init__(self, code: str, message: str) -> None:
        self.code = code
        super().__init__(message)


class AttestationError(MatlError):
    """Evidence does not prove what a policy asks for; ``code`` is the stable short name of what is wrong."""

    def __init__(self, code: str, message: str) -> None:
        self.code = code
        super().__init__(message)


class ServiceError(MatlError):
    """A coordinator or an oracle refuses a request, or cannot be reached.

    Parameters
    ----------
    code : str
        What is wrong, one of `matl.protocol.problems.Code`.
    message : str
        The same in words.
    reason : str
        Stable short name of the cause, such as a rejection's code; the code itself if not given.
    retry_after : float, optional
        Seconds after which it may be tried again.
    """

    def __init__(self, code: str, message: str, *, reason: str = "", retry_after: float | None = None) -> None:
        self.code, self.reason, self.retry_after = code, reason or code, retry_after
        super().__init__(message)


class AggregationAborted(MatlError):  # noqa: N818 - the word says what happened; nobody need have done wrong
    """Too few clients are left for a secure aggregation, or a secret cannot be recovered; nothing was revealed."""


class RunInterrupted(MatlError):  # noqa: N818 - the word says what happened; nothing went wrong
    """The user stopped a run after a whole round; ``directory`` holds its checkpoint, if there is one."""

    def __init__(self, message: str, *, directory: str | None = None) -> None:
        self.directory = directory
        super().__init__(message)


def _rebuild(kind: type[MatlError], args: tuple[Any, ...]) -> MatlError:
    return kind.__new__(kind, *args)


def nearest(name: str, known: Iterable[str]) -> str:
    """``" (did you mean 'x'?)"`` for the closest known name, or nothing.

    Examples
    --------
    >>> nearest("sing_flip", ["sign_flip", "alie"])
    " (did you mean 'sign_flip'?)"
    >>> nearest("zzz", ["sign_flip"])
    ''
    """
    close = get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" (did you mean {close[0]!r}?)" if close else ""
