"""How a refusal ends a call: a status, words, and metadata behind it that say the same as a Problem over HTTP."""

from __future__ import annotations

import logging
from typing import Any, NamedTuple, Never, TypeVar

import grpc
from google.protobuf.message import DecodeError
from pydantic import BaseModel

from matl.coordinator.strict_json import LARGEST_JSON, parse
from matl.errors import ServiceError
from matl.protocol.pb.methods import CODE, REASON, RETRY_AFTER
from matl.protocol.problems import CODES, Code, refusal

__all__ = ["Ending", "asked", "ending", "refuse", "told"]

_LONGEST_WORDS = 2000  # they travel as a header, percent-encoded, and headers have a limit
_STATUSES: dict[int, grpc.StatusCode] = {status.value[0]: status for status in grpc.StatusCode}

_log = logging.getLogger(__name__)

_M = TypeVar("_M", bound=BaseModel)


class Ending(NamedTuple):
    """How a call ends that was refused."""

    status: grpc.StatusCode
    words: str
    metadata: tuple[tuple[str, str], ...]


def ending(error: Exception) -> Ending:
    """How a call ends in which this was raised. What nobody meant to raise is logged, and not told.

    Examples
    --------
    >>> from matl.protocol.problems import Code, refusal
    >>> status, words, metadata = ending(refusal(Code.BUSY, "come back later", retry_after=2.0))
    >>> status.name, words
    ('UNAVAILABLE', 'come back later')
    >>> metadata
    (('matl-code', 'busy'), ('matl-reason', 'busy'), ('retry-after', '2.0'))
    """
    if not isinstance(error, ServiceError):
        _log.error("a call ended in an error that nobody foresaw", exc_info=error)
        return Ending(grpc.StatusCode.INTERNAL, "the coordinator failed; its log says why", ((REASON, "internal"),))
    metadata = [(CODE, error.code), (REASON, _printable(error.reason))]
    if error.retry_after is not None:
        metadata.append((RETRY_AFTER, str(float(error.retry_after))))
    return Ending(_STATUSES[CODES[Code(error.code)].grpc], str(error)[:_LONGEST_WORDS], tuple(metadata))


async def refuse(context: grpc.aio.ServicerContext, error: Exception) -> Never:
    """End a call."""
    await context.abort(*ending(error))
    raise AssertionError("abort raises")


def told(kind: Any, data: bytes) -> Any:
    """Read a message that came in.

    Raises
    ------
    ServiceError
        ``"malformed"``: it is none.
    """
    try:
        return kind.FromString(data)
    except DecodeError as error:
        raise refusal(Code.MALFORMED, f"the message is no {kind.DESCRIPTOR.full_name}") from error


def asked(kind: type[_M], data: bytes) -> _M:
    """Read the JSON of a question, as the HTTP door reads a body.

    Raises
    ------
    ServiceError
        As `matl.coordinator.strict_json.parse`, or ``"too_large"``.
    """
    if len(data) > LARGEST_JSON:
        words = f"expected at most {LARGEST_JSON} bytes of JSON, got {len(data)}"
        raise refusal(Code.TOO_LARGE, words, reason="body")
    return parse(kind, data)


def _printable(text: str) -> str:
    """Metadata holds printable ASCII alone."""
    return "".join(each if " " <= each <= "~" else "?" for each in text)[:200]
