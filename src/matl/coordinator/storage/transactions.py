"""What the store does in one transaction each; see `matl.coordinator.storage.store.Store` for what it means."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import fields, replace
from itertools import takewhile
from typing import Any, TypeVar

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from matl.coordinator.storage.rows import EventRow, RoundRow, RoundStatus, RunRow, RunStatus, VerdictRow
from matl.coordinator.storage.schema import (
    counters,
    doomed_blobs,
    events,
    models,
    phase_messages,
    rounds,
    runs,
    updates,
    verdicts,
)
from matl.errors import StateError

__all__ = [
    "close_round",
    "create_run",
    "end_round",
    "insert",
    "is_referenced",
    "open_round",
    "prune",
    "prune_events",
    "publish",
    "referenced",
    "row",
    "set_run_status",
]

Row = TypeVar("Row")
Models = Mapping[str, tuple[str, int]]
_ENDED = (RoundStatus.COMMITTED, RoundStatus.FAILED)


def row(kind: type[Row], found: sa.RowMapping) -> Row:
    """The record that lies in a table's row, which may have further columns."""
    return kind(**{item.name: found[item.name] for item in fields(kind)})  # type: ignore[arg-type]


def insert(connection: Connection, table: sa.Table, rows: Sequence[Any], **more: Any) -> None:
    """Write records to their table."""
    if rows:
        names = [item.name for item in fields(rows[0])]
        connection.execute(table.insert(), [{name: getattr(item, name) for name in names} | more for item in rows])


def publish(connection: Connection, new: Sequence[EventRow]) -> int:
    """Number events and write them down; the number of the last event there is.

    The counter's row is locked by this transaction. So numbers are given in the order of commits.
    """
    is_counter = counters.c.name == "events"
    last: int = connection.execute(sa.select(counters.c.value).where(is_counter)).scalar_one()
    if new:
        insert(connection, events, [replace(item, seq=last + index) for index, item in enumerate(new, 1)])
        last += len(new)
        connection.execute(counters.update().where(is_counter).values(value=last))
    return last


def create_run(connection: Connection, new: RunRow, happened: Sequence[EventRow], known: Models) -> None:
    """Begin a run."""
    if connection.execute(sa.select(runs.c.id).where(runs.c.id == new.id)).first():
        raise StateError(f"there is a run {new.id!r} already; choose another id")
    insert(connection, runs, [new])
    _remember_models(connection, known)
    publish(connection, happened)


def set_run_status(
    connection: Connection, run: str, status: RunStatus, expected: Collection[RunStatus], happened: Sequence[EventRow]
) -> RunRow:
    """Change where a run stands, if it stands where it is expected to."""
    found = _run(connection, run)
    if found.status not in expected:
        raise StateError(f"run {run!r} is {found.status}; expected {' or '.join(sorted(expected))} to make it {status}")
    connection.execute(runs.update().where(runs.c.id == run).values(status=status))
    publish(connection, happened)
    return replace(found, status=status)


def open_round(connection: Connection, new: RoundRow, happened: Sequence[EventRow]) -> None:
    """Open a round, which begins from what the run has."""
    run = _run(connection, new.run)
    if _round(connection, new.run, new.number) is not None:
        raise StateError(f"there is a round {new.number} of {new.run} already")
    insert(connection, rounds, [new], state=run.state, model_hash=run.model_hash, kept=True)
    publish(connection, happened)


def close_round(
    connection: Connection,
    run: str,
    number: int,
    seed: int,
    machine: Mapping[str, Any],
    at: float,
    happened: Sequence[EventRow],
) -> None:
    """End the collection of a round."""
    _expect(connection, run, number, {RoundStatus.OPEN}, "closed")
    values = {"status": RoundStatus.JUDGING, "seed": seed, "machine": machine, "closed_at": at}
    connection.execute(rounds.update().where(rounds.c.run == run, rounds.c.number == number).values(values))
    publish(connection, happened)


