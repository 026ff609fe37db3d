"""Who may delete a blob that turned out useless: blobs go by their content, so two may have sent the same."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager

__all__ = ["Custody"]


class Custody:
    """Blobs that somebody is at work on.

    Whoever writes a blob holds it until it is known whether the blob is needed. One that was new when it came, that
    nobody else holds, and that nobody found needed meanwhile, is of no use to anybody.

    Examples
    --------
    >>> custody = Custody()
    >>> with custody.holding("ab"):
    ...     alone = custody.useless("ab")
    ...     with custody.holding("ab"):
    ...         custody.need("ab")
    ...     alone, custody.useless("ab")
    (True, False)
    """

    def __init__(self) -> None:
        self._held: Counter[str] = Counter()
        self._needed: set[str] = set()
        self._going: dict[str, asyncio.Event] = {}
        self._left: set[str] = set()

    @contextmanager
    def holding(self, sha256: str) -> Iterator[None]:
        """Be at work on a blob."""
        self._held[sha256] += 1
        try:
            yield
        finally:
            self._held[sha256] -= 1
            if not self._held[sha256]:
                del self._held[sha256]
                self._needed.discard(sha256)

    def need(self, sha256: str) -> None:
        """Say that a blob that one holds is needed."""
        self._needed.add(sha256)

    def useless(self, sha256: str) -> bool:
        """Whether a blob that one holds, and that was not there before, may be deleted."""
        return self._held[sha256] == 1 and sha256 not in self._needed

    def leave(self, sha256: str) -> None:
        """Say that a blob may lie there that nobody needs: who sent it did not stay, or may send it once more."""
        self._left.add(sha256)

    def left_behind(self) -> set[str]:
        """The blobs of which that was said since this was asked last."""
        left, self._left = self._left, set()
        return left

    async def there(self, sha256: str) -> None:
        """Return when nobody is deleting a blob that one holds; only then it may be looked for, and written."""
        if (gone := self._going.get(sha256)) is not None:
            await gone.wait()

    async def discard(self, sha256: str, delete: Callable[[str], Awaitable[None]]) -> None:
        """Delete a blob that one holds, if it is `useless`."""
        if self.useless(sha256):
            gone = self._going[sha256] = asyncio.Event()
            try:
                await delete(sha256)
            finally:
                del self._going[sha256]
                gone.set()
