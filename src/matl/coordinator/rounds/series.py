"""The rounds of a run, one after another: opened, closed, judged, committed, and taken up again where they stood."""

from __future__ import annotations

import asyncio
import hmac
import logging
import secrets
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from matl.coordinator.rounds.closing import decide, happened, signed, summary
from matl.coordinator.rounds.drawing import draw
from matl.coordinator.rounds.judge import JudgeAnswer, JudgeRequest
from matl.coordinator.rounds.judging import JUDGES, judge_here
from matl.coordinator.rounds.machine import Closed, Failed, Reduced, Stopped, Ticked, open_round, step
from matl.coordinator.rounds.mirror import Mirror
from matl.coordinator.rounds.plan import Host, RunPlan
from matl.coordinator.storage.rows import EventRow, RoundRow, RoundStatus, RunRow, RunStatus, UpdateRow, VerdictRow
from matl.errors import AttestationError, MatlError, ServiceError, StateError
from matl.params import values_hash
from matl.protocol.envelope import read_head
from matl.protocol.messages import SpecView
from matl.protocol.problems import Code, refusal

__all__ = ["ENDED", "Rounds"]

logger = logging.getLogger(__name__)

ENDED = (RunStatus.STOPPED, RunStatus.FINISHED)
_OVER = (RoundStatus.COMMITTED, RoundStatus.FAILED)
_AGAIN = 5.0  # seconds after which is tried again what failed, unless it says so itself


