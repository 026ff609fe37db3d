"""The oracle's door: what it refuses before anything is judged, and how long it waits."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.oracle.scenes import Scene, asking, play, simulated, software_scene

from matl.coordinator.http import bodies
from matl.coordinator.limits import Rate
from matl.errors import StateError, StorageError
from matl.oracle import serving
from matl.oracle.answers import Answers
from matl.oracle.http import Limits, create_app
from matl.oracle.wire import LENGTH, pack_brief
from matl.protocol.messages import Problem


@pytest.fixture
def scene(tmp_path: Path) -> Scene:
    return software_scene(tmp_path)


def ask(scene: Scene, method: str, path: str, *, app: Any = None, token: bool = True, **options: Any) -> httpx.Response:
    async def scenario() -> httpx.Response:
        transport = scene.transport if app is None else httpx.ASGITransport(app)
        headers = {"Authorization": f"Bearer {scene.token}"} if token else {}
        async with httpx.AsyncClient(transport=transport, base_url="http://oracle", headers=headers) as client:
            return await client.request(method, path, **options)

    return play(scenario)  # type: ignore[no-any-return]


def problem(answer: httpx.Response) -> tuple[int, str, str]:
    found = Problem.model_validate_json(answer.content)
    assert found.message
    return answer.status_code, found.code, found.reason


def part(data: bytes) -> bytes:
    return len(data).to_bytes(LENGTH, "big") + data


def brief(scene: Scene) -> tuple[bytes, dict[str, bytes]]:
    """A brief whose boxes nobody can open."""
    judged = simulated()[0]
    state = scene.workload().init(judged.before["params"])
    boxes = {client: b"box of " + client.encode() for client in judged.plain}
    return pack_brief(asking(scene.workload().plan(state), state, judged, boxes)), boxes


def test_anybody_may_ask_who_is_there_and_what_it_proves(scene: Scene) -> None:
    assert ask(scene, "GET", "/v1/health", token=False).json()["status"] == "ok"
    assert ask(scene, "GET", "/v1/keys", token=False).status_code == 200
    evidence = ask(scene, "GET", "/v1/evidence", token=False, params={"nonce": "ab"})
    assert evidence.status_code == 200
    assert evidence.json()["hardware_root"] is False
    assert evidence.headers["Cache-Control"] == "no-store"
    assert "server" not in evidence.headers


@pytest.mark.parametrize("nonce", ["", "a", "AB", "xx", "ab" * 65])
def test_a_nonce_is_bytes(scene: Scene, nonce: str) -> None:
    assert problem(ask(scene, "GET", "/v1/evidence", params={"nonce": nonce})) == (422, "invalid", "nonce")


def test_there_is_no_tpm_to_challenge(scene: Scene) -> None:
    assert problem(ask(scene, "GET", "/v1/identity"))[:2] == (404, "not_found")
    assert problem(ask(scene, "POST", "/v1/activations", json={"blob": "AAAA"}))[:2] == (404, "not_found")
    assert problem(ask(scene, "POST", "/v1/activations", json={"blob": "A"}))[:2] == (400, "malformed")
    assert problem(ask(scene, "POST", "/v1/activations", json={"blob": "A" * 9000}))[0] in (413, 422)


def test_a_round_that_was_judged_is_told(scene: Scene, caplog: pytest.LogCaptureFixture) -> None:
    asked, boxes = brief(scene)
    body = part(asked) + b"".join(map(part, boxes.values()))
    with caplog.at_level("INFO", "matl.oracle"):
        assert ask(scene, "POST", "/v1/judge", content=body).status_code == 200
        assert ask(scene, "POST", "/v1/judge", content=body).status_code == 200  # the same answer, nothing judged
    (told,) = [record.getMessage() for record in caplog.records if record.name == "matl.oracle"]
    assert told.startswith("judged round 0 of ")
    assert f": {len(boxes)} updates, " in told


@pytest.mark.parametrize("shown", [None, "", "Bearer", "Bearer wrong", "Basic abc", "Bearer \xe4"])
def test_judgement_is_for_who_holds_the_token(scene: Scene, shown: str | None) -> None:
    headers = {} if shown is None else {"Authorization": shown.encode("latin-1")}
    for method, path in (("POST", "/v1/judge"), ("GET", f"/v1/judgements/{'0' * 64}")):
        answer = ask(scene, method, path, token=False, headers=headers)
        assert problem(answer)[:2] == (401, "unauthenticated")


def test_what_is_not_there_is_a_problem_too(scene: Scene) -> None:
    assert problem(ask(scene, "GET", "/v1/nothing"))[:2] == (404, "not_found")
    assert ask(scene, "DELETE", "/v1/keys").status_code == 405
    for digest in ("0" * 64, "..%2f..%2ftoken", "xyz"):
        assert problem(ask(scene, "GET", f"/v1/judgements/{digest}"))[:2] == (404, "not_found")


def test_bodies_that_are_cut_off_or_go_on_are_refused_and_nothing_is_judged(scene: Scene) -> None:
    told, boxes = brief(scene)
    parts = b"".join(part(boxes[client]) for client in sorted(boxes))
    for body, status in (
        (b"", 400),
        (b"\0" * 7, 400),
        (part(b"no brief"), 400),
        (part(told), 400),
        (part(told) + parts[:-1], 400),
        (part(told) + parts + b"x", 400),
        ((1 << 60).to_bytes(8, "big") + told, 413),
        (part(told) + (1 << 40).to_bytes(8, "big"), 413),
    ):
        assert ask(scene, "POST", "/v1/judge", content=body).status_code == status
    assert not list((scene.folder / "answers").iterdir())
    answer = ask(scene, "POST", "/v1/judge", content=part(told) + parts)  # none of these was an answer
    assert answer.status_code == 200


def test_limits_hold(scene: Scene) -> None:
    door = scene.oracle.app.state.door
    told, _ = brief(scene)

    def limited(**limits: int) -> Any:
        return create_app(door.bench, door.attester, door.config, door.answers, scene.token, limits=Limits(**limits))

    few = ask(scene, "POST", "/v1/judge", app=limited(most_clients=2), content=part(told))
    assert problem(few)[:2] == (413, "too_large")
    short = ask(
        scene, "POST", "/v1/judge", app=limited(brief=-16 * door.bench.workload.layout.nbytes + 10), content=told
    )
    assert problem(short)[:2] == (413, "too_large")
    busy = ask(scene, "GET", "/v1/evidence", app=limited(waiting=0, kept=0), params={"nonce": "ab"})
    assert problem(busy)[:2] == (503, "busy")
    assert int(busy.headers["Retry-After"]) >= 1


def test_no_address_asks_for_evidence_all_the_time_and_who_has_the_token_finds_a_place(scene: Scene) -> None:
    door = scene.oracle.app.state.door
    limits = Limits(address=Rate(0.01, 2), waiting=2, kept=1)
    app = create_app(door.bench, door.attester, door.config, door.answers, scene.token, limits=limits)

    async def get(path: str, address: str, token: str = "") -> httpx.Response:
        transport = httpx.ASGITransport(app, client=(address, 1))
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        async with httpx.AsyncClient(transport=transport, base_url="http://oracle", headers=headers) as client:
            return await client.get(path)

    async def scenario() -> None:
        asked = "/v1/evidence?nonce=ab"
        assert [
            (await get(asked, "2001:db8::1")).status_code,
            (await get("/v1/identity", "2001:db8::2")).status_code,
        ] == [200, 404]
        told = await get(asked, "2001:db8::3")  # the same network
        assert problem(told)[:2] == (429, "rate")
        assert int(told.headers["Retry-After"]) > 1
        assert (await get(asked, "2001:db8::3", "wrong")).status_code == 429
        assert (await get(asked, "2001:db8::3", scene.token)).status_code == 200
        assert (await get("/v1/keys", "2001:db8::3")).status_code == 200
        assert (await get(asked, "192.0.2.1")).status_code == 200
        async with app.state.door._machine:  # the TPM is at work
            waits = asyncio.create_task(get(asked, "192.0.2.2"))
            await asyncio.sleep(0.05)
            assert problem(await asyncio.wait_for(get(asked, "192.0.2.3"), 10))[:2] == (503, "busy")
            kept = asyncio.create_task(get(asked, "192.0.2.3", scene.token))
            await asyncio.sleep(0.05)
            assert problem(await asyncio.wait_for(get(asked, "192.0.2.3", scene.token), 10))[:2] == (503, "busy")
        assert [(await waits).status_code, (await kept).status_code] == [200, 200]

    play(scenario)


def test_one_round_is_judged_at_a_time(scene: Scene) -> None:
    told, boxes = brief(scene)
    began, go_on = asyncio.Event(), asyncio.Event()

    async def slowly() -> AsyncIterator[bytes]:
        yield part(told)
        began.set()
        await go_on.wait()
        for client in sorted(boxes):
            yield part(boxes[client])

    async def scenario() -> None:
        headers = {"Authorization": f"Bearer {scene.token}"}
        async with httpx.AsyncClient(transport=scene.transport, base_url="http://oracle", headers=headers) as client:
            first = asyncio.create_task(client.post("/v1/judge", content=slowly()))
            await began.wait()
            second = await client.post("/v1/judge", content=part(told))
            assert problem(second) == (503, "busy", "judging")
            go_on.set()
            assert (await first).status_code == 200
            assert (await client.post("/v1/judge", content=part(told))).content == (await first).content

    play(scenario)


@asynccontextmanager
async def served(scene: Scene) -> AsyncIterator[int]:
    """The oracle behind its real server."""
    listening = await asyncio.get_running_loop().run_in_executor(None, _listening)
    server = serving.server(scene.oracle.app)
    task = asyncio.create_task(server.serve(sockets=[listening]))
    try:
        while not server.started:
            await asyncio.sleep(0.01)
        yield listening.getsockname()[1]
    finally:
        server.should_exit = True
        await task
        listening.close()


def _listening() -> Any:
    return socket.create_server(("127.0.0.1", 0))


async def _until_closed(port: int, sent: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(sent)
        return await asyncio.wait_for(reader.read(), 10)
    finally:
        writer.close()


@pytest.mark.parametrize("sent", [b"", b"GET /v1/health HTTP/1.1\r\nHost: x\r\nX-Slow: "])
def test_a_head_that_does_not_come_ends_the_connection(
    scene: Scene, sent: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(serving, "HEAD_SECONDS", 0.2)

    async def scenario() -> None:
        async with served(scene) as port:
            assert await _until_closed(port, sent) == b""
            # One that comes in time is answered, however long it stays afterwards.
            whole = b"GET /v1/health HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n"
            assert (await _until_closed(port, whole)).startswith(b"HTTP/1.1 200")

    play(scenario)


def test_a_second_head_has_to_come_as_well(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(serving, "HEAD_SECONDS", 0.3)

    async def scenario() -> None:
        async with served(scene) as port:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /v1/health HTTP/1.1\r\nHost: x\r\n\r\n")
            assert (await reader.readuntil(b"}")).startswith(b"HTTP/1.1 200")
            writer.write(b"GET /v1/he")
            assert await asyncio.wait_for(reader.read(), 3) == b""
            writer.close()

    play(scenario)


def test_a_body_that_does_not_come_is_given_up(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bodies, "IDLE_SECONDS", 0.2)

    async def scenario() -> None:
        async with served(scene) as port:
            lines = ("POST /v1/judge HTTP/1.1", "Host: x", f"Authorization: Bearer {scene.token}", "Content-Length: 99")
            answer = await _until_closed(port, "\r\n".join([*lines, "", ""]).encode() + b"\0\0")
            assert b"503" in answer
            assert b"slow_body" in answer

    play(scenario)


def test_an_answer_that_cannot_be_kept_may_be_asked_for_again_and_no_other(
    scene: Scene, monkeypatch: pytest.MonkeyPatch
) -> None:
    told, boxes = brief(scene)
    body = part(told) + b"".join(part(boxes[client]) for client in sorted(boxes))
    door = scene.oracle.app.state.door
    kept: Callable[..., None] = door.answers.put

    def full(*arguments: Any) -> None:
        raise StorageError("the disk is full")

    monkeypatch.setattr(door.answers, "put", full)
    assert problem(ask(scene, "POST", "/v1/judge", content=body))[:2] == (503, "busy")
    monkeypatch.setattr(door.answers, "put", kept)
    judged = simulated()[0]
    state = scene.workload().init(judged.before["params"])
    asked = replace(asking(scene.workload().plan(state), state, judged, boxes), seed=99)
    answer = ask(scene, "POST", "/v1/judge", content=part(pack_brief(asked)))
    assert problem(answer) == (409, "conflict", "judged")
    assert ask(scene, "POST", "/v1/judge", content=body).status_code == 200


def test_the_oldest_answers_go(tmp_path: Path) -> None:
    answers = Answers(tmp_path / "answers", most=3)
    for index in range(6):
        answers.put(f"{index:064x}", b"answer")
        os.utime(tmp_path / "answers" / f"{index:064x}.answer", (index, index))
    assert [answers.get(f"{index:064x}") for index in range(6)] == [None] * 3 + [b"answer"] * 3
    assert answers.get("../../token") is None
    assert (tmp_path / "answers").stat().st_mode & 0o077 == 0


def test_a_token_that_others_can_read_is_refused(scene: Scene) -> None:
    path = scene.oracle.token_file
    assert path.stat().st_mode & 0o077 == 0
    path.chmod(0o644)
    with pytest.raises(StateError, match="can be read by others"):
        scene.start()
    path.chmod(0o600)
    for content in ("short\n", "\u00e9" * 40):
        path.write_text(content)
        with pytest.raises(StateError, match="no token"):
            scene.start()
    path.write_text("x" * 513)
    with pytest.raises(StateError, match="is longer than 512 bytes"):
        scene.start()
