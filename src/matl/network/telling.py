"""What a coordinator that serves says of itself: a line for what happens, and one for a round that waits."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from matl.attest.tokens import Scope
from matl.coordinator.access import Caller
from matl.coordinator.service import Service
from matl.coordinator.storage.rows import RoundStatus, RunStatus
from matl.coordinator.storage.schema import events
from matl.protocol.messages import EventView

__all__ = ["PATIENCE", "Say", "latest_event", "line_of", "telling"]

logger = logging.getLogger(__name__)

Say = Callable[[str], None]
"""Told one line at a time, without its time."""

PATIENCE = 60.0
"""Seconds without a further update after which is said what a round waits for; again after twice as long, and so on."""
_LONGEST = 3600.0  # seconds between two such lines
_WAIT = 5.0  # seconds that news is waited for at a time
_PAGE = 500
_SELF = Caller("operator", "matl-serve", Scope.ADMIN)
_COUNTED = ("accepted", "clipped", "suspected")


@asynccontextmanager
async def telling(service: Service, say: Say, *, after: int, patience: float = PATIENCE) -> AsyncIterator[None]:
    """Tell what happens after an event, for as long as the block lasts.

    Parameters
    ----------
    service : Service
        Of whom it is told.
    say : callable
        Gets each line.
    after : int
        The last event that is known, see `latest_event`.
    patience : float
        Seconds after which a round that gets no update is told of.
    """
    task = asyncio.create_task(_tell(service, say, after, patience))
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def latest_event(service: Service) -> int:
    """Number of the last event that there is; 0 if there is none."""
    query = sa.select(sa.func.max(events.c.seq))
    return await service.store.database.read(lambda connection: connection.execute(query).scalar()) or 0


def line_of(event: EventView) -> str | None:
    """An event in words; nothing for those that come by the dozen, as every update does.

    Examples
    --------
    >>> from datetime import UTC, datetime
    >>> data = {"accepted": 0, "clipped": 0, "suspected": 0, "quarantined": 2, "rejected": 1, "seconds": 3.21}
    >>> line_of(EventView(seq=7, time=datetime.now(UTC), kind="round_committed", run="demo", round=4, data=data))
    'demo: round 4 committed after 3 s, none of 3 updates counted (2 quarantined, 1 rejected)'
    >>> line_of(EventView(seq=8, time=datetime.now(UTC), kind="update_received", run="demo", round=4, data={}))
    """
    data, run = event.data, f"{event.run}: " if event.run else ""
    client, reason = data.get("client"), f": {data['reason']}" if data.get("reason") else ""
    here = "" if data.get("by_operator") else f"round {event.round}, "
    who = " by an operator" if data.get("by_operator") else ""
    words = {
        "round_committed": lambda: f"{run}round {event.round} committed {_figures(data)}",
        "round_failed": lambda: f"{run}round {event.round} failed{reason}",
        "client_enrolled": lambda: f"{client} enrolled",
        "client_revoked": lambda: f"{client} revoked",
        "client_quarantined": lambda: f"{run}{here}{client} quarantined{who}{reason}",
        "client_released": lambda: f"{run}{here}{client} released{who}{reason}",
        "update_rejected": lambda: f"{run}{here}update of {client} rejected{reason}",
        "run_started": lambda: f"{run}begun",
        "run_paused": lambda: f"{run}paused by an operator",
        "run_resumed": lambda: f"{run}goes on",
        "run_stopped": lambda: f"{run}stopped by an operator",
        "run_finished": lambda: f"{run}finished, after round {event.round}",
    }.get(event.kind)
    return None if words is None else _plain(words())


def _figures(data: Mapping[str, Any]) -> str:
    counts = {name: int(data.get(name, 0)) for name in (*_COUNTED, "quarantined", "rejected")}
    counted, all_of_them = sum(counts[name] for name in _COUNTED), sum(counts.values())
    others = ", ".join(f"{number} {name}" for name, number in counts.items() if number and name != "accepted")
    seconds = f"after {data.get('seconds', 0.0):.0f} s"
    return f"{seconds}, {counted or 'none'} of {all_of_them} updates counted" + (f" ({others})" if others else "")


def _plain(text: str) -> str:
    """Without what would move the cursor of a terminal: words of clients may be in it."""
    return "".join(sign if sign.isprintable() else "?" for sign in text)


async def _tell(service: Service, say: Say, after: int, patience: float) -> None:
    waits = _Waits(patience)
    while True:
        try:
            page = await service.events(_SELF, after=after, limit=_PAGE, wait=min(_WAIT, patience))
            for event in page.events:
                if (line := line_of(event)) is not None:
                    say(line)
            after = page.next
            for line in waits.lines(service, time.monotonic()):
                say(line)
        except Exception:  # whatever it is, what happens next is told
            logger.exception("what happened is told later")
            await asyncio.sleep(_WAIT)
        if service.draining:
            return


@dataclass
class _Wait:
    """How long an open round has had the same updates, and when that is worth a line."""

    what: tuple[int, int, int]  # round, phase, messages in it
    since: float
    next: float


class _Waits:
    """Which rounds have waited for too long."""

    def __init__(self, patience: float) -> None:
        self._patience = patience
        self._known: dict[str, _Wait] = {}

    def lines(self, service: Service, now: float) -> list[str]:
        """A line for each round that has waited for long, or for twice as long as when it was told of before."""
        found = []
        for run, live in service.running.items():
            if live.row.status is not RunStatus.RUNNING or live.round.status is not RoundStatus.OPEN:
                self._known.pop(run, None)
                continue
            number, phase, count = what = live.round.number, live.machine.phase, len(live.machine.senders)
            wait = self._known.get(run)
            if wait is None or wait.what != what:
                self._known[run] = _Wait(what, now, self._patience)
            elif now - wait.since >= wait.next:
                rules = live.machine.rules
                until = "; without a deadline it waits until they come"
                if live.due is not None:
                    left = max(0.0, live.due - service.host.now())
                    until = f"; in {left:.0f} s it closes, and is judged if there are {rules.quorum} by then"
                    if phase:
                        until = f"; in {left:.0f} s it goes on with those who answered, or fails if they are too few"
                asked = len(live.machine.received[phase - 1]) if phase else rules.target
                what_for = "updates" if len(rules.phases) == 1 else f"messages of the phase {rules.phases[phase]}"
                found.append(f"{run}: round {number} waits for {asked - count} of {asked} {what_for}{until}")
                wait.next += min(wait.next, _LONGEST)
        return found
