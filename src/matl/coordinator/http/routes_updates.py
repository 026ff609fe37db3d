"""Updates on their way in, at once or in pieces, and what became of them."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends, Header, Path, Response
from starlette.requests import Request

from matl.coordinator.http.bodies import Bytes, declared, pieces, whole
from matl.coordinator.http.parameters import LARGEST_COUNT, ClientId, RoundNumber, RunId, router
from matl.coordinator.http.senders import Anybody, Known, ServiceOf
from matl.protocol.envelope import LARGEST_HEAD, Head
from matl.protocol.messages import Acknowledgement, UpdateView, UploadView

updates, uploads = router("updates"), router("uploads")

UploadId = Annotated[str, Path(pattern="^[A-Za-z0-9_-]{1,128}$", description="Id of the upload.", examples=["u" * 32])]
Offset = Annotated[
    int,
    Header(
        alias="Upload-Offset",
        ge=0,
        le=LARGEST_COUNT,
        description="Where in the payload the piece begins.",
        examples=[0],
    ),
]
Message = Bytes(
    "application/vnd.matl.update", "Length of the head (four bytes, big endian), the head (JSON), the payload."
)
Piece = Bytes("application/octet-stream", "The next bytes of the payload.")
HeadBody = Bytes("application/json", "The head of the update, as it is signed.", Head)


@updates.post("/v1/runs/{run}/rounds/{number}/updates", status_code=202)
async def submit_update(
    service: ServiceOf, caller: Anybody, run: RunId, number: RoundNumber, request: Annotated[Request, Depends(Message)]
) -> Acknowledgement:
    """Send an update. Its signature says who sends it, and no token is needed.

    The payload is read only when the head is good. The answer says that the update is on the coordinator's disk.
    Sending the very same again is answered the same, with `duplicate` set.
    """
    return await service.submit(caller, run, number, pieces(request, service.max_message))


@updates.get("/v1/runs/{run}/rounds/{number}/updates/{client}")
async def get_update(
    service: ServiceOf, caller: Known, run: RunId, number: RoundNumber, client: ClientId
) -> UpdateView:
    """What became of an update. Clients see their own."""
    return await service.update(caller, run, number, client)


@updates.get(
    "/v1/runs/{run}/rounds/{number}/updates/{client}/receipt",
    response_class=Response,
    responses={
        200: {
            "description": "The receipt, a JSON document with its signature; its bytes are to be kept as they are.",
            "content": {"application/json": {"schema": {"$ref": "#/components/schemas/Receipt"}}},
        }
    },
)
async def get_receipt(service: ServiceOf, caller: Known, run: RunId, number: RoundNumber, client: ClientId) -> Response:
    """The signed receipt of a verdict, which anybody can check offline. Clients get their own."""
    return Response(await service.receipt(caller, run, number, client), media_type="application/json")


@uploads.post("/v1/runs/{run}/rounds/{number}/uploads", status_code=201)
async def begin_upload(
    service: ServiceOf, caller: Anybody, run: RunId, number: RoundNumber, request: Annotated[Request, Depends(HeadBody)]
) -> UploadView:
    """Announce an update whose payload comes in pieces. It is signed as any other.

    If it was accepted before, the answer holds its acknowledgement and nothing is to be sent.
    """
    return await service.begin_upload(run, number, await whole(request, LARGEST_HEAD))


@uploads.patch("/v1/uploads/{upload}")
async def append_to_upload(
    service: ServiceOf,
    caller: Anybody,
    upload: UploadId,
    offset: Offset,
    request: Annotated[Request, Depends(Piece)],
) -> UploadView:
    """Send the next piece. The answer to the last one holds the acknowledgement.

    What arrived of a piece that was cut off is kept: `GET` says where to go on.
    """
    return await service.append(upload, offset, pieces(request, service.max_message), size=declared(request))


@uploads.get("/v1/uploads/{upload}")
async def get_upload(service: ServiceOf, caller: Anybody, upload: UploadId) -> UploadView:
    """How far an upload is."""
    return await service.upload(upload)
