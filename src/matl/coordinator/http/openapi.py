"""The interface as OpenAPI 3.1, made from the routes themselves: what they read, who they are for, what they answer."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from matl.coordinator.http.bodies import Bytes, JsonBody
from matl.coordinator.http.errors import RESPONSES
from matl.coordinator.http.examples import EXAMPLES
from matl.coordinator.http.senders import Sender
from matl.protocol.addresses import PORT
from matl.protocol.messages import Problem

__all__ = ["SURFACES", "TAGS", "VERSION", "Part", "Surface", "document"]

VERSION = "1.0.0"
"""Of the interface. The first number changes when something that was there is gone or means something else."""


class Surface(StrEnum):
    """A part of the interface that is documented by itself."""

    CONTROL = "control"
    TRAINING = "training"
    ATTESTATION = "attestation"


@dataclass(frozen=True, slots=True)
class Part:
    """What a surface holds."""

    title: str
    description: str
    tags: tuple[str, ...]


SURFACES: dict[Surface, Part] = {
    Surface.CONTROL: Part(
        "Control plane",
        "For operators and whoever watches: runs, rounds, trust, events, metrics and administration.",
        ("service", "runs", "rounds", "trust", "events", "metrics", "admin", "documents"),
    ),
    Surface.TRAINING: Part(
        "Training",
        "For clients: joining, the round to work on, models, and updates on their way in. The `matl.client` SDK speaks "
        "all of it.",
        ("service", "joining", "training", "updates", "uploads", "phases"),
    ),
    Surface.ATTESTATION: Part(
        "Attestation",
        "What machines and mobile hardware keys prove about themselves.",
        ("service", "attest", "mobile"),
    ),
}

TAGS = {
    "service": "Whether somebody is there.",
    "runs": "Runs: what there is, and who starts and stops it.",
    "rounds": "Rounds that were.",
    "trust": "What is thought of clients, and judging on demand.",
    "events": "What happens, in order.",
    "metrics": "Counts and latencies.",
    "admin": "Invitations, clients, tokens, and the log of all that is done with them.",
    "documents": "These documents.",
    "joining": "Becoming a client, and proving to be one.",
    "training": "The round to work on, and models.",
    "updates": "Updates in one message, and what became of them.",
    "uploads": "Updates in pieces, for large models and bad lines.",
    "phases": "Masked rounds: sums of which no single update is seen.",
    "attest": "Evidence of machines.",
    "mobile": "Gradients signed by hardware keys of phones.",
}

_BEARER = {
    "type": "http",
    "scheme": "bearer",
    "description": "An operator's token (`matl_op_...`) with the scope viewer, operator or admin, each allowing what "
    "the one before it does, or a client's session token (`matl_cl_...`). The words in brackets "
    "behind a route's summary say whose it is. The first operator's token is in the file `admin.token` of the "
    "coordinator's folder, and good for 90 days; `matl token issue` makes others.",
}
_RECEIPT = {
    "title": "Receipt",
    "description": "What was decided about an update, signed; see `matl verify receipt`.",
    "type": "object",
    "required": ["receipt", "signature"],
    "additionalProperties": False,
    "properties": {
        "receipt": {"type": "string", "description": "The text matl-receipt/1 that is signed."},
        "signature": {"type": "string", "description": "Of the run's `receipts_key`, in base64."},
    },
}
_REFERENCE = "#/components/schemas/"
_SERVERS: list[dict[str, Any]] = [
    {"url": "/", "description": "The coordinator that serves this document."},
    {"url": f"http://127.0.0.1:{PORT}", "description": "One on this machine, unless it listens elsewhere."},
]


def document(app: FastAPI, surface: Surface | None = None) -> dict[str, Any]:
    """The OpenAPI document of a surface, or of all of them.

    Parameters
    ----------
    app : FastAPI
        The application whose routes are documented.
    surface : Surface, optional
        Which part.
    """
    part = SURFACES[surface] if surface is not None else None
    routes = [route for route in app.routes if isinstance(route, APIRoute) and _belongs(route, part)]
    made = get_openapi(
        title=f"MATL: {part.title.lower()}" if part else "MATL",
        version=VERSION,
        description=part.description if part else "The coordinator of a federation.",
        routes=routes,
        servers=_SERVERS,
        tags=[{"name": tag, "description": words} for tag, words in TAGS.items() if part is None or tag in part.tags],
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
    )
    schemas = made.setdefault("components", {}).setdefault("schemas", {})
    schemas.update(_read_by(routes))
    schemas |= {"Receipt": _RECEIPT, "Problem": Problem.model_json_schema(mode="serialization")}
    for route in routes:
        for method in route.methods or ():
            _complete(made["paths"][route.path_format][method.lower()], route)
    made["components"]["responses"] = dict(RESPONSES.values())
    used = {"Problem", *_reachable(made["paths"], schemas)}
    made["components"]["schemas"] = {
        name: schema | ({"examples": [EXAMPLES[name]]} if name in EXAMPLES else {})
        for name, schema in sorted(schemas.items())
        if name in used
    }
    made["components"]["securitySchemes"] = {"bearer": _BEARER}
    return made


def _belongs(route: APIRoute, part: Part | None) -> bool:
    return route.include_in_schema and (part is None or bool(set(route.tags) & set(part.tags)))


def _dependencies(route: APIRoute) -> Iterator[Any]:
    return (dependency.call for dependency in route.dependant.dependencies)


def _read_by(routes: list[APIRoute]) -> dict[str, Any]:
    """The schemas of what bodies hold."""
    models: set[type[BaseModel]] = set()
    for route in routes:
        for call in _dependencies(route):
            if isinstance(call, JsonBody | Bytes) and call.model is not None:
                models.add(call.model)
    ordered = sorted(models, key=lambda model: model.__name__)
    _, found = models_json_schema([(model, "validation") for model in ordered], ref_template=_REFERENCE + "{model}")
    schemas: dict[str, Any] = found.get("$defs", {})
    return schemas


def _complete(operation: dict[str, Any], route: APIRoute) -> None:
    """What FastAPI does not see: the dependencies that read bodies and tell senders apart."""
    words = route.name.replace("_", " ").capitalize()
    operation |= {"summary": words, "security": []}
    for call in _dependencies(route):
        if isinstance(call, Sender):
            operation["security"] = call.security
            if call.roles:  # the list of routes shows summaries, and nothing of security
                operation["summary"] = f"{words} ({' or '.join(call.roles)})"
        elif isinstance(call, JsonBody | Bytes):
            operation["requestBody"] = _body(call)
    refusals = {str(status): {"$ref": f"#/components/responses/{name}"} for status, (name, _) in RESPONSES.items()}
    operation["responses"] = dict(sorted((operation["responses"] | refusals).items()))


def _body(call: JsonBody[Any] | Bytes) -> dict[str, Any]:
    content: dict[str, Any] = {"schema": {"type": "string", "format": "binary"}}
    if call.model is not None:
        name = call.model.__name__
        content = {"schema": {"$ref": _REFERENCE + name}, "examples": {"example": {"value": EXAMPLES[name]}}}
    return {"required": call.required, "description": call.description, "content": {call.media_type: content}}


def _reachable(value: Any, schemas: Mapping[str, Any], seen: set[str] | None = None) -> Iterator[str]:
    """Names of all schemas that something refers to, or that those refer to."""
    seen = set() if seen is None else seen
    if isinstance(value, Mapping):
        reference = value.get("$ref")
        name = reference.removeprefix(_REFERENCE) if isinstance(reference, str) else ""
        if name in schemas and name not in seen:
            seen.add(name)
            yield name
            yield from _reachable(schemas[name], schemas, seen)
        for item in value.values():
            yield from _reachable(item, schemas, seen)
    elif isinstance(value, list):
        for item in value:
            yield from _reachable(item, schemas, seen)
