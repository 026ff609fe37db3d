"""Messages of masked rounds in the database: kept from the moment they are acknowledged until their round has ended."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from matl.coordinator.storage.rows import EventRow, PhaseRow, RoundStatus, UpdateRow
from matl.coordinator.storage.schema import phase_messages, rounds, updates
from matl.coordinator.storage.transactions import insert, publish, row
from matl.errors import StateError

__all__ = ["keep", "of_round", "save"]


def keep(
    connection: Connection,
    message: PhaseRow,
    machine: Mapping[str, Any],
    update: UpdateRow | None,
    happened: Sequence[EventRow],
) -> None:
    """Write a message down, with what the round is then, and with the update that it is."""
    save(connection, message.run, message.round, machine)
    insert(connection, phase_messages, [message])
    if update is not None:
        insert(connection, updates, [update])
        is_round = (rounds.c.run == message.run, rounds.c.number == message.round)
        connection.execute(rounds.update().where(*is_round).values(accepted=rounds.c.accepted + 1))
    publish(connection, happened)


def save(connection: Connection, run: str, number: int, machine: Mapping[str, Any]) -> None:
    """Write down what an open round is now."""
    is_round = (rounds.c.run == run, rounds.c.number == number, rounds.c.status == RoundStatus.OPEN)
    if connection.execute(rounds.update().where(*is_round).values(machine=machine)).rowcount != 1:
        raise StateError(f"round {number} of {run} is not open")


def of_round(connection: Connection, run: str, number: int) -> list[PhaseRow]:
    """The messages of a round, in the order in which they were taken."""
    query = sa.select(phase_messages).where(phase_messages.c.run == run, phase_messages.c.round == number)
    return [row(PhaseRow, found) for found in connection.execute(query.order_by(phase_messages.c.seq)).mappings()]
