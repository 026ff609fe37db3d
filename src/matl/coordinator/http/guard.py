"""What holds for every request: headers of a sane size in, headers for careful browsers out."""

from __future__ import annotations

from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from matl.coordinator.http.errors import CAREFUL, response
from matl.errors import ServiceError
from matl.protocol.problems import Code, refusal

__all__ = ["LARGEST_HEADERS", "LARGEST_TARGET", "MOST_HEADERS", "Guard"]

LARGEST_HEADERS = 32 << 10
"""Bytes of all headers."""
MOST_HEADERS = 100
LARGEST_TARGET = 8 << 10
"""Bytes of path and query."""

_LASTING = "max-age=31536000"
_POLICY = 1008  # RFC 6455: what was received is against a policy


class Guard:
    """ASGI middleware around the whole application.

    It also ends the connection after an answer that was given before the whole body was read: what is still on its
    way would be read as the next request, or received for nothing.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass it on, or refuse it."""
        if scope["type"] == "lifespan":
            await self._app(scope, receive, send)
            return
        refused = _oversized(scope)
        if scope["type"] == "websocket":
            if refused is None:
                await self._app(scope, receive, send)
            else:
                await receive()  # websocket.connect
                await send({"type": "websocket.close", "code": _POLICY, "reason": "headers too large"})
            return

        names = {name for name, _ in scope["headers"]}
        unread = b"transfer-encoding" in names or (b"content-length", b"0") not in scope["headers"]
        unread = unread and bool(names & {b"transfer-encoding", b"content-length"})

        async def receiving() -> Message:
            nonlocal unread
            message = await receive()
            if message["type"] != "http.request" or not message.get("more_body", False):
                unread = False
            return message

        async def sending(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in CAREFUL.items():
                    headers.setdefault(name, value)
                if scope["scheme"] == "https":
                    headers.setdefault("Strict-Transport-Security", _LASTING)
                if unread and scope["http_version"].startswith("1"):
                    headers["Connection"] = "close"
            await send(message)

        if refused is not None:
            await response(refused)(scope, receiving, sending)
        else:
            await self._app(scope, receiving, sending)


def _oversized(scope: Scope) -> ServiceError | None:
    size = sum(len(name) + len(value) for name, value in scope["headers"])
    if size > LARGEST_HEADERS or len(scope["headers"]) > MOST_HEADERS:
        words = f"{len(scope['headers'])} headers of {size} bytes, allowed are {MOST_HEADERS} of {LARGEST_HEADERS}"
        return refusal(Code.TOO_LARGE, words, reason="headers")
    target = len(scope["path"]) + len(scope["query_string"])
    if target > LARGEST_TARGET:
        words = f"an address of {target} bytes, allowed are {LARGEST_TARGET}"
        return refusal(Code.TOO_LARGE, words, reason="address")
    return None
