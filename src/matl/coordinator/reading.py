"""What clients and viewers read: runs, rounds, models, what became of updates, and what happens."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass

from matl.attest.tokens import Scope
from matl.coordinator.access import Caller, needs
from matl.coordinator.core import LONGEST_WAIT, Core
from matl.coordinator.measures import measured
from matl.coordinator.storage.rows import RoundRow, UpdateRow, VerdictRow
from matl.coordinator.views import event_view, round_view, run_view, update_view
from matl.protocol.messages import (
    EventPage,
    EventView,
    Metrics,
    RoundPage,
    RoundView,
    RunView,
    UpdateView,
)
from matl.protocol.problems import Code, refusal

__all__ = ["ModelBlob", "Reading"]

_PAGE = 500  # events that are read at once for whoever is told all
_WINDOW = 16  # rounds of an export, each of which holds who sent what
_CLIENTS = 1 << 20  # of a round, more than there are


@dataclass(frozen=True, slots=True)
class ModelBlob:
    """A model on its way to a client.

    Parameters
    ----------
    sha256 : str
        Of the bytes; the model's own hash is that of its values.
    size : int
        How many bytes.
    stream : callable
        From the first byte wanted, and the first not wanted any more, to the bytes in pieces.
    """

    sha256: str
    size: int
    stream: Callable[[int, int], AsyncIterator[bytes]]


class Reading(Core):
    """Nothing here changes anything."""

    @measured
    async def runs(self, caller: Caller) -> list[RunView]:
        """All runs, the oldest first; without those that cannot go on, of which `metrics` says why."""
        self._known(caller)
        lives = sorted(self._lives.values(), key=lambda live: (live.row.created_at, live.row.id))
        return [run_view(live, self.host.keys.receipts.public.der) for live in lives]

    @measured
    async def run(self, caller: Caller, run: str) -> RunView:
        """A run."""
        self._known(caller)
        return run_view(self.live(run), self.host.keys.receipts.public.der)

    async def current_round(
        self, caller: Caller, run: str, *, after: int | None = None, wait: float = 0.0
    ) -> RoundView:
        """A round that takes updates, with a number above ``after``; it is waited for.

        Parameters
        ----------
        caller, run
            Who asks, and for which run.
        after : int, optional
            The last round that is known.
        wait : float
            Seconds, at most 30, after which it is the latest round, whichever that is. Of a run that has ended it is
            the last one, at once.
        """
        self._known(caller)
        live = self.live(run)
        seconds = min(max(wait, 0.0), LONGEST_WAIT)
        with self._waiting(caller) if seconds else nullcontext():
            waiting = live.wait_for_round(-1 if after is None else after, seconds)
            found = await (self._or_closing(waiting) if seconds else waiting)
        row = live.round if found is None else found
        return round_view(row, caller, live.machine if row is live.round else None)

    @measured
    async def round(self, caller: Caller, run: str, number: int) -> RoundView:
        """A round, whatever became of it."""
        self._known(caller)
        return round_view(await self._round(run, number), caller)

    @measured
    async def rounds(self, caller: Caller, run: str, *, before: int | None = None, limit: int = 50) -> RoundPage:
        """At most ``limit`` (1 to 500) rounds, the latest first; those with a number below ``before``."""
        self._known(caller)
        self.live(run)
        found = await self.store.rounds(run, before=before, limit=_most(limit))
        return RoundPage(rounds=[round_view(row, caller) for row in found])

    @measured
    async def model(self, caller: Caller, model_hash: str) -> ModelBlob:
        """A model, by the hash that rounds name: the arrays of the layout, as safetensors."""
        self._known(caller)
        found = await self.store.model(model_hash)
        if found is None:
            words = f"there is no model {model_hash[:64]!r}, or it is too old to be kept"
            raise refusal(Code.NOT_FOUND, words, reason="model")
        sha256, size = found
        return ModelBlob(sha256, size, lambda start, stop: self.blobs.stream(sha256, start, stop))

    @measured
    async def update(self, caller: Caller, run: str, number: int, client: str) -> UpdateView:
        """What became of an update. Clients see their own."""
        self._client(caller, client)
        row = await self._round(run, number)
        found = await self.store.update(run, number, client)
        if found is None:
            words = f"nothing of {client} came for round {number} of {run}"
            raise refusal(Code.NOT_FOUND, words, reason="update")
        return update_view(found, await self.store.verdict(run, number, client), row.opened_at)

    @measured
    async def receipt(self, caller: Caller, run: str, number: int, client: str) -> bytes:
        """The signed receipt of a verdict, see `matl.attest.receipts`. Clients get their own."""
        self._client(caller, client)
        self.live(run)
        verdict = await self.store.verdict(run, number, client)
        if verdict is None or verdict.receipt is None:
            words = f"there is no verdict on {client} in round {number} of {run}, or not yet"
            raise refusal(Code.NOT_FOUND, words, reason="receipt")
        return verdict.receipt

    @measured
    async def export(self, caller: Caller, run: str) -> AsyncGenerator[bytes, None]:
        """A run as one document: every round, and what became of every update.

        Returns
        -------
        async generator of bytes
            A `matl.protocol.messages.RunExport` in JSON, in pieces: no more than a round of it is in memory.

        Raises
        ------
        ServiceError
            Of the generator, before its first piece: ``"busy"``, as the caller is reading another export.
        """
        needs(caller, Scope.VIEWER)
        return self._exported(caller, await self.run(caller, run))

    async def _exported(self, caller: Caller, view: RunView) -> AsyncGenerator[bytes, None]:
        with self._one_export(caller.name):
            latest = await self.store.rounds(view.id, limit=1)
            count = latest[0].number + 1 if latest else 0
            yield f'{{"run":{view.model_dump_json()},"rounds":['.encode()
            comma = ""
            for start in range(0, count, _WINDOW):
                for row in await self._window(view.id, start, count):
                    yield f"{comma}{round_view(row, caller).model_dump_json()}".encode()
                    comma = ","
            yield b'],"verdicts":['
            comma = ""
            for start in range(0, count, _WINDOW):
                for row in await self._window(view.id, start, count):
                    verdicts = await self.store.verdicts(view.id, round=row.number, limit=_CLIENTS)
                    updates = await self.store.updates(view.id, row.number)
                    if told := await asyncio.to_thread(_in_json, updates, verdicts, row.opened_at):
                        yield f"{comma}{told}".encode()
                        comma = ","
            yield b"]}"

    @contextmanager
    def _one_export(self, name: str) -> Iterator[None]:
        """Let an operator read one at a time: whoever reads slowly is in nobody else's way."""
        if name in self._exporting:
            words = f"{name} is reading an export already; read it to its end, and ask then"
            raise refusal(Code.BUSY, words, reason="export", retry_after=5.0)
        self._exporting.add(name)
        try:
            yield
        finally:
            self._exporting.discard(name)

    async def _window(self, run: str, start: int, count: int) -> list[RoundRow]:
        """Some rounds from that number on, of the first so many, the oldest first."""
        found = await self.store.rounds(run, before=min(start + _WINDOW, count), limit=_WINDOW)
        return [row for row in reversed(found) if row.number >= start]

    async def events(
        self, caller: Caller, *, after: int = 0, limit: int = 500, wait: float = 0.0, run: str | None = None
    ) -> EventPage:
        """What happened after an event, in order. Clients learn nothing of one another.

        Parameters
        ----------
        caller : Caller
            Who asks.
        after : int
            The last event that is known.
        limit : int
            1 to 500.
        wait : float
            Seconds, at most 30, to wait if nothing has happened.
        run : str, optional
            Of this run alone.
        """
        self._known(caller)
        ends = time.monotonic() + min(max(wait, 0.0), LONGEST_WAIT)
        with self._waiting(caller) if wait > 0 else nullcontext():
            while True:
                ringing = self._bell.next  # taken before looking: what happens meanwhile rings it
                rows = await self.store.events(after=after, limit=_most(limit), run=run)
                told = [view for row in rows if (view := event_view(row, caller)) is not None]
                after = rows[-1].seq if rows else after
                left = ends - time.monotonic()
                if told or left <= 0 or self._closing.is_set():
                    return EventPage(events=told, next=after)
                if not rows:
                    await self._or_closing(_rung(ringing, left))

    async def subscribe(self, caller: Caller, *, after: int) -> AsyncIterator[EventView]:
        """What happens, without end, as long as the caller may know; it ends when the service does.

        Raises
        ------
        ServiceError
            ``"unauthenticated"``: the client was revoked, or the token has ended or was revoked.
        """
        while not self._closing.is_set():
            page = await self.events(caller, after=after, limit=_PAGE, wait=LONGEST_WAIT)
            self.access.still(caller)
            for event in page.events:
                yield event
            after = page.next

    @measured
    async def metrics(self, caller: Caller) -> Metrics:
        """Counts and latencies since the coordinator started; quantiles are of the last thousand times."""
        needs(caller, Scope.VIEWER)
        now = {
            "clients.enrolled": len(self.access.roster.value.identities),
            "runs.going_on": len(self._lives),
            "runs.broken": len(self._broken),
            "submissions.arriving": self._arriving.count,
            "submissions.arriving_bytes": self._arriving.size,
            "uploads.begun": len(self._uploads),
            "readers.waiting": self._watching.count,
        }
        return Metrics(
            uptime_seconds=self.measures.uptime,
            counters={**dict(sorted(self.measures.counters.items())), **now},
            latencies_ms=self.measures.latencies_ms,
            broken_runs=dict(sorted(self._broken.items())),
        )

    async def _round(self, run: str, number: int) -> RoundRow:
        self.live(run)
        found = await self.store.round(run, number)
        if found is None:
            raise refusal(Code.NOT_FOUND, f"run {run!r} has no round {number}, or not yet", reason="round")
        return found


async def _rung(bell: asyncio.Event, seconds: float) -> None:
    """Return when it rings, or after a while."""
    try:
        async with asyncio.timeout(seconds):
            await bell.wait()
    except TimeoutError:
        return


def _in_json(updates: Sequence[UpdateRow], verdicts: Sequence[VerdictRow], opened_at: float) -> str:
    """What became of the updates of a round, with commas between."""
    decided = {one.client: one for one in verdicts}
    # By client, an accepted update before one that was refused: the verdict is on the first.
    views = (update_view(update, decided.pop(update.client, None), opened_at) for update in updates)
    return ",".join(view.model_dump_json() for view in views)


def _most(limit: int) -> int:
    return min(max(limit, 1), _PAGE)
