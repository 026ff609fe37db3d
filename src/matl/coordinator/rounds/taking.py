"""How a run takes updates: refused by their envelope, screened by their values, counted once, and acknowledged."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import ExitStack
from dataclasses import replace
from datetime import datetime

from matl.coordinator.rounds.closing import HELD
from matl.coordinator.rounds.intake import envelope_refused, payload_refused
from matl.coordinator.rounds.machine import Answer, Machine, Received, step
from matl.coordinator.rounds.series import ENDED, Rounds
from matl.coordinator.storage.rows import RunStatus, UpdateRow
from matl.errors import ProtocolError, ServiceError
from matl.protocol.envelope import Head
from matl.protocol.messages import Acknowledgement
from matl.protocol.problems import Code, refusal
from matl.records import Rejection

__all__ = ["Taking"]

_SOON = 1.0  # seconds after which an update may be sent again that came between two rounds
_PAUSED = 15.0


class Taking(Rounds):
    """What a run does with updates.

    It is an update's signature that says who sent it. Whoever could have sent it is told no more than that it is
    refused; what is written down about a client, its client has signed.
    """

    async def examine(self, head: Head, *, arrived: datetime | None = None) -> Acknowledgement | None:
        """Look at an update before its payload is let in; nothing is used up by it.

        Parameters
        ----------
        head : Head
            What its client says of it.
        arrived : datetime, optional
            When it came, if not now.

        Returns
        -------
        Acknowledgement or None
            ``None`` if the payload may come. An acknowledgement if the update was accepted before.

        Raises
        ------
        ServiceError
            It is refused. ``"unauthenticated"``: it is not known who sent it. ``"conflict"``: another update of the
            client counts, the round is over, or others were drawn for it. ``"invalid"`` and ``"forbidden"``: it was
            signed by its client and cannot be taken, and that was written down if it was made for such a run.
            ``"busy"``: it may be sent again later, as it is.
        """
        forged, misplaced = self._forged(head, arrived), self._misplaced(head)
        if misplaced is None and (known := await self._known(head, proven=forged is None)) is not None:
            return known
        if forged is not None:  # before all that is held against the client that the head names
            raise _unauthenticated(forged)
        if misplaced is not None:
            raise misplaced
        self._check_time(head)
        self._check_selected(head.client_id)
        if (held := self._held(head)) is not None:
            raise await self._refused(head, held, Code.FORBIDDEN)
        if (rejection := envelope_refused(self.plan.workload, self.state, head)) is not None:
            raise await self._refused(head, rejection)
        return None

    async def take(
        self, head: Head, payload: AsyncIterator[bytes] | None, *, arrived: datetime | None = None
    ) -> Acknowledgement:
        """Take an update: once this returns it is in the store, and counts.

        Whoever cancels it when the payload has come does not learn what became of the update, and may ask by sending it
        again.

        Parameters
        ----------
        head : Head
            What its client says of it.
        payload : async iterator of bytes, or None
            What it says it of; ``None`` if it lies among the blobs already.
        arrived : datetime, optional
            When the head came, if not now; an upload in pieces takes longer than a signature is fresh.

        Raises
        ------
        ServiceError
            As for `examine`, of which it is the first step, and what the blobs raise.
        """
        arrived = arrived or self._host.clock()
        if (known := await self.examine(head, arrived=arrived)) is not None:
            return known
        name = head.payload_sha256
        with ExitStack() as hold:
            hold.enter_context(self._host.custody.holding(name))
            await self._host.custody.there(name)
            there = await self._host.blobs.exists(name)
            try:
                if payload is not None:
                    await self._host.blobs.write(payload, expected_sha256=name, size=head.payload_bytes)
                elif not there:
                    raise refusal(Code.NOT_FOUND, f"the payload {name} is not here; upload it again", reason="payload")
            except BaseException:  # a sender who leaves at the last byte leaves a blob
                self._host.custody.leave(name)
                raise
            work = self._take(head, arrived, new=not there, hold=hold.pop_all())
        return await asyncio.shield(self._spawn(work))

    async def _take(self, head: Head, arrived: datetime, *, new: bool, hold: ExitStack) -> Acknowledgement:
        """Screen an update whose payload is there, and accept it; a payload that nobody needs is deleted."""
        custody, blobs, name = self._host.custody, self._host.blobs, head.payload_sha256
        with hold:
            try:
                path = blobs.path(name)
                payload = await blobs.read(name) if path is None else path
                rejection = await payload_refused(self.plan.workload, self.state, head, payload)
                if rejection is not None:
                    raise await self._refused(head, rejection)
                return await self._accept(head, arrived)
            except ServiceError as error:
                # What may be taken later is left for then, though not for ever.
                if error.code == Code.BUSY:
                    custody.leave(name)
                elif new or not await self._host.store.needs_blob(name):
                    await custody.discard(name, self._host.delete_blob)
                raise
            except BaseException:
                custody.leave(name)
                raise

    async def _accept(self, head: Head, arrived: datetime) -> Acknowledgement:
        """Count an update that was screened. Its nonce is used up when it is in the store, and not before."""
        async with self._lock:
            await self._refresh()
            if head.client_id not in self.machine.senders:
                self._check_time(head)
                self._check_selected(head.client_id)
                if (held := self._held(head)) is not None:
                    raise refusal(Code.FORBIDDEN, held.reason, reason=held.code)
                rejection = envelope_refused(self.plan.workload, self.state, head)  # the state may have moved on
                if rejection is not None:
                    raise refusal(Code.INVALID, rejection.reason, reason=rejection.code)
                if (forged := self._forged(head, arrived)) is not None:
                    raise _unauthenticated(forged)
            now, writing = self._now(), self._writes.get((head.client_id, True))
            row = self._update_row(head, now)
            self._machine, answer = step(self.machine, Received(head.client_id, head.payload_sha256, now))
            if answer is Answer.ACCEPTED:
                self._host.custody.need(head.payload_sha256)
                work = self._write_accepted(row, head, arrived, self._machine)
                writing = self._write(head.client_id, True, work)
            elif answer not in (Answer.DUPLICATE, Answer.CONFLICT):
                self._go_on()
                raise _late(head)
        counted = writing is not None and await asyncio.shield(writing)
        if answer is Answer.ACCEPTED and counted:
            if not self.machine.collecting:
                self._go_on()
            return _acknowledged(row, duplicate=False)
        # Another sending of this client was first, or the store knows of one that is not in memory.
        known = await self._known(head, proven=True)
        if known is None:
            message = "the update was not stored, and may be sent again"
            raise refusal(Code.BUSY, message, reason="not_stored", retry_after=_SOON)
        return known

    async def _write_accepted(self, row: UpdateRow, head: Head, arrived: datetime, machine: Machine) -> bool:
        host = self._host
        told = self._event("update_received", row.round, client=row.client, updates=len(machine.senders))
        floor = host.replays.floor(row.client)
        counted = await self._stored(host.store.accept(row, machine=machine.to_dict(), floor=floor, events=[told]))
        host.verifier.check(head.update(), self.spec, arrived=arrived)
        if counted:
            self._round = replace(self.round, accepted=self.round.accepted + 1)
            host.notify()
        else:  # the store knows of one that is not in memory
            self._doubtful = True
        return counted

    async def _refused(self, head: Head, rejection: Rejection, code: Code = Code.INVALID) -> ServiceError:
        """Write down, while the round is open, that a client's update cannot be taken; and say so."""
        writing = None
        async with self._lock:
            await self._refresh()
            if self.machine.collecting and (head.client_id, False) not in self._writes:
                row = self._update_row(head, self._now())
                row = replace(row, accepted=False, code=rejection.code, reason=rejection.reason)
                writing = self._write(head.client_id, False, self._write_refused(row))
        if writing is not None:
            await asyncio.shield(writing)
        return refusal(code, rejection.reason, reason=rejection.code)

    async def _write_refused(self, row: UpdateRow) -> bool:
        told = self._event("update_rejected", row.round, client=row.client, code=row.code, reason=row.reason)
        first = await self._stored(self._host.store.reject(row, [told]))
        if first:
            self._round = replace(self.round, rejected=self.round.rejected + 1)
            self._host.notify()
        return first

    def _update_row(self, head: Head, now: float) -> UpdateRow:
        number, arrival = self.round.number, self.plan.arrival
        received = max(0.0, now - self.round.opened_at) if arrival is None else arrival(number, head.client_id)
        return UpdateRow(
            run=self._row.id,
            round=number,
            client=head.client_id,
            accepted=True,
            base_version=head.base_version,
            payload_sha256=head.payload_sha256,
            payload_bytes=head.payload_bytes,
            num_examples=head.num_examples,
            nonce=head.nonce,
            created_ms=round(head.created_at * 1000),
            received_at=received,
            head=head.to_bytes(),
        )

    async def _known(self, head: Head, *, proven: bool) -> Acknowledgement | None:
        """The acknowledgement of an update that was accepted before, in its own round or as a late one in another.

        Whoever is not proven to be its client is told only if the nonce shows that it is the same message once more.
        """
        last = min(head.round + self.plan.workload.max_staleness, self.round.number)
        for number in range(head.round, last + 1):
            collecting = number == self.round.number and self.machine.collecting  # as of now: rounds go on meanwhile
            if collecting and head.client_id not in self.machine.senders:
                continue
            row = await self._host.store.update(self._row.id, number, head.client_id)
            if row is None or not row.accepted:
                continue
            same_base = row.base_version == head.base_version
            same = same_base and row.payload_sha256 == head.payload_sha256
            if same and (proven or row.nonce == head.nonce):
                return _acknowledged(row, duplicate=True)
            if proven and (same_base or collecting):
                message = f"another update of {head.client_id} counts in round {number}; one counts, the first"
                raise refusal(Code.CONFLICT, message, reason="duplicate")
        return None

    def _check_time(self, head: Head) -> None:
        """Refuse what comes at a time when it cannot be taken."""
        self._check_running()
        current = int(self.state["round"])
        if head.round > current:
            message = f"round {head.round} is not open; the current one is {current}"
            raise refusal(Code.INVALID, message, reason="round")
        if str(head.round) not in self.state["model_hashes"]:
            raise _late(head)
        if self.round.number == current and self.machine.collecting:
            return
        if self.round.number == current and self.machine.ready and (self._writes or self._doubtful):
            # What fills it is not in the store yet. Where that cannot be written, there is room again.
            why = f", once this is mended: {self._obstacle}" if self._obstacle else ""
            message = f"round {current} is about to close{why}; send the update again then"
            raise refusal(Code.BUSY, message, reason="between_rounds", retry_after=_SOON)
        coming = current + 1 if self.round.number == current else current
        if coming - head.round > self.plan.workload.max_staleness:
            raise _late(head)
        when = f"when this is mended: {self._obstacle}" if self._obstacle else "soon"
        message = f"round {self.round.number} is over; round {coming} opens {when}; send the update again then"
        raise refusal(Code.BUSY, message, reason="between_rounds", retry_after=_SOON)

    def _check_selected(self, client: str) -> None:
        """Refuse who was not drawn for the open round. Nothing is held against a client that did not know."""
        drawn = self.machine.selected
        if drawn is not None and client not in drawn:
            words = (
                f"{client} is not among the {len(drawn)} clients that were drawn for round {self.round.number}; wait "
                "for a round that says selected"
            )
            raise refusal(Code.CONFLICT, words, reason="not_selected")

    def _check_running(self) -> None:
        """Refuse what comes while the run takes nothing."""
        if self._row.status is RunStatus.PAUSED:
            message = f"run {self._row.id} is paused; send it again when it goes on"
            raise refusal(Code.BUSY, message, reason="paused", retry_after=_PAUSED)
        if self._row.status in ENDED:
            raise refusal(Code.CONFLICT, f"run {self._row.id} is {self._row.status}; nothing is taken", reason="ended")

    def _forged(self, head: Head, arrived: datetime | None) -> Rejection | None:
        """Why it is not known that its client made an update, now; nothing is used up by asking."""
        try:
            return self._host.verifier.check(head.update(), self.spec, arrived=arrived, admit=False)
        except ProtocolError as error:
            raise refusal(Code.MALFORMED, str(error), reason=error.code) from error

    def _misplaced(self, head: Head) -> ServiceError | None:
        """The refusal of an update that this run never takes, whoever made it."""
        if head.run != self._row.id:
            return refusal(Code.INVALID, f"the update is of run {head.run!r}, this is {self._row.id!r}", reason="run")
        if self.plan.masked:
            words = f"run {head.run!r} takes updates masked alone, phase by phase; use a client that does"
            return refusal(Code.INVALID, words, reason="masked")
        return None

    def _held(self, head: Head) -> Rejection | None:
        """The rejection of a client that an operator put into quarantine."""
        hold = self._host.overrides().of(head.client_id, self._row.id)
        if hold is None:
            return None
        return Rejection(head.client_id, HELD, f"an operator put the client into quarantine: {hold.reason}")


def _acknowledged(row: UpdateRow, *, duplicate: bool) -> Acknowledgement:
    """It names the round in which the update counts."""
    return Acknowledgement(
        run=row.run,
        round=row.round,
        client_id=row.client,
        payload_sha256=row.payload_sha256,
        duplicate=duplicate,
    )


def _unauthenticated(rejection: Rejection) -> ServiceError:
    return refusal(Code.UNAUTHENTICATED, rejection.reason, reason=rejection.code)


def _late(head: Head) -> ServiceError:
    return refusal(Code.CONFLICT, f"round {head.round} is over; ask for the current one", reason="late")
