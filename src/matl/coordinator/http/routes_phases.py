"""Masked rounds: their constants, who takes part, and what is said and asked in each phase."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import Depends, Path, Response
from starlette.requests import Request

from matl.coordinator.http.bodies import Bytes, pieces
from matl.coordinator.http.parameters import RoundNumber, RunId, Wait, router
from matl.coordinator.http.senders import Known, OfClient, ServiceOf
from matl.protocol.messages import Acknowledgement, ParticipantsView

routes = router("phases")

Phase = Annotated[
    str,
    Path(pattern="^[a-z]{1,32}$", description="advertise, share, mask, consistency or unmask.", examples=["advertise"]),
]
Said = Bytes("application/vnd.matl.phase", "The client's message of the phase, see `matl.privacy.secagg`.")
_BINARY: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The request of the phase for this client.",
        "content": {"application/vnd.matl.phase": {"schema": {"type": "string", "format": "binary"}}},
    }
}
_MANIFEST: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "The document, which has to be certified again: `matl verify privacy`.",
        "content": {"application/json": {"schema": {"type": "object"}}},
    }
}


@routes.get("/v1/runs/{run}/manifest", response_class=Response, responses=_MANIFEST)
async def get_manifest(service: ServiceOf, caller: Known, run: RunId) -> Response:
    """The privacy manifest of a run whose sums are masked."""
    return Response(await service.manifest(caller, run), media_type="application/json")


@routes.get("/v1/runs/{run}/participants")
async def list_participants(service: ServiceOf, caller: Known, run: RunId) -> ParticipantsView:
    """Who may take part in masked rounds, with their public keys."""
    return await service.participants(caller, run)


@routes.post("/v1/runs/{run}/rounds/{number}/phases/{phase}", status_code=202)
async def say_in_phase(
    service: ServiceOf,
    caller: OfClient,
    run: RunId,
    number: RoundNumber,
    phase: Phase,
    request: Annotated[Request, Depends(Said)],
) -> Acknowledgement:
    """Send a client's message of a phase. The answer says that it is on the coordinator's disk.

    Sending the very same again is answered the same, with `duplicate` set.
    """
    return await service.say(caller, run, number, phase, pieces(request, service.max_message))


@routes.get("/v1/runs/{run}/rounds/{number}/phases/{phase}", response_class=Response, responses=_BINARY)
async def get_phase(
    service: ServiceOf, caller: OfClient, run: RunId, number: RoundNumber, phase: Phase, wait: Wait = 0.0
) -> Response:
    """What a client is asked in a phase; it is waited for until the phase begins.

    404 with the reason `not_yet` where it has not after `wait` seconds, 409 where the round went on without this
    client.
    """
    content = await service.asked(caller, run, number, phase, wait=wait)
    return Response(content, media_type="application/vnd.matl.phase")
