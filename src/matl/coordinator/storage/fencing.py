"""One process for a database: whoever took it over last, and nobody else any more."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from matl.coordinator.storage.schema import counters
from matl.errors import ServiceError, StateError
from matl.protocol.problems import Code, refusal

__all__ = ["SUPERSEDED", "Fence"]

SUPERSEDED = "another coordinator has taken over the database"
"""What has happened to a process that lost it."""

_TOKEN = 16  # bytes
_ROW = counters.c.name == "events"
_OWNER = sa.select(counters.c.owner).where(_ROW)


class Fence:
    """What shows that a database is this process's: a random token, in the row that every write locks.

    Each transaction that writes reads the row while it locks it, so that showing the token costs no statement of its
    own, and what another process wrote there in between is seen whatever happened to this one meanwhile: it may have
    been stopped, or cut off, for any time. No clock is compared, and nothing has to be heard of an owner that crashed.

    A process that never took the database over, such as one that fills an empty one from a backup, is not held up.

    Parameters
    ----------
    read : callable
        Reads from the database, see `matl.coordinator.storage.database.Database.read`.

    Attributes
    ----------
    lost : asyncio.Event
        Set for ever once another process was found to have taken the database over.
    """

    def __init__(self, read: Callable[[Callable[[Connection], str | None]], Awaitable[str | None]]) -> None:
        self.lost = asyncio.Event()
        self._read = read
        self._token: str | None = None
        self._asking: asyncio.Task[None] | None = None  # has begun, and says nothing of what happens from now on
        self._next: asyncio.Task[None] | None = None

    async def take(self, write: Callable[[Callable[[Connection], None]], Awaitable[None]]) -> None:
        """Make the database this process's; whoever had it is shut out when this returns.

        Parameters
        ----------
        write : callable
            Writes to it, see `matl.coordinator.storage.database.Database.write`.

        Raises
        ------
        StateError
            This process had it before.
        ServiceError
            ``"busy"``: the database is out of reach.
        """
        if self._token is not None:
            raise StateError("the database was taken over before; open it anew to do so again")
        token = secrets.token_hex(_TOKEN)

        def change(connection: Connection) -> None:
            connection.execute(counters.update().where(_ROW).values(owner=token))

        await write(change)
        self._token = token

    def lock(self, connection: Connection) -> None:
        """Begin a transaction that writes.

        Raises
        ------
        ServiceError
            ``"busy"``, with the reason ``"superseded"``: another process has taken the database over.
        """
        self._compare(connection.execute(_OWNER.with_for_update()).scalar())

    async def confirm(self) -> None:
        """Return if the database was still this process's at some time since this was called.

        Those who ask at once share an answer: a thousand cost no more than a few.

        Raises
        ------
        ServiceError
            As `lock`; or the database is out of reach.
        """
        if self._token is None:
            return
        if self.lost.is_set():
            raise _refusal()
        if self._next is None:
            self._next = asyncio.create_task(self._ask(self._asking))
            self._next.add_done_callback(lambda done: done.cancelled() or done.exception())  # nobody may be left
        await asyncio.shield(self._next)

    async def close(self) -> None:
        """Wait until nothing is asked any more."""
        if there := [task for task in (self._asking, self._next) if task is not None]:
            await asyncio.wait(there)

    async def _ask(self, before: asyncio.Task[None] | None) -> None:
        if before is not None:
            await asyncio.wait([before])
        self._asking, self._next = self._next, None
        self._compare(await self._read(lambda connection: connection.execute(_OWNER).scalar()))

    def _compare(self, owner: str | None) -> None:
        if self._token is not None and owner != self._token:
            self.lost.set()
            raise _refusal()


def _refusal() -> ServiceError:
    return refusal(Code.BUSY, f"{SUPERSEDED}, and this one ends: ask again", reason="superseded", retry_after=1.0)
