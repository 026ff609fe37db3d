"""Administration: invitations, clients, tokens, and the log of all of it."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Path, Query, Response

from matl.coordinator.http.bodies import JsonBody
from matl.coordinator.http.parameters import LARGEST_COUNT, ClientId, Limit, router
from matl.coordinator.http.routes_events import Run
from matl.coordinator.http.routes_runs import Action
from matl.coordinator.http.senders import Admin, Operator, ServiceOf, Viewer
from matl.protocol.messages import (
    AuditPage,
    ClientView,
    InvitationView,
    Invited,
    InviteRequest,
    OperatorTokenView,
    TokenRequest,
    TokenView,
)

routes = router("admin")

TokenId = Annotated[str, Path(pattern="^[A-Za-z0-9._:@-]{1,128}$", description="Id of the token.", examples=["t-1"])]
Index = Annotated[int, Path(ge=0, le=LARGEST_COUNT, description="Index of a line of the audit log.", examples=[7])]
AfterLine = Annotated[int, Query(ge=0, le=LARGEST_COUNT, description="The last line that is known.", examples=[0])]


@routes.get("/v1/admin/invitations")
async def list_invitations(service: ServiceOf, caller: Viewer) -> list[InvitationView]:
    """Invitations that are still good."""
    return await service.invitations(caller)


@routes.post("/v1/admin/invitations", status_code=201)
async def invite_clients(
    service: ServiceOf, caller: Operator, asked: Annotated[InviteRequest, Depends(JsonBody(InviteRequest))]
) -> Invited:
    """Make an invitation. Its token is in this answer and nowhere else. One that `replaces` a key is for admins."""
    return await service.invite(caller, asked)


@routes.get("/v1/admin/clients")
async def list_clients(service: ServiceOf, caller: Viewer) -> list[ClientView]:
    """All clients that are enrolled."""
    return await service.clients(caller)


@routes.post("/v1/admin/clients/{client}/revoke")
async def revoke_client(service: ServiceOf, caller: Admin, client: ClientId, asked: Action) -> ClientView:
    """Take a client's right to send. Its id stays its owner's: a new key needs an invitation that `replaces` it."""
    return await service.revoke(caller, client, asked.reason)


@routes.post("/v1/admin/clients/{client}/quarantine")
async def quarantine_client(
    service: ServiceOf, caller: Operator, client: ClientId, asked: Action, run: Run = None
) -> ClientView:
    """Refuse a client's updates, in one run or in all, until it is released."""
    return await service.quarantine(caller, run, client, asked.reason)


@routes.post("/v1/admin/clients/{client}/release")
async def release_client(
    service: ServiceOf, caller: Operator, client: ClientId, asked: Action, run: Run = None
) -> ClientView:
    """Take a client's updates again."""
    return await service.release(caller, run, client, asked.reason)


@routes.get("/v1/admin/audit")
async def list_audit_log(service: ServiceOf, caller: Viewer, after: AfterLine = 0, limit: Limit = 100) -> AuditPage:
    """Lines of the audit log in order, and what a witness should remember of it."""
    return await service.audit(caller, after=after, limit=limit)


@routes.post("/v1/admin/audit/{index}/undo")
async def undo_action(service: ServiceOf, caller: Admin, index: Index) -> AuditPage:
    """Undo what a line of the audit log did, where that can be undone. The page holds the new line."""
    return await service.undo(caller, index)


@routes.get("/v1/admin/tokens")
async def list_tokens(service: ServiceOf, caller: Admin) -> list[TokenView]:
    """Tokens of operators, without their secrets."""
    return await service.tokens(caller)


@routes.post("/v1/admin/tokens", status_code=201)
async def issue_token(
    service: ServiceOf, caller: Admin, asked: Annotated[TokenRequest, Depends(JsonBody(TokenRequest))]
) -> OperatorTokenView:
    """Make an operator's token. Its secret is in this answer and nowhere else."""
    return await service.issue_token(caller, asked)


@routes.post("/v1/admin/tokens/{token}/rotate")
async def rotate_token(service: ServiceOf, caller: Admin, token: TokenId) -> OperatorTokenView:
    """Give a token a new secret; the old one is good no longer."""
    return await service.rotate_token(caller, token)


@routes.delete("/v1/admin/tokens/{token}", status_code=204)
async def revoke_token(service: ServiceOf, caller: Admin, token: TokenId) -> Response:
    """Revoke a token."""
    await service.revoke_token(caller, token)
    return Response(status_code=204)