class Rounds(Mirror):
    """What a run does by itself, beside taking updates."""

    def __init__(self, row: RunRow, plan: RunPlan, host: Host) -> None:
        super().__init__(row, plan, host)
        self._going: asyncio.Task[None] | None = None
        self._again_at = 0.0
        self._obstacle = ""  # what it waits for

    def _go_on(self) -> None:
        """Do what there is to do beside waiting for updates, in the background."""
        if self._going is None or self._going.done():
            self._going = self._spawn(self._go())

    async def _go(self) -> None:
        try:
            while await self._go_one():
                pass
            self._obstacle = ""
        except (ServiceError, AttestationError) as error:
            wait = getattr(error, "retry_after", None) or _AGAIN
            logger.warning("run %s waits %g seconds: %s", self._row.id, wait, error)
            self._wait_for(str(error), wait)
        except Exception as error:
            logger.exception("run %s waits %g seconds", self._row.id, _AGAIN)
            # Clients are told it: the words of errors that are not ours may be of the inside.
            self._wait_for(str(error) if isinstance(error, MatlError) else type(error).__name__, _AGAIN)

    def _wait_for(self, obstacle: str, seconds: float) -> None:
        """Try again after a while what cannot be done for now."""
        self._obstacle, self._again_at = obstacle, self._host.steady() + seconds

    async def _go_one(self) -> bool:
        """Take the round to where it stands next; whether there may be more to do."""
        async with self._lock:
            if await self._go_locked():
                return True
            if self._row.status is RunStatus.STOPPED or self.round.status is not RoundStatus.JUDGING:
                return False
            number = self.round.number
        answer = await self._judge()
        async with self._lock:
            await self._refresh()
            if (self.round.number, self.round.status, self.machine.ended) == (number, RoundStatus.JUDGING, False):
                await self._end(answer)
        return True

    async def _go_locked(self) -> bool:
        """The same under the lock, as far as nobody has to judge."""
        await self._refresh()
        running = self._row.status is RunStatus.RUNNING
        if self._round is None or self._round.status in _OVER:
            if running:
                await self._open()
            return False
        if running:
            self._machine, _ = step(self.machine, Ticked(self._now()))
            await self._follow()
        elif self._row.status is RunStatus.STOPPED:
            self._machine, _ = step(self.machine, Stopped())
        if self.machine.collecting or self.machine.status is RoundStatus.JUDGING:
            return False
        await self._settle()
        if not self._doubtful:
            await (self._close() if self.machine.ready else self._end(self._without_judge(self.machine.reason)))
        return True

    async def _follow(self) -> None:
        """Under the lock: do what a phase that ended asks for, in runs that have several."""

    async def _total(self) -> NDArray[Any] | None:
        """The sum of a masked round; nothing in others."""
        return None

    async def _open(self) -> None:
        """Open the next round. Who is invited to it is written down with it."""
        self._set_clock()
        now, rules = self._now(), self.plan.rules
        spec = replace(self.plan.workload.plan(self.state), deadline=rules.deadline, phases=rules.phases)
        able = self._host.able(self._row.id, masked=self.plan.masked, deadline=rules.deadline)
        key = self._host.keys.derived("draw")
        drawn = draw(able, rules.invited, key, run=self._row.id, seed=self.plan.seed, number=spec.round)
        machine = open_round(rules, at=now, selected=drawn)
        row = RoundRow(
            run=self._row.id,
            number=spec.round,
            status=RoundStatus.OPEN,
            spec=SpecView.of(spec).model_dump(mode="json"),
            machine=machine.to_dict(),
            opened_at=now,
        )
        told = self._event(
            "round_opened",
            spec.round,
            target=rules.target,
            quorum=rules.quorum,
            deadline=rules.deadline,
            invited=None if drawn is None else len(drawn),
        )
        await self._stored(self._host.store.open_round(row, [told]))
        self._remember(row, machine)
        self._announce()

    async def _close(self) -> None:
        """Draw the judge's seed, which is written down before anybody judges."""
        number, draw = self.round.number, self.plan.judge_seed
        seed = secrets.randbits(63) if draw is None else draw(number)
        held = self._host.overrides()
        # What is in a sum cannot be taken out of it.
        senders = () if self.plan.masked else tuple(self.machine.senders)
        excluded = tuple(client for client in senders if held.of(client, self._row.id) is not None)
        machine, _ = step(self.machine, Closed(seed, excluded))
        now = self._now()
        told = self._event("round_closed", number, updates=self.round.accepted)
        closing = self._host.store.close_round(
            self._row.id, number, seed=seed, machine=machine.to_dict(), at=now, events=[told]
        )
        await self._stored(closing)
        row = replace(self.round, status=RoundStatus.JUDGING, seed=seed, machine=machine.to_dict(), closed_at=now)
        self._remember(row, machine)
        self._announce()

    async def _judge(self) -> JudgeAnswer:
        """Have the round judged. A judge that fails ends the round and not the run."""
        updates = await self._host.store.updates(self._row.id, self.round.number, accepted=True)
        updates = [update for update in updates if update.client not in self.machine.excluded]
        total = await self._total()
        with tempfile.TemporaryDirectory(prefix="round-", dir=self._host.scratch) as folder:
            wanted = updates if total is None else []
            payloads = {update.client: await self._at_hand(update.payload_sha256, Path(folder)) for update in wanted}
            request = JudgeRequest(
                spec=self.plan.workload.plan(self.state),
                state=self.state,
                seed=self._there(self.round.seed),
                heads=tuple(read_head(one.head).update(received_at=one.received_at) for one in updates),
                payload=lambda client: self._read(payloads[client]),
                total=total,
            )
            try:
                return await self._judged(request)
            except (ServiceError, AttestationError):
                raise
            except Exception as error:
                logger.exception("judging round %s of run %s failed", self.round.number, self._row.id)
                words = str(error) if isinstance(error, MatlError) else f"{type(error).__name__}: {error!s:.200}"
                return self._without_judge(f"the judge failed: {words}")

    async def _judged(self, request: JudgeRequest) -> JudgeAnswer:
        if self.plan.judge is not None:
            return await self.plan.judge(request)
        work = partial(
            judge_here, self.plan.workload, request, scratch=self._host.scratch, key=self._noise_key(request)
        )
        return await asyncio.get_running_loop().run_in_executor(JUDGES, work)

    def _noise_key(self, request: JudgeRequest) -> bytes:
        """Of the host's noise in a round: the same when it is judged again, and known to nobody else."""
        if self.plan.noise_key is not None:
            return self.plan.noise_key(request.spec.round)
        text = f"{self._row.id}\n{request.spec.round}\n{request.seed}"
        return hmac.digest(self._host.keys.derived("noise"), text.encode(), "sha256")

    async def _at_hand(self, sha256: str, folder: Path) -> Path:
        """A file with a blob's bytes."""
        path = self._host.blobs.path(sha256)
        if path is not None:
            return path
        path = folder / sha256
        with path.open("wb") as file:
            async for piece in self._host.blobs.stream(sha256):
                file.write(piece)
        return path

    def _read(self, path: Path) -> bytes:
        """A payload that was accepted."""
        try:
            return path.read_bytes()
        except FileNotFoundError as error:
            if self._host.blobs.is_there():
                raise StateError(f"the payload {path.name} is gone; restore the blobs from a backup") from error
            message = f"the payload {path.name} cannot be read: the folder of the blobs is not there; is it mounted?"
            raise refusal(Code.BUSY, message, reason="blobs", retry_after=_AGAIN) from error
        except OSError as error:
            message = f"the payload {path.name} cannot be read: {error.strerror}; look at the disk that holds the blobs"
            raise refusal(Code.BUSY, message, reason="blobs", retry_after=_AGAIN) from error

    def _without_judge(self, failure: str) -> JudgeAnswer:
        """A round that failed before anybody judged it."""
        _, after = self.plan.workload.reduce(None, self.state)
        return JudgeAnswer(state=after, failure=failure)

    async def _end(self, answer: JudgeAnswer) -> None:
        """Write down what the round came to, in one transaction."""
        host, number, now = self._host, self.round.number, self._now()
        accepted = await host.store.updates(self._row.id, number, accepted=True)
        refused = await host.store.updates(self._row.id, number, accepted=False)
        standings = self._memory.standings
        rows = decide(answer, accepted, refused, excluded=self.machine.excluded, standings=standings)
        rows = await self._signed(rows, [*refused, *accepted], answer, self.round.closed_at or now)
        figures = summary(rows, accepted, answer) | {"seconds": now - self.round.opened_at}
        memory = self._memory.after(answer.state, rows)
        model_hash = values_hash(self.plan.workload.held(answer.state))
        outcome = Failed(answer.failure) if answer.failure else Reduced(model_hash)
        machine = self.machine if self.machine.ended else step(self.machine, outcome)[0]
        ended = replace(
            self.round,
            status=machine.status,
            machine=machine.to_dict(),
            closed_at=self.round.closed_at or machine.closed_at or now,
            ended_at=now,
            accepted=len(accepted),
            rejected=len(refused),
            next_model_hash=model_hash,
            reason=machine.reason,
            summary=figures,
        )
        last = self.plan.rounds is not None and number + 1 >= self.plan.rounds
        status = RunStatus.FINISHED if last and self._row.status not in ENDED else self._row.status
        told_before = {update.client for update in refused} - {update.client for update in accepted}
        told = [
            EventRow(at=now, kind=event.kind, run=event.run, round=event.round, data=event.data)
            for event in happened(rows, told_before, standings)
        ]
        failed = {"reason": machine.reason} if machine.reason else {}
        kind = "round_failed" if failed else "round_committed"
        told.append(self._event(kind, number, **figures, **failed, model_hash=model_hash))
        if status is RunStatus.FINISHED:
            told.append(self._event("run_finished", number))
        self._row = await self._keep(
            memory,
            lambda run, models: host.store.end_round(
                ended, run=replace(run, status=status), verdicts=rows, events=told, models=models
            ),
        )
        self._memory, self._aggregation = memory, None
        self._remember(ended, machine)
        self._announce()

    async def _signed(
        self, rows: Sequence[VerdictRow], updates: Sequence[UpdateRow], answer: JudgeAnswer, at: float
    ) -> list[VerdictRow]:
        """Verdicts with receipts of that time."""
        key, policy = self._host.keys.receipts, self.plan.workload.mode.digest
        return await asyncio.to_thread(signed, rows, updates, given=answer.receipts, key=key, policy=policy, at=at)
