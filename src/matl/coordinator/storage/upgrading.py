"""Brings a database to the tables of this version, or refuses one that is not there."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import sqlalchemy as sa
from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.engine import Connection
from sqlalchemy.exc import DatabaseError
from sqlalchemy.ext.asyncio import AsyncEngine

from matl.coordinator.storage.to_the_end import to_the_end
from matl.coordinator.storage.unavailable import busy, unavailable
from matl.errors import StateError

__all__ = ["NEWEST", "bring_up_to_date"]

_FOLDER = Path(__file__).parent / "migrations"
_ALEMBIC = threading.Lock()  # it keeps what it works on in global names
_POSTGRESQL_LOCK = 0x6D61746C  # "matl"; for other processes


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", str(_FOLDER).replace("%", "%%"))
    return config


_SCRIPTS = ScriptDirectory.from_config(_config())
NEWEST: str = _SCRIPTS.get_current_head() or ""
"""The version of the tables that this library reads and writes."""


@to_the_end
async def bring_up_to_date(engine: AsyncEngine, *, upgrade: bool) -> None:
    """Make the tables, or bring them to this version.

    Parameters
    ----------
    engine : AsyncEngine
        Of a connection that may write.
    upgrade : bool
        Otherwise tables that are not of this version are refused.

    Raises
    ------
    StateError
        The tables are newer than this library, or older and should stay so, or the file is no database.
    ServiceError
        ``"busy"``: the database is down, locked or full.
    """
    while not _ALEMBIC.acquire(blocking=False):  # waiting for it would stop the loop that is to release it
        await asyncio.sleep(0.01)
    try:
        async with engine.begin() as connection:
            await connection.run_sync(_check, upgrade)
    except Exception as error:
        if unavailable(error):
            raise busy(error) from error
        if isinstance(error, DatabaseError) and "not a database" in str(error.orig):
            raise StateError(f"{engine.url.database} is not a database of SQLite, or is encrypted") from error
        raise
    finally:
        _ALEMBIC.release()


def _check(connection: Connection, upgrade: bool) -> None:
    if connection.dialect.name == "postgresql":
        connection.execute(sa.select(sa.func.pg_advisory_xact_lock(_POSTGRESQL_LOCK)))
    current = MigrationContext.configure(connection).get_current_revision()
    if current == NEWEST:
        return
    if current is not None and current not in {script.revision for script in _SCRIPTS.walk_revisions()}:
        raise StateError(
            f"the tables of the database are of version {current}, which this library does not know; "
            f"it reads version {NEWEST}: install the version of matl that wrote them, or a later one"
        )
    if current is None and sa.inspect(connection).get_table_names():
        raise StateError("the database holds tables, and not those of matl; choose an empty one")
    if not upgrade:
        have = "no tables" if current is None else f"tables of version {current}"
        raise StateError(f"the database has {have}, and version {NEWEST} is needed: upgrade it first (matl db upgrade)")
    config = _config()
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
