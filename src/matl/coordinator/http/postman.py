"""The interface as a Postman collection (format 2.1), made from the OpenAPI documents."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from matl.protocol.addresses import PORT

__all__ = ["collection"]

_FORMAT = "https://schema.getpostman.com/json/collection/v2.1.0/collection.json"


def collection(documents: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """One collection: a folder for every tag, and in it a request for every operation.

    Parameters
    ----------
    documents : iterable of dict
        OpenAPI documents of this interface. What stands in several of them is taken once.
    """
    folders: dict[str, list[dict[str, Any]]] = {}
    words: dict[str, str] = {}
    seen: set[str] = set()
    for document in documents:
        words |= {tag["name"]: tag["description"] for tag in document["tags"]}
        for path, operations in document["paths"].items():
            for method, operation in operations.items():
                if operation["operationId"] not in seen:
                    seen.add(operation["operationId"])
                    folders.setdefault(operation["tags"][0], []).append(_request(path, method, operation))
    return {
        "info": {"name": "MATL", "description": "The coordinator of a federation.", "schema": _FORMAT},
        "auth": {"type": "bearer", "bearer": [{"key": "token", "value": "{{token}}", "type": "string"}]},
        "variable": [
            {"key": "baseUrl", "value": f"http://127.0.0.1:{PORT}", "type": "string"},
            {"key": "token", "value": "", "type": "string"},
        ],
        "item": [{"name": tag, "description": words[tag], "item": requests} for tag, requests in folders.items()],
    }


def _request(path: str, method: str, operation: dict[str, Any]) -> dict[str, Any]:
    parameters: dict[str, list[dict[str, Any]]] = {"path": [], "query": [], "header": []}
    for one in operation.get("parameters", []):
        parameters[one["in"]].append(
            {"key": one["name"], "value": _example(one), "description": one.get("description", "")}
            | ({} if one["required"] else {"disabled": True})
        )
    parts = [f":{part[1:-1]}" if part.startswith("{") else part for part in path.strip("/").split("/")]
    request: dict[str, Any] = {
        "method": method.upper(),
        "description": operation["description"],
        "header": parameters["header"],
        "url": {
            "raw": "{{baseUrl}}/" + "/".join(parts),
            "host": ["{{baseUrl}}"],
            "path": parts,
            "query": parameters["query"],
            "variable": parameters["path"],
        },
    }
    if not operation["security"]:
        request["auth"] = {"type": "noauth"}
    for media_type, content in operation.get("requestBody", {}).get("content", {}).items():
        request["header"] = [*request["header"], {"key": "Content-Type", "value": media_type}]
        request["body"] = _body(content)
    return {"name": operation["summary"], "request": request, "response": []}


def _body(content: dict[str, Any]) -> dict[str, Any]:
    if "examples" not in content:
        return {"mode": "file", "file": {}}
    example = json.dumps(content["examples"]["example"]["value"], indent=2)
    return {"mode": "raw", "raw": example, "options": {"raw": {"language": "json"}}}


def _example(parameter: dict[str, Any]) -> str:
    examples = parameter["schema"].get("examples", [""])
    return str(examples[0])
