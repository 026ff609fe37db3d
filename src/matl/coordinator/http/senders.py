"""Who asks, and of which service: the dependencies of every route."""

from __future__ import annotations

import ssl
from typing import Annotated, Any

from fastapi import Depends
from starlette.requests import HTTPConnection, Request

from matl.attest.tokens import Scope
from matl.coordinator.access import Caller, needs
from matl.coordinator.service import Service
from matl.protocol.problems import Code, refusal

__all__ = ["Admin", "Anybody", "Known", "OfClient", "Operator", "Sender", "ServiceOf", "Viewer", "service_of"]


def service_of(connection: HTTPConnection) -> Service:
    """The service behind the application."""
    service: Service = connection.app.state.service
    return service


class Sender:
    """A dependency: who sends this request. Operators without the scope are refused before a body is read.

    Which senders a route is for is written into the documents; the service holds to it too, behind every door.

    Parameters
    ----------
    roles : str
        ``"client"``, ``"viewer"``, ``"operator"`` or ``"admin"``; none for anybody.
    """

    def __init__(self, *roles: str) -> None:
        self.roles = roles

    @property
    def security(self) -> list[dict[str, Any]]:
        """The same for OpenAPI, whose roles are alternatives when each stands alone."""
        return [{"bearer": [role]} for role in self.roles]

    async def __call__(self, request: Request) -> Caller:
        """Ask the service who it is."""
        said = request.headers.getlist("authorization")
        if len(said) > 1:
            raise refusal(Code.MALFORMED, f"expected one header Authorization, got {len(said)}")
        caller = await service_of(request).authenticate(
            said[0] if said else None, certificate=certificate_of(request), address=address_of(request)
        )
        if not (caller.kind == "client" and "client" in self.roles):
            for role in self.roles:
                if role != "client":
                    needs(caller, Scope[role.upper()])
        return caller


def address_of(connection: HTTPConnection) -> str:
    """Where a connection comes from."""
    return connection.client.host if connection.client is not None else ""


def certificate_of(connection: HTTPConnection) -> bytes | None:
    """The certificate (DER) that the sender's side of TLS showed and the server verified, if any.

    It stands where the TLS extension of ASGI puts it.
    """
    chain = connection.scope.get("extensions", {}).get("tls", {}).get("client_cert_chain") or ()
    return ssl.PEM_cert_to_DER_cert(chain[0]) if chain else None


ServiceOf = Annotated[Service, Depends(service_of)]
Anybody = Annotated[Caller, Depends(Sender())]
Known = Annotated[Caller, Depends(Sender("client", "viewer"))]
OfClient = Annotated[Caller, Depends(Sender("client"))]
Viewer = Annotated[Caller, Depends(Sender("viewer"))]
Operator = Annotated[Caller, Depends(Sender("operator"))]
Admin = Annotated[Caller, Depends(Sender("admin"))]
