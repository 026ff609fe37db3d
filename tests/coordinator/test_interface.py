"""The committed documents are what the application is."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fastapi import APIRouter
from starlette.applications import Starlette
from starlette.routing import Mount, Route

from matl.coordinator.http.app import application
from matl.coordinator.interface import documented, documents, live, main, problems

COMMITTED = Path(__file__).parents[2] / "docs" / "api"


async def planted():
    """A route that nobody documented."""


@pytest.fixture
def folder(tmp_path):
    assert main(["--write", str(tmp_path)]) == 0
    return tmp_path


def test_the_committed_documents_are_true():
    assert problems(application(), COMMITTED) == []


def test_applications_make_the_same_bytes():
    assert documents(application()) == documents(application())


def test_what_is_written_is_true(folder, capsys):
    assert main(["--check", str(folder)]) == 0
    assert capsys.readouterr().err == ""


def test_a_route_that_is_not_documented_is_named(folder, capsys):
    app = application()
    app.add_api_route("/v1/planted", planted, methods=["POST"])
    assert main(["--check", str(folder)], app) == 1
    assert "not documented: POST /v1/planted\n" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("plant", "name"),
    [
        (lambda app: app.add_api_route("/hidden", planted, include_in_schema=False), "GET /hidden"),
        (lambda app: app.router.routes.append(Route("/bare", planted, methods=["DELETE"])), "DELETE /bare"),
        (lambda app: app.add_api_websocket_route("/v1/other", planted), "socket /v1/other"),
        (lambda app: app.mount("/mounted", Starlette(routes=[Route("/in", planted)])), "mount /mounted"),
        (lambda app: app.mount("/mounted", Starlette(routes=[Route("/in", planted)])), "GET /mounted/in"),
        (lambda app: app.router.routes.append(Mount("/opaque", app=planted)), "mount /opaque"),
    ],
)
def test_whatever_answers_and_is_not_documented_is_named(folder, plant, name):
    app = application()
    plant(app)
    assert f"not documented: {name}" in problems(app, folder)


def test_a_router_that_is_included_later_is_seen(folder):
    app, router = application(), APIRouter()
    router.add_api_route("/v1/included", planted)
    app.include_router(router)
    assert [line for line in problems(app, folder) if line.startswith("not documented")]


def test_a_route_that_vanished_is_named(folder, capsys):
    app = application()
    app.router.routes[:] = [
        route for route in app.router.routes if getattr(route, "path", "") != "/v1/runs/{run}/trust"
    ]
    assert main(["--check", str(folder)], app) == 1
    assert "documented, but not there: GET /v1/runs/{run}/trust\n" in capsys.readouterr().err


def test_a_socket_that_vanished_is_named(folder):
    app = application()
    app.router.routes[:] = [route for route in app.router.routes if getattr(route, "path", "") != "/v1/ws"]
    assert "documented, but not there: socket /v1/ws" in problems(app, folder)


def test_a_document_that_was_changed_by_hand_is_named(folder):
    path = folder / "training.openapi.json"
    path.write_text(path.read_text().replace("A challenge", "The challenge", 1))
    assert problems(application(), folder) == [
        f"{path} is not what the code says; write the documents anew with: make api"
    ]


def test_documents_that_are_missing_are_named(tmp_path, capsys):
    assert main(["--check", str(tmp_path)]) == 1
    assert capsys.readouterr().err.count("is missing") == 5


def test_every_route_is_in_the_documents_once_or_serves_all():
    contents = documents(application())
    assert set(live(application().routes)) == documented(contents)
    paths = [
        set(json.loads(contents[f"{name}.openapi.json"])["paths"]) for name in ("control", "training", "attestation")
    ]
    assert paths[0] & paths[1] == paths[0] & paths[2] == paths[1] & paths[2] == {"/v1/health", "/v1/ready"}
