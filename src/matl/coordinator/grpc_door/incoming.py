"""What comes in over gRPC, checked as far as it can be without knowing who sent it."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable
from typing import Any, TypeVar

from matl.attest.canonical import LARGEST_COUNT, check_identifier
from matl.coordinator.grpc_door.errors import told
from matl.errors import InvalidValueError
from matl.protocol.envelope import LARGEST_HEAD, LENGTH
from matl.protocol.pb import training as pb
from matl.protocol.pb.methods import LARGEST_PIECE
from matl.protocol.problems import Code, refusal

__all__ = ["digest", "first", "identifier", "message", "number", "said", "seconds"]

M = TypeVar("M")

_LONGEST_WAIT = 30.0


def identifier(**value: str) -> str:
    """An id, given by its name.

    Raises
    ------
    ServiceError
        ``"invalid"``: it is none.
    """
    try:
        check_identifier(**value)
    except InvalidValueError as error:
        raise refusal(Code.INVALID, str(error)) from error
    return next(iter(value.values()))


def digest(**value: str) -> str:
    """A SHA-256, given by its name.

    Raises
    ------
    ServiceError
        ``"invalid"``: it is none.
    """
    ((name, text),) = value.items()
    if not re.fullmatch("[0-9a-f]{64}", text):
        raise refusal(Code.INVALID, f"expected {name} in 64 lowercase hexadecimal digits, got {text[:80]!r}")
    return text


def number(**value: int) -> int:
    """A count, given by its name; what the protocol's 64 bits hold is more than a database takes.

    Raises
    ------
    ServiceError
        ``"invalid"``: it is too large.
    """
    ((name, count),) = value.items()
    if count > LARGEST_COUNT:
        raise refusal(Code.INVALID, f"expected {name} <= {LARGEST_COUNT}, got {count}")
    return count


def seconds(**value: float) -> float:
    """How long to wait, given by its name.

    Raises
    ------
    ServiceError
        ``"invalid"``: it is negative, more than 30, or no number.
    """
    ((name, wait),) = value.items()
    if not 0 <= wait <= _LONGEST_WAIT:
        raise refusal(Code.INVALID, f"expected {name} of 0 to {_LONGEST_WAIT:g}, got {wait:g}")
    return wait


async def first(kind: type[M], parts: AsyncIterator[bytes], *, head_seconds: float) -> M:
    """The request of a call that has one. What comes behind it is not read.

    gRPC waits without end for the request of a call that it takes to have one, and so it is taken to have many.

    Raises
    ------
    ServiceError
        ``"busy"``: it does not come; ``"malformed"``: the call ends without one, or it is another.
    """
    request = await _next(kind, parts, head_seconds, "the request")
    if request is None:
        raise refusal(Code.MALFORMED, "expected a request, and the call ended without one")
    return request


async def message(
    parts: AsyncIterator[bytes], go_on: Callable[[], Awaitable[None]], *, head_seconds: float, idle_seconds: float
) -> tuple[pb.UpdateHead, AsyncGenerator[bytes, None]]:
    """The head of an update that streams in, and its message (`matl.protocol.envelope`), of which no more is read.

    Who reads on in the message wants the payload; ``go_on`` then tells the client so.

    Raises
    ------
    ServiceError
        ``"malformed"``, ``"too_large"`` or ``"invalid"``: the first part is not a head; ``"busy"``: it does not come.
        While the message is read: a further part is not a piece of 1 byte to 1 MiB, or does not come.
    """
    part = await _next(pb.UpdatePart, parts, head_seconds, "the update")
    if part is None or part.WhichOneof("part") != "head":
        raise refusal(Code.MALFORMED, "expected the head of the update before its payload")
    head = part.head
    if not 0 < len(head.json) <= LARGEST_HEAD:
        raise refusal(Code.TOO_LARGE, f"expected a head of 1 to {LARGEST_HEAD} bytes, got {len(head.json)}")
    identifier(run=head.run)
    number(round=head.round)
    return head, _framed(head.json, parts, go_on, idle_seconds)


async def said(
    parts: AsyncIterator[bytes], *, head_seconds: float, idle_seconds: float
) -> tuple[pb.PhaseHead, AsyncGenerator[bytes, None]]:
    """Where something is said in a masked round, and the pieces of what is said, of which none is read yet.

    Raises
    ------
    ServiceError
        As `message`.
    """
    part = await _next(pb.PhasePart, parts, head_seconds, "the message")
    if part is None or part.WhichOneof("part") != "head":
        raise refusal(Code.MALFORMED, "expected the head of the message of a phase before its pieces")
    identifier(run=part.head.run)
    number(round=part.head.round)

    async def pieces() -> AsyncGenerator[bytes, None]:
        while (piece := await _next(pb.PhasePart, parts, idle_seconds, "the message")) is not None:
            yield _chunk(piece)

    return part.head, pieces()


async def _framed(
    head: bytes, parts: AsyncIterator[bytes], go_on: Callable[[], Awaitable[None]], idle_seconds: float
) -> AsyncGenerator[bytes, None]:
    yield len(head).to_bytes(LENGTH, "big") + head
    await go_on()
    while (part := await _next(pb.UpdatePart, parts, idle_seconds, "the update")) is not None:
        yield _chunk(part)


def _chunk(part: Any) -> bytes:
    """The piece in a part."""
    if part.WhichOneof("part") != "chunk" or not 0 < len(part.chunk) <= LARGEST_PIECE:
        raise refusal(Code.MALFORMED, f"expected pieces of the payload of 1 to {LARGEST_PIECE} bytes after the head")
    return bytes(part.chunk)


async def _next(kind: type[M], parts: AsyncIterator[bytes], idle_seconds: float, what: str) -> M | None:
    """The next part, or nothing at the end."""
    try:
        async with asyncio.timeout(idle_seconds):
            part: M = told(kind, await anext(parts))
            return part
    except StopAsyncIteration:
        return None
    except TimeoutError as error:
        raise refusal(Code.BUSY, f"nothing of {what} came for {idle_seconds:g} s", reason="too_slow") from error
