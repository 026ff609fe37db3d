"""Updates as they are written down: many at once, in a handful of statements."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from matl.coordinator.storage.rows import EventRow, RoundStatus, UpdateRow
from matl.coordinator.storage.schema import floors, nonces, rounds, updates
from matl.coordinator.storage.transactions import insert, publish
from matl.errors import StateError

__all__ = ["Accepted", "Rejected", "accept", "reject"]


@dataclass(frozen=True, slots=True)
class Accepted:
    """An update that is to be accepted, and what the round is then."""

    row: UpdateRow
    machine: Mapping[str, Any]
    floor: int
    events: Sequence[EventRow]


@dataclass(frozen=True, slots=True)
class Rejected:
    """An update that is refused."""

    row: UpdateRow
    events: Sequence[EventRow]


class _Round(NamedTuple):
    run: str
    number: int


def accept(connection: Connection, things: Sequence[Accepted]) -> list[bool | Exception]:
    """Of each whether it counts: not if its client has one in the round already, or the round takes none."""
    outcomes: list[bool | Exception] = [False] * len(things)
    taken: list[Accepted] = []
    for where, members in _by_round(thing.row for thing in things).items():
        status = connection.execute(sa.select(rounds.c.status).where(*_is(rounds, where))).scalar()
        if status is not RoundStatus.OPEN:
            is_now = "not there" if status is None else str(status)
            for index in members:
                outcomes[index] = StateError(f"round {where.number} of {where.run} takes no updates: it is {is_now}")
            continue
        there = _clients(connection, where, [things[index].row.client for index in members], accepted=True)
        counted = []
        for index in members:
            if things[index].row.client not in there:
                there.add(things[index].row.client)
                counted.append(index)
                outcomes[index] = True
        if counted:
            taken += [things[index] for index in counted]
            machine = things[counted[-1]].machine
            more = {"machine": machine, "accepted": rounds.c.accepted + len(counted)}
            connection.execute(rounds.update().where(*_is(rounds, where)).values(more))
    insert(connection, updates, [thing.row for thing in taken])
    _remember(connection, taken)
    publish(connection, [event for thing in taken for event in thing.events])
    return outcomes


def reject(connection: Connection, things: Sequence[Rejected]) -> list[bool | Exception]:
    """Of each whether it is the first of its client in the round, and was written down."""
    outcomes: list[bool | Exception] = [False] * len(things)
    for where, members in _by_round(thing.row for thing in things).items():
        status = connection.execute(sa.select(rounds.c.status).where(*_is(rounds, where))).scalar()
        if status is None:
            for index in members:
                outcomes[index] = StateError(f"there is no round {where.number} of {where.run}")
            continue
        there = _clients(connection, where, [things[index].row.client for index in members], accepted=False)
        for index in members:
            if things[index].row.client not in there:
                there.add(things[index].row.client)
                outcomes[index] = True
        new = sum(outcomes[index] is True for index in members)
        if new and status in (RoundStatus.OPEN, RoundStatus.JUDGING):  # the others are for ever
            more = {"rejected": rounds.c.rejected + new}
            connection.execute(rounds.update().where(*_is(rounds, where)).values(more))
    kept = [thing for thing, outcome in zip(things, outcomes, strict=True) if outcome is True]
    insert(connection, updates, [thing.row for thing in kept])
    publish(connection, [event for thing in kept for event in thing.events])
    return outcomes


def _by_round(rows: Iterable[UpdateRow]) -> dict[_Round, list[int]]:
    found: dict[_Round, list[int]] = {}
    for index, row in enumerate(rows):
        found.setdefault(_Round(row.run, row.round), []).append(index)
    return found


def _is(table: sa.Table, where: _Round) -> tuple[sa.ColumnElement[bool], sa.ColumnElement[bool]]:
    number = table.c.number if table is rounds else table.c.round
    return table.c.run == where.run, number == where.number


def _clients(connection: Connection, where: _Round, clients: Sequence[str], *, accepted: bool) -> set[str]:
    """Those of the clients that have an update in the round."""
    query = sa.select(updates.c.client).where(
        *_is(updates, where), updates.c.accepted == accepted, updates.c.client.in_(set(clients))
    )
    return set(connection.execute(query).scalars())


def _remember(connection: Connection, things: Sequence[Accepted]) -> None:
    """The nonces of updates and the floors of their clients, as `matl.attest.replay.ReplayCache` wants them kept."""
    highest: dict[str, int] = {}
    for thing in things:
        highest[thing.row.client] = max(thing.floor, highest.get(thing.row.client, -1))
    used = {
        (thing.row.client, thing.row.nonce): thing.row.created_ms
        for thing in things
        if thing.row.created_ms > highest[thing.row.client]
    }
    risen = {client: floor for client, floor in highest.items() if floor >= 0}
    if risen:
        known = connection.execute(sa.select(floors).where(floors.c.client.in_(risen))).all()
        for client, floor in known:
            risen[client] = max(floor, risen[client])
        _each(connection, floors.delete().where(floors.c.client == sa.bindparam("a")), [{"a": name} for name in risen])
        _each(connection, floors.insert(), [{"client": name, "floor": floor} for name, floor in risen.items()])
        fallen = nonces.delete().where(nonces.c.client == sa.bindparam("a"), nonces.c.created_ms <= sa.bindparam("b"))
        _each(connection, fallen, [{"a": client, "b": floor} for client, floor in risen.items()])
    same = nonces.delete().where(nonces.c.client == sa.bindparam("a"), nonces.c.nonce == sa.bindparam("b"))
    _each(connection, same, [{"a": client, "b": nonce} for client, nonce in used])
    rows = [{"client": client, "nonce": nonce, "created_ms": at} for (client, nonce), at in used.items()]
    _each(connection, nonces.insert(), rows)


def _each(connection: Connection, statement: sa.Executable, rows: Sequence[Mapping[str, Any]]) -> None:
    if rows:
        connection.execute(statement, rows)
