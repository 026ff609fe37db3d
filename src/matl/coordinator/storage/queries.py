"""What the store is asked, without changing anything."""

from __future__ import annotations

from functools import partial
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from matl.coordinator.storage.database import Database
from matl.coordinator.storage.phases import of_round
from matl.coordinator.storage.rows import (
    EventRow,
    PhaseRow,
    RoundRow,
    RunRow,
    UpdateRow,
    UploadRow,
    VerdictRow,
)
from matl.coordinator.storage.schema import (
    documents,
    doomed_blobs,
    events,
    floors,
    models,
    nonces,
    rounds,
    runs,
    updates,
    uploads,
    verdicts,
)
from matl.coordinator.storage.transactions import is_referenced, referenced, row
from matl.state import State, unpack

__all__ = ["Reading"]

Row = TypeVar("Row")


class Reading:
    """The questions.

    All raise `matl.errors.ServiceError` with code ``"busy"`` where the database is down, locked or full.

    Parameters
    ----------
    database : Database
        With the tables of this version.
    """

    def __init__(self, database: Database) -> None:
        self.database = database

    async def ping(self) -> None:
        """Return if the database answers."""
        await self.database.read(lambda connection: connection.execute(sa.select(1)).scalar_one())

    async def run(self, run: str) -> RunRow | None:
        """A run."""
        return await self._first(RunRow, sa.select(runs).where(runs.c.id == run))

    async def runs(self) -> list[RunRow]:
        """All runs, the oldest first."""
        return await self._all(RunRow, sa.select(runs).order_by(runs.c.created_at, runs.c.id))

    async def round(self, run: str, number: int) -> RoundRow | None:
        """A round."""
        return await self._first(RoundRow, sa.select(rounds).where(rounds.c.run == run, rounds.c.number == number))

    async def rounds(self, run: str, *, before: int | None = None, limit: int = 50) -> list[RoundRow]:
        """At most ``limit`` rounds of a run, the latest first, those with a number below ``before`` if it is given."""
        query = sa.select(rounds).where(rounds.c.run == run).order_by(rounds.c.number.desc()).limit(limit)
        return await self._all(RoundRow, query if before is None else query.where(rounds.c.number < before))

    async def update(self, run: str, round: int, client: str) -> UpdateRow | None:  # noqa: A002 - the row's own word
        """A client's update in a round: the accepted one, else the first that was refused."""
        query = sa.select(updates).where(
            updates.c.run == run, updates.c.round == round, updates.c.client == client
        )  # fmt: skip
        return await self._first(UpdateRow, query.order_by(updates.c.accepted.desc()))

    async def updates(self, run: str, round: int, *, accepted: bool | None = None) -> list[UpdateRow]:  # noqa: A002
        """The updates of a round by client, all or those that were accepted or refused."""
        query = sa.select(updates).where(updates.c.run == run, updates.c.round == round)
        query = query if accepted is None else query.where(updates.c.accepted == accepted)
        found = await self._all(UpdateRow, query)
        return sorted(found, key=lambda item: (item.client, not item.accepted))  # databases differ in how text sorts

    async def phase_messages(self, run: str, round: int) -> list[PhaseRow]:  # noqa: A002
        """The messages of a masked round that has not ended, in the order in which they were taken."""
        return await self.database.read(partial(of_round, run=run, number=round))

    async def verdict(self, run: str, round: int, client: str) -> VerdictRow | None:  # noqa: A002
        """What was decided about a client's update."""
        found = await self.verdicts(run, round=round, client=client, limit=1)
        return found[0] if found else None

    async def verdicts(
        self,
        run: str,
        *,
        round: int | None = None,  # noqa: A002
        client: str | None = None,
        limit: int = 10_000,
    ) -> list[VerdictRow]:
        """At most ``limit`` verdicts of a run, the latest round first and by client within; of a round or client."""
        query = sa.select(verdicts).where(verdicts.c.run == run)
        query = query if round is None else query.where(verdicts.c.round == round)
        query = query if client is None else query.where(verdicts.c.client == client)
        return await self._all(VerdictRow, query.order_by(verdicts.c.round.desc(), verdicts.c.client).limit(limit))

    async def model(self, model_hash: str) -> tuple[str, int] | None:
        """SHA-256 and bytes of the blob of a model."""
        query = sa.select(models.c.blob, models.c.size).where(models.c.hash == model_hash)
        found = await self.database.read(lambda connection: connection.execute(query).first())
        return None if found is None else (found.blob, found.size)

    async def nonces(self) -> State:
        """What `matl.attest.replay.ReplayCache.restore` takes."""
        return await self.database.read(_nonces)

    async def events(self, *, after: int = 0, limit: int = 500, run: str | None = None) -> list[EventRow]:
        """At most ``limit`` events with a number above ``after``, in their order; of a run if it is given.

        Numbers have no gaps, and become visible in their order: who has seen one has seen all below. Old ones are not
        there for ever, see `matl.coordinator.storage.store.Store.prune_events`: the first has the lowest number that is
        kept.
        """
        query = sa.select(events).where(events.c.seq > after).order_by(events.c.seq).limit(limit)
        return await self._all(EventRow, query if run is None else query.where(events.c.run == run))

    async def document(self, name: str) -> tuple[int, State] | None:
        """Version and value of a document."""
        query = sa.select(documents.c.version, documents.c.value).where(documents.c.name == name)
        found = await self.database.read(lambda connection: connection.execute(query).first())
        return None if found is None else (found.version, unpack(found.value))

    async def upload(self, upload: str) -> UploadRow | None:
        """An upload that has begun."""
        return await self._first(UploadRow, sa.select(uploads).where(uploads.c.id == upload))

    async def expired_uploads(self, now: float) -> list[UploadRow]:
        """The uploads whose time is over."""
        return await self._all(UploadRow, sa.select(uploads).where(uploads.c.expires_at <= now))

    async def referenced_blobs(self) -> set[str]:
        """The blobs that are needed: of models, of states, and of the accepted updates of rounds that are kept."""
        return await self.database.read(referenced)

    async def needs_blob(self, sha256: str) -> bool:
        """Whether a blob is one of these; quick, however many there are."""
        return await self.database.read(lambda connection: is_referenced(connection, sha256))

    async def doomed_blobs(self) -> set[str]:
        """The blobs that were let go of, and of which nobody noted that they are deleted."""
        query = sa.select(doomed_blobs.c.blob)
        return await self.database.read(lambda connection: set(connection.execute(query).scalars()))

    async def _first(self, kind: type[Row], query: sa.Select[Any]) -> Row | None:
        found = await self._all(kind, query.limit(1))
        return found[0] if found else None

    async def _all(self, kind: type[Row], query: sa.Select[Any]) -> list[Row]:
        def ask(connection: Connection) -> list[Row]:
            return [row(kind, found) for found in connection.execute(query).mappings()]

        return await self.database.read(ask)


def _nonces(connection: Connection) -> State:
    seen: dict[str, dict[str, int]] = {}
    for client, nonce, created in connection.execute(sa.select(nonces)):
        seen.setdefault(client, {})[nonce] = created
    known = {row.client: row.floor for row in connection.execute(sa.select(floors))}
    return {"version": 1, "seen": seen, "floors": known}
