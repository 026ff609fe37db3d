"""Puts a coordinator together from its settings."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Mapping
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from dataclasses import replace
from typing import Any

from alembic.runtime.migration import MigrationContext
from sqlalchemy.engine import Connection

from matl.attest.tokens import Scope
from matl.coordinator.access import Caller
from matl.coordinator.core import ServiceSettings
from matl.coordinator.limits import Limits
from matl.coordinator.rounds.plan import Planner, RunPlan
from matl.coordinator.service import Service
from matl.coordinator.storage.database import Database
from matl.coordinator.storage.rows import RunStatus
from matl.coordinator.storage.schema import runs
from matl.coordinator.storage.store import Store
from matl.coordinator.storage.upgrading import NEWEST
from matl.errors import ServiceError, StateError
from matl.files import make_directory
from matl.network.folder import tell_url
from matl.network.planner import planner, stranger
from matl.network.resuming import resumed_all
from matl.network.serving import IN_FILE, Doors, free_socket, open_doors, tls_context
from matl.network.settings import NetworkSettings, RunSettings
from matl.network.telling import Say, latest_event, telling
from matl.protocol.messages import StartRequest
from matl.protocol.problems import Code

__all__ = ["begin", "extend", "hosted", "open_coordinator", "upgrade_database", "versions"]

_OWNER = Caller("operator", "matl-serve", Scope.ADMIN)


def hosted(
    settings: NetworkSettings, *, planner: Planner = planner, limits: Limits | None = None
) -> AbstractAsyncContextManager[Service]:
    """The coordinator of these settings, for as long as the block lasts.

    Parameters
    ----------
    settings : NetworkSettings
        Where it keeps what.
    planner : callable
        Makes the plan of a run.
    limits : Limits, optional
        What it bears, where that is not as usual.

    Raises
    ------
    StateError
        The database is of another version, or something in the folder cannot be read.
    ServiceError
        The database or the place of the blobs cannot be reached.
    MissingExtraError
        Evidence is to be checked, and what checks it is not installed.
    """
    return Service.open(
        ServiceSettings(
            database=settings.database_url,
            blobs=settings.blobs_url,
            folder=settings.folder,
            planner=planner,
            retention=settings.limits.retention,
            event_days=settings.limits.event_days,
            limits=replace(limits or Limits(), message=settings.limits.max_message),
            attestation=settings.attestation.formats(),
            require_evidence=settings.attestation.require,
        )
    )


async def extend(settings: NetworkSettings, run_id: str, run: RunSettings) -> None:
    """Give a run its new terms and more rounds, if there is one already; a coordinator that still runs is shut out.

    Parameters
    ----------
    settings : NetworkSettings
        Where the coordinator keeps what.
    run_id : str
        The run.
    run : RunSettings
        Its settings from now on, with the configuration that it was begun with.
    """

    def change(connection: Connection) -> None:
        is_it, longer = runs.c.id == run_id, runs.c.rounds < run.rounds
        again = runs.update().where(is_it, longer, runs.c.status == RunStatus.FINISHED)
        connection.execute(again.values(status=RunStatus.RUNNING))
        connection.execute(runs.update().where(is_it, longer).values(rounds=run.rounds))
        connection.execute(runs.update().where(is_it).values(settings=run.as_settings()))

    async with await Store.open(settings.database_url) as store:
        await store.take_over()  # one that still runs elsewhere would go on by the old terms
        await store.database.write(change)


@asynccontextmanager
async def open_coordinator(settings: NetworkSettings, *, say: Say | None = None) -> AsyncIterator[Doors]:
    """Serve the runs of the settings, and those that were begun otherwise, for as long as the block lasts.

    A coordinator that still runs elsewhere on the same database is shut out by this one, see
    `matl.coordinator.storage.fencing`; as soon as ``superseded`` is set in what this yields, that has happened here.

    What the settings say about a run that there is already counts from now on, its configuration apart, which has to
    be the one that it was begun with, see `matl.network.resuming.resumed`. A run that cannot go on for another reason,
    as that its data is gone, is logged, and keeps nobody from the others.

    Parameters
    ----------
    settings : NetworkSettings
        What is served, where.
    say : callable, optional
        Told in words what happens, see `matl.network.telling`.

    Raises
    ------
    MatlError
        Something does not fit, or cannot be reached. Of settings that do not fit nothing is written.
    """
    make_directory(settings.folder, private=True)
    named = await resumed_all(settings)

    def as_settled(run_id: str, stored: Mapping[str, Any]) -> RunPlan:
        run = named.get(run_id)
        return stranger(run_id, stored) if run is None else planner(run_id, run.as_settings())

    async with AsyncExitStack() as stack:
        # Before anything is taken over: a start that cannot succeed is not to end a coordinator that works.
        listener = free_socket(settings.host, settings.port, advice=IN_FILE)
        stack.callback(listener.close)
        if settings.tls is not None:
            tls_context(settings.tls)
        for name, run in named.items():
            await extend(settings, name, run)
        service = await stack.enter_async_context(hosted(settings, planner=as_settled))
        known = await latest_event(service)
        for name, run in named.items():  # before the doors are open: whoever comes finds them
            with contextlib.suppress(StateError):  # it was logged, and keeps nobody from the other runs
                await begin(service, _OWNER, name, run)
        doors = await stack.enter_async_context(open_doors(service, settings, listener=listener))
        tell_url(settings.folder, doors.url)
        if say is not None:
            await stack.enter_async_context(telling(service, say, after=known))
        yield doors


async def begin(service: Service, owner: Caller, run_id: str, run: RunSettings) -> None:
    """Start a run unless there is one.

    Raises
    ------
    StateError
        There is one, and it cannot go on: the settings are others, or something of it is lost.
    ServiceError
        Its settings do not fit, or the coordinator is too busy.
    """
    try:
        await service.run(owner, run_id)
    except ServiceError as error:
        if error.code == Code.CONFLICT:
            raise StateError(str(error)) from error
        if error.code != Code.NOT_FOUND:
            raise
        await service.start(owner, StartRequest(id=run_id, settings=run.as_settings()))


async def versions(settings: NetworkSettings) -> tuple[str, str]:
    """Version of the tables of the database, empty if it has none, and the version that this library needs.

    Raises
    ------
    ServiceError
        The database cannot be reached.
    """
    database = Database.connect(settings.database_url)
    try:
        found = await database.read(lambda connection: MigrationContext.configure(connection).get_current_revision())
    finally:
        await database.close()
    return found or "", NEWEST


async def upgrade_database(settings: NetworkSettings) -> None:
    """Bring the tables of the database to the version of this library, or make them.

    Raises
    ------
    StateError
        They are newer than this library, or somebody else's.
    ServiceError
        The database cannot be reached.
    """
    await (await Store.open(settings.database_url)).close()
