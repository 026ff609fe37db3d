"""What is thought of clients, and judging on demand."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends
from starlette.requests import Request

from matl.coordinator.http.bodies import Bytes, split_messages, whole
from matl.coordinator.http.parameters import ClientId, RunId, router
from matl.coordinator.http.senders import Known, Operator, ServiceOf
from matl.protocol.messages import ReputationView, StandingView, TrustHistory, ValidateAnswer

routes = router("trust")

LARGEST_VALIDATION = 256 << 20
"""Bytes of all messages of one request to validate; they are in memory together."""
MOST_VALIDATED = 256
Messages = Bytes(
    "application/vnd.matl.updates", "Messages of updates, each behind its length (eight bytes, big endian)."
)


@routes.get("/v1/runs/{run}/trust")
async def list_standings(service: ServiceOf, caller: Known, run: RunId) -> list[StandingView]:
    """What is thought of every client of a run. Clients see what is thought of themselves."""
    return await service.trust(caller, run)


@routes.get("/v1/runs/{run}/trust/{client}")
async def get_trust_history(service: ServiceOf, caller: Known, run: RunId, client: ClientId) -> TrustHistory:
    """The latest verdicts on a client, latest first. Clients see their own."""
    return await service.trust_history(caller, run, client)


@routes.get("/v1/runs/{run}/reputation")
async def list_reputations(service: ServiceOf, caller: Known, run: RunId) -> list[ReputationView]:
    """What every client of a run has earned. Clients see what they have."""
    return await service.reputation(caller, run)


@routes.post("/v1/runs/{run}/validate")
async def validate_updates(
    service: ServiceOf, caller: Operator, run: RunId, request: Annotated[Request, Depends(Messages)]
) -> ValidateAnswer:
    """Judge updates as the run would, count none of them, and return signed receipts."""
    data = await whole(request, LARGEST_VALIDATION)
    return await service.validate(caller, run, split_messages(data, MOST_VALIDATED))
