"""Bodies of requests: read piece by piece, never more than is allowed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Generic, TypeVar

from pydantic import BaseModel
from starlette.requests import Request

from matl.coordinator.strict_json import LARGEST_JSON, parse
from matl.protocol.problems import Code, refusal

__all__ = ["IDLE_SECONDS", "Bytes", "JsonBody", "declared", "pieces", "split_messages", "whole"]

M = TypeVar("M", bound=BaseModel)

IDLE_SECONDS = 60.0
"""Something of a body has to arrive that often; how slow it may be besides is for whoever reads it."""
_JSON_SECONDS = 60.0  # for a body of JSON as a whole
_LENGTH = 8  # bytes before each message of several


class JsonBody(Generic[M]):
    """A dependency: the body as a model. It also documents the route it stands in, see `openapi`.

    Parameters
    ----------
    model : type of BaseModel
        What is read, strictly: nothing is converted.
    optional : bool
        Whether no body at all stands for a model of defaults.
    limit : int
        Bytes of the largest that is read.
    """

    media_type: str = "application/json"

    def __init__(self, model: type[M], *, optional: bool = False, limit: int = LARGEST_JSON) -> None:
        self.model, self.required, self.limit = model, not optional, limit
        self.description = (model.__doc__ or "").partition("\n")[0]

    async def __call__(self, request: Request) -> M:
        """Read it."""
        if not self.required and "content-type" not in request.headers:
            data = await whole(request, self.limit)
            if not data:
                return self.model()
        expect(request, self.media_type)
        return parse(self.model, await whole(request, self.limit))


class Bytes:
    """A dependency: the request whose body is bytes of this kind, still unread.

    Parameters
    ----------
    media_type : str
        What `Content-Type` has to say.
    description : str
        What the bytes are.
    model : type of BaseModel, optional
        What is in them, where it is the service that reads them.
    """

    required = True

    def __init__(self, media_type: str, description: str, model: type[BaseModel] | None = None) -> None:
        self.media_type, self.description, self.model = media_type, description, model

    async def __call__(self, request: Request) -> Request:
        """Check what the request says of it."""
        expect(request, self.media_type)
        return request


def expect(request: Request, media_type: str) -> None:
    """Refuse a body that says it is something else.

    Raises
    ------
    ServiceError
        ``"malformed"``, reason ``"content_type"``.
    """
    said = request.headers.get("content-type", "")
    if said.partition(";")[0].strip().lower() != media_type:
        words = f"expected Content-Type {media_type}, got {said[:100]!r}"
        raise refusal(Code.MALFORMED, words, reason="content_type")


def declared(request: Request) -> int | None:
    """Bytes of the body, if the request says how many.

    Raises
    ------
    ServiceError
        ``"malformed"``: it says something else.
    """
    said = request.headers.get("content-length")
    if said is None:
        return None
    if not (said.isascii() and said.isdigit()):
        raise refusal(Code.MALFORMED, f"expected digits in Content-Length, got {said[:40]!r}")
    return int(said[:20])


async def pieces(request: Request, limit: int) -> AsyncIterator[bytes]:
    """The body as it arrives.

    Raises
    ------
    ServiceError
        ``"too_large"`` as soon as it is known that there are more than ``limit`` bytes, at the latest when they are
        there; ``"busy"`` if nothing came for `IDLE_SECONDS`.
    """
    size = declared(request) or 0
    async with aclosing(request.stream()) as stream:
        arrived = 0
        while True:
            if max(size, arrived) > limit:
                said = f"got {size}" if size > limit else "there are more"
                raise refusal(Code.TOO_LARGE, f"expected a body of at most {limit} bytes, {said}", reason="body")
            try:
                async with asyncio.timeout(IDLE_SECONDS):
                    piece = await anext(stream)
            except StopAsyncIteration:
                return
            except TimeoutError as error:
                words = f"nothing of the body came for {IDLE_SECONDS:g} s; send it again, or in smaller pieces"
                raise refusal(Code.BUSY, words, reason="slow_body", retry_after=1) from error
            arrived += len(piece)
            if piece and arrived <= limit:
                yield piece


async def whole(request: Request, limit: int) -> bytes:
    """All of a body that is small.

    Raises
    ------
    ServiceError
        See `pieces`.
    """
    collected = bytearray()
    try:
        async with asyncio.timeout(_JSON_SECONDS), aclosing(pieces(request, limit)) as arriving:  # type: ignore[type-var]
            async for piece in arriving:
                collected += piece
    except TimeoutError as error:
        words = f"the body was not there after {_JSON_SECONDS:g} s; send it again"
        raise refusal(Code.BUSY, words, reason="slow_body", retry_after=1) from error
    return bytes(collected)


def split_messages(data: bytes, most: int) -> list[bytes]:
    r"""Messages that stand one behind the other, each behind its length (8 bytes, big endian).

    Raises
    ------
    ServiceError
        ``"malformed"`` if one is cut off, ``"too_large"`` if there are more than ``most``.

    Examples
    --------
    >>> split_messages(b"\0\0\0\0\0\0\0\x02hi\0\0\0\0\0\0\0\0", most=2)
    [b'hi', b'']
    """
    messages: list[bytes] = []
    position = 0
    while position < len(data):
        begin = position + _LENGTH
        end = begin + int.from_bytes(data[position:begin], "big")
        if end > len(data) or begin > len(data):
            words = f"message {len(messages)} should end at byte {end} and the body has {len(data)}"
            raise refusal(Code.MALFORMED, words, reason="cut_off")
        if len(messages) == most:
            raise refusal(Code.TOO_LARGE, f"expected at most {most} messages, there are more", reason="messages")
        messages.append(data[begin:end])
        position = end
    return messages
