"""The committed document is what the oracle's door is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
import pytest
from jsonschema import Draft202012Validator
from tests.oracle.scenes import Scene, play, software_scene

from matl.oracle.http import application
from matl.oracle.interface import FILE, document, main, problems

COMMITTED = Path(__file__).parents[2] / "docs" / "api"


async def planted() -> None:
    """A route that nobody documented."""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    assert main(["--write", str(tmp_path)]) == 0
    return tmp_path


def test_the_committed_document_is_true() -> None:
    assert problems(application(), COMMITTED) == []
    assert main(["--check", str(COMMITTED)]) == 0


def test_a_route_that_is_not_documented_is_named(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    app = application()
    app.add_api_route("/v1/planted", planted, methods=["POST"], include_in_schema=False)
    assert main(["--check", str(folder)], app) == 1
    assert "not documented: POST /v1/planted\n" in capsys.readouterr().err


def test_a_route_that_vanished_is_named(folder: Path) -> None:
    app = application()
    app.router.routes[:] = [route for route in app.router.routes if getattr(route, "path", "") != "/v1/judge"]
    assert "documented, but not there: POST /v1/judge" in problems(app, folder)


def test_a_document_that_was_changed_or_is_missing_is_named(folder: Path, tmp_path: Path) -> None:
    path = folder / FILE
    path.write_text(path.read_text().replace("That somebody", "That nobody", 1))
    assert problems(application(), folder) == [
        f"{path} is not what the code says; write the document anew with: make api"
    ]
    path.unlink()
    assert problems(application(), folder) == [f"{path} is missing; write the document anew with: make api"]


def test_who_may_ask_is_said_and_held_to(tmp_path: Path) -> None:
    scene = software_scene(tmp_path)
    for place, operations in document(application())["paths"].items():
        for method, operation in operations.items():
            answer = ask(scene, method, place.replace("{digest}", "0" * 64))
            assert (answer.status_code == 401) == bool(operation["security"]), place
            assert str(answer.status_code) in operation["responses"]


def test_answers_are_what_the_document_says(tmp_path: Path) -> None:
    scene, made = software_scene(tmp_path), document(application())
    for place, method, options, status in (
        ("/v1/health", "get", {}, 200),
        ("/v1/keys", "get", {}, 200),
        ("/v1/evidence", "get", {"params": {"nonce": "ab" * 32}}, 200),
        ("/v1/evidence", "get", {"params": {"nonce": "x"}}, 422),
        ("/v1/identity", "get", {}, 404),
        ("/v1/activations", "post", {"json": {"blob": "AAAA"}}, 404),
        ("/v1/judge", "post", {"content": b"", "headers": {"Authorization": f"Bearer {scene.token}"}}, 400),
    ):
        answer = ask(scene, method, place, **options)
        assert answer.status_code == status
        said = made["paths"][place][method]["responses"][str(status)]
        if "$ref" in said:
            said = made["components"]["responses"][said["$ref"].rpartition("/")[2]]
        schema = said["content"]["application/json"]["schema"] | {"components": made["components"]}
        Draft202012Validator(schema).validate(answer.json())


def ask(scene: Scene, method: str, place: str, **options: Any) -> httpx.Response:
    async def scenario() -> httpx.Response:
        async with httpx.AsyncClient(transport=scene.transport, base_url="http://oracle") as client:
            return await client.request(method, place, **options)

    return play(scenario)  # type: ignore[no-any-return]


def test_no_schema_is_missing_and_none_is_left_over() -> None:
    made = document(application())
    text = json.dumps(made)
    for kind in ("schemas", "responses"):
        for name in made["components"][kind]:
            assert f'#/components/{kind}/{name}"' in text
        assert text.count(f"#/components/{kind}/") > 5
