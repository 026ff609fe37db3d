"""A message as it arrives: its head first, which is short, and the payload behind it, which need not be."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import NoReturn

from matl.errors import ProtocolError
from matl.protocol.envelope import LARGEST_HEAD, LENGTH, Head, read_head
from matl.protocol.problems import Code, refusal

__all__ = ["GRACE_SECONDS", "LEAST_RATE", "SLOW", "head_of", "in_time", "read_message"]

GRACE_SECONDS = 60.0
"""How long nobody has to be fast: lines stall, and radios fall asleep."""
LEAST_RATE = 8 << 10
"""Bytes a second that are expected on average behind that: what a poor radio link has. A slower line brings pieces,
each of which is kept as far as it came."""
SLOW = frozenset({"too_slow", "slow_body"})
"""Reasons, here and of the doors, for which a message is given up that came too slowly, or not at all."""
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


async def in_time(arriving: AsyncIterator[bytes], longest: float) -> AsyncIterator[bytes]:
    """What arrives, unless that is so slow that it keeps others out.

    Parameters
    ----------
    arriving : async iterator of bytes
        A message, of which is known who sends it.
    longest : float
        Seconds that it is waited for in all. What its reader does meanwhile does not count.

    Raises
    ------
    ServiceError
        ``"busy"`` with the reason ``"too_slow"``: it takes longer than that, or than `GRACE_SECONDS` and what
        `LEAST_RATE` allows for the bytes that are there.
    """
    waited, arrived = 0.0, 0
    while True:
        allowed, began = min(longest, GRACE_SECONDS + arrived / LEAST_RATE), time.monotonic()
        try:
            async with asyncio.timeout(allowed - waited) as limit:
                piece = await anext(arriving)
        except StopAsyncIteration:
            return
        except TimeoutError as error:
            if not limit.expired():
                raise  # somebody else's
            words = (
                f"{arrived} bytes were there after {allowed:.3g} s, expected are {LEAST_RATE} a second after the first "
                f"{GRACE_SECONDS:g} s, and all after {longest:g} s; send it faster, or in pieces"
            )
            raise refusal(Code.BUSY, words, reason="too_slow", retry_after=1.0) from error
        waited, arrived = waited + time.monotonic() - began, arrived + len(piece)
        yield piece


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
