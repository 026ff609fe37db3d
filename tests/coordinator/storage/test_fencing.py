"""A database belongs to the process that took it over last: no other writes, and each learns of it when it asks."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy import event
from tests.coordinator.samples import event_row

from matl.coordinator.storage.store import Store
from matl.errors import ServiceError, StateError


async def superseded(asking: Any) -> None:
    with pytest.raises(ServiceError, match="another coordinator has taken over the database") as refused:
        await asking
    assert (refused.value.code, refused.value.reason, refused.value.retry_after) == ("busy", "superseded", 1.0)


def test_whoever_took_it_over_before_writes_nothing_any_more(database_url: str) -> None:
    async def check() -> None:
        async with await Store.open(database_url) as old, await Store.open(database_url) as new:
            await old.take_over()
            assert await old.publish([event_row()]) == 1
            await old.confirm()
            await new.take_over()
            assert not old.database.fence.lost.is_set()  # it has not looked yet
            await superseded(old.publish([event_row()]))
            assert old.database.fence.lost.is_set()
            for _ in range(2):
                await superseded(old.confirm())
                await superseded(old.put_document("roster", {}, expected_version=0))
            await new.confirm()
            assert await new.publish([event_row()]) == 2
            assert [found.seq for found in await new.events()] == [1, 2]
            with pytest.raises(StateError, match="was taken over before"):
                await new.take_over()

    asyncio.run(check())


def test_writes_that_share_a_transaction_are_refused_together(database_url: str) -> None:
    async def check() -> None:
        async with await Store.open(database_url) as old, await Store.open(database_url) as new:
            await old.take_over()
            await new.take_over()
            outcomes = await asyncio.gather(*(old.publish([event_row()]) for _ in range(20)), return_exceptions=True)
            assert {getattr(outcome, "reason", outcome) for outcome in outcomes} == {"superseded"}
            assert await new.events() == []

    asyncio.run(check())


def test_a_write_that_waits_while_another_takes_over_is_refused(postgres_url: str) -> None:
    async def check() -> None:
        async with await Store.open(postgres_url) as old, await Store.open(postgres_url) as new:
            await old.take_over()

            def slowly(change: Callable[[sa.Connection], None]) -> Awaitable[None]:
                def both(connection: sa.Connection) -> None:
                    change(connection)
                    connection.execute(sa.text("SELECT pg_sleep(0.3)"))

                return new.database.write(both)

            taking = asyncio.create_task(new.database.fence.take(slowly))
            await asyncio.sleep(0.1)
            writing = asyncio.create_task(old.publish([event_row()]))  # its transaction began before the other's ended
            await asyncio.sleep(0.1)
            assert not taking.done()
            assert not writing.done()
            await taking
            await superseded(writing)

    asyncio.run(check())


def test_those_who_ask_at_once_share_an_answer_that_is_not_older_than_their_question(sqlite_url: str) -> None:
    async def check() -> None:
        async with await Store.open(sqlite_url) as store, await Store.open(sqlite_url) as new:
            await store.take_over()
            asked = []
            event.listen(
                store.database.readers.sync_engine,
                "before_cursor_execute",
                lambda *arguments: asked.append(arguments[2]) if "owner" in arguments[2] else None,
            )
            await asyncio.gather(*(store.confirm() for _ in range(100)))
            assert len(asked) == 1
            read, has_read, go_on = store.database.fence._read, asyncio.Event(), asyncio.Event()

            async def slowly(work: Callable[[sa.Connection], str | None]) -> str | None:
                found = await read(work)
                has_read.set()
                await go_on.wait()
                return found

            store.database.fence._read = slowly
            first = asyncio.create_task(store.confirm())
            await has_read.wait()
            await new.take_over()
            second = asyncio.create_task(store.confirm())  # what was read for the first is too old for this one
            await asyncio.sleep(0)
            go_on.set()
            await first
            await superseded(second)

    asyncio.run(check())


def test_showing_the_token_costs_no_statement(database_url: str) -> None:
    async def statements(store: Store) -> int:
        counted = []
        engine = store.database.writer.sync_engine
        note = lambda *arguments: counted.append(arguments[2])  # noqa: E731 - SQLAlchemy looks at its signature
        event.listen(engine, "before_cursor_execute", note)
        await store.publish([event_row()])
        event.remove(engine, "before_cursor_execute", note)
        return len(counted)

    async def check() -> None:
        async with await Store.open(database_url) as store:
            before = await statements(store)
            await store.take_over()
            assert await statements(store) == before

    asyncio.run(check())


def test_who_asks_and_goes_leaves_nothing_behind(sqlite_url: str) -> None:
    async def check() -> None:
        async with await Store.open(sqlite_url) as store, await Store.open(sqlite_url) as new:
            await store.confirm()  # of a database that nobody took over: nothing to say
            await store.take_over()
            await new.take_over()
            asking = asyncio.create_task(store.confirm())
            await asyncio.sleep(0)
            asking.cancel()
            await asyncio.gather(asking, return_exceptions=True)
            await store.close()
            assert store.database.fence.lost.is_set()

    asyncio.run(check())
