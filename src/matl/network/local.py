"""A whole network on one machine: a coordinator, its simulated clients, and what somebody who looks on is told."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from typing import Any

from matl.attest.tokens import Scope
from matl.coordinator.access import Caller
from matl.coordinator.limits import Limits, Rate
from matl.coordinator.rounds.plan import RunPlan
from matl.coordinator.service import Service
from matl.errors import ServiceError
from matl.events import Event, EventSink, ignore
from matl.network.fleet import LocalFleet, Sent
from matl.network.folder import LocalNetwork, tell_url
from matl.network.hosting import begin, extend, hosted
from matl.network.planner import planner, stranger
from matl.network.serving import Doors, open_doors
from matl.network.settings import NetworkSettings
from matl.protocol.messages import InviteRequest, RoundView
from matl.simulation import RunConfig, Simulation, build_simulation
from matl.simulation.scoring import EXCLUDED, share

__all__ = ["LocalRun", "Summary", "open_network", "run_id"]

# All clients are behind one address, and it is no abuse that some of them have everything refused.
_LIMITS = Limits(address=Rate(10_000, 10_000), refused=Rate(100, 1000))
_OWNER = Caller("operator", "matl-up", Scope.ADMIN)
_WAIT = 20.0  # seconds that a round is waited for at a time
_SOON = 1.0
_PATIENCE = 5.0  # seconds after which is said whom a round waits for
_EVENTS = 500  # at a time
_ENDED = ("finished", "stopped")
_TOLD = frozenset({"client_quarantined", "client_released", "update_rejected", "round_failed"})


@dataclass(frozen=True, slots=True)
class Summary:
    """How a simulated network stands.

    Parameters
    ----------
    run : str
        Identifier of the run.
    url : str
        Where it is served.
    rounds, failed_rounds : int
        Rounds that ended, and how many of them failed.
    clients, malicious : int
        How many clients there are, and how many of them lie.
    accuracy : float
        Of the model on the test set of the simulation, in [0, 1].
    model_hash : str
        Hash of the model.
    gives_verdicts : bool
        Whether the judge names malicious clients at all.
    caught, accused : int
        How many malicious / honest clients are quarantined or rejected.
    quarantined : tuple of str
        Clients that are quarantined or rejected.
    """

    run: str
    url: str
    rounds: int
    failed_rounds: int
    clients: int
    malicious: int
    accuracy: float
    model_hash: str
    gives_verdicts: bool
    caught: int
    accused: int
    quarantined: tuple[str, ...]

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        honest = self.clients - self.malicious
        rates = {
            "tpr": self.caught / self.malicious if self.gives_verdicts and self.malicious else None,
            "fpr": self.accused / honest if self.gives_verdicts and honest else None,
        }
        return {"kind": "network", "simulation": True, **asdict(self), **rates, "quarantined": list(self.quarantined)}


def run_id(config: RunConfig) -> str:
    """How the run of a configuration is called; the same for any number of rounds."""
    dataset = config.dataset if isinstance(config.dataset, str) else str(config.dataset["name"])
    return f"{config.label}-{dataset}-seed{config.seed}"


@asynccontextmanager
async def open_network(
    network: LocalNetwork,
    *,
    listener: socket.socket,
    grpc_port: int | None = None,
    sink: EventSink = ignore,
    say: Callable[[str], None] = lambda line: None,
) -> AsyncIterator[LocalRun]:
    """Serve a network for as long as the block lasts; its clients wait for `LocalRun.to_the_end`.

    Parameters
    ----------
    network : LocalNetwork
        What is served, from a folder that this process has to itself.
    listener : socket
        Where; it is closed at the end.
    grpc_port : int, optional
        Port of gRPC; none without.
    sink : callable
        Called with what happens, round by round.
    say : callable
        Told in words whom a round waits for.

    Raises
    ------
    MatlError
        Something does not fit; nothing has been written then.
    """
    config, run = network.run.config, run_id(network.run.config)
    parts = await asyncio.to_thread(build_simulation, config)
    parts.check_remote()
    host, port = listener.getsockname()[:2]
    settings = NetworkSettings(folder=network.folder, host=host, port=port, grpc_port=grpc_port)
    network.write()

    def plan(run_id: str, stored: Mapping[str, Any]) -> RunPlan:
        return (planner if run_id == run else stranger)(run_id, stored, build=lambda _: parts)

    await extend(settings, run, network.run)
    async with (
        hosted(settings, planner=plan, limits=_LIMITS) as service,
        open_doors(service, settings, listener=listener) as doors,
    ):
        tell_url(network.folder, doors.url)
        await begin(service, _OWNER, run, network.run)
        enrolled = {client.client_id for client in await service.clients(_OWNER)}

        async def invite(uses: int) -> str:
            return (await service.invite(_OWNER, InviteRequest(uses=uses, lifetime_hours=1))).token

        opened = LocalFleet.open(parts, run, doors.url, network.clients, enrolled=enrolled, invite=invite)
        async with opened as fleet:
            yield LocalRun(service, fleet, parts, run, doors, guests=network.run.terms.guests, sink=sink, say=say)


class LocalRun:
    """The run of a network on one machine, as its owner sees it.

    Attributes
    ----------
    doors : Doors
        Where it is served.
    run : str
        Identifier of the run.
    clients, malicious : int
        How many simulated clients there are, and how many of them lie.
    """

    def __init__(
        self,
        service: Service,
        fleet: LocalFleet,
        parts: Simulation,
        run: str,
        doors: Doors,
        *,
        guests: int,
        sink: EventSink,
        say: Callable[[str], None],
    ) -> None:
        self._service, self._fleet, self._parts, self._guests = service, fleet, parts, guests
        self._sink, self._say = sink, say
        self.run, self.doors = run, doors
        self.clients, self.malicious = len(fleet.clients), len(fleet.malicious)
        self._after = 0  # the last event that was told
        self._refused: dict[str, bool] = {}  # by client, whether its latest update was refused at the door

    async def to_the_end(self) -> None:
        """Let the clients take part until the run has all its rounds, or an operator stops it.

        Raises
        ------
        ServiceError
            The coordinator is too busy for too long; its message says why.
        """
        await self._skip_old()
        view = await self._fleet.current(None, 0)
        while True:
            number = view.number
            if view.status == "open":
                began = time.perf_counter()
                sent = await self._take_part(view)
                view = await self._next(view, sent)
                await self._tell(number, sent, time.perf_counter() - began)
            elif (await self._fleet.about()).status in _ENDED:
                return
            else:
                view = await self._fleet.current(number, _WAIT)

    async def rounds_done(self) -> int:
        """How many rounds have ended."""
        return (await self._service.run(_OWNER, self.run)).round

    async def summary(self) -> Summary:
        """How it stands."""
        about = await self._service.run(_OWNER, self.run)
        names = self._parts.workload.mode.gives_verdicts
        excluded = await self._excluded() if names else set()
        liars, honest = self._sides(self._fleet.clients)
        return Summary(
            run=self.run,
            url=self.doors.url,
            rounds=about.round,
            failed_rounds=await self._failed(),
            clients=len(self._fleet.clients),
            malicious=len(liars),
            accuracy=await self._fleet.accuracy(about.model_hash),
            model_hash=about.model_hash,
            gives_verdicts=names,
            caught=len(excluded.intersection(liars)),
            accused=len(excluded.intersection(honest)),
            quarantined=tuple(sorted(excluded)),
        )

    async def _failed(self) -> int:
        failed, before = 0, None
        while page := (await self._service.rounds(_OWNER, self.run, before=before)).rounds:
            failed += sum(view.status == "failed" for view in page)
            before = page[-1].number
        return failed

    async def _take_part(self, view: RoundView) -> Sent:
        """Have all clients send; while an operator has the run paused, that is waited for."""
        while True:
            try:
                return await self._fleet.take_part(view)
            except ServiceError as error:
                if error.reason != "paused":
                    raise

    async def _next(self, view: RoundView, sent: Sent) -> RoundView:
        """The round after one in which the clients took part; the same, if some of them came at a bad time."""
        number, began, said = view.number, time.monotonic(), ""
        while True:
            missing = await self._missing(number)
            if not missing and not sent.late:  # all that will come is there, and may be less than the target
                await self._service.live(self.run).hurry(number)
            if missing not in ("", said) and time.monotonic() - began > _PATIENCE:
                self._say(f"round {number} waits for {missing}")
                said = missing
            view = await self._fleet.current(number, _SOON if missing else _WAIT)
            waiting = view.number == number and view.status == "open"
            if view.number > number or (waiting and sent.late) or (await self._fleet.about()).status in _ENDED:
                return view

    async def _missing(self, number: int) -> str:
        """The guests that a round waits for, in words; none are those that may not send any more."""
        if not self._guests:
            return ""
        own = set(self._fleet.clients)
        known = [one for one in await self._service.clients(_OWNER) if one.client_id not in own]
        able = {one.client_id for one in known if one.standing == "active" and not one.quarantined_by_operator}
        wanted = min(self._guests, max(len(able), self._guests - (len(known) - len(able))))
        answered = {row.client for row in await self._service.store.updates(self.run, number)}  # refused ones too
        silent, left = sorted(able - answered), wanted - len(able & answered)
        if left <= 0:
            return ""
        if left < len(silent):
            return f"{left} of {', '.join(silent)}"
        others = left - len(silent)
        new = [f"{others} client{'s' if others > 1 else ''} not invited or not joined yet"] if others else []
        return ", ".join(silent + new)

    async def _tell(self, number: int, sent: Sent, seconds: float) -> None:
        """Say what came of a round."""
        view = await self._fleet.round(number)
        if view.ended_at is None:
            return
        self._refused.update(dict.fromkeys(sent.accepted, False) | dict.fromkeys(sent.refused, True))
        for client, reason in sent.refused.items():
            self._sink(Event("update_rejected", self.run, number, {"client": client, "reason": reason}))
        async for event in self._news():
            if event.kind in _TOLD and not (event.kind == "update_rejected" and event.data["client"] in sent.refused):
                self._sink(event)
        names = self._parts.workload.mode.gives_verdicts
        excluded = await self._excluded()
        liars, honest = self._sides([*sent.accepted, *sent.refused])
        figures = {
            **view.summary,
            "round": number,
            "rejected": max(
                view.summary.get("rejected", 0), len(sent.refused)
            ),  # nobody is blamed for what is not signed
            "accuracy": await self._fleet.accuracy(view.next_model_hash or view.model_hash),
            "true_positive_rate": share(excluded, liars) if names else None,
            "false_positive_rate": share(excluded, honest) if names else None,
            "seconds": seconds,
            "failure": view.reason,
        }
        self._sink(Event("round_committed", self.run, number, figures))

    async def _excluded(self) -> set[str]:
        """Who is quarantined or rejected: by verdict, or at the door."""
        standings = await self._service.trust(_OWNER, self.run)
        known = {standing.client_id for standing in standings if standing.status in EXCLUDED}
        return known | {client for client, refused in self._refused.items() if refused}

    def _sides(self, clients: Sequence[str]) -> tuple[list[str], list[str]]:
        """Malicious and honest ones among clients."""
        malicious = self._fleet.malicious
        return [one for one in clients if one in malicious], [one for one in clients if one not in malicious]

    async def _skip_old(self) -> None:
        async for _ in self._news():
            pass

    async def _news(self) -> AsyncIterator[Event]:
        """What happened since this was asked last."""
        while True:
            page = await self._service.events(_OWNER, after=self._after, limit=_EVENTS, run=self.run)
            for event in page.events:
                yield Event(event.kind, event.run, event.round, event.data)
            self._after = page.next
            if len(page.events) < _EVENTS:
                return
