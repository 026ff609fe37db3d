"""The transport over a WebSocket: updates and events through one connection that stays, all else over HTTP."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlsplit

from pydantic import BaseModel, ValidationError

from matl.client.http import HttpTransport, sent_on, tls_context
from matl.client.transport import Message
from matl.errors import MissingExtraError, ServiceError
from matl.protocol.messages import Acknowledgement, EventView, Problem
from matl.protocol.problems import Code, refusal

try:
    from websockets.asyncio.client import ClientConnection, connect
    from websockets.exceptions import InvalidHandshake, InvalidStatus, WebSocketException
except ImportError as error:
    raise MissingExtraError("websockets", extra="client") from error

__all__ = ["WebSocketTransport"]

M = TypeVar("M", bound=BaseModel)

_PATH = "/v1/ws"
_LARGEST_FRAME = 1 << 20  # bytes of a frame that comes in; events are small


class _Connect(connect):
    """Follows nobody who sends it on: what it says first may hold a token, and what follows is for its coordinator."""

    def process_redirect(self, exc: Exception) -> Exception:
        return exc


class WebSocketTransport(HttpTransport):
    """Speaks through a WebSocket with a coordinator; see `matl.client.transport.Transport`.

    Parameters
    ----------
    url : str
        ``ws://`` or ``wss://``, host, port, and a path if the coordinator lies under one.
    ca, certificate, timeout
        See `matl.client.http.HttpTransport`.
    """

    def __init__(
        self,
        url: str,
        *,
        ca: Path | None = None,
        certificate: tuple[Path, Path] | None = None,
        timeout: float = 30.0,
    ) -> None:
        super().__init__("http" + url.removeprefix("ws"), ca=ca, certificate=certificate, timeout=timeout)
        self._secure = urlsplit(url).scheme == "wss"
        self._options: dict[str, Any] = {
            "ssl": tls_context(ca, certificate) if self._secure else None,
            "proxy": True if self._secure else None,
            "open_timeout": timeout,
            "max_size": _LARGEST_FRAME,
        }
        self._socket: ClientConnection | None = None
        self._sent = 0  # binary frames through this connection
        self._turn = asyncio.Lock()

    async def submit(self, run: str, number: int, message: Message) -> Acknowledgement:
        """See `matl.client.transport.Transport`; the head says which run and round."""
        async with self._turn:
            try:
                async with asyncio.timeout(self._timeout):
                    return await self._exchange(message)
            except (OSError, TimeoutError, WebSocketException) as error:
                await self._hang_up()
                raise self._broken(error) from error

    async def events(self, *, after: int = 0, run: str | None = None) -> AsyncIterator[EventView]:
        """See `matl.client.transport.Transport`; through a connection of its own."""
        try:
            async with await self._greeted(token=self._token, after=after) as socket:
                while True:
                    frame = _read(await socket.recv())
                    if frame.get("type") == "problem":
                        raise _refusal(frame)
                    if frame.get("type") == "event" and run in (None, frame.get("run")):
                        yield _view(EventView, frame)
        except (OSError, TimeoutError, WebSocketException) as error:
            raise self._broken(error) from error

    async def aclose(self) -> None:
        """See `matl.client.transport.Transport`."""
        await self._hang_up()
        await super().aclose()

    async def _exchange(self, message: Message) -> Acknowledgement:
        if self._socket is None:
            self._socket, self._sent = await self._greeted(token=None, after=None), 0  # updates are signed
        socket, index = self._socket, self._sent
        self._sent += 1
        await socket.send(b"".join(message.framed()))
        while True:
            frame = _read(await socket.recv())
            answers = frame.get("answers")
            if frame.get("type") == "problem" and answers in (None, index):
                if answers is None:  # the coordinator hangs up behind it
                    await self._hang_up()
                raise _refusal(frame)
            if frame.get("type") == "ack" and answers == index:
                return _view(Acknowledgement, frame)

    async def _greeted(self, *, token: str | None, after: int | None) -> ClientConnection:
        socket = await _Connect("ws" + self.url.removeprefix("http") + _PATH, **self._options)
        try:
            await socket.send(json.dumps({"type": "hello", "token": token, "after": after}))
        except BaseException:
            await socket.close()
            raise
        return socket

    async def _hang_up(self) -> None:
        socket, self._socket = self._socket, None
        if socket is not None:
            await socket.close()

    def _broken(self, error: Exception) -> ServiceError:
        if isinstance(error, TimeoutError):
            return refusal(Code.BUSY, f"{self.url} does not answer within {self._timeout:g} s", reason="timeout")
        if isinstance(error, InvalidStatus) and 300 <= error.response.status_code < 400:
            return sent_on(self.url, ", ".join(error.response.headers.get_all("Location")) or "elsewhere")
        if isinstance(error, InvalidHandshake):
            message = f"{self.url} takes no WebSocket at {_PATH}: {error}; is it a coordinator? Try http:// or https://"
            return refusal(Code.MALFORMED, message, reason="not_a_coordinator")
        return self._unreachable(error)


def _read(frame: str | bytes) -> dict[str, Any]:
    try:
        content = json.loads(frame)
    except (ValueError, RecursionError):
        content = None
    if not isinstance(content, dict):
        raise refusal(Code.MALFORMED, "the coordinator sent a frame that is no JSON object", reason="not_a_coordinator")
    return content


def _refusal(frame: dict[str, Any]) -> ServiceError:
    problem = _view(Problem, frame)
    known = problem.code if problem.code in set(Code) else Code.INVALID.value
    return ServiceError(known, problem.message, reason=problem.reason, retry_after=problem.retry_after)


def _view(kind: type[M], frame: dict[str, Any]) -> M:
    try:
        return kind.model_validate(frame)
    except ValidationError as error:
        message = f"the coordinator sent a frame that is no {kind.__name__}; another version of the protocol"
        raise refusal(Code.MALFORMED, message, reason="not_a_coordinator") from error
