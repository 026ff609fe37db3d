"""One connection for all of it: events as they happen, and updates that are acknowledged."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import aclosing, contextmanager, suppress

from fastapi import APIRouter
from pydantic import BaseModel
from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from matl.coordinator.access import Caller
from matl.coordinator.http.errors import problem
from matl.coordinator.http.frames import PATH, AckFrame, EventFrame, Hello, Ping, Pong, ProblemFrame
from matl.coordinator.http.senders import address_of, certificate_of, service_of
from matl.coordinator.limits import InFlight, neighbourhood
from matl.coordinator.service import Service
from matl.coordinator.strict_json import parse
from matl.errors import ProtocolError, ServiceError
from matl.protocol.envelope import LENGTH, read_head
from matl.protocol.problems import Code, refusal

__all__ = ["HELLO_SECONDS", "LARGEST_FRAME", "MOST_OF_ONE", "MOST_SOCKETS", "sockets"]

HELLO_SECONDS = 10.0
LARGEST_FRAME = 16 << 20
"""Bytes of the largest binary frame, which is in memory as a whole; larger updates go in pieces."""
MOST_SOCKETS = 4096
MOST_OF_ONE = 64
"""Connections of one client or operator, or of one address that shows no token: each may hold a frame in memory."""
_LARGEST_TEXT = 4096
_SEND_SECONDS = 30.0  # a client that does not read for that long is let go
_WATCH_SECONDS = 60.0  # that often the token is looked at again: it may have been revoked

_GOING_AWAY, _POLICY, _TOO_BIG, _LATER = 1001, 1008, 1009, 1013  # RFC 6455 and its registry
_CLOSES = {Code.TOO_LARGE: _TOO_BIG, Code.RATE: _LATER, Code.BUSY: _LATER}

routes = APIRouter()


def sockets() -> InFlight:
    """What counts the connections of one application."""
    return InFlight(MOST_SOCKETS, MOST_SOCKETS, "connections")


@routes.websocket(PATH)
async def converse(socket: WebSocket) -> None:
    """Greet, and then send events and take updates until one side leaves."""
    await socket.accept()
    conversation = _Conversation(socket, service_of(socket))
    try:
        with socket.app.state.sockets.admit():
            await conversation.run()
        await conversation.close(_GOING_AWAY)
    except WebSocketDisconnect:
        return
    except ServiceError as error:
        await conversation.refuse(error)
    except TimeoutError:
        await conversation.close(_POLICY)


class _Conversation:
    """A connection and who is at its other end."""

    def __init__(self, socket: WebSocket, service: Service) -> None:
        self._socket, self._service = socket, service
        self._sending = asyncio.Lock()
        self._token: str | None = None

    async def run(self) -> None:
        """Everything there is to say; it returns when the coordinator has no more to tell."""
        hello = await self._hello()
        self._token = hello.token
        caller = await self._caller()
        with self._one_of(f"{caller.kind} {caller.name or neighbourhood(address_of(self._socket))}"):
            await self._go_on(hello, caller)

    @contextmanager
    def _one_of(self, sender: str) -> Iterator[None]:
        """Let a sender have only so many connections."""
        lines: Counter[str] = self._socket.app.state.lines
        if lines[sender] >= MOST_OF_ONE:
            words = f"{MOST_OF_ONE} connections are open already; close one, or send over HTTP"
            raise refusal(Code.RATE, words, reason="connections", retry_after=1.0)
        lines[sender] += 1
        try:
            yield
        finally:
            lines[sender] -= 1
            if not lines[sender]:
                del lines[sender]

    async def _go_on(self, hello: Hello, caller: Caller) -> None:
        parts: list[Callable[[], Awaitable[None]]] = [self._listen, lambda: self._watch(caller)]
        if hello.after is not None:
            after = hello.after
            parts.append(lambda: self._tell(caller, after))
        tasks = [asyncio.ensure_future(part()) for part in parts]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
        for task in done:
            task.result()

    async def refuse(self, error: ServiceError) -> None:
        """Say why, and close."""
        try:
            await self._send(ProblemFrame(**dict(problem(error))))
        except (WebSocketDisconnect, TimeoutError):
            return
        await self.close(_CLOSES.get(Code(error.code), _POLICY))

    async def close(self, code: int) -> None:
        """Close, if it is not closed. Who does not read that either is cut off."""
        if self._socket.application_state is WebSocketState.CONNECTED:
            with suppress(TimeoutError):
                async with asyncio.timeout(_SEND_SECONDS):
                    await self._socket.close(code)

    async def _hello(self) -> Hello:
        try:
            async with asyncio.timeout(HELLO_SECONDS):
                frame = await self._receive()
        except TimeoutError as error:
            words = f"expected a frame of type hello within {HELLO_SECONDS:g} s, got none"
            raise refusal(Code.MALFORMED, words, reason="hello") from error
        if isinstance(frame, bytes):
            raise refusal(Code.MALFORMED, "expected a frame of type hello first, got a binary one", reason="hello")
        return parse(Hello, frame)

    async def _caller(self) -> Caller:
        authorization = None if self._token is None else f"Bearer {self._token}"
        # A browser shows its certificate for whatever page opens a WebSocket, and names the page; tokens it must know.
        certificate = None if "origin" in self._socket.headers else certificate_of(self._socket)
        return await self._service.authenticate(
            authorization, certificate=certificate, address=address_of(self._socket)
        )

    async def _tell(self, caller: Caller, after: int) -> None:
        async with aclosing(self._service.subscribe(caller, after=after)) as events:  # type: ignore[type-var]
            async for event in events:
                await self._send(EventFrame(**dict(event)))

    async def _watch(self, caller: Caller) -> None:
        while True:
            await asyncio.sleep(_WATCH_SECONDS)
            now = await self._caller()
            if (now.kind, now.name) != (caller.kind, caller.name):  # a certificate whose client was revoked is nobody's
                words = f"{caller.name} was revoked or has another key"
                raise refusal(Code.UNAUTHENTICATED, words, reason="token")

    async def _listen(self) -> None:
        number = 0
        while True:
            frame = await self._receive()
            if isinstance(frame, str):
                parse(Ping, frame)
                await self._send(Pong())
                continue
            try:
                await self._send(await self._take(frame, number))
            except ServiceError as error:
                await self._send(ProblemFrame(**dict(problem(error)), answers=number))
            number += 1

    async def _take(self, frame: bytes, number: int) -> AckFrame:
        caller = await self._caller()
        try:
            head = read_head(frame[LENGTH : LENGTH + int.from_bytes(frame[:LENGTH], "big")])
        except ProtocolError as error:
            raise refusal(Code.MALFORMED, str(error), reason=error.code) from error
        taken = await self._service.submit(caller, head.run, head.round, _one(frame))
        return AckFrame(**dict(taken), answers=number)

    async def _receive(self) -> str | bytes:
        """The next frame.

        Raises
        ------
        WebSocketDisconnect
            There is none any more.
        ServiceError
            ``"too_large"``.
        """
        message = await self._socket.receive()
        if message["type"] == "websocket.disconnect":
            raise WebSocketDisconnect(message.get("code", 1000))
        text: str | None = message.get("text")
        if text is not None:
            _limit("text", len(text), _LARGEST_TEXT)
            return text
        frame: bytes = message["bytes"]
        _limit("bytes", len(frame), min(LARGEST_FRAME, self._service.max_message))
        return frame

    async def _send(self, frame: BaseModel) -> None:
        async with self._sending, asyncio.timeout(_SEND_SECONDS):
            await self._socket.send_text(frame.model_dump_json())


def _limit(what: str, size: int, most: int) -> None:
    if size > most:
        words = f"expected a frame of at most {most} characters or bytes, got {size} ({what}); send it in pieces"
        raise refusal(Code.TOO_LARGE, words, reason="frame")


async def _one(frame: bytes) -> AsyncIterator[bytes]:
    yield frame
