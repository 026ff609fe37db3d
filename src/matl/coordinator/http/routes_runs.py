"""Runs: what there is, and who starts and stops it."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing
from typing import Annotated

from fastapi import Depends, Response
from fastapi.responses import StreamingResponse

from matl.coordinator.http.bodies import JsonBody
from matl.coordinator.http.parameters import RunId, router
from matl.coordinator.http.senders import Known, Operator, ServiceOf, Viewer
from matl.protocol.messages import ActionRequest, RunExport, RunView, StartRequest

routes = router("runs")

Action = Annotated[ActionRequest, Depends(JsonBody(ActionRequest, optional=True))]


@routes.get("/v1/runs")
async def list_runs(service: ServiceOf, caller: Known) -> list[RunView]:
    """All runs, the oldest first."""
    return await service.runs(caller)


@routes.post("/v1/runs", status_code=201)
async def start_run(
    service: ServiceOf, caller: Operator, asked: Annotated[StartRequest, Depends(JsonBody(StartRequest))]
) -> RunView:
    """Start a run with these settings, which are keys of the configuration of a run."""
    return await service.start(caller, asked)


@routes.get("/v1/runs/{run}")
async def get_run(service: ServiceOf, caller: Known, run: RunId) -> RunView:
    """One run: where it stands, the arrays of its model, and the key that signs its receipts."""
    return await service.run(caller, run)


@routes.post("/v1/runs/{run}/pause")
async def pause_run(service: ServiceOf, caller: Operator, run: RunId, asked: Action) -> RunView:
    """Let it wait: its open round stays, and takes nothing."""
    return await service.pause(caller, run, asked.reason)


@routes.post("/v1/runs/{run}/resume")
async def resume_run(service: ServiceOf, caller: Operator, run: RunId, asked: Action) -> RunView:
    """Let a paused run go on."""
    return await service.resume(caller, run, asked.reason)


@routes.post("/v1/runs/{run}/stop")
async def stop_run(service: ServiceOf, caller: Operator, run: RunId, asked: Action) -> RunView:
    """End it, for good. What was committed stays."""
    return await service.stop(caller, run, asked.reason)


@routes.get("/v1/runs/{run}/export", response_model=RunExport)
async def export_run(service: ServiceOf, caller: Viewer, run: RunId) -> Response:
    """The run, its rounds and all verdicts as one document. Of one operator one is read at a time."""
    document = await service.export(caller, run)
    first = await anext(document)  # what is refused is refused before the answer begins
    return StreamingResponse(_from(first, document), media_type="application/json")


async def _from(first: bytes, others: AsyncGenerator[bytes, None]) -> AsyncIterator[bytes]:
    """All pieces; what makes them is closed even if the client leaves in the middle."""
    async with aclosing(others):
        yield first
        async for piece in others:
            yield piece
