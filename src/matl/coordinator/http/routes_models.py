"""Models, whole or from where a client was cut off."""

from __future__ import annotations

import base64
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

from fastapi import Response
from fastapi.responses import StreamingResponse
from starlette.requests import Request

from matl.coordinator.http.errors import response
from matl.coordinator.http.parameters import ModelHash, router
from matl.coordinator.http.ranges import unchanged, wanted
from matl.coordinator.http.senders import Known, ServiceOf
from matl.coordinator.service import ModelBlob
from matl.errors import ServiceError
from matl.protocol.messages import Problem

routes = router("training")

_BINARY = {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}}
_HEADERS: dict[str, Any] = {
    "ETag": {"description": "SHA-256 of the bytes, in quotes.", "schema": {"type": "string"}},
    "Accept-Ranges": {"description": "bytes", "schema": {"type": "string"}},
    "Repr-Digest": {"description": "SHA-256 of all the bytes (RFC 9530).", "schema": {"type": "string"}},
}
_RANGE = {"Content-Range": {"description": "Which bytes, and of how many.", "schema": {"type": "string"}}}
_ASKED: list[dict[str, Any]] = [
    {"name": name, "in": "header", "required": False, "description": words, "schema": {"type": "string"}}
    for name, words in {
        "Range": "One range of bytes, such as bytes=1048576-.",
        "If-Range": "The ETag of the bytes that are there already: if it is another by now, all bytes are sent.",
        "If-None-Match": "The ETag of what is there already: 304 if it is still the same.",
    }.items()
]
_ANSWERS: dict[int | str, dict[str, Any]] = {
    200: {"description": "All bytes.", "content": _BINARY, "headers": _HEADERS},
    206: {"description": "The bytes that were asked for.", "content": _BINARY, "headers": _HEADERS | _RANGE},
    304: {"description": "The client has it already.", "headers": _HEADERS},
    416: {"description": "The range begins behind the end.", "model": Problem, "headers": _RANGE},
}


@routes.get(
    "/v1/models/{model_hash}", response_class=Response, responses=_ANSWERS, openapi_extra={"parameters": _ASKED}
)
@routes.head(
    "/v1/models/{model_hash}",
    name="head_model",
    response_class=Response,
    responses=_ANSWERS,
    openapi_extra={"parameters": _ASKED},
)
async def get_model(service: ServiceOf, caller: Known, model_hash: ModelHash, request: Request) -> Response:
    """The arrays of a model (safetensors), all or a range of the bytes. They never change."""
    model = await service.model(caller, model_hash)
    etag = f'"{model.sha256}"'
    headers = {
        "ETag": etag,
        "Accept-Ranges": "bytes",
        "Repr-Digest": f"sha-256=:{base64.b64encode(bytes.fromhex(model.sha256)).decode()}:",
        "Cache-Control": "private, max-age=31536000, immutable",
    }
    if unchanged(request.headers, etag):
        return Response(status_code=304, headers=headers)
    try:
        part = wanted(request.headers, etag, model.size)
    except ServiceError as error:
        return response(error, status=416, headers={"Content-Range": f"bytes */{model.size}"})
    start, stop = part or (0, model.size)
    headers["Content-Length"] = str(stop - start)
    if part is not None:
        headers["Content-Range"] = f"bytes {start}-{stop - 1}/{model.size}"
    status = 200 if part is None else 206
    if request.method == "HEAD":
        return Response(status_code=status, headers=headers, media_type="application/octet-stream")
    return StreamingResponse(
        _bytes(model, start, stop), status_code=status, headers=headers, media_type="application/octet-stream"
    )


async def _bytes(model: ModelBlob, start: int, stop: int) -> AsyncIterator[bytes]:
    """The pieces; what reads them is closed even if the client leaves in the middle."""
    stream = model.stream(start, stop)
    async with aclosing(stream):  # type: ignore[type-var]
        async for piece in stream:
            yield piece
