"""The documents say of every operation what it is, who it is for, what it reads and what it answers."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from fastapi.routing import APIRoute

import matl.protocol.messages
from matl.coordinator.http.app import application
from matl.coordinator.http.errors import RESPONSES
from matl.coordinator.http.examples import EXAMPLES
from matl.coordinator.http.openapi import SURFACES, TAGS, Surface, document
from matl.coordinator.http.postman import collection
from matl.network.settings import NetworkSettings
from matl.protocol.addresses import PORT
from matl.protocol.envelope import Head
from matl.protocol.messages import Problem
from matl.protocol.problems import CODES, Code

APP = application()
DOCUMENTS = {surface: document(APP, surface) for surface in Surface}
OPERATIONS = [
    pytest.param(path, method, operation, id=operation["operationId"])
    for path, operations in document(APP)["paths"].items()
    for method, operation in operations.items()
]
REFUSALS = ["400", "401", "403", "404", "409", "413", "422", "429", "503"]


@pytest.mark.parametrize(("path", "method", "operation"), OPERATIONS)
def test_an_operation_is_described(path, method, operation):
    assert len(operation["tags"]) == 1
    assert operation["summary"]
    assert len(operation["description"]) > 10
    assert [status for status in operation["responses"] if status in REFUSALS] == REFUSALS
    assert any(status < "400" for status in operation["responses"])
    assert all(entry == {"bearer": list(entry["bearer"])} for entry in operation["security"])
    assert ("requestBody" in operation) <= (method in ("post", "patch"))
    for parameter in operation.get("parameters", []):
        assert parameter["description"]
    for media_type, body in operation.get("requestBody", {}).get("content", {}).items():
        assert ("examples" in body) == (media_type == "application/json")


def test_the_list_of_routes_says_who_may_ask():
    paths = document(APP)["paths"]
    assert paths["/v1/admin/tokens"]["post"]["summary"] == "Issue token (admin)"
    assert paths["/v1/runs"]["get"]["summary"] == "List runs (client or viewer)"
    assert paths["/v1/challenge"]["post"]["summary"] == "Issue challenge"
    assert (
        "`admin.token` of the coordinator's folder"
        in document(APP)["components"]["securitySchemes"]["bearer"]["description"]
    )


def test_documents_say_where_a_coordinator_listens():
    for made in DOCUMENTS.values():
        assert [server["url"] for server in made["servers"]] == ["/", "http://127.0.0.1:8470"]
    variables = {one["key"]: one["value"] for one in collection(DOCUMENTS.values())["variable"]}
    assert variables["baseUrl"] == "http://127.0.0.1:8470"
    assert PORT == NetworkSettings(folder=Path("x")).port == 8470


def test_operations_have_names_of_their_own():
    names = [operation.values[2]["operationId"] for operation in OPERATIONS]
    assert len(names) == len(set(names))
    assert "get_current_round" in names


def test_every_route_is_for_somebody():
    free = {one.values[2]["operationId"] for one in OPERATIONS if not one.values[2]["security"]}
    assert free == {
        "get_health", "head_health", "get_ready", "head_ready", "issue_challenge", "enrol_client", "open_session",
        "submit_update", "begin_upload", "append_to_upload", "get_upload", "issue_evidence_challenge",
        "verify_gradient", "redirect_to_documents", "show_document", "get_document", "get_page_file",
    }  # fmt: skip


def test_every_tag_is_on_a_surface_and_used():
    used = {tag for operation in OPERATIONS for tag in operation.values[2]["tags"]}
    assert used == set(TAGS) == {tag for part in SURFACES.values() for tag in part.tags}


@pytest.mark.parametrize("surface", Surface)
def test_references_lead_somewhere_and_nothing_is_left_over(surface):
    made = DOCUMENTS[surface]
    text = json.dumps(made)
    for kind, parts in made["components"].items():
        for name in parts:
            if kind != "securitySchemes":
                assert f'"#/components/{kind}/{name}"' in text, name
    for part in text.split('"$ref": "#/components/')[1:]:
        kind, name = part.partition('"')[0].split("/")
        assert name in made["components"][kind]
    assert made["openapi"] == "3.1.0"


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples_are_what_they_stand_for(name):
    model = Head if name == "Head" else getattr(matl.protocol.messages, name)
    model.model_validate_json(json.dumps(EXAMPLES[name]), strict=name.endswith("Request"))


def test_examples_of_refusals_are_problems():
    for status, (name, response) in RESPONSES.items():
        example = Problem.model_validate(response["content"]["application/json"]["example"])
        assert CODES[Code(example.code)].http == status
        assert (example.retry_after is not None) == ("Retry-After" in response.get("headers", {})), name


def test_what_is_sent_and_told_has_an_example():
    named = {name for made in DOCUMENTS.values() for name in made["components"]["schemas"]}
    named -= {"Asset", "Surface", "Status", "Visibility", "Receipt", "OracleView", "AuditView"}
    assert named <= set(EXAMPLES)


def test_every_module_of_routes_documents_itself_by_its_dependencies():
    for route in APP.routes:
        if isinstance(route, APIRoute):
            assert route.description, route.path


def test_the_collection_has_every_operation_once():
    made = collection(DOCUMENTS.values())
    assert made["info"]["schema"].endswith("/v2.1.0/collection.json")
    assert {folder["name"] for folder in made["item"]} == set(TAGS)
    requests = [item for folder in made["item"] for item in folder["item"]]
    assert len(requests) == len(OPERATIONS)
    named = {item["name"]: item["request"] for item in requests}
    enrol = named["Enrol client"]
    assert enrol["method"] == "POST"
    assert enrol["url"]["raw"] == "{{baseUrl}}/v1/clients"
    assert enrol["auth"] == {"type": "noauth"}
    assert json.loads(enrol["body"]["raw"]) == EXAMPLES["EnrolRequest"]
    trust = named["Get trust history (client or viewer)"]
    assert "auth" not in trust
    assert trust["url"]["path"] == ["v1", "runs", ":run", "trust", ":client"]
    assert [variable["key"] for variable in trust["url"]["variable"]] == ["run", "client"]
    assert named["Submit update"]["body"] == {"mode": "file", "file": {}}
    assert all(entry["disabled"] for entry in named["List events (client or viewer)"]["url"]["query"])
