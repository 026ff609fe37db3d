"""Work that is finished although whoever asked for it stopped waiting."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, ParamSpec, TypeVar

__all__ = ["in_thread", "to_the_end"]

P = ParamSpec("P")
R = TypeVar("R")


def to_the_end(work: Callable[P, Coroutine[Any, Any, R]]) -> Callable[P, Awaitable[R]]:
    """Let a call run to its end in a task of its own, whatever becomes of the caller.

    A statement that is cancelled half-way leaves its connection with a transaction that nobody ends, and with it the
    lock of the database; a thread cannot be cancelled at all, and would go on with files that were closed.
    A caller that is cancelled still gets its `asyncio.CancelledError`, but not before the work has ended.
    """

    async def run(*args: P.args, **kwargs: P.kwargs) -> R:
        task = asyncio.ensure_future(work(*args, **kwargs))
        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            while not task.done():
                try:
                    await asyncio.wait([task])
                except asyncio.CancelledError:  # once more; the answer is the same
                    continue
            if not task.cancelled():
                task.exception()  # nobody is left to hear of it
            raise

    return run


@to_the_end
async def in_thread(work: Callable[..., R], /, *args: Any) -> R:
    """What ``work(*args)`` returns, run in a thread: for calls that block."""
    return await asyncio.to_thread(work, *args)
