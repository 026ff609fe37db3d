"""What becomes of reads and writes when callers leave, disks fill up, and servers and processes die."""

from __future__ import annotations

import asyncio
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Awaitable
from contextlib import closing
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import Connection
from tests.coordinator.postgres import Server
from tests.coordinator.samples import event_row, open_store, round_row, update_row

from matl.coordinator.storage import database as database_module
from matl.coordinator.storage.store import Store
from matl.coordinator.storage.to_the_end import in_thread, to_the_end
from matl.coordinator.storage.unavailable import unavailable
from matl.errors import ServiceError, StateError, StorageError


async def pragma(store: Store, text: str) -> Any:
    """Of the connection that writes."""
    return await store.database.write(lambda connection: connection.exec_driver_sql(f"PRAGMA {text}").scalar())


async def refused(call: Awaitable[object]) -> str:
    with pytest.raises(ServiceError) as caught:
        await call
    assert (caught.value.code, caught.value.reason, caught.value.retry_after) == ("busy", "database", 1.0)
    return str(caught.value)


def test_a_write_is_done_although_its_caller_was_cancelled(database_url: str) -> None:
    async def check() -> None:
        async with await Store.open(database_url) as store:
            tasks = []
            for number in range(30):
                tasks.append(asyncio.create_task(store.publish([event_row("told", data={"n": number})])))
                for _ in range(1 + number % 5):
                    await asyncio.sleep(0)
                tasks[-1].cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await asyncio.wait_for(store.publish([event_row("last")]), 5)
            told = await store.events()
            assert [event.data["n"] for event in told[:-1]] == list(range(30))
            assert told[-1].kind == "last"

    asyncio.run(check())


def test_reads_that_are_cancelled_give_their_connections_back(database_url: str) -> None:
    async def check() -> None:
        async with await open_store(database_url) as store:
            connected: list[object] = []
            sa.event.listen(store.database.readers.sync_engine, "connect", lambda *of: connected.append(of))
            cancelled = 0
            for number in range(200):
                task = asyncio.create_task(store.events())
                await asyncio.sleep(number % 50 * 0.0001)
                task.cancel()
                answers = await asyncio.gather(task, return_exceptions=True)
                cancelled += isinstance(answers[0], asyncio.CancelledError)
                if cancelled > 20:
                    break
            assert len(await asyncio.wait_for(store.events(), 5)) == 2
            assert len(connected) == 1  # and it is still the same
            assert store.database.readers.pool.checkedout() == 0  # type: ignore[attr-defined]

    asyncio.run(check())


def test_closing_finishes_what_was_begun(database_url: str) -> None:
    async def check() -> None:
        store = await Store.open(database_url)
        tasks = [asyncio.create_task(store.publish([event_row()])) for _ in range(5)]
        await asyncio.sleep(0)
        await store.close()
        assert await asyncio.gather(*tasks) == [1, 2, 3, 4, 5]
        await store.close()
        with pytest.raises(StateError, match="the database was closed"):
            await store.publish([event_row()])
        async with await Store.open(database_url) as store:
            assert len(await store.events()) == 5

    asyncio.run(check())


def test_a_full_disk_is_said_and_leaves_everything_as_it_was(sqlite_url: str) -> None:
    async def check() -> None:
        async with await open_store(sqlite_url) as store:
            pages = await pragma(store, "page_count")
            await pragma(store, f"max_page_count={pages + 10}")
            large = event_row("large", data={"text": "x" * 200_000})
            told = await refused(store.publish([event_row("first"), large]))
            assert told == "the database is full: free some space on its disk"
            calls = [store.accept(update_row(client), machine={}, floor=-1, events=[large]) for client in "abc"]
            answers = await asyncio.gather(*calls, return_exceptions=True)
            assert {str(answer) for answer in answers} == {told}
            assert (len(await store.events()), await store.updates("run", 0)) == (2, [])
            assert await store.accept(update_row("small"), machine={}, floor=-1)  # for which there is room
            await pragma(store, "max_page_count=100000")
            assert await store.publish([event_row("first"), large]) == 4
            assert [update.client for update in await store.updates("run", 0)] == ["small"]

    asyncio.run(check())


def test_a_database_that_another_process_locks(sqlite_url: str) -> None:
    async def check() -> None:
        async with await open_store(sqlite_url) as store:
            await pragma(store, "busy_timeout=50")
            with closing(sqlite3.connect(sqlite_url.removeprefix("sqlite:///"), isolation_level=None)) as other:
                other.execute("BEGIN IMMEDIATE")
                assert await refused(store.publish([event_row()])) == "the database is locked by another process"
                assert len(await store.events()) == 2  # readers do not care
                other.execute("ROLLBACK")
            assert await store.publish([event_row()]) == 3

    asyncio.run(check())


