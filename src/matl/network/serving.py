"""Opens the doors of a coordinator: HTTP and WebSocket by uvicorn, and gRPC, with or without TLS."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import ssl
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from matl.errors import InvalidValueError, MissingExtraError, StorageError
from matl.network.settings import NetworkSettings, TlsSettings

try:
    import h11
    import uvicorn
    from uvicorn.protocols.http.h11_impl import H11Protocol
    from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol

    from matl.coordinator.http.app import SERVER, create_app
    from matl.network.proxies import Fronted
except ImportError as error:
    raise MissingExtraError("uvicorn", extra="server") from error

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Receive, Scope, Send

    from matl.coordinator.service import Service

__all__ = ["IN_FILE", "Doors", "free_socket", "open_doors"]

IN_FILE = "write another one as port = ... into the file of settings"
"""What to do about a port that is taken, where a file says which one it is."""

_GRACE = 3  # seconds that requests have to end
_KEEP_ALIVE = 75  # seconds that an idle connection stays, above what proxies commonly keep theirs
_HEAD_SECONDS = 15.0  # that the head of a request may take
_BODY_SECONDS = 60.0  # that may pass without a byte of a body
_MOST_CONNECTIONS = 8192
_BACKLOG = 2048
_MOST_TRIED = 50  # ports


@dataclass(frozen=True, slots=True)
class Doors:
    """Where a coordinator listens.

    Parameters
    ----------
    url : str
        Of HTTP and WebSocket, as somebody on this machine reaches it.
    grpc_url : str or None
        Of gRPC.
    superseded : asyncio.Event
        Set once another coordinator has taken over the database; this one takes nothing any more, and is to be closed.
    """

    url: str
    grpc_url: str | None = None
    superseded: asyncio.Event = field(default_factory=asyncio.Event)


def free_socket(
    host: str, port: int, *, search: bool = False, advice: str = "choose another port with --port"
) -> socket.socket:
    """A socket that listens.

    Parameters
    ----------
    host : str
        Address or name to listen at.
    port : int
        0 for any that is free.
    search : bool
        Take one of the next ports where this one is taken.
    advice : str
        How whoever is refused chooses another port.

    Raises
    ------
    InvalidValueError
        The port is taken, or the address is none of this machine.
    """
    candidates = range(port, min(port + _MOST_TRIED, 65536)) if search and port else (port,)
    last = OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
    for candidate in candidates:
        try:
            family, kind, protocol, _, address = socket.getaddrinfo(
                host, candidate, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
            )[0]
            listener = socket.socket(family, kind, protocol)
        except OSError as error:
            raise InvalidValueError(
                f"cannot listen at {host!r}: {error.strerror}; give an address of this machine"
            ) from error
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(_BACKLOG)
        except OSError as error:
            listener.close()
            last = error
        else:
            listener.setblocking(False)
            return listener
    raise InvalidValueError(
        f"cannot listen at {host}:{port}: {last.strerror}; end what listens there, or {advice}"
    ) from last


@contextlib.asynccontextmanager
async def open_doors(
    service: Service, settings: NetworkSettings, *, listener: socket.socket | None = None
) -> AsyncIterator[Doors]:
    """Serve a coordinator for as long as the block lasts.

    Parameters
    ----------
    service : Service
        What is served.
    settings : NetworkSettings
        Where, and with which certificates.
    listener : socket, optional
        A socket that listens already; it is closed at the end.

    Raises
    ------
    InvalidValueError
        A port is taken, or a certificate cannot be read.
    MissingExtraError
        gRPC is asked for and not installed.
    """
    context = None if settings.tls is None else tls_context(settings.tls)
    async with contextlib.AsyncExitStack() as stack:
        if listener is None:
            listener = free_socket(settings.host, settings.port, advice=IN_FILE)
        stack.callback(listener.close)
        port = listener.getsockname()[1]
        await stack.enter_async_context(_http(service, settings, listener, context))
        grpc_url = None
        if settings.grpc_port is not None:
            grpc_port = await stack.enter_async_context(_grpc(service, settings))
            grpc_url = f"{'grpc' if context is None else 'grpcs'}://{_reached(settings.host)}:{grpc_port}"
        stack.callback(service.drain)  # before the doors are closed: who waits for a round is told at once
        url = f"{'http' if context is None else 'https'}://{_reached(settings.host)}:{port}"
        yield Doors(url, grpc_url, service.superseded)


def tls_context(tls: TlsSettings) -> ssl.SSLContext:
    """How the coordinator proves who it is, and asks clients who they are where there is an authority for it.

    Raises
    ------
    InvalidValueError
        A file cannot be read, or key and certificate do not belong together.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    try:
        context.load_cert_chain(tls.certificate, tls.key, password=_no_passphrase)
        if tls.client_ca is not None:
            context.load_verify_locations(tls.client_ca)
            context.verify_mode = ssl.CERT_REQUIRED
    except (OSError, ssl.SSLError) as error:
        files = ", ".join(str(path) for path in (tls.certificate, tls.key, tls.client_ca) if path is not None)
        raise InvalidValueError(
            f"TLS cannot be set up from {files}: {error}; expected PEM files, a key without a passphrase, and a "
            "certificate that belongs to it"
        ) from error
    return context


