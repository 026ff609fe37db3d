"""What operators do to runs: start, pause, go on, stop. Each is written into the audit log before it is done."""

from __future__ import annotations

import asyncio
from collections.abc import Collection

from matl.attest.tokens import Scope
from matl.coordinator.access import Caller, needs
from matl.coordinator.core import Core
from matl.coordinator.measures import measured
from matl.coordinator.rounds.live import LiveRun
from matl.coordinator.rounds.plan import RunPlan
from matl.coordinator.storage.rows import RunRow, RunStatus
from matl.coordinator.views import run_view
from matl.errors import MatlError, ServiceError, StateError
from matl.protocol.messages import RunView, StartRequest
from matl.protocol.problems import Code, refusal

__all__ = ["Steering"]

_GOING = (RunStatus.RUNNING, RunStatus.PAUSED)


class Steering(Core):
    """All of it needs the scope operator."""

    @measured
    async def start(self, caller: Caller, request: StartRequest) -> RunView:
        """Begin a run and open its first round.

        Raises
        ------
        ServiceError
            ``"conflict"``: there is one of that id. ``"invalid"``: its settings are not those of a run.
        """
        needs(caller, Scope.OPERATOR)
        settings = dict(request.settings)
        async with self._starting:
            if request.id in self._lives or request.id in self._broken:
                raise refusal(Code.CONFLICT, f"there is a run {request.id!r} already; choose another id", reason="run")
            try:
                plan = await asyncio.to_thread(self.settings.planner, request.id, settings)
            except ServiceError:
                raise
            except MatlError as error:
                raise refusal(
                    Code.INVALID, f"the settings are not those of a run: {error}", reason="settings"
                ) from error
            await self._audit(caller.name, "start", request.id, {"settings": settings})
            row = RunRow(
                id=request.id,
                status=RunStatus.RUNNING,
                settings=settings,
                config_digest=plan.workload.config_digest,
                created_at=self.host.now(),
                rounds=plan.rounds,
            )
            try:
                live = await LiveRun.create(row, plan, self.host)
            except StateError as error:
                live = await self._begun(row, plan, error)
            self._lives[request.id] = live
        return run_view(live, self.host.keys.receipts.public.der)

    async def _begun(self, row: RunRow, plan: RunPlan, error: StateError) -> LiveRun:
        """A run that the store knows and this process does not: an earlier start of it broke off half-way."""
        stored = await self.store.run(row.id)
        if stored is None or (dict(stored.settings), stored.config_digest) != (dict(row.settings), row.config_digest):
            raise refusal(Code.CONFLICT, str(error), reason="run") from error
        return await LiveRun.restore(stored, plan, self.host)

    @measured
    async def pause(self, caller: Caller, run: str, reason: str = "") -> RunView:
        """Take no updates until `resume`."""
        return await self._steer(caller, "pause", run, reason)

    @measured
    async def resume(self, caller: Caller, run: str, reason: str = "") -> RunView:
        """Go on with a run that was paused."""
        return await self._steer(caller, "resume", run, reason)

    @measured
    async def stop(self, caller: Caller, run: str, reason: str = "") -> RunView:
        """End a run for good; its open round fails."""
        return await self._steer(caller, "stop", run, reason)

    async def _steer(self, caller: Caller, action: str, run: str, reason: str) -> RunView:
        needs(caller, Scope.OPERATOR)
        await self._turn(caller.name, action, run, {"reason": reason})
        return run_view(self.live(run), self.host.keys.receipts.public.der)

    async def _turn(
        self, actor: str, action: str, run: str, details: dict[str, object], *, written_as: str = ""
    ) -> None:
        """Do it, if the run stands where that is possible."""
        live = self.live(run)
        possible: dict[str, Collection[RunStatus]] = {
            "pause": (RunStatus.RUNNING,),
            "resume": (RunStatus.PAUSED,),
            "stop": _GOING,
        }
        if live.row.status not in possible[action]:
            words = f"run {run!r} is {live.row.status}; to {action} it, it has to be {' or '.join(possible[action])}"
            raise refusal(Code.CONFLICT, words, reason="status")
        await self._audit(actor, written_as or action, run, details)
        await {"pause": live.pause, "resume": live.resume, "stop": live.stop}[action]()
