"""What a process remembers of a run: what the store says, and nothing else.

Whenever a write fails, what is in memory is in doubt and is read anew before anything else happens. Of an open round
the accepted updates in the store say what was received.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any, TypeVar

from matl.coordinator.rounds.closing import Memory
from matl.coordinator.rounds.machine import Machine, Received, Rules, step
from matl.coordinator.rounds.plan import Host, RunPlan
from matl.coordinator.storage.rows import EventRow, RoundRow, RoundStatus, RunRow, UpdateRow
from matl.errors import StateError
from matl.params import values_hash
from matl.privacy.secagg import Server
from matl.protocol.messages import SpecView
from matl.records import RoundSpec
from matl.screening import encode_payload
from matl.state import State

__all__ = ["Mirror"]

R = TypeVar("R")


class Mirror:
    """A run, as its store has it.

    Parameters
    ----------
    row : RunRow
        The run.
    plan : RunPlan
        What it is made of.
    host : Host
        What it shares with others.
    """

    def __init__(self, row: RunRow, plan: RunPlan, host: Host) -> None:
        self.plan = plan
        self._host, self._row = host, row
        self._memory = Memory({}, {})
        self._round: RoundRow | None = None
        self._machine: Machine | None = None
        self._spec: RoundSpec | None = None
        self._lock = asyncio.Lock()
        self._changed = asyncio.Event()
        self._writes: dict[tuple[str, bool], asyncio.Task[bool]] = {}
        self._tasks: set[asyncio.Task[Any]] = set()
        self._doubtful = False
        self._aggregation: Server | None = None  # of an open masked round; it follows from what is in the store
        self._set_clock()

    @property
    def row(self) -> RunRow:
        """The run."""
        return self._row

    @property
    def round(self) -> RoundRow:
        """The latest round; ``machine`` in it is as it was opened or closed."""
        return self._there(self._round)

    @property
    def machine(self) -> Machine:
        """The latest round as it stands."""
        return self._there(self._machine)

    @property
    def spec(self) -> RoundSpec:
        """What the latest round asks for."""
        return self._there(self._spec)

    @property
    def state(self) -> State:
        """Of the workload; nobody may change it."""
        return self._memory.workload

    def _there(self, value: R | None) -> R:
        if value is None:
            raise StateError(f"run {self._row.id!r} has no round yet; create and restore open one")
        return value

    def _remember(self, row: RoundRow, machine: Machine) -> None:
        self._round, self._machine = row, machine
        self._spec = SpecView.model_validate(row.spec).spec()

    def _set_clock(self) -> None:
        self._clock_set = self._host.now(), self._host.steady()

    def _now(self) -> float:
        """Unix seconds by the run's own clock.

        It is set when a round begins and runs evenly from then on: a clock that jumps, or runs backwards, ends no round
        early and none late.
        """
        then, since = self._clock_set
        return then + self._host.steady() - since

    def _event(self, kind: str, number: int, **data: Any) -> EventRow:
        return EventRow(at=self._host.now(), kind=kind, run=self._row.id, round=number, data=data)

    def _announce(self) -> None:
        """Wake whoever waits for what is in the store now."""
        self._changed.set()
        self._changed = asyncio.Event()
        self._host.notify()

    async def _load(self) -> None:
        """Read everything anew."""
        store, run = self._host.store, self._row.id
        row = await store.run(run)
        if row is None:
            raise StateError(f"there is no run {run!r} in the store")
        memory = Memory.of_bytes(await self._host.blobs.read(row.state), run)
        if int(memory.workload["round"]) != row.round:
            raise StateError(
                f"run {run!r} is at round {row.round}, and its state at {memory.workload['round']}: restore a backup"
            )
        latest = await store.rounds(run, limit=1)
        if latest:
            machine = Machine.of_dict(latest[0].machine)
            if latest[0].status is RoundStatus.OPEN and self.plan.masked:
                # Messages are written one after another, each with the machine that it makes.
                machine = replace(machine, rules=self._rules_of(machine), selected=self._selected_of(machine))
            elif latest[0].status is RoundStatus.OPEN:
                machine = self._recounted(machine, await store.updates(run, latest[0].number, accepted=True))
            self._remember(latest[0], machine)
        self._row, self._memory, self._doubtful = row, memory, False
        self._aggregation = None

    def _rules_of(self, stored: Machine) -> Rules:
        """When an open round closes, as the plan has it now."""
        return replace(self.plan.rules, target=max(self.plan.rules.target, len(stored.received[0])))

    def _selected_of(self, stored: Machine) -> tuple[str, ...] | None:
        """Who was drawn for an open round; everybody may come where the plan draws nobody any more.

        Such a plan may have no deadline, and the round would wait for ever for one that was drawn and has left.
        """
        return None if self.plan.rules.over_selection is None else stored.selected

    def _recounted(self, stored: Machine, accepted: Sequence[UpdateRow]) -> Machine:
        """The machine of an open round, with exactly the updates that are in the store.

        A write that failed may have left the machine of a later one behind, with an update that nobody has. When the
        round closes is for the plan to say as it is now: a deadline that was added has to help the round that waits.
        """
        began = stored.phase_began_at
        if self._machine is not None and self._machine.opened_at == stored.opened_at:
            began = max(began, self._machine.phase_began_at)
        # What was acknowledged counts, though the target may be less by now.
        rules = replace(self.plan.rules, target=max(self.plan.rules.target, len(accepted)))
        machine = replace(
            stored,
            rules=rules,
            selected=self._selected_of(stored),
            received=({},),
            closed_at=None,
            phase_began_at=began,
        )
        for update in accepted:
            machine, _ = step(machine, Received(update.client, update.payload_sha256, began))
        return machine

    async def _refresh(self) -> None:
        """Under the lock: what is in memory is what is in the store, but for writes that are on their way."""
        if self._doubtful:
            await self._settle()
            await self._load()
            self._announce()

    async def _settle(self) -> None:
        """Under the lock, which nobody begins to write without: wait for the writes that are on their way."""
        while self._writes:
            await asyncio.wait(list(self._writes.values()))

    def _write(self, client: str, accepted: bool, work: Coroutine[Any, Any, bool]) -> asyncio.Task[bool]:
        """Begin to write an update down; writes reach the store in the order in which they begin."""
        task = self._spawn(work)
        self._writes[client, accepted] = task
        task.add_done_callback(lambda _: self._writes.pop((client, accepted), None))
        return task

    def _spawn(self, work: Coroutine[Any, Any, R]) -> asyncio.Task[R]:
        """Work that is done to its end, whatever becomes of whoever waits for it."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        task.add_done_callback(lambda done: done.cancelled() or done.exception())  # nobody may be left to hear of it
        return task

    async def _stored(self, work: Awaitable[R]) -> R:
        """Under the lock: write to the store, and doubt everything if it fails."""
        try:
            return await work
        except BaseException:
            self._doubtful = True
            raise

    async def _keep(self, memory: Memory, write: Callable[[RunRow, dict[str, tuple[str, int]]], Awaitable[R]]) -> R:
        """Write the blobs of what is carried on, and then what names them: the run with its state, and its model."""
        model_hash = values_hash(self.plan.workload.held(memory.workload))
        state = await asyncio.to_thread(memory.to_bytes, self._row.id)
        model = await asyncio.to_thread(self._model, memory.workload)
        with ExitStack() as held:
            names = []
            for content in (state, model):
                name = await asyncio.to_thread(lambda data: hashlib.sha256(data).hexdigest(), content)
                held.enter_context(self._host.custody.holding(name))
                self._host.custody.need(name)
                await self._host.custody.there(name)  # a run may begin with a model that another let go of
                names.append(await self._host.blobs.put(content))
            row = replace(self._row, round=int(memory.workload["round"]), state=names[0], model_hash=model_hash)
            return await self._stored(write(row, {model_hash: (names[1], len(model))}))

    def _model(self, state: State) -> bytes:
        """The model of a state as clients load it."""
        workload = self.plan.workload
        return encode_payload(workload.layout.unflatten(workload.held(state), carried=self.plan.carried))[0]