def _no_passphrase() -> str:
    raise ssl.SSLError("the key has a passphrase")


@contextlib.asynccontextmanager
async def _http(
    service: Service, settings: NetworkSettings, listener: socket.socket, context: ssl.SSLContext | None
) -> AsyncIterator[None]:
    config = uvicorn.Config(
        Fronted(create_app(service), settings.trusted_proxies, encrypted=context is not None),
        **SERVER,
        http=_Careful,
        ws=_Speaking,
        log_config=None,
        proxy_headers=False,  # that is done before, and believes less
        limit_concurrency=_MOST_CONNECTIONS,
        timeout_keep_alive=_KEEP_ALIVE,
    )
    config.load()
    config.ssl = context
    server = _Server(config)
    task = asyncio.create_task(server.serve(sockets=[listener]), name="matl-http")
    try:
        while not server.started:
            if task.done():
                await task
                raise StorageError("the HTTP server ended before it began")
            await asyncio.sleep(0.01)
        yield
    finally:
        server.should_exit = True
        await task


@contextlib.asynccontextmanager
async def _grpc(service: Service, settings: NetworkSettings) -> AsyncIterator[int]:
    from matl.coordinator.grpc_door import DoorSettings, GrpcDoor, Tls

    tls = None
    if settings.tls is not None:
        tls = Tls(certificate=settings.tls.certificate, key=settings.tls.key, client_ca=settings.tls.client_ca)
    door = GrpcDoor(service, DoorSettings(host=settings.host, port=settings.grpc_port or 0, tls=tls, grace=_GRACE))
    async with door:
        yield door.port


def _reached(host: str) -> str:
    """A host that listens everywhere is reached here by this machine's own name for itself."""
    own = {"0.0.0.0": "127.0.0.1", "::": "[::1]", "": "127.0.0.1"}.get(host, host)  # noqa: S104 - compared, not bound
    return f"[{own}]" if ":" in own and not own.startswith("[") else own


class _Server(uvicorn.Server):
    """Leaves signals to whoever opened the doors."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class _Careful(H11Protocol):
    """Ends connections on which a request begins and does not go on, and tells the application of certificates."""

    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.app = _showing(self.app, transport)
        self._expect(_HEAD_SECONDS)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        state = self.conn.their_state
        if state is h11.SEND_BODY:
            self._expect(_BODY_SECONDS)
        elif state is not h11.IDLE:
            self._stop()
        elif self._late is None and not self.transport.is_closing():
            self._expect(_HEAD_SECONDS)  # of the whole head: further bytes of it give no more time

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop()
        super().connection_lost(exc)

    def _expect(self, seconds: float) -> None:
        self._stop()
        self._late = self.loop.call_later(seconds, self._end)

    def _end(self) -> None:
        if self.conn.their_state is h11.SEND_BODY and self.flow.read_paused:  # it is we who are slow
            self._expect(_BODY_SECONDS)
        else:
            self.transport.close()

    def _stop(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None


class _Speaking(WebSocketsSansIOProtocol):
    """Tells the application of certificates: a connection that becomes a WebSocket leaves `_Careful` behind."""

    def connection_made(self, transport: Any) -> None:
        super().connection_made(transport)
        self.app = _showing(self.app, transport)


def _showing(app: ASGIApp, transport: asyncio.BaseTransport) -> ASGIApp:
    """The application, told of the certificate that a client showed where the TLS extension of ASGI puts it."""
    secured = transport.get_extra_info("ssl_object")
    given = secured.getpeercert(binary_form=True) if secured is not None else None
    if given is None:
        return app
    certificate = ssl.DER_cert_to_PEM_cert(given)

    async def shown(scope: Scope, receive: Receive, send: Send) -> None:
        extensions = {**scope.get("extensions", {}), "tls": {"client_cert_chain": [certificate]}}
        await app({**scope, "extensions": extensions}, receive, send)

    return shown
