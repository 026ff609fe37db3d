"""The application: every route, and what holds for all of them."""

from __future__ import annotations

from collections import Counter
from typing import Any

from fastapi import FastAPI
from starlette.middleware import Middleware

from matl.coordinator.http import (
    pages,
    routes_admin,
    routes_attest,
    routes_events,
    routes_joining,
    routes_models,
    routes_phases,
    routes_rounds,
    routes_runs,
    routes_service,
    routes_trust,
    routes_updates,
    socket,
)
from matl.coordinator.http.errors import HANDLERS
from matl.coordinator.http.guard import LARGEST_HEADERS, Guard
from matl.coordinator.http.openapi import VERSION
from matl.coordinator.service import Service

__all__ = ["SERVER", "application", "create_app"]

SERVER: dict[str, Any] = {
    "server_header": False,  # what serves is nobody's business
    "access_log": False,
    "lifespan": "off",  # whoever opened the service closes it
    "h11_max_incomplete_event_size": LARGEST_HEADERS,
    "timeout_graceful_shutdown": 5,  # long polls wait up to 30 s; their clients ask again
    "ws_max_size": socket.LARGEST_FRAME,
    "ws_max_queue": 2,
    "ws_per_message_deflate": False,  # updates do not shrink, and a small frame may unpack to a large one
}
"""What a server of it is to be told: ``uvicorn.Config(create_app(service), **SERVER, host=..., port=...)``."""


def create_app(service: Service, *, docs: bool = True) -> FastAPI:
    """The application in front of a service that is open.

    Parameters
    ----------
    service : Service
        What every route calls.
    docs : bool
        Whether ``/docs`` shows the interface.
    """
    app = application(docs=docs)
    app.state.service = service
    return app


def application(*, docs: bool = True) -> FastAPI:
    """The application by itself: enough to document it, and not to answer."""
    routers = [
        routes_service.routes,
        routes_runs.routes,
        routes_rounds.training,
        routes_rounds.routes,
        routes_trust.routes,
        routes_events.events,
        routes_events.metrics,
        routes_admin.routes,
        routes_joining.routes,
        routes_models.routes,
        routes_updates.updates,
        routes_updates.uploads,
        routes_phases.routes,
        routes_attest.attest,
        routes_attest.mobile,
        socket.routes,
    ]
    if docs:
        routers.append(pages.routes)
    app = FastAPI(
        title="MATL",
        version=VERSION,
        routes=[route for router in routers for route in router.routes],
        openapi_url=None,
        redirect_slashes=False,
        exception_handlers=HANDLERS,
        middleware=[Middleware(Guard)],
    )
    app.state.sockets, app.state.lines = socket.sockets(), Counter()
    return app
