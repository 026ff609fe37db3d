"""Who asks, where proxies stand in front of a coordinator; and nobody else, where they alone encrypt."""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any

from matl.coordinator.http.errors import CAREFUL, response
from matl.protocol.addresses import address_of
from matl.protocol.problems import Code, refusal

if TYPE_CHECKING:
    from pydantic import IPvAnyNetwork
    from starlette.types import ASGIApp, Receive, Scope, Send

__all__ = ["Fronted"]

_POLICY = 1008  # RFC 6455: what was received is against a policy
_SECURE = {"http": "https", "websocket": "wss"}


class Fronted:
    """ASGI middleware before everything else: it says where a request comes from.

    A proxy appends the address that it was asked from to ``X-Forwarded-For``. Of all that stands there, this last entry
    alone is its own word; whatever stands before it came along with the request, and counts for nothing.

    Parameters
    ----------
    app : ASGIApp
        What answers.
    proxies : collection of IPv4Network or IPv6Network
        Where the proxies are. What others say of where they come from is not heard.
    encrypted : bool
        Whether lines end here encrypted. Otherwise who is neither a proxy nor on this machine is refused: its tokens
        crossed the network in the clear.
    """

    def __init__(self, app: ASGIApp, proxies: Collection[IPvAnyNetwork], *, encrypted: bool) -> None:
        self._app, self._proxies, self._encrypted = app, tuple(proxies), encrypted

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass it on with the address of whoever asks, or refuse it."""
        peer = address_of(scope["client"][0]) if scope.get("client") else None
        if peer is not None and any(peer in network for network in self._proxies):
            scope = {**scope, **_told(scope, str(peer))}
        elif not self._encrypted and (peer is None or not peer.is_loopback):
            await _refuse(scope, receive, send)
            return
        await self._app(scope, receive, send)


def _told(scope: Scope, proxy: str) -> dict[str, Any]:
    """What the proxy says of who asked it; where it says nothing that is an address, it is taken to be it."""
    client = address_of(_without_port(_last(scope, b"x-forwarded-for")))
    told: dict[str, Any] = {"client": (proxy if client is None else str(client), 0)}
    if _last(scope, b"x-forwarded-proto").lower() in ("https", "wss"):
        told["scheme"] = _SECURE[scope["type"]]
    return told


def _last(scope: Scope, name: bytes) -> str:
    """The last entry of a header that is a list, in one line or several."""
    lines = [value for key, value in scope["headers"] if key == name]
    return str(lines[-1].rpartition(b",")[2].decode("latin-1").strip()) if lines else ""


def _without_port(entry: str) -> str:
    """An address that may have a port behind it, as in ``10.0.0.5:4711`` and ``[::1]:4711``.

    Examples
    --------
    >>> [_without_port(entry) for entry in ("10.0.0.5", "10.0.0.5:4711", "::1", "[::1]", "[::1]:4711")]
    ['10.0.0.5', '10.0.0.5', '::1', '::1', '::1']
    """
    if entry.startswith("["):
        return entry[1:].partition("]")[0]
    return entry.partition(":")[0] if entry.count(":") == 1 else entry


async def _refuse(scope: Scope, receive: Receive, send: Send) -> None:
    words = "this coordinator takes no requests in the clear but through its proxy; ask at the proxy's https address"
    if scope["type"] == "websocket":
        await receive()  # websocket.connect
        await send({"type": "websocket.close", "code": _POLICY, "reason": words})
        return
    # The body, of which nothing was read, would be taken for the next request.
    refused = response(refusal(Code.FORBIDDEN, words, reason="clear"), headers={**CAREFUL, "Connection": "close"})
    await refused(scope, receive, send)
