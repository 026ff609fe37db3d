"""The one object behind every door: what clients and operators may ask of a coordinator, and what they are told.

A door (HTTP, gRPC, WebSocket) turns a request into one call, and what is returned or raised into an answer::

    caller = await service.authenticate(authorization, address=peer)  # who asks, and whether too often
    view = await service.current_round(caller, "demo", after=3, wait=30)

Everything that is raised on purpose is a `matl.errors.ServiceError` with a code of `matl.protocol.problems.Code`.
Updates say by their signature who sends them; all else goes by the caller: clients read what is about themselves,
viewers everything; operators act.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager, suppress
from typing import Self

from matl.attest.audit_log import AuditLog
from matl.attest.replay import ReplayCache
from matl.attest.verifying import SignatureVerifier
from matl.coordinator.access import Access
from matl.coordinator.admin import Admin
from matl.coordinator.attestations import Evidence
from matl.coordinator.core import Bell, ServiceSettings
from matl.coordinator.incoming import head_of
from matl.coordinator.joining import Joining
from matl.coordinator.keys import Keys
from matl.coordinator.owning import ADMIN_TOKEN
from matl.coordinator.phasing import Phasing
from matl.coordinator.reading import ModelBlob, Reading
from matl.coordinator.rounds.live import LiveRun
from matl.coordinator.rounds.plan import Host
from matl.coordinator.storage.blobs import Blobs
from matl.coordinator.storage.fencing import SUPERSEDED
from matl.coordinator.storage.rows import RunRow
from matl.coordinator.storage.store import Store
from matl.coordinator.trusting import Trusting
from matl.coordinator.uploads import Uploads
from matl.errors import MatlError, ServiceError
from matl.files import make_directory
from matl.protocol.problems import Code

__all__ = ["ADMIN_TOKEN", "ModelBlob", "Service", "ServiceSettings"]

logger = logging.getLogger(__name__)

_TICK = 0.25  # seconds
_TIDY = 30.0
_DAY = 86_400.0
_EVER = 1e18  # seconds


class Service(Joining, Uploads, Phasing, Reading, Trusting, Admin):
    """A coordinator. Use `open`.

    What its parts are for: `Joining` how clients come, `Uploads` how their updates do, `Phasing` how masked ones do,
    `Reading` and `Trusting` what is told, `Admin` what operators do.

    One process serves a database and a folder: the one that was opened last. One that was opened before writes nothing
    any more, and recognises nobody; `superseded` is set then, and whoever opened it is to close it.
    """

    @classmethod
    @asynccontextmanager
    async def open(cls, settings: ServiceSettings) -> AsyncIterator[Self]:
        """A coordinator at work: every run goes on where it stood.

        The first time, keys, an audit log and an operator's token of scope admin are made in the folder; the token is
        in the file `ADMIN_TOKEN`, which its owner alone can read.

        Raises
        ------
        StateError
            Something that is kept cannot be read, or another process uses the folder.
        StorageError
            The folder cannot be written.
        ServiceError
            ``"busy"``: the database or the blobs are out of reach.
        """
        make_directory(settings.folder, private=True)
        scratch = make_directory(settings.folder / "scratch")
        keys = await asyncio.to_thread(Keys.of, settings.folder)
        async with AsyncExitStack() as stack:
            audit_log = stack.enter_context(_audit_log(settings))
            store = await stack.enter_async_context(await Store.open(settings.database))
            await store.take_over()  # before anything is read, of which another process might make something else
            replays, bell = ReplayCache(), Bell()
            replays.restore(await store.nonces())
            evidence = Evidence(settings.attestation, required=settings.require_evidence)
            access = await Access.open(store, keys, settings.clock, evidence)
            host = Host(
                store=store,
                blobs=Blobs(settings.blobs),
                keys=keys,
                verifier=SignatureVerifier(access.identity, replays, settings.clock),
                replays=replays,
                scratch=scratch,
                ledgers=settings.folder / "privacy",
                clock=settings.clock,
                notify=bell.ring,
                overrides=lambda: access.overrides.value,
                identities=lambda: access.roster.value.identities,
            )
            service = cls(settings, host, access, audit_log, bell)
            await service.first_token()
            stack.push_async_callback(service._close)
            for row in await store.runs():
                await service._restore(row)
            service._unneeded = await store.doomed_blobs()  # of which a crash may have kept others
            service._uploads = {row.id: row for row in await store.expired_uploads(_EVER)}
            service._keeping = asyncio.create_task(service._keep_house())
            stack.push_async_callback(_end, service._keeping)
            stack.push_async_callback(_end, asyncio.create_task(service._keep_watch()))
            stack.callback(service.drain)
            yield service

    @property
    def superseded(self) -> asyncio.Event:
        """Set once another process has taken over the database."""
        return self.store.database.fence.lost

    def drain(self) -> None:
        """End every wait for rounds and events now, as before the doors are closed; nobody waits from then on."""
        self._closing.set()
        self._bell.ring()

    async def _restore(self, row: RunRow) -> None:
        """Go on with a run. One that cannot, whatever its settings, data or blobs have become, keeps no other from it.

        Where database or blobs are out of reach, none can go on, and that passes.
        """
        try:
            plan = await asyncio.to_thread(self.settings.planner, row.id, dict(row.settings))
            self._lives[row.id] = await LiveRun.restore(row, plan, self.host)
        except Exception as error:
            if isinstance(error, ServiceError) and error.code == Code.BUSY:
                raise
            known = isinstance(error, MatlError)
            words = str(error) if known else f"{type(error).__name__}: {error!s:.200}"
            logger.error("run %s cannot go on: %s", row.id, words, exc_info=None if known else error)
            self._broken[row.id] = words

    async def _keep_watch(self) -> None:
        """Notice soon that another process has taken over the database, also when nobody asks anything."""
        while not self.superseded.is_set():
            with suppress(ServiceError):  # it is out of reach, which passes; or lost
                await self.store.confirm()
            with suppress(TimeoutError):
                async with asyncio.timeout(_TICK):
                    await self.superseded.wait()
        logger.error("%s: nothing is taken here any more", SUPERSEDED)
        self.drain()

    async def _keep_house(self) -> None:
        """What is due by the clock: deadlines; uploads that nobody finished; payloads that nobody needs any more."""
        tidy_at = time.monotonic() + _TIDY
        while True:
            await asyncio.sleep(_TICK)
            for run, live in list(self._lives.items()):
                try:
                    await live.tick()
                except Exception:  # whatever it is, the other runs go on, and this one is looked at again
                    logger.exception("what run %s has to do by the clock is tried again", run)
            if time.monotonic() >= tidy_at:
                try:
                    await self.tidy()
                except Exception:  # whatever it is, deadlines go on
                    logger.exception("tidying up is tried again in %g seconds", _TIDY)
                tidy_at = time.monotonic() + _TIDY

    async def tidy(self) -> None:
        """Delete what is older than the retention: events, and what rounds were judged from; and uploads that ended.

        Raises
        ------
        ServiceError
            ``"busy"``: the database or the blobs are out of reach.
        """
        for upload in await self.store.expired_uploads(self.host.now()):
            if not self._sending[f"upload {upload.id}"]:
                await self._forget(upload)
        await self.store.prune_events(before=self.host.now() - _DAY * self.settings.event_days)
        for run in list(self._lives):
            self._unneeded.update(await self.store.prune(run, keep_rounds=self.settings.retention))
        custody = self.host.custody
        self._unneeded |= custody.left_behind()
        with ExitStack() as holds:
            # Held first, and asked about then: an update with the same bytes may be arriving.
            for name in self._unneeded:
                holds.enter_context(custody.holding(name))
            needed = await self.store.referenced_blobs() if self._unneeded else set()
            settled = self._unneeded & needed
            # A complete upload that may be taken later has no file but the blob.
            awaited = {head_of(one.head).payload_sha256 for one in self._uploads.values()}
            for name in sorted(self._unneeded - needed - awaited):
                if custody.useless(name):
                    await custody.discard(name, self.host.delete_blob)
                    settled.add(name)
            await self.store.forget_blobs(settled)
            self._unneeded -= settled

    async def _close(self) -> None:
        for live in self._lives.values():
            await live.close()


def _audit_log(settings: ServiceSettings) -> AuditLog:
    path = settings.folder / "audit.log"
    # A head without its log is a log that was lost, which opening it says.
    if path.exists() or path.with_name(path.name + ".head").exists():
        return AuditLog.open(path, clock=settings.clock)
    return AuditLog.create(path, settings.clock)


async def _end(task: asyncio.Task[None]) -> None:
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
