"""The committed documents of the interface, and whether they are true.

``python -m matl.coordinator.interface --write docs/api`` makes them from the application; ``--check docs/api`` fails,
and names every route, socket and mount that is there and not documented, or documented and not there.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from fastapi import FastAPI
from starlette.routing import BaseRoute, Mount, Route, WebSocketRoute

from matl.coordinator.http.app import application
from matl.coordinator.http.frames import schema
from matl.coordinator.http.openapi import Surface, document
from matl.coordinator.http.postman import collection
from matl.files import make_directory, write_atomic

__all__ = ["documented", "documents", "live", "main", "problems"]

_SOCKETS = "websocket.schema.json"
_POSTMAN = "postman.json"
_ADVICE = "write the documents anew with: make api"


def documents(app: FastAPI) -> dict[str, str]:
    """The documents, by the name of their file; the same application makes the same bytes.

    Examples
    --------
    >>> sorted(documents(application()))
    ['attestation.openapi.json', 'control.openapi.json', 'postman.json', 'training.openapi.json',
     'websocket.schema.json']
    """
    made: dict[str, Any] = {_file(surface): document(app, surface) for surface in Surface}
    made[_POSTMAN] = collection([made[_file(surface)] for surface in Surface])
    made[_SOCKETS] = schema()
    return {name: json.dumps(content, indent=2, ensure_ascii=False) + "\n" for name, content in made.items()}


def live(routes: Iterable[BaseRoute], prefix: str = "") -> Iterator[str]:
    """Everything that an application answers to, such as ``GET /v1/runs`` and ``socket /v1/ws``."""
    for route in routes:
        path = prefix + getattr(route, "path", "")
        if isinstance(route, Route):
            yield from (f"{method} {path}" for method in sorted(route.methods or {"any method of"}))
        elif isinstance(route, WebSocketRoute):
            yield f"socket {path}"
        elif isinstance(route, Mount):  # whatever is behind it answers to addresses that nobody sees here
            yield f"mount {path}"
            yield from live(route.routes, path)
        else:
            yield f"{type(route).__name__} {path}"


def documented(contents: dict[str, str]) -> set[str]:
    """The same by the documents."""
    found = {f"socket {path}" for path in json.loads(contents[_SOCKETS])["x-sockets"]}
    for surface in Surface:
        for path, operations in json.loads(contents[_file(surface)])["paths"].items():
            found |= {f"{method.upper()} {path}" for method in operations}
    return found


def problems(app: FastAPI, folder: Path) -> list[str]:
    """What is wrong with the documents in a folder; nothing, if they are true."""
    wanted = documents(app)
    missing = [f"{folder / name} is missing; {_ADVICE}" for name in wanted if not (folder / name).is_file()]
    if missing:
        return missing
    written = {name: (folder / name).read_text(encoding="utf-8") for name in wanted}
    there, said = set(live(app.routes)), documented(written)
    found = [f"not documented: {name}" for name in sorted(there - said)]
    found += [f"documented, but not there: {name}" for name in sorted(said - there)]
    stale = [
        f"{folder / name} is not what the code says; {_ADVICE}" for name in wanted if written[name] != wanted[name]
    ]
    return found + stale


def main(arguments: list[str] | None = None, app: FastAPI | None = None) -> int:
    """Write or check the documents; the status of the process."""
    parser = argparse.ArgumentParser(prog="python -m matl.coordinator.interface", description=__doc__)
    wish = parser.add_mutually_exclusive_group(required=True)
    wish.add_argument("--write", metavar="FOLDER", type=Path)
    wish.add_argument("--check", metavar="FOLDER", type=Path)
    options = parser.parse_args(arguments)
    app = app or application()
    if options.write is not None:
        for name, content in documents(app).items():
            write_atomic(make_directory(options.write) / name, content)
        return 0
    found = problems(app, options.check)
    sys.stderr.writelines(f"{line}\n" for line in found)
    return 1 if found else 0


def _file(surface: Surface) -> str:
    return f"{surface}.openapi.json"


if __name__ == "__main__":
    sys.exit(main())
