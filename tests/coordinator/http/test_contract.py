"""Generated requests to a real service behind the application: no fault, and no answer but documented ones."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass
from typing import Any

import httpx
import hypothesis
import pytest
import schemathesis
from hypothesis import HealthCheck, Phase
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.config import SanitizationConfig
from schemathesis.specs.openapi import checks
from schemathesis.transport.prepare import prepare_request
from tests.coordinator import service_kit

from matl.coordinator.http.app import application, create_app
from matl.coordinator.http.openapi import document
from matl.coordinator.limits import Limits, Rate
from matl.errors import ConfigError
from matl.protocol.messages import Problem

LONGEST = 4096  # characters of generated strings: the generator's own engine fails on patterns of 2^20
EXAMPLES = 15
ENDLESS = Rate(1e6, 10**6)
CHECKS = [
    not_a_server_error,
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
]


@schemathesis.serializer("application/vnd.matl.update", "application/vnd.matl.updates", "application/vnd.matl.phase")
def as_they_are(context, value):
    """Bytes are sent as bytes."""
    return {"data": value if isinstance(value, bytes) else str(value).encode()}


def bounded(schema: Any) -> Any:
    """A schema all of whose strings are short enough to be generated."""
    if isinstance(schema, dict):
        return {name: min(value, LONGEST) if name == "maxLength" else bounded(value) for name, value in schema.items()}
    return [bounded(item) for item in schema] if isinstance(schema, list) else schema


def wrong_ways(operation: Any) -> bool:
    """Whether there is anything in a request that can be wrong."""
    return bool(list(operation.iter_parameters()) or len(operation.body))


SCHEMA = schemathesis.openapi.from_dict(bounded(document(application())), config=schemathesis.Config())
# What ends the run or the client that the others work with comes last.
OPERATIONS = sorted(
    (found.ok() for found in SCHEMA.get_all_operations()),
    key=lambda operation: operation.definition.raw["operationId"] in ("stop_run", "revoke_client"),
)
CASES = [
    pytest.param(operation, mode, id=f"{operation.label} {mode.value}")
    for operation in OPERATIONS
    for mode in (GenerationMode.POSITIVE, GenerationMode.NEGATIVE)
    if mode is GenerationMode.POSITIVE or wrong_ways(operation)
]


def plan(run: str, settings: dict[str, Any]) -> Any:
    """A planner that knows what settings there are, as a real one does."""
    if unknown := set(settings) - {"rounds", "target", "quorum"}:
        raise ConfigError("settings", [f"unknown: {name}" for name in unknown])
    if not all(type(value) is int and value > 0 for value in settings.values()):
        raise ConfigError("settings", ["expected whole numbers above zero"])
    return service_kit.planner(run, settings)


@dataclass
class Live:
    """The application, ids of what there is in it, and who may ask."""

    runner: asyncio.Runner
    client: httpx.AsyncClient
    known: dict[str, Any]
    bearers: dict[str, dict[str, str]]

    def send(self, case: Any, who: str) -> httpx.Response:
        """Send a generated request as it would go over a wire."""
        prepared = prepare_request(case, self.bearers[who], config=SanitizationConfig(enabled=False))
        headers = [(name.encode(), value.encode("latin-1")) for name, value in prepared.headers.items()]
        request = httpx.Request(prepared.method, prepared.url, headers=headers, content=prepared.body or b"")
        return self.runner.run(self.client.send(request))


@pytest.fixture(scope="module")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Live]:
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        try:
            yield runner.run(_open(stack, runner, tmp_path_factory.mktemp("contract")))
        finally:
            runner.run(stack.aclose())


async def _open(stack: AsyncExitStack, runner: asyncio.Runner, folder: Any) -> Live:
    limits = Limits(address=ENDLESS, sender=ENDLESS, refused=ENDLESS)
    kit = await stack.enter_async_context(service_kit.serving(folder, limits, planner=plan))
    await kit.start(target=1, quorum=1, rounds=5)
    ann, bob = await kit.enrol("ann"), await kit.enrol("bob")
    await kit.round_of(["ann"])
    head, _ = await ann.signed()
    upload = await kit.service.begin_upload("demo", 1, head.to_bytes())
    transport = httpx.ASGITransport(create_app(kit.service), raise_app_exceptions=True)
    client = await stack.enter_async_context(httpx.AsyncClient(transport=transport, timeout=60))
    known = {
        "run": "demo",
        "number": 0,
        "client": "ann",
        "model_hash": head.model_hash,
        "upload": upload.id,
        "phase": "advertise",
        "token": "absent",
        "index": 1,
        "surface": "control",
        "name": "page.css",
    }
    return Live(runner, client, known, {"admin": kit.bearer, "client": bob.bearer, "nobody": {}})


@pytest.mark.parametrize(("operation", "mode"), CASES)
def test_answers_are_documented(live, operation, mode):
    names = [parameter.name for parameter in operation.path_parameters]
    declared = {parameter.name for parameter in operation.query}
    seen: set[int] = set()
    known = {name: live.known[name] for name in names} if mode is GenerationMode.POSITIVE else None

    @hypothesis.given(
        operation.as_strategy(mode, path_parameters=known), st.sampled_from(["admin", "admin", "client", "nobody"])
    )
    @hypothesis.settings(
        max_examples=EXAMPLES,
        derandomize=True,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    def check(case, who):
        waits = case.query.get("wait") is not None
        if waits:
            case.query["wait"] = 0  # whatever is wrong with waiting is tried elsewhere
        answer = live.send(case, who)
        # Names that nobody declared are no fault in an address; in a body they are.
        strict = [checks.negative_data_rejection] if set(case.query) <= declared and not waits else []
        case.validate_response(answer, checks=CHECKS + strict)
        seen.add(answer.status_code)
        if answer.status_code >= 400:
            Problem.model_validate_json(answer.content or b'{"code": "", "message": ""}')

    check()
    if mode is GenerationMode.POSITIVE:
        assert seen - {401, 403}  # it went behind the door
