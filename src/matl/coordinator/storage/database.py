"""A database under the store: connections, reads, and writes of many callers that share one transaction."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, NamedTuple, Self, TypeVar

import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.engine import Connection, make_url
from sqlalchemy.exc import ArgumentError
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

from matl.coordinator.storage.fencing import Fence
from matl.coordinator.storage.to_the_end import to_the_end
from matl.coordinator.storage.unavailable import busy, unavailable
from matl.errors import InvalidValueError, StateError
from matl.files import make_directory, storage_error
from matl.protocol.problems import Code, refusal

__all__ = ["Database", "Writes"]

logger = logging.getLogger(__name__)

T = TypeVar("T")
R = TypeVar("R")
Writes = Callable[[Connection, Sequence[T]], Sequence[R | Exception]]
"""Does several things of one kind, and says of each what came of it; what is an exception is raised for its caller."""

_READERS = 4  # connections
_PATIENCE = 10.0  # seconds that a connection or a lock is waited for
_TOGETHER = 256  # most writes in a transaction
_WAITING = 10_000  # most writes that wait


@dataclass(frozen=True, slots=True)
class _Job(Generic[T, R]):
    kind: Writes[T, R]
    what: T
    answer: asyncio.Future[R] = field(default_factory=lambda: asyncio.get_running_loop().create_future())

    def settle(self, outcome: R | Exception) -> None:
        if self.answer.done():  # cancelled, or told already
            return
        if isinstance(outcome, Exception):
            self.answer.set_exception(outcome)
        else:
            self.answer.set_result(outcome)


class _Group(NamedTuple):
    """Jobs of one kind that follow one another."""

    kind: Writes[Any, Any]
    jobs: list[_Job[Any, Any]]


class Database:
    """SQLite or PostgreSQL, by one code path.

    All writes of a process go through one task and one connection. Those that wait while a transaction is committed
    share the next one, each in a savepoint of its own, and every caller is answered after the commit: a thousand
    updates that arrive together cost a few dozen flushes of the disk instead of a thousand. A caller that is cancelled
    stops waiting, and the write is done all the same.

    Every transaction that writes begins by locking the row of the event counter. So the writers of several processes
    follow one another on PostgreSQL too, as they do on SQLite, and what a transaction looked at holds until it ends.

    Parameters
    ----------
    writer, readers : AsyncEngine
        Where one connection writes, and where several read.

    Attributes
    ----------
    fence : Fence
        Keeps out who lost the database to another process.
    """

    def __init__(self, writer: AsyncEngine, readers: AsyncEngine) -> None:
        self.writer, self.readers = writer, readers
        self.fence = Fence(self.read)
        self._queue: asyncio.Queue[_Job[Any, Any] | None] = asyncio.Queue()
        self._task: asyncio.Task[None] | None = None
        self._closed = False

    @classmethod
    def connect(cls, url: str) -> Self:
        """The database of an address; nothing is sent to it yet.

        Parameters
        ----------
        url : str
            ``sqlite:///relative/path``, ``sqlite:////absolute/path``, or ``postgresql://user:password@host/name``, with
            what libpq understands behind a question mark (``sslmode``, ``sslrootcert``).

        Raises
        ------
        InvalidValueError
            It is no such address.
        StorageError
            The folder of the file cannot be written.
        """
        kind = url.partition("://")[0]
        if kind == "sqlite":
            return cls(*_sqlite(_sqlite_path(url)))
        if kind in ("postgresql", "postgres"):
            return cls(*_postgresql(url))
        raise InvalidValueError(  # the address itself may hold a password
            f"expected a database as sqlite:///path/to/file.sqlite or postgresql://user@host/name, got {kind!a:.20}://..."
        )

    async def read(self, work: Callable[[Connection], R]) -> R:
        """What ``work`` returns, in a transaction that sees one state of the database.

        Raises
        ------
        ServiceError
            ``"busy"``: the database is down, locked or full.
        """
        return await self._read(work)

    @to_the_end
    async def _read(self, work: Callable[[Connection], R]) -> R:
        try:
            async with self.readers.begin() as connection:
                return await connection.run_sync(work)
        except Exception as error:
            if unavailable(error):
                raise busy(error) from error
            raise

    async def write(self, work: Callable[[Connection], R]) -> R:
        """What ``work`` returns, once it is committed; if it raises, nothing of it is.

        Raises
        ------
        ServiceError
            ``"busy"``: the database is down, locked or full, or another process has taken it over. If the connection
            was lost during the commit, what was asked for may have been done.
        StateError
            The database was closed.
        """
        return await self.write_together(_singly, work)

    async def write_together(self, kind: Writes[T, R], what: T) -> R:
        """The same for what is cheaper in numbers: those that wait are handed to ``kind`` at once, in their order."""
        if self._closed:
            raise StateError("the database was closed")
        if self._queue.qsize() >= _WAITING:
            raise refusal(Code.BUSY, f"{_WAITING} writes wait for the database; try again later", retry_after=1)
        if self._task is None or self._task.done():
            self._task = asyncio.create_task(self._write_all())
        job = _Job(kind, what)
        self._queue.put_nowait(job)
        return await job.answer

    async def close(self) -> None:
        """Do what waits, and let go of the connections; a second time does nothing."""
        self._closed = True
        if self._task is not None:
            self._queue.put_nowait(None)
            await asyncio.wait([self._task])
            self._task = None
        await self.fence.close()
        await self.writer.dispose()
        await self.readers.dispose()

    async def _write_all(self) -> None:
        jobs: list[_Job[Any, Any] | None] = []
        try:
            while None not in jobs:
                jobs = [await self._queue.get()]
                while len(jobs) < _TOGETHER and not self._queue.empty():
                    jobs.append(self._queue.get_nowait())
                if wanted := [job for job in jobs if job is not None]:
                    await self._commit(wanted)
        except Exception as error:
            logger.exception("writing to the database broke off; the next write begins anew")
            self._give_up(jobs, f"{type(error).__name__}: {error!s:.200}")
        except BaseException as error:
            self._give_up(jobs, type(error).__name__)
            raise

    def _give_up(self, begun: Sequence[_Job[Any, Any] | None], reason: str) -> None:
        """Tell everybody who waits that nobody writes any more: what they asked for may have been done, or not."""
        words = f"writing to the database broke off ({reason}); what was asked for may have been done: ask again"
        waiting = [*begun]
        while not self._queue.empty():
            waiting.append(self._queue.get_nowait())
        for job in waiting:
            if job is not None:
                job.settle(refusal(Code.BUSY, words, reason="database", retry_after=1.0))

    async def _commit(self, jobs: list[_Job[Any, Any]]) -> None:
        try:
            async with self.writer.begin() as connection:
                outcomes = await connection.run_sync(_perform, _grouped(jobs), self.fence)
        except Exception as error:  # noqa: BLE001 - every caller is told
            outcomes = [busy(error) if unavailable(error) else error] * len(jobs)
        for job, outcome in zip(jobs, outcomes, strict=True):
            job.settle(outcome)


def _grouped(jobs: list[_Job[Any, Any]]) -> list[_Group]:
    groups: list[_Group] = []
    for job in jobs:
        if not groups or groups[-1].kind is not job.kind:
            groups.append(_Group(job.kind, []))
        groups[-1].jobs.append(job)
    return groups


def _perform(connection: Connection, groups: list[_Group], fence: Fence) -> list[Any]:
    fence.lock(connection)
    if len(groups) == 1 and len(groups[0].jobs) == 1:  # the transaction itself is its savepoint
        return list(groups[0].kind(connection, [groups[0].jobs[0].what]))
    outcomes: list[Any] = []
    for group in groups:
        outcomes += _attempt(connection, group.kind, [job.what for job in group.jobs])
    return outcomes


def _attempt(connection: Connection, kind: Writes[T, R], things: Sequence[T]) -> Sequence[R | Exception]:
    """What came of things of a kind. One that cannot be done takes none of the others with it."""
    savepoint = connection.begin_nested()
    try:
        outcomes = kind(connection, things)
        savepoint.commit()
        return outcomes
    except Exception as error:
        if unavailable(error):  # all is lost; SQLite has ended the transaction already if its disk is full
            raise
        savepoint.rollback()
        if len(things) == 1:
            return [error]
    return [outcome for thing in things for outcome in _attempt(connection, kind, [thing])]


def _singly(connection: Connection, works: Sequence[Callable[[Connection], Any]]) -> Sequence[Any]:
    """Unlike things, each in a savepoint."""
    if len(works) == 1:
        return [works[0](connection)]
    return [outcome for work in works for outcome in _attempt(connection, _singly, [work])]


def _sqlite_path(url: str) -> Path:
    try:
        name = make_url(url).database
    except (ArgumentError, ValueError) as error:
        raise InvalidValueError(f"expected sqlite:///path/to/file.sqlite, got {url!a:.200}") from error
    if not name or name == ":memory:":
        raise InvalidValueError(f"expected the path of a file in {url!a:.200}: a run has to survive its process")
    path = Path(name)
    make_directory(path.parent)
    try:  # a new one holds secrets, which its owner alone reads
        os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
    except OSError as error:
        raise storage_error(path, error) from error
    return path


def _sqlite(path: Path) -> tuple[AsyncEngine, AsyncEngine]:
    def engine(begin: str, pragmas: Sequence[str], connections: int) -> AsyncEngine:
        # Without an isolation level the driver begins nothing by itself, and savepoints work.
        made = create_async_engine(
            sa.URL.create("sqlite+aiosqlite", database=str(path)),
            connect_args={"isolation_level": None, "timeout": _PATIENCE},
            poolclass=sa.AsyncAdaptedQueuePool,
            pool_size=connections,
            max_overflow=0,
            pool_timeout=_PATIENCE,
        )

        @event.listens_for(made.sync_engine, "connect")
        def _configure(connection: Any, record: object) -> None:
            cursor = connection.cursor()
            for pragma in pragmas:
                cursor.execute(f"PRAGMA {pragma}")
            cursor.close()

        @event.listens_for(made.sync_engine, "begin")
        def _begin(connection: Connection) -> None:
            connection.exec_driver_sql(begin)

        return made

    # FULL: what was acknowledged survives a power failure, not only a crash of the process.
    writer = engine("BEGIN IMMEDIATE", ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"), 1)
    return writer, engine("BEGIN", ("query_only=ON",), _READERS)


def _postgresql(url: str) -> tuple[AsyncEngine, AsyncEngine]:
    import asyncpg

    # asyncpg reads the address, as libpq would; SQLAlchemy knows fewer options.
    address = "postgresql://" + url.partition("://")[2]

    def engine(settings: dict[str, str], connections: int, isolation: str) -> AsyncEngine:
        async def connect(**options: Any) -> Any:
            try:
                return await asyncpg.connect(
                    address,
                    timeout=_PATIENCE,
                    command_timeout=60,
                    server_settings={"application_name": "matl", "timezone": "UTC", **settings},
                    **options,
                )
            except (ValueError, asyncpg.InterfaceError, asyncpg.PostgresError) as error:
                if unavailable(error):
                    raise
                raise InvalidValueError(f"the address of the database, or what it grants, is wrong: {error}") from error

        return create_async_engine(
            "postgresql+asyncpg://",
            async_creator=connect,
            isolation_level=isolation,
            pool_size=connections,
            max_overflow=0,
            pool_timeout=_PATIENCE,
            pool_pre_ping=True,
        )

    milliseconds = str(int(1000 * _PATIENCE))
    patience = {"lock_timeout": milliseconds, "idle_in_transaction_session_timeout": "60000"}
    reading = {"default_transaction_read_only": "on"}
    return engine(patience, 1, "READ COMMITTED"), engine(reading, _READERS, "REPEATABLE READ")