def test_a_writer_that_breaks_off_fails_what_waits_and_the_next_write_begins_anew(
    sqlite_url: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    async def broken(*_: object) -> None:
        await asyncio.sleep(0.01)
        raise RuntimeError("nobody thought of this")

    async def check() -> None:
        async with await open_store(sqlite_url) as store:
            there = len(await store.events())
            with monkeypatch.context() as patch:
                patch.setattr(store.database, "_commit", broken)
                writing = [store.publish([event_row()]) for _ in range(database_module._TOGETHER + 3)]
                answers = await asyncio.wait_for(asyncio.gather(*writing, return_exceptions=True), 20)
                assert {type(answer) for answer in answers} == {ServiceError}
                words = "writing to the database broke off (RuntimeError: nobody thought of this)"
                assert str(answers[-1]) == f"{words}; what was asked for may have been done: ask again"
                assert "the next write begins anew" in caplog.text
                assert await refused(store.publish([event_row()])) == str(answers[0])
            assert await store.publish([event_row()]) == there + 1
            monkeypatch.setattr(store.database, "_commit", broken)
            assert await refused(store.publish([event_row()])) == str(answers[0])
        with pytest.raises(StateError, match="closed"):  # which a writer that is gone does not keep from being done
            await store.publish([event_row()])

    asyncio.run(check())


def test_a_writer_that_is_cancelled_leaves_nobody_waiting(sqlite_url: str) -> None:
    async def check() -> None:
        async with await open_store(sqlite_url) as store:
            writing = [asyncio.create_task(store.publish([event_row()])) for _ in range(3)]
            for _ in range(3):
                await asyncio.sleep(0)
            assert store.database._task is not None
            store.database._task.cancel()
            answers = await asyncio.wait_for(asyncio.gather(*writing, return_exceptions=True), 20)
            assert [type(answer) for answer in answers] == [ServiceError] * 3
            assert await store.publish([event_row()]) >= 3

    asyncio.run(check())


def test_too_many_writes_are_refused_at_once(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    async def check() -> None:
        async with await open_store(sqlite_url) as store:
            monkeypatch.setattr(database_module, "_WAITING", 20)
            calls = [store.publish([event_row()]) for _ in range(30)]
            answers = await asyncio.gather(*calls, return_exceptions=True)
            assert [type(answer) for answer in answers] == [int] * 20 + [ServiceError] * 10
            assert str(answers[-1]) == "20 writes wait for the database; try again later"

    asyncio.run(check())


def test_a_server_that_goes_down_and_comes_back(postgres: Server, postgres_url: str) -> None:
    async def check() -> None:
        async with await open_store(postgres_url) as store:
            await store.publish([event_row("before")])
            waiting = asyncio.create_task(store.database.write(lambda c: c.execute(sa.text("SELECT pg_sleep(60)"))))
            await asyncio.sleep(0.2)
            postgres.stop()
            assert await refused(waiting) == "the database is down"  # in the middle of a transaction
            for call in (store.ping(), store.run("run"), store.publish([event_row("lost")]), store.events()):
                assert await refused(call) == "the database is down"
            assert await refused(Store.open(postgres_url)) == "the database is down"
            assert postgres.start()
            await store.ping()
            assert await store.publish([event_row("after")]) == 4
            assert [event.kind for event in await store.events(after=2)] == ["before", "after"]

    asyncio.run(check())


def test_a_server_that_ends_a_connection_harms_one_call_at_most(postgres_url: str) -> None:
    async def check() -> None:
        async with await open_store(postgres_url) as store, await Store.open(postgres_url) as other:
            kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE pid <> pg_backend_pid() " \
                   "AND datname = current_database()"  # fmt: skip
            await other.database.write(lambda connection: connection.execute(sa.text(kill)).all())
            assert await store.publish([event_row("told")]) == 3
            assert len(await store.events()) == 3

    asyncio.run(check())


def test_two_processes_cannot_lock_each_other_out(database_url: str) -> None:
    """Whatever rows transactions touch, in whatever order."""

    async def check() -> None:
        async with await open_store(database_url) as one, await Store.open(database_url) as two:
            await one.open_round(round_row(number=1))
            calls = []
            for number in range(40):
                store, client = (one, two)[number % 2], f"c{number}"
                order = (0, 1) if number % 4 < 2 else (1, 0)
                calls += [store.accept(update_row(client, round=where), machine={"n": 1}, floor=-1) for where in order]
                calls.append(store.publish([event_row()]))
            answers = await asyncio.wait_for(asyncio.gather(*calls), 30)
            assert answers.count(True) == 80

    asyncio.run(check())


def test_what_was_acknowledged_survives_a_process_that_is_killed(sqlite_url: str) -> None:
    script = f"""
import asyncio
from tests.coordinator.samples import open_store, update_row
async def main():
    store = await open_store({sqlite_url!r})
    async def one(number):
        await store.accept(update_row(f"c{{number}}"), machine={{"n": number}}, floor=-1)
        print(f"c{{number}}", flush=True)
    for start in range(0, 100_000, 7):
        await asyncio.gather(*map(one, range(start, start + 7)))
asyncio.run(main())
"""
    with subprocess.Popen([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        told = [process.stdout.readline().strip() for _ in range(100)]
        process.send_signal(signal.SIGKILL)
        told += [line.strip() for line in process.stdout if line.endswith("\n")]

    async def check() -> None:
        async with await Store.open(sqlite_url) as store:
            there = {update.client for update in await store.updates("run", 0)}
            assert set(told) <= there
            state = await store.round("run", 0)
            assert state is not None
            assert state.accepted == len(there)
            assert len((await store.nonces())["seen"]) == len(there)

    asyncio.run(check())


def test_work_goes_on_to_its_end_and_the_caller_hears_of_the_cancellation_then() -> None:
    steps: list[str] = []

    @to_the_end
    async def work(fails: bool) -> None:
        steps.append("begun")
        await asyncio.sleep(0.02)
        steps.append("ended")
        if fails:
            raise ValueError("nobody is left to hear it")

    async def check(fails: bool) -> None:
        task = asyncio.create_task(work(fails))
        for _ in range(3):  # whoever is impatient cancels more than once
            await asyncio.sleep(0)
            task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert steps == ["begun", "ended"]
        steps.clear()

    asyncio.run(check(False))
    asyncio.run(check(True))
    with pytest.raises(ValueError, match="nobody"):
        asyncio.run(work(True))  # type: ignore[arg-type]
    assert asyncio.run(in_thread(pow, 2, 10)) == 1024  # type: ignore[arg-type]


def test_an_error_that_does_not_pass_by_itself_stays_what_it_is(database_url: str) -> None:
    def wrong(connection: Connection) -> None:
        connection.execute(sa.text("SELECT nothing FROM nowhere"))

    async def check() -> None:
        async with await Store.open(database_url) as store:
            for call in (store.database.read, store.database.write):
                with pytest.raises(sa.exc.DBAPIError, match="nowhere"):
                    await call(wrong)
            await store.publish([event_row()])

    asyncio.run(check())


def test_more_readers_than_connections_wait_or_are_told(sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database_module, "_PATIENCE", 1.0)  # on a busy machine 30 reads take a while

    async def check() -> None:
        async with await open_store(sqlite_url) as store:
            assert all(await asyncio.gather(*(store.events() for _ in range(30))))
            held = [await store.database.readers.connect() for _ in range(4)]
            assert await refused(store.events()) == "the database is out of connections: too much is read at once"
            for connection in held:
                await connection.close()
            assert len(await store.events()) == 2

    asyncio.run(check())


@pytest.mark.parametrize(
    ("state", "words"),
    [("53100", "full"), ("53300", "out of connections"), ("53200", "out of memory"), ("57P01", "down"),
     ("08006", "down"), ("55P03", "locked"), ("40P01", "locked"), ("57014", "too slow"), ("25006", "read-only"),
     ("58030", "not readable"), ("23505", ""), ("42601", ""), ("22021", "")],
)  # fmt: skip
def test_what_passes_by_itself_on_postgresql(state: str, words: str) -> None:
    class DriverError(Exception):
        sqlstate = state

    assert unavailable(sa.exc.DBAPIError("SELECT", {}, DriverError())).startswith(words)
    assert bool(unavailable(DriverError())) == bool(words)


def test_errors_that_are_no_errors_of_a_database() -> None:
    for error in (ValueError("x"), KeyError("x"), StorageError("the disk is full"), StateError("x")):
        assert unavailable(error) == ""
    assert unavailable(ConnectionRefusedError(111, "refused")) == unavailable(TimeoutError()) == "down"
