"""The page that shows the interface: its files are here, and its policy lets in nothing else."""

from __future__ import annotations

import re
from importlib import resources

import pytest
from tests.coordinator.http.doubles import Echo, ask
from tests.coordinator.http.test_errors import refused

from matl.coordinator.http.app import create_app
from matl.coordinator.http.openapi import Surface

FILES = resources.files("matl.coordinator.http") / "swagger"


@pytest.mark.parametrize("surface", Surface)
def test_a_page_loads_what_is_here_and_nothing_else(surface):
    async def test(client, service):
        answer = await client.get(f"/docs/{surface}")
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        policy = answer.headers["content-security-policy"]
        assert "default-src 'none'" in policy
        assert "unsafe" not in policy
        assert "http" not in policy
        loaded = re.findall(r'(?:src|href|data-url)="([^"]+)"', answer.text)
        assert "files/swagger-ui-bundle.js" in loaded
        assert f"{surface}/openapi.json" in loaded
        for name in loaded:
            if name != "data:,":
                part = await client.get(f"/docs/{name}")
                assert part.status_code == 200, name
        assert not re.search(r"<script>|<style|style=|onload=", answer.text)  # all of which the policy would refuse

    ask(test)


def test_documents_are_served():
    async def test(client, service):
        answer = await client.get("/docs/training/openapi.json")
        assert answer.json()["info"]["title"] == "MATL: training"
        answer = await client.get("/docs")
        assert (answer.status_code, answer.headers["location"]) == (307, "docs/control")

    ask(test)


@pytest.mark.parametrize("name", ["..%2fapp.py", "page.html", "LICENSE", "%2e%2e/%2e%2e/app.py", "page.js%00"])
def test_no_other_file_is_served(name):
    async def test(client, service):
        refused(await client.get(f"/docs/files/{name}"), 404 if "/" in name or "%2f" in name else 422)

    ask(test)


def test_files_say_what_they_are():
    async def test(client, service):
        answer = await client.get("/docs/files/page.js")
        assert answer.headers["content-type"] == "text/javascript; charset=utf-8"
        assert answer.content == (FILES / "page.js").read_bytes()
        assert (await client.get("/docs/files/swagger-ui.css")).headers["content-type"].startswith("text/css")

    ask(test)


def test_the_licences_of_what_is_not_ours_lie_beside_it():
    assert "Apache License" in (FILES / "LICENSE").read_text()
    assert (FILES / "swagger-ui-bundle.js.LICENSE.txt").is_file()
    assert "SmartBear" in (FILES / "NOTICE").read_text()


def test_an_application_without_pages():
    paths = {getattr(route, "path", "") for route in create_app(Echo(), docs=False).routes}
    assert "/v1/runs" in paths
    assert not any(path.startswith("/docs") for path in paths)
