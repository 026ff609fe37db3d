"""Whether somebody is there."""

from __future__ import annotations

from fastapi import Response

from matl.coordinator.http.parameters import router
from matl.coordinator.http.senders import Anybody, ServiceOf
from matl.protocol.messages import Health

routes = router("service")


@routes.get("/v1/health")
@routes.head("/v1/health", name="head_health")
async def get_health(service: ServiceOf) -> Health:
    """That the coordinator runs, its version, and what its clock says. It asks nothing of the database."""
    return await service.health()


@routes.get("/v1/ready", status_code=204)
@routes.head("/v1/ready", status_code=204, name="head_ready")
async def get_ready(service: ServiceOf, caller: Anybody) -> Response:
    """Whether it can do its work: 204 if its database and its blobs answer, 503 if not.

    It says nothing of single runs: `runs.broken` of the metrics counts those that cannot go on since the restart.
    """
    await service.ready()
    return Response(status_code=204)
