"""What happens, and how much of it."""

from __future__ import annotations

from typing import Annotated

from fastapi import Query

from matl.coordinator.http.parameters import LARGEST_COUNT, Limit, Wait, router
from matl.coordinator.http.senders import Known, ServiceOf, Viewer
from matl.protocol.messages import EventPage, Metrics

events, metrics = router("events"), router("metrics")

After = Annotated[int, Query(ge=0, le=LARGEST_COUNT, description="The last event that is known.", examples=[0])]
Run = Annotated[
    str | None,
    Query(pattern="^[A-Za-z0-9][A-Za-z0-9._:@-]{0,127}$", description="Of this run alone.", examples=["demo"]),
]


@events.get("/v1/events")
async def list_events(
    service: ServiceOf, caller: Known, after: After = 0, limit: Limit = 500, wait: Wait = 0.0, run: Run = None
) -> EventPage:
    """Events in order, from the one behind `after` on; if there are none, they are waited for.

    Clients learn nothing of one another.
    """
    return await service.events(caller, after=after, limit=limit, wait=wait, run=run)


@metrics.get("/v1/metrics")
async def get_metrics(service: ServiceOf, caller: Viewer) -> Metrics:
    """Counts and latencies since the coordinator started."""
    return await service.metrics(caller)
