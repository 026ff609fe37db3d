"""A run that lives: it takes updates, closes rounds, has them judged, commits them, and goes on after any interruption.

For whoever hosts runs (`RunPlan` and `Host` are those of `matl.coordinator.rounds.plan`)::

    run = await LiveRun.create(row, plan, host)  # a new one; of the row: id, settings, created_at
    run = await LiveRun.restore(row, plan, host)  # one that the store knows, on start, whatever its status
    run.row, run.round, run.spec  # RunRow, the latest RoundRow, its RoundSpec with the deadline
    run.state, run.standings  # of the workload; `Standing` of each client
    run.due  # deadline of the round as it stands (Unix seconds), or None
    ack = await run.examine(head)  # before a payload is let in: refuses; or None; or it was accepted
    ack = await run.take(head, payload)  # async iterator of bytes, or None if the blob was written already
    #   (arrived=datetime if the head came, and was examined, before)
    await run.tick()  # about once a second: deadlines, and what has to be tried again
    await run.pause()
    await run.resume()
    await run.stop()
    round = await run.wait_for_round(after, timeout)  # one that is open and later than `after`; or else the latest
    receipts = await run.validate([(head, payload)])  # judge aside what counts for nothing; bytes by client
    await run.close()  # end its tasks; nothing is lost without it

Refusals are `matl.errors.ServiceError` of `matl.protocol.problems`; their reason is the code of the rejection.

An update is acknowledged when it is in the store, and what is in the store is judged. Transitions follow one another
under a lock; payloads arrive, are screened, and are written down beside it, many at once.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import Self

from matl.coordinator.rounds.closing import Memory, Standing, decide
from matl.coordinator.rounds.intake import payload_refused
from matl.coordinator.rounds.judge import JudgeRequest
from matl.coordinator.rounds.machine import Resumed, Ticked, due, step
from matl.coordinator.rounds.masking import Masking
from matl.coordinator.rounds.plan import Host, Planner, RunPlan
from matl.coordinator.rounds.series import ENDED
from matl.coordinator.storage.rows import RoundRow, RunRow, RunStatus
from matl.errors import InvalidValueError, StateError
from matl.protocol.envelope import Head
from matl.protocol.problems import Code, refusal

__all__ = ["Host", "LiveRun", "Planner", "RunPlan", "Standing"]


class LiveRun(Masking):
    """A run. Use `create` or `restore`, in the event loop that also uses the store."""

    @classmethod
    async def create(cls, row: RunRow, plan: RunPlan, host: Host) -> Self:
        """Begin a run and open its first round.

        Parameters
        ----------
        row : RunRow
            Its id, settings and time; the rest follows from the plan.
        plan : RunPlan
            What it is made of.
        host : Host
            What it shares with others.

        Raises
        ------
        StateError
            There is a run of that id.
        InvalidValueError
            The plan is another run's.
        """
        if plan.workload.run != row.id:
            raise InvalidValueError(f"expected a plan of run {row.id!r}, got one of {plan.workload.run!r}")
        digest = plan.workload.config_digest
        run = cls(replace(row, status=RunStatus.RUNNING, config_digest=digest, rounds=plan.rounds), plan, host)
        memory = Memory(await asyncio.to_thread(plan.workload.init, plan.params), {})
        if run._ledger is not None:
            await asyncio.to_thread(run._ledger.begin)
        told = [run._event("run_started", 0, mode=plan.mode, rounds=plan.rounds)]
        await run._keep(memory, lambda new, models: host.store.create_run(new, told, models=models))
        await run._load()
        await run._go_one()
        return run

    @classmethod
    async def restore(cls, row: RunRow, plan: RunPlan, host: Host) -> Self:
        """Go on with a run where it stood: an open round stays open, a closed one is judged from what was stored.

        The clock of an open round begins anew: nobody could send anything while the host was away.

        Raises
        ------
        StateError
            The plan is of other settings than the run was begun with, or what is stored does not fit together; or the
            privacy ledger of a masked run is lost.
        """
        run = cls(row, plan, host)
        await run._load()
        if run.row.config_digest != plan.workload.config_digest:
            raise StateError(
                f"run {row.id!r} was begun with settings of digest {run.row.config_digest[:12]!r}, the plan has "
                f"{plan.workload.config_digest[:12]!r}: restore the settings, or begin another run"
            )
        if run._ledger is not None and run.row.status not in ENDED:
            await asyncio.to_thread(run._ledger.resume)
        if run._machine is not None:
            run._machine, _ = step(run._machine, Resumed(run._now()))
        else:
            await run._go_one()
        run._go_on()
        return run

    @property
    def standings(self) -> Mapping[str, Standing]:
        """What was last decided about every client that took part."""
        return self._memory.standings

    @property
    def due(self) -> float | None:
        """When the round as it stands has its deadline, in Unix seconds; ``None`` if it has none, or waits."""
        return due(self.machine) if self._row.status is RunStatus.RUNNING else None

    @property
    def obstacle(self) -> str:
        """What it cannot go on for at the moment, in words that clients may hear; it tries again by itself."""
        return self._obstacle

    # Operators ----------------------------------------------------------------------------------------------------

    async def pause(self) -> None:
        """Take nothing until `resume`; a round that is closed already is judged.

        Raises
        ------
        ServiceError
            ``"conflict"``: it is not running.
        """
        async with self._lock:
            await self._refresh()
            await self._set(RunStatus.PAUSED, {RunStatus.RUNNING}, "run_paused")

    async def resume(self) -> None:
        """Go on; the clock of the open round begins anew.

        Raises
        ------
        ServiceError
            ``"conflict"``: it is not paused.
        """
        async with self._lock:
            await self._refresh()
            await self._set(RunStatus.RUNNING, {RunStatus.PAUSED}, "run_resumed")
            self._set_clock()
            self._machine, _ = step(self.machine, Resumed(self._now()))
        self._go_on()

    async def stop(self) -> None:
        """End the run for good; its round fails, and the model stays as the last round left it.

        Raises
        ------
        ServiceError
            ``"conflict"``: it has ended.
        """
        async with self._lock:
            await self._refresh()
            await self._set(RunStatus.STOPPED, {RunStatus.RUNNING, RunStatus.PAUSED}, "run_stopped")
            while await self._go_locked():
                pass

    async def hurry(self, number: int) -> None:
        """Let the deadline of a round come now, if it is open: nobody else is expected. Without one nothing happens."""
        async with self._lock:
            await self._refresh()
            if self.round.number == number and (end := self.due) is not None:
                self._machine, _ = step(self.machine, Ticked(end))
                await self._follow()
        self._go_on()

    async def _set(self, status: RunStatus, expected: set[RunStatus], kind: str) -> None:
        told = [self._event(kind, self.round.number)]
        change = self._host.store.set_run_status(self._row.id, status, expected=expected, events=told)
        try:
            self._row = await self._stored(change)
        except StateError as error:
            raise refusal(Code.CONFLICT, str(error), reason="status") from error
        self._announce()

    # Watching, and looking aside ----------------------------------------------------------------------------------

    async def tick(self) -> None:
        """Have done in the background what time made due: deadlines, and what failed before."""
        if self._host.steady() >= self._again_at:
            self._go_on()

    async def wait_for_round(self, after: int, timeout: float) -> RoundRow:
        """A round that takes updates and has a number above ``after``, or the last of a run that ended.

        Parameters
        ----------
        after : int
            -1 for any.
        timeout : float
            Seconds after which it is the latest round, whichever that is.
        """
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout):
                while not self._is_there(after):
                    await self._changed.wait()
        return self.round

    def _is_there(self, after: int) -> bool:
        if self._row.status in ENDED:
            return self.machine.ended
        return self._row.status is RunStatus.RUNNING and self.machine.collecting and self.round.number > after

    async def validate(self, messages: Sequence[tuple[Head, bytes]]) -> dict[str, bytes]:
        """Judge updates aside, by the state as it is; they count for nothing, and nothing remembers them.

        Parameters
        ----------
        messages : sequence of (Head, bytes)
            Updates with their payloads, made for the current round and signed by their clients; one for each.

        Returns
        -------
        dict of str to bytes
            Receipts by client.

        Raises
        ------
        ServiceError
            ``"invalid"``: there is none, or a client has two. ``"conflict"``: an oracle elsewhere judges the run.
        """
        if self.plan.masked:
            raise refusal(
                Code.CONFLICT, f"run {self._row.id!r} judges sums, and never one client's update", reason="masked"
            )
        if self.plan.judge is not None:
            raise refusal(
                Code.CONFLICT,
                f"run {self._row.id!r} is judged by an oracle, which judges a round once, and so cannot judge aside",
                reason="oracle",
            )
        heads = {head.client_id: head for head, _ in messages}
        if not messages or len(heads) != len(messages):
            raise refusal(Code.INVALID, f"expected one update of each client, got {len(messages)} of {len(heads)}")
        state, now = self.state, self._host.now()
        rows, refused, payloads = [], [], {}
        for head, payload in sorted(messages, key=lambda message: message[0].client_id):
            rejection = self._forged(head, None)
            rejection = rejection or await payload_refused(self.plan.workload, state, head, payload)
            row = self._update_row(head, now)
            if rejection is None:
                rows.append(row)
                payloads[head.client_id] = payload
            else:
                refused.append(replace(row, accepted=False, code=rejection.code, reason=rejection.reason))
        request = JudgeRequest(
            spec=self.plan.workload.plan(state),
            state=state,
            seed=secrets.randbits(63),
            heads=tuple(heads[row.client].update(received_at=row.received_at) for row in rows),
            payload=payloads.__getitem__,
        )
        answer = await self._judged(request)
        decided = decide(answer, rows, refused, excluded=(), standings=self.standings)
        signed = await self._signed(decided, [*rows, *refused], answer, now)
        return {row.client: row.receipt for row in signed if row.receipt is not None}

    async def close(self) -> None:
        """End what it does in the background. What it was doing is done again when it is restored."""
        if self._going is not None:
            self._going.cancel()
        while self._tasks:
            await asyncio.wait(list(self._tasks))
