"""The simulated clients of a network: they train as those of `matl run` do, and speak as strangers' clients would.

One object trains all clients of a round, so that attacks which need every malicious update at once can be made. Each
client then signs its own update with its own key and sends it over the network. Who is malicious is known here and
nowhere else: nothing that is sent says so.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

import numpy as np
from threadpoolctl import threadpool_limits

from matl.attest.signing import sign_update
from matl.client.connection import Connection, open_transport
from matl.client.folder import ClientFolder
from matl.client.retrying import Retrying, passing
from matl.client.rounds import fetch_model, read_model
from matl.client.transport import Message, Transport
from matl.errors import ProtocolError, ServiceError, StateError
from matl.files import make_directory
from matl.learning.tasks import accuracy
from matl.params import Float32
from matl.protocol.envelope import Head
from matl.protocol.messages import RoundView, RunView
from matl.protocol.problems import Code
from matl.records import RoundSpec, Update
from matl.screening import encode_payload
from matl.simulation import Simulation

__all__ = ["LocalFleet", "Sent"]

_AT_ONCE = 16  # updates on their way
_ATTEMPTS = 10  # with the waits between them, about a minute


@dataclass(frozen=True, slots=True)
class Sent:
    """What became of the updates of a round when they arrived.

    Parameters
    ----------
    round : int
        The round.
    accepted : tuple of str
        Clients whose update counts.
    refused : mapping of str to str
        Clients whose update was refused, with the reason.
    late : tuple of str
        Clients for whom the round was over already.
    """

    round: int
    accepted: tuple[str, ...] = ()
    refused: Mapping[str, str] = field(default_factory=dict)
    late: tuple[str, ...] = ()


class LocalFleet:
    """All simulated clients of one run. Use `open`.

    Each client has a folder of its own, with its key, just as a stranger's client has.
    """

    def __init__(self, parts: Simulation, run: str, url: str, folder: Path, *, stack: AsyncExitStack) -> None:
        self._parts, self._run, self._url, self._folder, self._stack = parts, run, url, folder, stack
        # Clients that wait for each other: there is no crowd to be spared.
        self._retry = Retrying(attempts=_ATTEMPTS, share=1.0, burst=1000)
        self._own: dict[str, ClientFolder] = {}
        self._sending: Transport = self._line()
        self._reading: Connection | None = None
        self._held: dict[str, Float32] = {}  # the latest models, by hash

    @classmethod
    @asynccontextmanager
    async def open(
        cls,
        parts: Simulation,
        run: str,
        url: str,
        folder: Path,
        *,
        enrolled: Collection[str],
        invite: Callable[[int], Awaitable[str]],
    ) -> AsyncIterator[Self]:
        """The clients, known to the coordinator.

        Parameters
        ----------
        parts : Simulation
            The federation: its data, its attack, and all random streams.
        run : str
            The run.
        url : str
            Where the coordinator is.
        folder : Path
            Where the clients' folders are.
        enrolled : collection of str
            Which of them it knows already.
        invite : callable
            Makes an invitation for so many clients.

        Raises
        ------
        StateError
            A client is enrolled, and its key is lost.
        ServiceError
            The coordinator cannot be reached.
        """
        async with AsyncExitStack() as stack:
            fleet = cls(parts, run, url, folder, stack=stack)
            await fleet._enrol(enrolled, invite)
            yield fleet

    @property
    def malicious(self) -> frozenset[str]:
        """Who lies; known because this is a simulation."""
        return self._parts.population.malicious_ids

    @property
    def clients(self) -> tuple[str, ...]:
        """Everybody."""
        return self._parts.population.ids

    async def about(self) -> RunView:
        """The run."""
        return await self._line_of_reader.ask(lambda line: line.run(self._run))

    async def current(self, after: int | None, wait: float) -> RoundView:
        """See `matl.client.transport.Transport.current_round`."""
        return await self._line_of_reader.ask(lambda line: line.current_round(self._run, after=after, wait=wait))

    async def round(self, number: int) -> RoundView:
        """A round."""
        return await self._line_of_reader.ask(lambda line: line.round(self._run, number))

    async def take_part(self, view: RoundView) -> Sent:
        """Train the clients of a round, and have each send what it made.

        Raises
        ------
        ServiceError
            The coordinator cannot be reached, or is too busy for too long.
        """
        spec = view.spec.spec()
        params, change = await self._start(view)

        def work() -> list[tuple[str, Update]]:
            with threadpool_limits(1):
                return self._parts.messages(spec, params, change, self._parts.trainer)

        messages = await asyncio.to_thread(work)
        gate = asyncio.Semaphore(_AT_ONCE)
        outcomes: dict[str, ServiceError | ProtocolError | None] = {}

        async def send(client: str, update: Update) -> None:
            async with gate:
                outcomes[client] = await self._send(client, update, spec)

        try:
            async with asyncio.TaskGroup() as group:
                for client, update in messages:
                    group.create_task(send(client, update))
        except BaseExceptionGroup as errors:  # the first ended the others
            raise errors.exceptions[0] from None
        return _sorted_out(spec.round, outcomes)

    async def accuracy(self, model_hash: str) -> float:
        """Share of the test set that a model labels correctly; only a simulation has a test set."""
        params = await self.model(model_hash)
        test = self._parts.population.data.test

        def work() -> float:
            with threadpool_limits(1), np.errstate(over="ignore", invalid="ignore"):
                return accuracy(self._parts.task, params, test.X, test.y)

        return await asyncio.to_thread(work)

    async def model(self, model_hash: str) -> Float32:
        """The model (d,) of a hash.

        Raises
        ------
        ProtocolError
            What came is not that model.
        """
        if model_hash not in self._held:
            layout = self._parts.workload.layout
            own = self._own[self.clients[0]]
            path = await fetch_model(self._line_of_reader, model_hash, layout, own.models)
            params, _ = await asyncio.to_thread(read_model, path, model_hash, layout)
            self._held = {**dict(list(self._held.items())[-2:]), model_hash: params}
        return self._held[model_hash]

    async def _start(self, view: RoundView) -> tuple[Float32, Float32]:
        """The model that a round starts from, and how it differs from that of the round before."""
        if view.number == 0:
            params = await self.model(view.model_hash)
            return params, np.zeros_like(params)
        before = await self.round(view.number - 1)
        earlier = await self.model(before.model_hash)
        params = await self.model(view.model_hash)
        return params, params - earlier

    async def _send(self, client: str, update: Update, spec: RoundSpec) -> ServiceError | ProtocolError | None:
        """Sign and send an update; why it was not taken, if it was not."""
        payload = update.payload
        if not isinstance(payload, bytes):
            payload, _ = encode_payload(dict(payload))  # type: ignore[arg-type] # a layout names its arrays
        try:
            signed = sign_update(replace(update, payload=payload), self._own[client].key, spec)
            message = Message(Head.of(signed).to_bytes(), payload)
        except (ProtocolError, ValueError) as error:  # an attack made what the protocol has no words for
            return error if isinstance(error, ProtocolError) else ProtocolError("malformed", f"{error!s:.200}")
        try:
            await self._retry(lambda: self._sending.submit(self._run, spec.round, message))
        except ServiceError as error:
            if passing(error):
                raise
            return error
        return None

    async def _enrol(self, enrolled: Collection[str], invite: Callable[[int], Awaitable[str]]) -> None:
        make_directory(self._folder)
        for client in self.clients:
            path = self._folder / client
            if client in enrolled and not (path / "key.pem").exists():
                raise StateError(
                    f"{client} is enrolled and its key {path / 'key.pem'} is lost; put it back, or begin a network in "
                    "another --folder"
                )
            # The key is on the disk before it is enrolled: a crash in between loses nothing.
            self._own[client] = self._stack.enter_context(ClientFolder(path, client_id=client))
        new = [client for client in self.clients if client not in enrolled]
        if new:
            invitation = await invite(len(new))
            for client in new:
                await Connection(self._sending, self._own[client], self._retry).join(invitation, None)
            self._sending.set_token("")  # updates are signed
        self._reading = Connection(self._line(), self._own[self.clients[0]], self._retry)

    @property
    def _line_of_reader(self) -> Connection:
        """Rounds and models are read once, by the first client."""
        if self._reading is None:
            raise AssertionError("made by open")
        return self._reading

    def _line(self) -> Transport:
        transport = open_transport(self._url)
        self._stack.push_async_callback(transport.aclose)
        return transport


def _sorted_out(number: int, outcomes: Mapping[str, ServiceError | ProtocolError | None]) -> Sent:
    accepted, refused, late = [], {}, []
    for client, error in sorted(outcomes.items()):
        if error is None or getattr(error, "reason", "") == "duplicate":
            accepted.append(client)
        elif isinstance(error, ServiceError) and error.code == Code.CONFLICT:
            late.append(client)
        else:
            refused[client] = str(error)
    return Sent(number, tuple(accepted), refused, tuple(late))
