"""How an update leaves a client: signed, kept, sent, and kept on until it was acknowledged."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable
from datetime import timedelta

from matl.attest.claims import Clock
from matl.attest.signing import sign_update
from matl.client.connection import Connection
from matl.client.folder import ClientFolder
from matl.client.pieces import InPieces
from matl.client.queue import Queue, Waiting
from matl.client.retrying import passing
from matl.client.transport import Message
from matl.errors import ProtocolError, ServiceError
from matl.protocol.envelope import Head
from matl.protocol.messages import Acknowledgement, SpecView
from matl.protocol.problems import Code, refusal
from matl.records import RoundSpec, Update

__all__ = ["LARGE", "Outbox"]

LARGE = 1 << 20
"""Bytes of payload above which an update is sent in pieces, where the transport can: see `matl.client.pieces`."""

_FRESH = timedelta(minutes=5)  # half of what coordinators allow, so that there is time to send
_STAYS = {"tls", "not_a_coordinator", "expired", "future", "broken_run"}  # reasons that say nothing about the update
_LOG = logging.getLogger("matl.client")


class Outbox:
    """Sends the updates of one client.

    Parameters
    ----------
    connection : Connection
        To the coordinator.
    folder : ClientFolder
        Whose updates.
    clock : Clock
        The client's.
    refuse : callable
        ``refuse(run, round)`` raises `ProtocolError` where what was kept may no longer be sent in this way.
    """

    def __init__(
        self, connection: Connection, folder: ClientFolder, clock: Clock, refuse: Callable[[str, int], None]
    ) -> None:
        self._connection, self._folder, self._clock, self._refuse = connection, folder, clock, refuse
        self._queue = Queue(folder.queue)
        self._turn = asyncio.Lock()  # one update at a time leaves

    def __len__(self) -> int:
        return len(self._queue)

    async def send(self, spec: RoundSpec, payload: bytes, *, num_examples: int | None) -> Acknowledgement:
        """Sign an update, keep it and send it.

        Raises
        ------
        ServiceError
            It was refused, and is forgotten; or nobody could be reached, and it is kept.
        StorageError
            It cannot be kept; it was not sent.
        """
        update = Update(
            client_id=self._folder.client_id,
            run=spec.run,
            round=spec.round,
            base_version=spec.round,
            model_hash=spec.model_hash,
            payload=payload,
            num_examples=num_examples,
            kind=spec.kind,
        )
        signed = await asyncio.to_thread(sign_update, update, self._folder.key, spec, clock=self._clock)
        async with self._turn:
            waiting = await asyncio.to_thread(self._queue.put, SpecView.of(spec), Head.of(signed), payload)
            try:
                return await self._deliver(waiting)
            except ServiceError as error:
                if not _kept(error):
                    raise
                raise ServiceError(
                    error.code,
                    f"{error}. The update is kept in {self._folder.queue} and sent as soon as there is an answer",
                    reason=error.reason,
                    retry_after=error.retry_after,
                ) from error

    async def flush(self, acknowledged: Callable[[Acknowledgement], None]) -> None:
        """Send what is waiting, oldest first. What is refused for good is dropped, and the log says so.

        Parameters
        ----------
        acknowledged : callable
            Told of each as it is acknowledged; what comes after it may fail.

        Raises
        ------
        ServiceError
            Nobody can be reached; what is left is kept.
        ProtocolError
            One of them may no longer be sent in this way; it is kept.
        """
        async with self._turn:
            for waiting in list(self._queue):
                self._still_allowed(waiting)
                try:
                    acknowledged(await self._deliver(waiting))
                except ServiceError as error:
                    if passing(error):
                        raise
                    kept = "; it is kept" if _kept(error) else "; it is dropped"
                    _LOG.warning("update for round %d of %s: %s%s", waiting.spec.round, waiting.spec.run, error, kept)

    def _still_allowed(self, waiting: Waiting) -> None:
        try:
            self._refuse(waiting.spec.run, waiting.spec.round)
        except ProtocolError as error:
            files = f"{waiting.name}.json and {waiting.name}.payload in {self._folder.queue}"
            raise ProtocolError(
                error.code, f"{error} An update for it was kept before that was agreed to; to go on, remove {files}"
            ) from error

    async def _deliver(self, waiting: Waiting) -> Acknowledgement:
        """Send one update, and forget it once it was answered for good."""
        age = self._clock().timestamp() - waiting.head.created_at
        if not -1 <= age <= _FRESH.total_seconds():
            waiting = await self._sign_again(waiting)
        try:
            acknowledgement = await self._transfer(waiting)
        except ServiceError as error:
            if not _kept(error):
                self._queue.done(waiting)
            raise
        if acknowledgement.payload_sha256 != waiting.head.payload_sha256:
            raise refusal(
                Code.MALFORMED,
                f"the coordinator acknowledged {acknowledgement.payload_sha256[:12]}, sent was "
                f"{waiting.head.payload_sha256[:12]}; tell its operator",
                reason="not_a_coordinator",
            )
        self._queue.done(waiting)
        return acknowledgement

    async def _sign_again(self, waiting: Waiting) -> Waiting:
        with self._queue.payload(waiting) as view:
            update = waiting.head.update(bytes(view))
            signed = await asyncio.to_thread(
                sign_update, update, self._folder.key, waiting.spec.spec(), clock=self._clock
            )
        return self._queue.sign_again(waiting, Head.of(signed))

    async def _transfer(self, waiting: Waiting) -> Acknowledgement:
        run, number = waiting.spec.run, waiting.spec.round
        with self._queue.payload(waiting) as view:
            message = Message(waiting.head.to_bytes(), view)
            if not self._connection.transport.resumable or len(view) <= LARGE:
                return await self._connection.raw(lambda transport: transport.submit(run, number, message))
            sending = InPieces(run, number, message)
            while sending.acknowledgement is None:
                await self._connection.raw(sending.step)
            return sending.acknowledgement


def _kept(error: ServiceError) -> bool:
    """Whether an update that met with this error may still be taken, here or at the right address."""
    return passing(error) or error.reason in _STAYS or error.code == Code.NOT_FOUND.value
