"""How a database comes to the tables of this version, and which are refused."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from alembic.autogenerate import compare_metadata
from alembic.runtime.migration import MigrationContext
from sqlalchemy.engine import Connection
from tests.coordinator.samples import event_row, open_store

from matl.coordinator.storage import migrations
from matl.coordinator.storage.database import Database
from matl.coordinator.storage.schema import METADATA
from matl.coordinator.storage.store import Store
from matl.coordinator.storage.upgrading import NEWEST
from matl.errors import StateError


async def execute(url: str, statement: str) -> None:
    """Run a statement in a database whatever its tables are."""
    database = Database.connect(url)
    async with database.writer.begin() as connection:
        await connection.execute(sa.text(statement))
    await database.close()


def test_the_migrations_make_the_tables_that_the_code_expects(database_url: str) -> None:
    def differences(connection: Connection) -> list[Any]:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        return list(compare_metadata(context, METADATA))

    async def check() -> None:
        async with await Store.open(database_url) as store:
            assert await store.database.read(differences) == []

    asyncio.run(check())


def test_opening_again_changes_nothing(database_url: str) -> None:
    async def check() -> None:
        for upgrade in (True, True, False):
            async with await Store.open(database_url, upgrade=upgrade) as store:
                await store.publish([event_row()])
        async with await Store.open(database_url) as store:
            assert len(await store.events()) == 3

    asyncio.run(check())


def test_tables_of_the_first_version_keep_what_they_hold(database_url: str) -> None:
    async def check() -> None:
        async with await open_store(database_url) as store:
            before = await store.events(), await store.runs(), await store.referenced_blobs()
        for since in ("doomed_blobs", "phase_messages"):
            await execute(database_url, f"DROP TABLE {since}")
        await execute(database_url, "ALTER TABLE counters DROP COLUMN owner")
        await execute(database_url, "UPDATE alembic_version SET version_num = '0001'")
        with pytest.raises(StateError, match="the database has tables of version 0001"):
            await Store.open(database_url, upgrade=False)
        async with await Store.open(database_url) as store:
            assert (await store.events(), await store.runs(), await store.referenced_blobs()) == before
            assert await store.doomed_blobs() == set()
            assert await store.publish([event_row()]) == len(before[0]) + 1

    asyncio.run(check())


def test_several_open_a_new_database_at_once(database_url: str) -> None:
    async def check() -> None:
        stores = await asyncio.gather(*(Store.open(database_url) for _ in range(4)))
        for store in stores:
            await store.publish([event_row()])
        assert len(await stores[0].events()) == 4
        for store in stores:
            await store.close()

    asyncio.run(check())


def test_a_database_without_tables_is_refused_if_it_should_stay_so(database_url: str) -> None:
    async def check() -> None:
        words = f"the database has no tables, and version {NEWEST} is needed: upgrade it first"
        for _ in range(2):
            with pytest.raises(StateError, match=words):
                await Store.open(database_url, upgrade=False)
        async with await Store.open(database_url):
            pass

    asyncio.run(check())


@pytest.mark.parametrize("upgrade", [True, False])
def test_tables_of_a_later_version_are_refused(database_url: str, upgrade: bool) -> None:
    async def check() -> None:
        async with await Store.open(database_url):
            pass
        await execute(database_url, "UPDATE alembic_version SET version_num = '9999'")
        with pytest.raises(StateError, match=f"of version 9999, which this library does not know; it reads .*{NEWEST}"):
            await Store.open(database_url, upgrade=upgrade)

    asyncio.run(check())


def test_the_tables_of_somebody_else_are_left_alone(database_url: str) -> None:
    async def check() -> None:
        await execute(database_url, "CREATE TABLE recipes (name TEXT)")
        with pytest.raises(StateError, match="holds tables, and not those of matl"):
            await Store.open(database_url)

    asyncio.run(check())


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    path = tmp_path / "notes.txt"
    path.write_text("shopping list\n" * 500)
    with pytest.raises(StateError, match=r"notes\.txt is not a database of SQLite"):
        asyncio.run(Store.open(f"sqlite:///{path}"))
    assert path.read_text() == "shopping list\n" * 500


def test_a_migration_that_fails_leaves_the_database_as_it_was(
    database_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*args: object, **kwargs: object) -> None:
        raise RuntimeError("power failure")

    async def check() -> None:
        with monkeypatch.context() as patch:
            patch.setattr("alembic.operations.Operations.bulk_insert", fails)  # the last step of the first version
            with pytest.raises(RuntimeError, match="power failure"):
                await Store.open(database_url)
        async with await Store.open(database_url) as store:
            assert await store.publish([event_row()]) == 1

    asyncio.run(check())


def test_the_migrations_are_part_of_the_package() -> None:
    folder = Path(migrations.__file__).parent
    assert (folder / "env.py").exists()
    assert [path.name for path in sorted((folder / "versions").glob("v*.py"))] == [
        "v0001_first.py",
        "v0002_doomed_blobs.py",
        "v0003_phases.py",
        "v0004_owner.py",
    ]
