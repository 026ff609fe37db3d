"""The documents of the interface to look at, with all they need beside them: nothing is loaded from elsewhere."""

from __future__ import annotations

from enum import StrEnum
from importlib import resources
from string import Template
from typing import Annotated

from fastapi import Path, Request
from fastapi.responses import HTMLResponse, JSONResponse, RedirectResponse, Response

from matl.coordinator.http.openapi import SURFACES, Surface, document
from matl.coordinator.http.parameters import router

routes = router("documents")


class Asset(StrEnum):
    """A file of the page."""

    BUNDLE = "swagger-ui-bundle.js"
    STYLE = "swagger-ui.css"
    SCRIPT = "page.js"
    OWN_STYLE = "page.css"


Part = Annotated[Surface, Path(description="Part of the interface.")]

_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
_KINDS = {"js": "text/javascript; charset=utf-8", "css": "text/css; charset=utf-8"}
_HTML = {"text/html": {"schema": {"type": "string"}}}


@routes.get(
    "/docs", response_class=RedirectResponse, status_code=307, responses={307: {"description": "To the first."}}
)
async def redirect_to_documents() -> Response:
    """To the document of the control plane."""
    return RedirectResponse("docs/control", 307)


@routes.get(
    "/docs/{surface}", response_class=HTMLResponse, responses={200: {"description": "The page.", "content": _HTML}}
)
async def show_document(surface: Part) -> Response:
    """A page that shows one part of the interface, and tries it out."""
    links = "".join(
        f'<a href="{name}"{" aria-current=page" if name == surface else ""}>{part.title}</a>'
        for name, part in SURFACES.items()
    )
    page = Template(_read("page.html").decode()).substitute(
        title=SURFACES[surface].title, document=f"{surface}/openapi.json", links=links
    )
    return HTMLResponse(page, headers={"Content-Security-Policy": _POLICY})


@routes.get(
    "/docs/{surface}/openapi.json",
    response_class=JSONResponse,
    responses={200: {"description": "The document.", "content": {"application/json": {"schema": {"type": "object"}}}}},
)
async def get_document(surface: Part, request: Request) -> Response:
    """One part of the interface as OpenAPI 3.1."""
    return JSONResponse(document(request.app, surface))


@routes.get(
    "/docs/files/{name}",
    response_class=Response,
    responses={
        200: {
            "description": "The file.",
            "content": {kind.partition(";")[0]: {"schema": {"type": "string"}} for kind in _KINDS.values()},
        }
    },
)
async def get_page_file(name: Annotated[Asset, Path(description="Name of the file.")]) -> Response:
    """A file that the page needs."""
    kind = _KINDS[name.rpartition(".")[2]]
    return Response(_read(name), media_type=kind, headers={"Cache-Control": "public, max-age=3600"})


def _read(name: str) -> bytes:
    return (resources.files("matl.coordinator.http") / "swagger" / name).read_bytes()
