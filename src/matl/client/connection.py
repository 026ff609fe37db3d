"""A client's line to its coordinator: the transport, asked again where that helps, by somebody who proves who he is."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Awaitable, Callable, Mapping
from contextlib import suppress
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

from matl.attest.claims import Clock, system_clock
from matl.attest.enrolment import PREFIX, EnrolmentRequest
from matl.attest.session import SessionText
from matl.client.folder import ClientFolder
from matl.client.retrying import Retrying
from matl.client.transport import Transport
from matl.errors import InvalidValueError, ProtocolError, ServiceError
from matl.protocol.addresses import PORT, parts_of, refuse_clear
from matl.protocol.messages import EnrolRequest, Health, SessionRequest, SessionView
from matl.protocol.problems import Code, refusal

__all__ = ["Connection", "Evidence", "open_transport"]

T = TypeVar("T")

Evidence = Callable[[bytes], Mapping[str, bytes]]
"""Asks this machine for evidence with a nonce of 32 bytes; returns it by its format, see `matl.attest.evidence`."""

_PROTOCOL = 1
_RENEW = timedelta(seconds=60)  # before a token ends
_NOTICED = 5.0  # seconds by which clocks may differ without a word
_STRANGER = {"signature", "unknown_client"}  # reasons: a coordinator need not say whether it knows the name
_CLOCK_REASONS = {"expired", "future"}


def open_transport(
    url: str, *, ca: Path | None = None, certificate: tuple[Path, Path] | None = None, insecure: bool = False
) -> Transport:
    """The transport of a URL. Nothing is sent yet.

    Parameters
    ----------
    url : str
        ``https://host:port`` (or ``http``), ``wss`` (``ws``) or ``grpcs`` (``grpc``).
    ca, certificate
        See `matl.client.http.HttpTransport`.
    insecure : bool
        Take ``http``, ``ws`` or ``grpc`` to another machine too, where invitations, tokens and models can be read on
        the way.

    Raises
    ------
    InvalidValueError
        It is no such URL, or its line is not encrypted and goes to another machine.
    MissingExtraError
        What the transport needs is not installed.
    StateError
        A certificate cannot be read.
    """
    parts = parts_of(url)
    if parts is None or parts.username or parts.query or parts.fragment:
        raise InvalidValueError(f"expected an address such as https://host:{PORT}, got {url!a:.200}")
    if not insecure:
        refuse_clear(url, unless="insecure=True")
    # Each is imported where it is used: a client over gRPC needs no httpx.
    if parts.scheme in ("http", "https"):
        from matl.client.http import HttpTransport

        return HttpTransport(url, ca=ca, certificate=certificate)
    if parts.scheme in ("ws", "wss"):
        from matl.client.websocket import WebSocketTransport

        return WebSocketTransport(url, ca=ca, certificate=certificate)
    if parts.scheme in ("grpc", "grpcs"):
        from matl.client.grpc import GrpcTransport

        return GrpcTransport(url, ca=ca, certificate=certificate)
    raise InvalidValueError(f"expected https, wss or grpcs (or http, ws, grpc) before '://', got {url!r}")


class Connection:
    """What every request of a client goes through.

    Parameters
    ----------
    transport : Transport
        What carries it.
    folder : ClientFolder
        Who the client is.
    retrying : Retrying
        When to ask again.
    clock : Clock
        The client's.
    """

    def __init__(
        self, transport: Transport, folder: ClientFolder, retrying: Retrying, clock: Clock = system_clock
    ) -> None:
        self.transport, self.retrying, self._folder, self._clock = transport, retrying, folder, clock
        self._greeted = False
        self._session: SessionView | None = None
        self._ahead = 0.0  # seconds by which the coordinator's clock is ahead of ours

    async def ask(self, request: Callable[[Transport], Awaitable[T]]) -> T:
        """The answer to a request of a client that is known; it is introduced first where it has to be.

        Raises
        ------
        ServiceError
            The coordinator refuses, or cannot be reached.
        """
        await self._introduce()
        try:
            return await self.raw(request)
        except ServiceError as error:
            if error.code != Code.UNAUTHENTICATED.value or error.reason != "token":
                raise
        self._session = None  # the token has ended by the coordinator's clock, or it has begun anew without its secret
        await self._introduce()
        return await self.raw(request)

    async def raw(self, request: Callable[[Transport], Awaitable[T]]) -> T:
        """The answer to a request for which it does not matter who asks.

        Raises
        ------
        ServiceError
            As above.
        """
        try:
            await self._greet()
            return await self.retrying(lambda: request(self.transport))
        except ServiceError as error:
            raise await self._explained(error) from error

    async def join(self, invitation: str, evidence: Evidence | None) -> None:
        """Become a client of the coordinator.

        Raises
        ------
        ServiceError
            It refuses.
        InvalidValueError
            The invitation does not look like one.
        """
        folder, token = self._folder, invitation.strip()
        challenge = await self.raw(lambda transport: transport.challenge())
        try:
            signed = EnrolmentRequest.signed(folder.client_id, folder.key, token, challenge)
            nonce = hashlib.sha256(signed.text.to_bytes()).digest()
        except ProtocolError as error:
            raise InvalidValueError(
                f"the invitation cannot be used: expected {PREFIX} and 43 characters, got {len(token)} characters in "
                "all, which is not a whole one; copy it again"
            ) from error
        offered = {} if evidence is None else evidence(nonce)
        request = EnrolRequest(
            client_id=signed.client_id,
            key=_base64(signed.key),
            token=signed.token,
            challenge=signed.challenge,
            signature=_base64(signed.signature),
            evidence={name: _base64(content) for name, content in offered.items()},
        )
        enrolled = await self.raw(lambda transport: transport.enrol(request))
        self._use(enrolled.session)

    async def close(self) -> None:
        """Close the transport."""
        await self.transport.aclose()

    async def _greet(self) -> None:
        """Once: that a coordinator is there, speaks our language, and what its clock says."""
        if self._greeted:
            return
        health = await self.retrying(self.transport.health)
        if health.protocol != _PROTOCOL:
            older = "this SDK" if health.protocol > _PROTOCOL else "the coordinator"
            raise refusal(
                Code.MALFORMED,
                f"the coordinator (matl {health.version}) speaks version {health.protocol} of the protocol, this SDK "
                f"version {_PROTOCOL}; upgrade {older}",
                reason="protocol",
            )
        self._compare(health)
        self._greeted = True

    def _compare(self, health: Health) -> None:
        self._ahead = (health.time - self._clock()).total_seconds()

    async def _introduce(self) -> None:
        """Have a session token that is good for a while."""
        if self._session is not None:
            now = self._clock() + timedelta(seconds=self._ahead)
            if now + _RENEW < self._session.expires_at:
                return
        folder = self._folder
        self.transport.set_token("")
        challenge = await self.raw(lambda transport: transport.challenge())
        text = SessionText(client_id=folder.client_id, challenge=challenge)
        request = SessionRequest(
            client_id=folder.client_id, challenge=challenge, signature=_base64(folder.key.sign(text.to_bytes()))
        )
        try:
            self._use(await self.raw(lambda transport: transport.session(request)))
        except ServiceError as error:
            if error.reason not in _STRANGER:
                raise
            raise ServiceError(
                error.code,
                f"the coordinator does not know {folder.client_id!r} with the key of this folder: join first, with an "
                "invitation of its operator: client.join('matl_inv_...')",
                reason=error.reason,
            ) from error

    def _use(self, session: SessionView) -> None:
        self._session = session
        self.transport.set_token(session.token)

    async def _explained(self, error: ServiceError) -> ServiceError:
        """The error, with a word on the clocks, as they are now, where these are the cause."""
        if error.reason not in _CLOCK_REASONS:
            return error
        with suppress(ServiceError):
            self._compare(await self.transport.health())
        if abs(self._ahead) < _NOTICED:
            return error
        side = "behind" if self._ahead > 0 else "ahead of"
        here = self._clock()
        there = here + timedelta(seconds=self._ahead)
        return ServiceError(
            error.code,
            f"{error}. This machine's clock is {abs(self._ahead):.0f} s {side} the coordinator's: set it, for "
            f"example with NTP; here it is {here:%Y-%m-%d %H:%M:%S}, there {there:%Y-%m-%d %H:%M:%S} (UTC)",
            reason=error.reason,
            retry_after=error.retry_after,
        )


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode()
