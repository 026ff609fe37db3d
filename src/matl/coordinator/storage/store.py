"""The coordinator's memory: everything that was acknowledged is in here, and survives what happens to the process."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from functools import partial
from types import TracebackType
from typing import Any, Self

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from matl import validate
from matl.coordinator.storage import phases, transactions
from matl.coordinator.storage.accepting import Accepted, Rejected, accept, reject
from matl.coordinator.storage.database import Database
from matl.coordinator.storage.queries import Reading
from matl.coordinator.storage.rows import (
    EventRow,
    PhaseRow,
    RoundRow,
    RunRow,
    RunStatus,
    UpdateRow,
    UploadRow,
    VerdictRow,
)
from matl.coordinator.storage.schema import documents, doomed_blobs, uploads
from matl.coordinator.storage.upgrading import bring_up_to_date
from matl.errors import StateError
from matl.state import pack

__all__ = ["Store"]

Models = Mapping[str, tuple[str, int]]

_EVENTS = 10_000  # most that are deleted at once: others wait to write meanwhile


class Store(Reading):
    """Runs, rounds, updates, verdicts, events and documents, in SQLite or PostgreSQL.

    A method that changes something does it in one transaction and returns when it is on the disk; it is done although
    its caller was cancelled. Every one takes the events that tell of it, which become visible with it. All raise
    `matl.errors.ServiceError` with code ``"busy"`` where the database is down, locked or full; if the connection was
    lost during a commit, what was asked for may have been done nevertheless, and asking again says so.

    Use `open`, in the event loop that also uses the store; and `close`, or ``async with``.

    Examples
    --------
    >>> import asyncio, tempfile
    >>> async def example(folder):
    ...     async with await Store.open(f"sqlite:///{folder}/matl.sqlite") as store:
    ...         await store.publish([EventRow(at=0.0, kind="started", run="", round=0, data={})])
    ...         return [(event.seq, event.kind) for event in await store.events()]
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     asyncio.run(example(folder))
    [(1, 'started')]
    """

    @classmethod
    async def open(cls, url: str, *, upgrade: bool = True) -> Self:
        """Connect to a database.

        Parameters
        ----------
        url : str
            ``sqlite:///relative/path``, ``sqlite:////absolute/path`` or ``postgresql://user:password@host/name``.
        upgrade : bool
            Make the tables, or bring them to this version; otherwise such a database is refused.

        Raises
        ------
        InvalidValueError
            The address is none.
        StateError
            The tables are newer than this library, or older and should stay so, or they are somebody else's.
        ServiceError
            ``"busy"``: the database is down, locked or full.
        """
        database = Database.connect(url)
        try:
            await bring_up_to_date(database.writer, upgrade=upgrade)
        except BaseException:
            await database.close()
            raise
        return cls(database)

    async def take_over(self) -> None:
        """Make the database this process's: to any other that did so before, its writes are refused from now on.

        Raises
        ------
        ServiceError
            ``"busy"``: the database is down, locked or full.
        """
        await self.database.fence.take(self.database.write)

    async def confirm(self) -> None:
        """Return if the database is still this process's, as what it remembers of it is of no use otherwise.

        Raises
        ------
        ServiceError
            ``"busy"``, with the reason ``"superseded"``: another process has taken it over; or it is out of reach.
        """
        await self.database.fence.confirm()

    async def close(self) -> None:
        """Finish what is being written, and let go of the database; a second time does nothing."""
        await self.database.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def create_run(self, run: RunRow, events: Sequence[EventRow] = (), *, models: Models | None = None) -> None:
        """Begin a run.

        Parameters
        ----------
        run : RunRow
            What it is.
        events : sequence of EventRow
            What is told of it.
        models : mapping of str to (str, int)
            By the hash of a model, SHA-256 and bytes of the blob that holds it.

        Raises
        ------
        StateError
            There is one of that id.
        """
        await self.database.write(partial(transactions.create_run, new=run, happened=events, known=models or {}))

    async def set_run_status(
        self, run: str, status: RunStatus, *, expected: Collection[RunStatus], events: Sequence[EventRow] = ()
    ) -> RunRow:
        """Change where a run stands; the run as it is then.

        Raises
        ------
        StateError
            It is not where it was expected to be, or there is none.
        """
        change = partial(transactions.set_run_status, run=run, status=status, expected=expected, happened=events)
        return await self.database.write(change)

    async def open_round(self, round: RoundRow, events: Sequence[EventRow] = ()) -> None:  # noqa: A002
        """Open a round; its state and model are those of the run.

        Raises
        ------
        StateError
            There is one of that number, or no such run.
        """
        await self.database.write(partial(transactions.open_round, new=round, happened=events))

    async def accept(
        self, update: UpdateRow, *, machine: Mapping[str, Any], floor: int, events: Sequence[EventRow] = ()
    ) -> bool:
        """Count an update: with its nonce, and with what the round is then.

        Updates that arrive together share a transaction; of their machines the last is stored, which has to contain
        those before, in the order of the calls.

        Parameters
        ----------
        update : UpdateRow
            The update, whose payload lies among the blobs.
        machine : mapping
            The round with this update.
        floor : int
            Of the client, see `matl.attest.replay.ReplayCache.floor`.
        events : sequence of EventRow
            What is told of it.

        Returns
        -------
        bool
            False if an update of this client was accepted in the round before; then nothing changes.

        Raises
        ------
        StateError
            The round is not open.
        """
        return await self.database.write_together(accept, Accepted(update, machine, floor, events))

    async def reject(self, update: UpdateRow, events: Sequence[EventRow] = ()) -> bool:
        """Remember that an update was refused whose sender is known. It does not keep the client from a good one.

        Returns
        -------
        bool
            False if one of this client was refused in the round before; then nothing changes, and nothing is told: no
            client fills the database.

        Raises
        ------
        StateError
            There is no such round.
        """
        return await self.database.write_together(reject, Rejected(update, events))

    async def keep_phase_message(
        self,
        message: PhaseRow,
        *,
        machine: Mapping[str, Any],
        update: UpdateRow | None = None,
        events: Sequence[EventRow] = (),
    ) -> None:
        """Write a message of a masked round down, with what the round is then.

        Parameters
        ----------
        message : PhaseRow
            The message; its client has none in the phase yet.
        machine : mapping
            The round with it.
        update : UpdateRow, optional
            The update that it is, if it is a masked vector.
        events : sequence of EventRow
            What is told of it.

        Raises
        ------
        StateError
            The round is not open.
        """
        change = partial(phases.keep, message=message, machine=machine, update=update, happened=events)
        await self.database.write(change)

    async def save_machine(self, run: str, number: int, machine: Mapping[str, Any]) -> None:
        """Write down what an open round is now, before anybody is told.

        Raises
        ------
        StateError
            It is not open.
        """
        await self.database.write(partial(phases.save, run=run, number=number, machine=machine))

    async def close_round(
        self,
        run: str,
        number: int,
        *,
        seed: int,
        machine: Mapping[str, Any],
        at: float,
        events: Sequence[EventRow] = (),
    ) -> None:
        """End the collection of a round, with the seed from which it is judged.

        Raises
        ------
        StateError
            It is not open.
        """
        change = partial(transactions.close_round, run=run, number=number, seed=seed, machine=machine, at=at)
        await self.database.write(partial(change, happened=events))

    async def end_round(
        self,
        round: RoundRow,  # noqa: A002
        *,
        run: RunRow,
        verdicts: Sequence[VerdictRow],
        events: Sequence[EventRow] = (),
        models: Models | None = None,
    ) -> RunRow:
        """Commit a round that was judged, or let one fail; never twice.

        Parameters
        ----------
        round : RoundRow
            Its status, machine, end, next model, reason and summary are stored, and when it closed if that is new. An
            open round may fail; only a judged one is committed.
        run : RunRow
            The run after it: round, state and model. Its status is taken if it is finished; otherwise what an operator
            made of it meanwhile stands.
        verdicts : sequence of VerdictRow
            One for each update.
        events, models
            As for `create_run`.

        Returns
        -------
        RunRow
            The run as it is stored.

        Raises
        ------
        StateError
            The round has ended already, is not there, or was not judged.
        """
        change = partial(transactions.end_round, ended=round, run=run, decided=verdicts)
        return await self.database.write(partial(change, happened=events, known=models or {}))

    async def publish(self, events: Sequence[EventRow]) -> int:
        """Tell events that belong to nothing else; the number of the last."""
        return await self.database.write(partial(transactions.publish, new=events))

    async def put_document(self, name: str, value: Mapping[str, Any], *, expected_version: int) -> int:
        """Replace a document; the version of the new one.

        Parameters
        ----------
        name : str
            Which.
        value : mapping
            Plain data, see `matl.state.pack`.
        expected_version : int
            Of the one that is replaced; 0 if there should be none.

        Raises
        ------
        StateError
            Another one took its place meanwhile: read it, and try again. Or the value is no plain data.
        """
        packed = pack(dict(value))
        await self.database.write(lambda connection: _put(connection, name, packed, expected_version))
        return expected_version + 1

    async def create_upload(self, upload: UploadRow) -> None:
        """Begin an update that arrives in pieces."""
        await self.database.write(lambda connection: transactions.insert(connection, uploads, [upload]))

    async def advance_upload(self, upload: str, *, offset_before: int, offset_after: int) -> None:
        """Note how much of an upload is on the disk.

        Raises
        ------
        StateError
            It was not at ``offset_before``, or is not there: another request was faster.
        """
        is_it = (uploads.c.id == upload, uploads.c.offset == offset_before)
        change = uploads.update().where(*is_it).values(offset=offset_after)
        if await self.database.write(lambda connection: connection.execute(change).rowcount) == 0:
            raise StateError(f"upload {upload} is not at byte {offset_before}; ask where it is")

    async def delete_upload(self, upload: str) -> None:
        """Forget an upload; one that is not there needs no forgetting."""
        change = uploads.delete().where(uploads.c.id == upload)
        await self.database.write(lambda connection: connection.execute(change).rowcount)

    async def prune(self, run: str, *, keep_rounds: int) -> list[str]:
        """Let go of what old rounds of a run were judged from: payloads, states, and models nobody starts from.

        Their rows stay: who sent what, and what was decided.

        Parameters
        ----------
        run : str
            Which.
        keep_rounds : int
            Rounds that have ended, the latest ones, which can still be judged again.

        Returns
        -------
        list of str
            The blobs that nothing needs any more. The caller deletes them, unless they are needed again, and says so
            by `forget_blobs`; until then they are among the `doomed_blobs`, whatever becomes of the caller.
        """
        validate.whole(0, keep_rounds=keep_rounds)
        return await self.database.write(partial(transactions.prune, run=run, keep_rounds=keep_rounds))

    async def forget_blobs(self, blobs: Collection[str]) -> None:
        """Note that blobs which `prune` named are deleted, or needed again; others are none of its business."""
        forgotten = doomed_blobs.delete().where(doomed_blobs.c.blob == sa.bindparam("a"))
        if names := [{"a": blob} for blob in sorted(blobs)]:
            await self.database.write(lambda connection: connection.execute(forgotten, names).rowcount)

    async def prune_events(self, *, before: float) -> int:
        """Delete the events of before a time (Unix seconds), the first ones and not all at once; how many it were.

        One that has a later time keeps all that follow it.
        """
        change = partial(transactions.prune_events, before=before, most=_EVENTS)
        return await self.database.write(change)


def _put(connection: Connection, name: str, packed: bytes, expected: int) -> None:
    is_it = documents.c.name == name
    version = connection.execute(sa.select(documents.c.version).where(is_it)).scalar() or 0
    if version != expected:
        raise StateError(f"document {name!r} is of version {version}, expected {expected}: read it, and try again")
    values = {"version": expected + 1, "value": packed}
    if version:
        connection.execute(documents.update().where(is_it).values(values))
    else:
        connection.execute(documents.insert().values(name=name, **values))
