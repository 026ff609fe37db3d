"""A message as it arrives: its head first, which is short, and the payload behind it, which need not be."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import NoReturn

from matl.errors import ProtocolError
from matl.protocol.envelope import LARGEST_HEAD, LENGTH, Head, read_head
from matl.protocol.problems import Code, refusal

__all__ = ["head_of", "read_message"]

_HEAD_SECONDS = 60.0  # for all of a head, of which it is not known yet who sends it


async def read_message(message: AsyncIterator[bytes]) -> tuple[Head, AsyncIterator[bytes]]:
    r"""Head of a message, and its payload, which is not read yet.

    Raises
    ------
    ServiceError
        ``"malformed"`` or ``"too_large"``: there is no head that can be read. ``"busy"``: it does not come.

    Examples
    --------
    >>> import asyncio
    >>> async def example():
    ...     async def pieces():
    ...         yield b"\0\0"
    ...         yield b"\0\x02{}"
    ...
    ...     await read_message(pieces())
    >>> asyncio.run(example())
    Traceback (most recent call last):
        ...
    matl.errors.ServiceError: client_id: Field required
    """
    begun = bytearray()

    async def until(size: int) -> None:
        while len(begun) < size:
            try:
                begun.extend(await anext(message))
            except StopAsyncIteration:
                words = f"the message ends after {len(begun)} bytes, before its head"
                raise refusal(Code.MALFORMED, words, reason="malformed") from None

    try:
        async with asyncio.timeout(_HEAD_SECONDS):
            await until(LENGTH)
            length = int.from_bytes(begun[:LENGTH], "big")
            if not 0 < length <= LARGEST_HEAD:
                words = f"expected a head of 1 to {LARGEST_HEAD} bytes, the message says {length}"
                raise refusal(Code.TOO_LARGE, words, reason="head")
            await until(LENGTH + length)
    except TimeoutError as error:
        words = f"the head of the message was not there after {_HEAD_SECONDS:g} s; send it again"
        raise refusal(Code.BUSY, words, reason="too_slow", retry_after=1.0) from error
    head = head_of(bytes(begun[LENGTH : LENGTH + length]))

    async def payload() -> AsyncIterator[bytes]:
        if rest := bytes(begun[LENGTH + length :]):
            yield rest
        async for piece in message:
            yield piece

    return head, payload()


def head_of(data: bytes) -> Head:
    """Read a head.

    Raises
    ------
    ServiceError
        ``"malformed"`` or ``"too_large"``.
    """
    try:
        return read_head(data)
    except ProtocolError as error:
        _refuse(error)


def _refuse(error: ProtocolError) -> NoReturn:
    code = Code.TOO_LARGE if error.code == "size" else Code.MALFORMED
    raise refusal(code, str(error), reason=error.code) from error