def end_round(
    connection: Connection,
    ended: RoundRow,
    run: RunRow,
    decided: Sequence[VerdictRow],
    happened: Sequence[EventRow],
    known: Models,
) -> RunRow:
    """Commit a round, or let it fail; the run as it is then."""
    if ended.status not in _ENDED or run.id != ended.run:
        raise StateError(
            f"expected the end of a round of {run.id}, got {ended.run} round {ended.number} {ended.status}"
        )
    # A round with too few updates fails without having been judged.
    before = {RoundStatus.JUDGING} | ({RoundStatus.OPEN} if ended.status is RoundStatus.FAILED else set())
    _expect(connection, ended.run, ended.number, before, str(ended.status))
    is_round = (rounds.c.run == ended.run, rounds.c.number == ended.number)
    names = ("status", "machine", "ended_at", "next_model_hash", "reason", "summary")
    values = {name: getattr(ended, name) for name in names}
    values["closed_at"] = sa.func.coalesce(rounds.c.closed_at, ended.closed_at)
    connection.execute(rounds.update().where(*is_round).values(values))
    # An operator may have paused or stopped the run meanwhile; that stands, unless the run had its last round.
    stored = _run(connection, run.id)
    finished = run.status is RunStatus.FINISHED and stored.status is not RunStatus.STOPPED
    after = replace(stored, status=RunStatus.FINISHED if finished else stored.status)
    after = replace(after, round=run.round, state=run.state, model_hash=run.model_hash)
    values = {name: getattr(after, name) for name in ("status", "round", "state", "model_hash")}
    connection.execute(runs.update().where(runs.c.id == run.id).values(values))
    insert(connection, verdicts, decided)
    is_said = (phase_messages.c.run == ended.run, phase_messages.c.round == ended.number)
    connection.execute(phase_messages.delete().where(*is_said))
    _remember_models(connection, known)
    publish(connection, happened)
    return after


def prune(connection: Connection, run: str, keep_rounds: int) -> list[str]:
    """Let go of old rounds; the blobs that nothing needs any more, which are doomed then."""
    oldest = _run(connection, run).round - keep_rounds
    is_old = (rounds.c.run == run, rounds.c.number < oldest, rounds.c.status.in_(_ENDED), rounds.c.kept)
    if connection.execute(sa.select(rounds.c.number).where(*is_old).limit(1)).first() is None:
        return []
    before = referenced(connection)
    connection.execute(rounds.update().where(*is_old).values(kept=False))
    in_use = {name for column in (rounds.c.model_hash, rounds.c.next_model_hash)
              for name in connection.execute(sa.select(column).where(rounds.c.kept)).scalars()}  # fmt: skip
    in_use |= set(connection.execute(sa.select(runs.c.model_hash)).scalars())
    known = connection.execute(sa.select(models.c.hash)).scalars()
    if unused := [{"a": name} for name in known if name not in in_use]:
        connection.execute(models.delete().where(models.c.hash == sa.bindparam("a")), unused)
    gone = before - referenced(connection)
    if new := gone - set(connection.execute(sa.select(doomed_blobs.c.blob)).scalars()):
        connection.execute(doomed_blobs.insert(), [{"blob": name} for name in sorted(new)])
    return sorted(gone)


def prune_events(connection: Connection, before: float, most: int) -> int:
    """Delete the first events, up to one that is not older; how many it were."""
    first = connection.execute(sa.select(events.c.seq, events.c.at).order_by(events.c.seq).limit(most))
    old = [seq for seq, _ in takewhile(lambda found: found.at < before, first)]
    if old:
        connection.execute(events.delete().where(events.c.seq <= old[-1]))
    return len(old)


def referenced(connection: Connection) -> set[str]:
    """The blobs that are needed."""
    return {name for query in _references() for name in connection.execute(query).scalars()} - {""}


def is_referenced(connection: Connection, blob: str) -> bool:
    """Whether a blob is needed."""
    queries = (query.where(query.selected_columns[0] == blob).limit(1) for query in _references())
    return any(connection.execute(query).first() for query in queries)


def _references() -> list[sa.Select[str]]:
    """Blobs of models, of states, and of the updates of rounds that are kept."""
    kept = updates.join(rounds, (rounds.c.run == updates.c.run) & (rounds.c.number == updates.c.round))
    return [
        sa.select(updates.c.payload_sha256).select_from(kept).where(rounds.c.kept, updates.c.accepted),
        sa.select(rounds.c.state).where(rounds.c.kept),
        sa.select(runs.c.state),
        sa.select(models.c.blob),
    ]


def _remember_models(connection: Connection, known: Models) -> None:
    there = set(connection.execute(sa.select(models.c.hash).where(models.c.hash.in_(known))).scalars())
    new = [{"hash": name, "blob": blob, "size": size} for name, (blob, size) in known.items() if name not in there]
    if new:
        connection.execute(models.insert(), new)


def _run(connection: Connection, run: str) -> RunRow:
    found = connection.execute(sa.select(runs).where(runs.c.id == run)).mappings().first()
    if found is None:
        raise StateError(f"there is no run {run!r}")
    return row(RunRow, found)


def _round(connection: Connection, run: str, number: int) -> RoundStatus | None:
    query = sa.select(rounds.c.status).where(rounds.c.run == run, rounds.c.number == number)
    return connection.execute(query).scalar()


def _expect(connection: Connection, run: str, number: int, allowed: Collection[RoundStatus], word: str) -> None:
    status = _round(connection, run, number)
    if status not in allowed:
        have = "is not there" if status is None else f"is {status}"
        raise StateError(
            f"round {number} of {run} {have}; expected {' or '.join(sorted(allowed))}: it cannot be {word}"
        )
