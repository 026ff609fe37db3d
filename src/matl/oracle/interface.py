"""The committed document of the oracle's door, and whether it is true.

``python -m matl.oracle.interface --write docs/api`` makes it from the routes; ``--check docs/api`` fails, and names
every route that is there and not documented, or documented and not there. `matl.coordinator.interface` does the same
for the coordinator.
"""

from __future__ import annotations

import argparse
import json
import sys
from http import HTTPStatus
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi
from fastapi.routing import APIRoute

from matl.coordinator.http.errors import RESPONSES
from matl.coordinator.http.openapi import VERSION
from matl.coordinator.interface import live
from matl.files import make_directory, write_atomic
from matl.oracle.http import application
from matl.oracle.wire import LENGTH
from matl.protocol.messages import Problem
from matl.protocol.oracle import LARGEST_NONCE, ActivationRequest

__all__ = ["FILE", "document", "main", "problems"]

FILE = "oracle.openapi.json"
"""Name of the document."""

_ADVICE = "write the document anew with: make api"
_TOKEN = {
    "type": "http",
    "scheme": "bearer",
    "description": "The oracle's token (`matl_or_...`), for the coordinator alone; `matl oracle serve` says in which "
    "file it is.",
}
_NEVER = frozenset({HTTPStatus.FORBIDDEN, HTTPStatus.TOO_MANY_REQUESTS})  # there are no scopes and no quotas here
_REFERENCE = "#/components/schemas/"
_ANSWER = {"application/vnd.matl.judgement": {"schema": {"type": "string", "format": "binary"}}}
_FOR_COORDINATORS: dict[str, Any] = {"security": [{"token": []}]}

# What FastAPI does not see: bodies that are read piece by piece, answers that are bytes, and who may ask.
_MORE: dict[str, dict[str, Any]] = {
    "POST /v1/activations": {
        "requestBody": {
            "required": True,
            "description": (ActivationRequest.__doc__ or "").partition("\n")[0],
            "content": {"application/json": {"schema": {"$ref": _REFERENCE + ActivationRequest.__name__}}},
        }
    },
    "GET /v1/judgements/{digest}": _FOR_COORDINATORS,
    "POST /v1/judge": _FOR_COORDINATORS
    | {
        "requestBody": {
            "required": True,
            "description": "The brief, then the sealed updates in the order of its heads, each behind its length in "
            f"{LENGTH} bytes, big endian. A brief is a map in msgpack, see `matl.oracle.wire`.",
            "content": {"application/octet-stream": {"schema": {"type": "string", "format": "binary"}}},
        }
    },
}
_PARAMETERS = {
    "nonce": {"pattern": f"^([0-9a-f]{{2}}){{1,{LARGEST_NONCE}}}$", "examples": ["5f" * 32]},
    "digest": {"pattern": "^[0-9a-f]{64}$", "description": "SHA-256 of the brief.", "examples": ["ab" * 32]},
}


def document(app: FastAPI) -> dict[str, Any]:
    """The OpenAPI document of an oracle's application.

    Examples
    --------
    >>> list(document(application())["paths"])[:3]
    ['/v1/health', '/v1/keys', '/v1/evidence']
    """
    routes = [route for route in app.routes if isinstance(route, APIRoute) and route.include_in_schema]
    made = get_openapi(
        title="MATL: oracle",
        version=VERSION,
        description="The judge of Mode 2, in a process that proves what it runs: evidence for anybody, judgement for "
        "the coordinator. Every answer to `POST /v1/judge` is signed, beside evidence of who signed it.",
        routes=routes,
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
    )
    schemas = made.setdefault("components", {}).setdefault("schemas", {})
    schemas |= {"Problem": Problem.model_json_schema(mode="serialization")}
    schemas[ActivationRequest.__name__] = ActivationRequest.model_json_schema()
    refusals = {status: each for status, each in RESPONSES.items() if status not in _NEVER}
    for route in routes:
        for method in route.methods or ():
            operation = made["paths"][route.path_format][method.lower()]
            operation |= {"summary": route.name.replace("_", " ").capitalize(), "security": []}
            operation |= _MORE.get(f"{method} {route.path_format}", {})
            if operation["security"]:
                operation["responses"]["200"]["content"] = _ANSWER
            for parameter in operation.get("parameters", ()):
                parameter["schema"] |= _PARAMETERS[parameter["name"]]
            for status, (name, _) in refusals.items():
                if status != HTTPStatus.UNAUTHORIZED or operation["security"]:
                    operation["responses"][str(status)] = {"$ref": f"#/components/responses/{name}"}
            operation["responses"] = dict(sorted(operation["responses"].items()))
    made["components"]["responses"] = dict(refusals.values())
    for unused in ("HTTPValidationError", "ValidationError"):  # FastAPI's own, in place of which a Problem is sent
        schemas.pop(unused, None)
    made["components"]["schemas"] = dict(sorted(schemas.items()))
    made["components"]["securitySchemes"] = {"token": _TOKEN}
    return made


def problems(app: FastAPI, folder: Path) -> list[str]:
    """What is wrong with the document in a folder; nothing, if it is true."""
    path = folder / FILE
    if not path.is_file():
        return [f"{path} is missing; {_ADVICE}"]
    written = path.read_text(encoding="utf-8")
    said = {
        f"{method.upper()} {place}"
        for place, operations in json.loads(written)["paths"].items()
        for method in operations
    }
    there = set(live(app.routes))
    found = [f"not documented: {name}" for name in sorted(there - said)]
    found += [f"documented, but not there: {name}" for name in sorted(said - there)]
    return found + ([] if written == _written(app) else [f"{path} is not what the code says; {_ADVICE}"])


def main(arguments: list[str] | None = None, app: FastAPI | None = None) -> int:
    """Write or check the document; the status of the process."""
    parser = argparse.ArgumentParser(prog="python -m matl.oracle.interface", description=__doc__)
    wish = parser.add_mutually_exclusive_group(required=True)
    wish.add_argument("--write", metavar="FOLDER", type=Path)
    wish.add_argument("--check", metavar="FOLDER", type=Path)
    options = parser.parse_args(arguments)
    app = app or application()
    if options.write is not None:
        write_atomic(make_directory(options.write) / FILE, _written(app))
        return 0
    found = problems(app, options.check)
    sys.stderr.writelines(f"{line}\n" for line in found)
    return 1 if found else 0


def _written(app: FastAPI) -> str:
    return json.dumps(document(app), indent=2, ensure_ascii=False) + "\n"


if __name__ == "__main__":
    sys.exit(main())
