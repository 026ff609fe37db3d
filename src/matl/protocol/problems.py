"""Why a request is refused: one list of codes behind HTTP, gRPC and WebSocket."""

from __future__ import annotations

import math
from enum import StrEnum
from typing import NamedTuple

from matl.errors import ServiceError

__all__ = ["CODES", "Code", "Numbers", "refusal", "seconds_of"]


class Code(StrEnum):
    """What is wrong with a request, as far as a program has to know; the message tells the rest."""

    MALFORMED = "malformed"  # it cannot be read
    UNAUTHENTICATED = "unauthenticated"  # nobody is known who sent it
    FORBIDDEN = "forbidden"  # whoever sent it may not
    NOT_FOUND = "not_found"
    CONFLICT = "conflict"  # it contradicts what is known already
    TOO_LARGE = "too_large"
    INVALID = "invalid"  # it can be read, and a value in it is not allowed
    RATE = "rate"  # too many requests of one sender
    BUSY = "busy"  # nothing is wrong with it; later it may be taken


class Numbers(NamedTuple):
    """A code's numbers: of HTTP (RFC 9110) and of gRPC (its status codes)."""

    http: int
    grpc: int


CODES: dict[Code, Numbers] = {
    Code.MALFORMED: Numbers(400, 3),
    Code.UNAUTHENTICATED: Numbers(401, 16),
    Code.FORBIDDEN: Numbers(403, 7),
    Code.NOT_FOUND: Numbers(404, 5),
    Code.CONFLICT: Numbers(409, 6),
    Code.TOO_LARGE: Numbers(413, 11),
    Code.INVALID: Numbers(422, 9),
    Code.RATE: Numbers(429, 8),
    Code.BUSY: Numbers(503, 14),
}


def refusal(code: Code, message: str, *, reason: str = "", retry_after: float | None = None) -> ServiceError:
    """The error of a code.

    Parameters
    ----------
    code : Code
        What is wrong.
    message : str
        The same in words: the value seen, the value allowed, what to do.
    reason : str
        Stable short name of the cause, such as a rejection's code; the code itself if not given.
    retry_after : float, optional
        Seconds after which it may be tried again.
    """
    return ServiceError(code.value, message, reason=reason, retry_after=retry_after)


def seconds_of(text: str | None) -> float | None:
    """The time after which somebody may ask again, where a text says one.

    Examples
    --------
    >>> [seconds_of(text) for text in ("1.5", "-1", "inf", "nan", "soon", None)]
    [1.5, None, None, None, None, None]
    """
    try:
        seconds = float(text or "")
    except ValueError:
        return None
    return seconds if 0 <= seconds < math.inf else None
