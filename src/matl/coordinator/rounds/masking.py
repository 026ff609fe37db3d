"""Masked rounds of a run: what clients say in each phase, and what each is asked next; see `matl.privacy.secagg`.

A message is acknowledged when it is in the store, with what the round is then. The server of the aggregation is in
memory alone and follows from the messages in the store, in their order: after a crash it is made of them again, and
asks the same.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
from contextlib import suppress
from dataclasses import replace
from typing import Any

from numpy.typing import NDArray

from matl.coordinator.rounds.machine import Answer, Failed, Received, Ticked, step
from matl.coordinator.rounds.plan import PHASES, Host, RunPlan
from matl.coordinator.rounds.series import ENDED
from matl.coordinator.rounds.spending import RunLedger
from matl.coordinator.rounds.taking import Taking
from matl.coordinator.storage.rows import PhaseRow, RunRow, UpdateRow
from matl.errors import AggregationAborted, InvalidValueError, ServiceError, StateError, StorageError
from matl.privacy.secagg import Phase, Server, Session
from matl.protocol.envelope import Head
from matl.protocol.messages import Acknowledgement
from matl.protocol.problems import Code, refusal
from matl.records import Rejection
from matl.state import digest
from matl.workloads import Private

__all__ = ["Masking"]

logger = logging.getLogger(__name__)

_NO_NONCE = "0" * 32  # of updates whose senders a session named, and no signature


class Masking(Taking):
    """What a run does in the phases of a masked round."""

    def __init__(self, row: RunRow, plan: RunPlan, host: Host) -> None:
        super().__init__(row, plan, host)
        self._keys: dict[str, bytes] = {}  # of those who are in the round, as they were when they came
        self._seq = 0  # of the next message
        self._requests: tuple[Phase, dict[str, bytes]] | None = None  # of the present phase
        self._ledger = None if plan.manifest is None else RunLedger(host.ledgers, row.id, plan.manifest)

    def session(self) -> Session:
        """The secure aggregation of the latest round.

        Raises
        ------
        ServiceError
            ``"conflict"``: the run has none.
        """
        channel = self.plan.workload.channel
        if not self.plan.masked or not isinstance(channel, Private):
            raise refusal(Code.CONFLICT, f"the rounds of run {self._row.id!r} are not masked", reason="not_masked")
        return channel.session(self.spec)

    async def take_message(self, client: str, key: bytes, number: int, phase: str, data: bytes) -> Acknowledgement:
        """Take what a client says in a phase: once this returns it is in the store, and counts.

        Parameters
        ----------
        client : str
            Who sent it, as it was authenticated.
        key : bytes
            Its Ed25519 key, 32 bytes.
        number, phase
            Of which round and phase it is.
        data : bytes
            The message.

        Raises
        ------
        ServiceError
            ``"conflict"``: the round went on without it, or its client said something else before. ``"invalid"`` or
            ``"forbidden"``: it cannot be taken, and that was written down. ``"busy"``: it may be sent again later.
        """
        return await asyncio.shield(self._spawn(self._take_message(client, key, number, phase, data)))

    async def request_of(self, client: str, number: int, phase: str, timeout: float) -> bytes:
        """What a client is asked in a phase; it is waited for until the phase has begun.

        Raises
        ------
        ServiceError
            ``"not_found"``: it has not begun in that time. ``"conflict"``: the round went on without this client, or
            ended; the message says why.
        """
        self._check_phase(phase)
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while self._is_before(number, phase):
                    await self._changed.wait()
        if self._is_before(number, phase):
            words = f"the phase {phase} of round {number} has not begun; ask again"
            raise refusal(Code.NOT_FOUND, words, reason="not_yet")
        async with self._lock:
            await self._refresh()
            await self._check_open(number)
            await self._follow()  # it may have been made again
            await self._check_open(number)
            server = await self._server()
            if server.phase != phase:
                raise self._went_on(number, f"the phase {phase} is over")
            if self._requests is None or self._requests[0] is not server.phase:
                self._requests = server.phase, await asyncio.to_thread(server.requests)
            request = self._requests[1].get(client)
        if request is None:
            raise self._went_on(number, f"{client} was silent in a phase before {phase}")
        return request

    # Under the lock ---------------------------------------------------------------------------------------------------

    async def _take_message(self, client: str, key: bytes, number: int, phase: str, data: bytes) -> Acknowledgement:
        self._check_phase(phase)
        sha256 = hashlib.sha256(data).hexdigest()
        async with self._lock:
            await self._refresh()
            self._check_running()
            if self._round is not None and self.round.number == number and self.machine.collecting:
                self._machine, _ = step(self.machine, Ticked(self._now()))
                await self._follow()
            if (known := self._said(client, number, phase, sha256)) is not None:
                return known
            await self._check_open(number)
            if phase == PHASES[0]:
                self._check_selected(client)
            row = self._vector_row(client, sha256, len(data))
            if (held := self._held(_head_of(row))) is not None:
                await self._refuse(row, held, Code.FORBIDDEN)
            machine, answer = step(self.machine, Received(client, sha256, self._now(), phase))
            if answer is Answer.IGNORED:
                raise refusal(Code.CONFLICT, f"the phase {phase} has not begun", reason="turn")
            if answer is not Answer.ACCEPTED:
                what = (
                    "is over" if answer is Answer.LATE else f"is for those alone who spoke in all before, not {client}"
                )
                raise self._went_on(number, f"the phase {phase} {what}")
            server = await self._server()
            if phase == Phase.ADVERTISE:
                self._keys[client] = key
            # Nothing of what it holds has changed anything if it is refused.
            rejection = await asyncio.to_thread(server.receive, client, data)
            if rejection is not None:
                await self._refuse(row, rejection)
            vector = phase == Phase.MASK
            message = PhaseRow(
                run=self._row.id,
                round=number,
                phase=phase,
                client=client,
                seq=self._seq,
                sha256=sha256,
                size=len(data),
                key=self._keys[client],
                content=None if vector else data,
            )
            with self._host.custody.holding(sha256):
                try:
                    if vector:
                        await self._host.custody.there(sha256)
                        await self._host.blobs.put(data)
                        self._host.custody.need(sha256)
                    told = self._event("update_received", number, client=client, updates=self.round.accepted + 1)
                    await self._host.store.keep_phase_message(
                        message,
                        machine=machine.to_dict(),
                        update=row if vector else None,
                        events=[told] if vector else [],
                    )
                except BaseException:  # the server has it, and the store has not
                    self._doubtful = True
                    if vector:
                        self._host.custody.leave(sha256)
                    raise
            self._machine, self._seq = machine, self._seq + 1
            if vector:
                self._round = replace(self.round, accepted=self.round.accepted + 1)
            self._host.notify()
            await self._follow(stored=True)
        if not self.machine.collecting:
            self._go_on()
        return self._acknowledged(client, number, sha256)

    async def _follow(self, *, stored: bool = False) -> None:
        """Begin the phases that the machine is in, once that is written down; a round that cannot go on fails."""
        if not self.plan.masked or not (self.machine.collecting or self.machine.ready):
            return
        server = await self._server()
        due = Phase.DONE if self.machine.ready else Phase(PHASES[self.machine.phase])
        if server.phase is due:
            return
        if not stored:
            # Who was asked for the next phase must never be asked otherwise.
            work = self._host.store.save_machine(self._row.id, self.round.number, self.machine.to_dict())
            await self._stored(work)
        await self._advance(server, due)
        self._announce()

    async def _advance(self, server: Server, due: Phase) -> None:
        try:
            await self._advance_to(server, due)
        except AggregationAborted as error:
            self._machine, _ = step(self.machine, Failed(str(error)))
            self._go_on()

    async def _total(self) -> NDArray[Any] | None:
        """See `matl.coordinator.rounds.series.Rounds`; once the round is closed."""
        if not self.plan.masked:
            return None
        server = await self._server()
        await self._advance_to(server, Phase.DONE)
        return server.result.total

    async def _advance_to(self, server: Server, phase: Phase) -> None:
        """Take a server to a phase. Nothing is unmasked before its cost is on the disk."""
        while server.phase is not phase:
            if server.phase is Phase.UNMASK:
                await self._charge()
            await asyncio.to_thread(server.advance)

    async def _charge(self) -> None:
        """Charge the sum to the clients in it. After a crash it is made of the same messages: the same sum again."""
        if self._ledger is None:
            raise StateError(f"run {self._row.id!r} unmasks a sum and has no privacy ledger")
        sent = dict(self.machine.received[PHASES.index(Phase.MASK)])
        release = digest({"session": self.session().digest, "sent": sent})
        try:
            await asyncio.to_thread(self._ledger.charge, self.round.number, list(sent), release)
        except StorageError as error:
            words = f"the sum stays masked, as what it costs cannot be written down: {error}"
            raise refusal(Code.BUSY, words, reason="ledger", retry_after=5.0) from error
        except (StateError, InvalidValueError) as error:  # it was lost, damaged or is another run's: no waiting helps
            raise AggregationAborted(f"the sum stays masked, as what it costs cannot be counted: {error}") from error

    async def _server(self) -> Server:
        """The server of the open round: the one in memory, or made again of what is in the store."""
        if self._aggregation is not None:
            return self._aggregation
        rows = await self._host.store.phase_messages(self._row.id, self.round.number)
        self._keys = {row.client: row.key for row in rows}
        self._seq, self._requests = len(rows), None
        server = Server(self.session(), self._keys)
        for row in rows:
            data = await self._host.blobs.read(row.sha256) if row.content is None else row.content
            rejection = await asyncio.to_thread(_again, server, row, data)
            if rejection is not None:
                raise StateError(
                    f"round {self.round.number} of {self._row.id}: what {row.client} said in {row.phase} was "
                    f"taken and is refused now: {rejection.reason}; if another version of matl took it, go on with "
                    "that one, or stop the run"
                )
        self._aggregation = server
        return server

    async def _refuse(self, row: UpdateRow, rejection: Rejection, code: Code = Code.INVALID) -> None:
        """Write down that a client's message cannot be taken, and say so."""
        refused = replace(row, accepted=False, code=rejection.code, reason=rejection.reason)
        told = self._event("update_rejected", row.round, client=row.client, code=row.code, reason=rejection.reason)
        if await self._stored(self._host.store.reject(refused, [told])):
            self._round = replace(self.round, rejected=self.round.rejected + 1)
            self._host.notify()
        raise refusal(code, rejection.reason, reason=rejection.code)

    def _said(self, client: str, number: int, phase: str, sha256: str) -> Acknowledgement | None:
        """The acknowledgement of a message that was taken before."""
        if self._round is None or self.round.number != number:
            return None
        index = PHASES.index(phase)
        before = self.machine.received[index].get(client) if index < len(self.machine.received) else None
        if before is None:
            return None
        if before != sha256:
            words = f"{client} said something else in the phase {phase} of round {number}; the first counts"
            raise refusal(Code.CONFLICT, words, reason="duplicate")
        return self._acknowledged(client, number, sha256, duplicate=True)

    async def _check_open(self, number: int) -> None:
        """Refuse what is about a round that is not open."""
        current = self.round
        if number > current.number:
            words = f"round {number} is not open; the current one is {current.number}"
            raise refusal(Code.INVALID, words, reason="round")
        if number < current.number or not self.machine.collecting:
            ended = current if number == current.number else await self._host.store.round(self._row.id, number)
            why = self.machine.reason if number == current.number else "" if ended is None else ended.reason
            raise self._went_on(number, f"it failed: {why}" if why else "it is over")

    def _check_phase(self, phase: str) -> None:
        self.session()
        if phase not in PHASES:
            raise refusal(Code.INVALID, f"expected a phase of {', '.join(PHASES)}, got {phase!r:.60}", reason="phase")

    def _is_before(self, number: int, phase: str) -> bool:
        """Whether a phase is still to come."""
        if self._round is None or self.round.number < number:
            return True
        if self.round.number > number or not self.machine.collecting or self._row.status in ENDED:
            return False
        begun = self._aggregation.phase if self._aggregation is not None else PHASES[self.machine.phase]
        return PHASES.index(begun) < PHASES.index(phase) if begun in PHASES else False

    def _vector_row(self, client: str, sha256: str, size: int) -> UpdateRow:
        """The update that a masked vector is, in the words of its coordinator: a session says who sent it."""
        number, now = self.round.number, self._host.now()
        head = Head(
            client_id=client,
            run=self._row.id,
            round=number,
            base_version=number,
            model_hash=self.spec.model_hash,
            kind=self.spec.kind,
            payload_bytes=max(1, size),
            payload_sha256=sha256,
            nonce=_NO_NONCE,
            created_at=now,
        )
        return self._update_row(head, self._now())

    def _acknowledged(self, client: str, number: int, sha256: str, *, duplicate: bool = False) -> Acknowledgement:
        return Acknowledgement(
            run=self._row.id, round=number, client_id=client, payload_sha256=sha256, duplicate=duplicate
        )

    def _went_on(self, number: int, why: str) -> ServiceError:
        words = f"round {number} of {self._row.id} goes on without this client: {why}; take part in the next one"
        return refusal(Code.CONFLICT, words, reason="late")


def _again(server: Server, row: PhaseRow, data: bytes) -> Rejection | None:
    """Have a server take a message that was taken before it was made."""
    while server.phase != row.phase:
        server.advance()
    return server.receive(row.client, data)


def _head_of(row: UpdateRow) -> Head:
    return Head.model_validate_json(row.head)
