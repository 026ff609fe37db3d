"""Updates on their way in: in one message, or in pieces that may be sent on after an interruption."""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator
from dataclasses import replace

from matl.coordinator.access import Caller
from matl.coordinator.core import Core
from matl.coordinator.incoming import head_of, read_message
from matl.coordinator.measures import measured
from matl.coordinator.rounds.live import LiveRun
from matl.coordinator.storage.rows import UploadRow
from matl.coordinator.views import moment, upload_view
from matl.errors import ServiceError
from matl.protocol.envelope import Head
from matl.protocol.messages import Acknowledgement, UploadView
from matl.protocol.problems import Code, refusal

__all__ = ["Uploads"]

_ID_BYTES = 24


class Uploads(Core):
    """What signed updates go through before a run takes them; see `matl.coordinator.rounds.live.LiveRun.take`."""

    @measured
    async def submit(
        self, caller: Caller | None, run: str, number: int, message: AsyncIterator[bytes]
    ) -> Acknowledgement:
        """Take an update. Once this returns it is on the disk, and counts.

        Parameters
        ----------
        caller : Caller or None
            Who asks, if that is known; it is the signature that says whose update it is. A client sends its own alone.
        run, number : str, int
            Run and round that it is sent to, which its head has to name.
        message : async iterator of bytes
            See `matl.protocol.envelope.frame`. The payload is asked for only when the head is good.

        Raises
        ------
        ServiceError
            It is refused, see `LiveRun.examine`; or ``"rate"`` or ``"busy"``.
        """
        head, payload = await read_message(message)
        live = self._addressed(head, run, number)
        if caller is not None and caller.kind == "client" and caller.name != head.client_id:
            words = f"{caller.name} sent an update of {head.client_id}; each client sends its own"
            raise refusal(Code.FORBIDDEN, words, reason="client")
        with self._charging(head.client_id):
            if (known := await live.examine(head)) is not None:
                return known
            with self._arrival(head.client_id, head.payload_bytes):
                return await live.take(head, self._in_time(payload))

    @measured
    async def begin_upload(self, run: str, number: int, head: bytes) -> UploadView:
        """Announce an update that comes in pieces. The same head once more finds the upload that it began.

        Raises
        ------
        ServiceError
            As for `submit`; ``"rate"`` if the client has too many that it began.
        """
        read = head_of(head)
        live = self._addressed(read, run, number)
        now = self.host.now()
        with self._charging(read.client_id):
            known = await live.examine(read)
        row = UploadRow(
            id=secrets.token_urlsafe(_ID_BYTES),
            run=run,
            round=number,
            client=read.client_id,
            head=head,
            size=read.payload_bytes,
            offset=0,
            began_at=now,
            expires_at=now + self.settings.limits.upload_seconds,
        )
        if known is not None:
            return upload_view(replace(row, offset=row.size, expires_at=now), known)
        began = await self._began_by(read.client_id)
        for one in began:
            if one.head == head:
                return upload_view(one)
        if len(began) >= self.settings.limits.uploads:
            raise refusal(
                Code.RATE,
                f"{read.client_id} has begun {len(began)} uploads, and may have {self.settings.limits.uploads}: finish "
                "one, or wait until one has expired",
                reason="uploads",
                retry_after=max(1.0, min(one.expires_at for one in began) - now),
            )
        self._uploads[row.id] = row
        try:
            await self.store.create_upload(row)
        except ServiceError:
            del self._uploads[row.id]
            raise
        return upload_view(row)

    async def upload(self, id: str) -> UploadView:  # noqa: A002 - the contract's word
        """How far an upload is. Its id is a secret of whoever began it.

        Raises
        ------
        ServiceError
            ``"not_found"``: there is none, or not any more.
        """
        return upload_view(self._upload(id))

    @measured
    async def append(
        self,
        id: str,  # noqa: A002
        offset: int,
        data: AsyncIterator[bytes],
        *,
        size: int | None = None,
    ) -> UploadView:
        """Take the next piece of an upload; with the last one the update is taken, as by `submit`.

        If a piece breaks off, what came of it is kept. If the update could not be taken *now*, an empty piece at the
        end asks for it once more.

        Parameters
        ----------
        id : str
            The upload.
        offset : int
            Where in the payload the piece begins; has to be what `upload` says.
        data : async iterator of bytes
            The piece.
        size : int, optional
            Bytes that it has at most; all that is missing, if not given.

        Raises
        ------
        ServiceError
            ``"not_found"``; ``"conflict"`` if it does not begin there; and as for `submit`.
        """
        row = self._upload(id)
        # The row of an upload is replaced under this only: one request at a time.
        if self._sending[f"upload {id}"]:
            raise refusal(Code.CONFLICT, "another piece of this upload is arriving", reason="in_flight")
        if offset != row.offset:
            words = f"the next piece begins at byte {row.offset}, this one at {offset}"
            raise refusal(Code.CONFLICT, words, reason="offset")
        self._sending[f"upload {id}"] += 1
        try:
            with self._charging(row.client):
                if row.offset < row.size:
                    missing = row.size - row.offset
                    row = await self._add(row, data, missing if size is None else min(size, missing))
                return upload_view(row, await self._complete(row) if row.offset == row.size else None)
        finally:
            del self._sending[f"upload {id}"]

    async def _add(self, row: UploadRow, data: AsyncIterator[bytes], most: int) -> UploadRow:
        broken: list[Exception] = []

        async def coming() -> AsyncIterator[bytes]:
            try:
                async for piece in self._in_time(data):
                    yield piece
            except Exception as error:  # noqa: BLE001 - raised below, when what came before it is safe
                broken.append(error)

        with self._arrival(row.client, most):
            end = await self.blobs.append(row.id, row.offset, coming(), limit=row.offset + most)
        if end > row.offset:
            await self.store.advance_upload(row.id, offset_before=row.offset, offset_after=end)
            row = self._uploads[row.id] = replace(row, offset=end)
        if broken:
            raise broken[0]
        return row

    async def _complete(self, row: UploadRow) -> Acknowledgement:
        """Take the update whose payload is there, and let go of the upload unless it may be taken later."""
        head = head_of(row.head)
        name = head.payload_sha256
        try:
            live = self.live(row.run)
            with self.host.custody.holding(name):
                await self.host.custody.there(name)
                await self._finish(row, name)
            taken = await live.take(head, None, arrived=moment(row.began_at))
        except ServiceError as error:
            if error.code != Code.BUSY:
                await self._forget(row)
            raise
        await self._forget(row)
        return taken

    async def _finish(self, row: UploadRow, name: str) -> None:
        """Make the bytes of an upload the blob that was announced.

        They are looked at although there is such a blob: who knows the hash of another's payload has not got the
        payload. They are gone if they became the blob before, and the update was to be taken later.
        """
        try:
            await self.blobs.finish(row.id, name)
        except ServiceError as error:
            if error.code != Code.NOT_FOUND or not await self.blobs.exists(name):
                raise

    async def _forget(self, row: UploadRow) -> None:
        """Let go of an upload and what there is of it."""
        self._uploads.pop(row.id, None)
        await self.store.delete_upload(row.id)  # first: without its bytes it would pass for one that became a blob
        await self.blobs.discard(row.id)

    async def _began_by(self, client: str) -> list[UploadRow]:
        """The uploads that a client has begun, for rounds that are not over."""
        there = []
        for row in [one for one in self._uploads.values() if one.client == client]:
            live = self._lives.get(row.run)
            over = live is None or row.round < live.row.round - live.plan.workload.max_staleness
            if (over or row.expires_at <= self.host.now()) and not self._sending[f"upload {row.id}"]:
                await self._forget(row)
            else:
                there.append(row)
        return there

    def _upload(self, id: str) -> UploadRow:  # noqa: A002
        row = self._uploads.get(id)
        if row is None or row.expires_at <= self.host.now():
            raise refusal(Code.NOT_FOUND, "there is no such upload, or not any more; begin again", reason="upload")
        return row

    def _addressed(self, head: Head, run: str, number: int) -> LiveRun:
        """The run that an update is for, if it is sent there and not too large for anybody."""
        live = self.live(run)
        for name, said, asked in (("run", head.run, run), ("round", head.round, number)):
            if said != asked:
                words = f"the head names {name} {said!r}, and it was sent to {asked!r}"
                raise refusal(Code.INVALID, words, reason=name)
        if head.payload_bytes > (most := self.settings.limits.message):
            words = f"expected a payload of at most {most} bytes, the head announces {head.payload_bytes}"
            raise refusal(Code.TOO_LARGE, words, reason="payload_bytes")
        return live
