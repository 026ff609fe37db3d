"""What somebody hostile would send. All of it is refused in words, and nothing of it counts."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
import hashlib
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from tests.coordinator.service_kit import Kit, serving

from matl.attest.enrolment import EnrolmentRequest
from matl.attest.keys import SigningKey
from matl.attest.session import SessionText
from matl.coordinator.http.app import application, create_app
from matl.coordinator.http.openapi import document
from matl.coordinator.limits import Limits, Rate
from matl.protocol.envelope import LARGEST_HEAD, Head
from matl.protocol.messages import InviteRequest, Problem

UPDATE = {"Content-Type": "application/vnd.matl.update"}
JSON = {"Content-Type": "application/json"}


@dataclass
class Scene:
    """A coordinator with a run and two clients, and somebody with a connection to it."""

    kit: Kit
    web: httpx.AsyncClient

    async def send(self, message: bytes, run: str = "demo", number: int = 0, **headers: str) -> httpx.Response:
        path = f"/v1/runs/{run}/rounds/{number}/updates"
        return await self.web.post(path, headers=UPDATE | headers, content=message)

    async def accepted(self, run: str = "demo") -> int:
        return (await self.kit.service.current_round(self.kit.admin, run)).accepted


@asynccontextmanager
async def scene(folder: Any) -> AsyncIterator[Scene]:
    async with serving(folder) as kit:
        await kit.start()
        await kit.enrol("ann")
        await kit.enrol("bob")
        transport = httpx.ASGITransport(create_app(kit.service))  # raises what should have been an answer
        async with httpx.AsyncClient(transport=transport, base_url="http://matl") as web:
            yield Scene(kit, web)


@pytest.fixture
def play(tmp_path):
    """Runs a test in a scene."""

    def run(test: Callable[[Scene], Awaitable[None]]) -> None:
        async def main() -> None:
            async with scene(tmp_path) as there:
                await test(there)

        asyncio.run(main())

    return run


def refused(answer: httpx.Response, *statuses: int, reason: str | None = None) -> None:
    assert answer.status_code in statuses, (answer.status_code, answer.text)
    problem = Problem.model_validate_json(answer.content)
    assert problem.message
    assert reason in (None, problem.reason), problem


def rewritten(message: bytes, **changes: Any) -> bytes:
    """A message with other values in its head, and the signature as it was."""
    length = int.from_bytes(message[:4], "big")
    head = json.loads(message[4 : 4 + length]) | changes
    return framed(json.dumps(head).encode(), message[4 + length :])


def framed(head: bytes, payload: bytes = b"") -> bytes:
    return len(head).to_bytes(4, "big") + head + payload


# bodies ---------------------------------------------------------------------------------------------------------------

BODIES = {
    "nothing": b"",
    "half an object": b'{"a": ',
    "no object": b"null",
    "a list": b"[]",
    "a number": b"1e999",
    "not a number": b"NaN",
    "deep lists": b"[" * 100_000,
    "deep objects": b'{"a":' * 40_000,
    "a name twice": b'{"reason": "a", "reason": "b"}',
    "half a character": b'{"reason": "\\ud800"}',
    "no character": b'{"reason": "\\u0000"}',
    "bytes": bytes(range(256)),
    "too much": b'{"reason": "' + b"x" * (300 << 10) + b'"}',
    "a large number": b'{"uses": ' + b"9" * 4200 + b"}",
    "unknown names": b'{"__proto__": {"admin": true}}',
}
TAKES_JSON = [
    (method, path.replace("{run}", "demo").replace("{client}", "ann").replace("{number}", "0"))
    for path, operations in document(application())["paths"].items()
    for method, operation in operations.items()
    if "application/json" in operation.get("requestBody", {}).get("content", {})
]


@pytest.mark.parametrize("body", BODIES.values(), ids=BODIES)
def test_bodies_that_are_no_request(play, body):
    async def test(there):
        for method, path in TAKES_JSON:
            if body == b"" and path.startswith(("/v1/runs/", "/v1/admin/clients/")) and "uploads" not in path:
                continue  # where nothing means no reason
            answer = await there.web.request(method, path, headers=JSON | there.kit.bearer, content=body)
            refused(answer, 400, 401, 403, 404, 413, 422)
        assert len(await there.kit.service.clients(there.kit.admin)) == 2
        assert (await there.kit.service.run(there.kit.admin, "demo")).status == "running"

    play(test)


@pytest.mark.parametrize(
    "kind", ["text/plain", "multipart/form-data; boundary=x", "application/x-www-form-urlencoded", "*/*"]
)
def test_bodies_by_other_names(play, kind):
    async def test(there):
        for method, path in [
            *TAKES_JSON,
            ("post", "/v1/runs/demo/rounds/0/updates"),
            ("post", "/v1/runs/demo/validate"),
        ]:
            headers = there.kit.bearer | {"Content-Type": kind}
            answer = await there.web.request(method, path, headers=headers, content=b'{"reason": "x"}')
            refused(answer, 400, 403, reason=None if "evidence" in path else "content_type")

    play(test)


# messages of updates --------------------------------------------------------------------------------------------------


def test_messages_that_are_cut_or_lie_about_their_length(play):
    async def test(there):
        good = await there.kit.clients["ann"].message()
        length = int.from_bytes(good[:4], "big")
        for message in (
            b"",
            good[:2],
            good[:4],
            good[: length // 2],
            b"\0\0\0\0" + good[4:],
            b"\xff\xff\xff\xff" + good[4:],
            (LARGEST_HEAD + 1).to_bytes(4, "big") + b" " * (LARGEST_HEAD + 1),
            (length - 1).to_bytes(4, "big") + good[4:],
            good[:-1],
            good + b"x",
            framed(b"[" * 16_000),
            framed(b'{"client_id": "ann", "client_id": "bob"}'),
        ):
            refused(await there.send(message), 400, 401, 413, 422)
        assert await there.accepted() == 0
        assert (await there.send(good)).status_code == 202

    play(test)


@pytest.mark.parametrize(
    "changes",
    [
        {"payload_bytes": 2**53 - 1},
        {"payload_bytes": 2**53},
        {"payload_bytes": 0},
        {"payload_bytes": 1e3},
        {"payload_bytes": True},
        {"payload_sha256": "00" * 32},
        {"payload_sha256": "../" * 21 + "x"},
        {"client_id": "bob"},
        {"client_id": "nobody"},
        {"client_id": "../../keep/admin.token"},
        {"client_id": "\0"},
        {"client_id": "x" * 129},
        {"nonce": "0" * 32},
        {"nonce": "../../etc/passwd"},
        {"round": -1},
        {"round": 1},
        {"run": "other"},
        {"base_version": 1},
        {"model_hash": "ab" * 32},
        {"num_examples": 11},
        {"kind": "masked"},
        {"created_at": 0.0},
        {"created_at": 1e308},
        {"created_at": -0.0},
        {"signature": ""},
        {"signature": "not base64!"},
        {"signature": base64.b64encode(bytes(64)).decode()},
        {"evidence": {"tpm": 10**30}},
        {"evidence": {"tpm": float("nan")}},
        {"evidence": {"tpm": "\ud800"}},
        {"evidence": {"tpm": [[[[[1]]]]]}},
        {"evidence": {"tpm": 1}},
        {"unknown": 1},
    ],
    ids=str,
)
def test_heads_that_were_changed_on_their_way(play, changes):
    async def test(there):
        good = await there.kit.clients["ann"].message()
        refused(await there.send(rewritten(good, **changes)), 400, 401, 404, 413, 422)
        head = rewritten(good, **changes)[4:].split(b"}")[0]
        answer = await there.web.post("/v1/runs/demo/rounds/0/uploads", headers=JSON, content=head + b"}")
        refused(answer, 400, 401, 404, 413, 422)
        assert await there.accepted() == 0
        assert (await there.send(good)).status_code == 202

    play(test)


def test_a_payload_of_another_update(play):
    async def test(there):
        first = await there.kit.clients["ann"].message(1.0)
        second = await there.kit.clients["bob"].message(2.0)
        length = int.from_bytes(first[:4], "big")
        other = int.from_bytes(second[:4], "big")
        refused(await there.send(first[: 4 + length] + second[4 + other :]), 400, 422)
        assert await there.accepted() == 0

    play(test)


def test_heads_are_judged_before_payloads_are_read(play):
    async def test(there):
        read = []

        async def body():
            yield rewritten(await there.kit.clients["ann"].message(), client_id="bob")[:-50]
            for _ in range(1000):
                read.append(1)
                yield b"x" * 65536

        path = "/v1/runs/demo/rounds/0/updates"
        refused(await there.web.post(path, headers=UPDATE, content=body()), 401)
        assert len(read) <= 1

    play(test)


# replay ---------------------------------------------------------------------------------------------------------------


def test_the_same_message_twice_counts_once(play):
    async def test(there):
        message = await there.kit.clients["ann"].message()
        first, second = await there.send(message), await there.send(message)
        assert (first.status_code, second.status_code) == (202, 202)
        assert (first.json()["duplicate"], second.json()["duplicate"]) == (False, True)
        assert await there.accepted() == 1

    play(test)


def test_the_same_message_many_times_at_once_counts_once(play):
    async def test(there):
        message = await there.kit.clients["ann"].message()
        answers = await asyncio.gather(*(there.send(message) for _ in range(8)))
        taken = [answer.json()["duplicate"] for answer in answers if answer.status_code == 202]
        assert taken.count(False) <= 1
        assert {answer.status_code for answer in answers} <= {202, 429}
        assert await there.accepted() == 1

    play(test)


def test_a_second_update_of_a_client_does_not_replace_the_first(play):
    async def test(there):
        ann = there.kit.clients["ann"]
        assert (await there.send(await ann.message(1.0))).status_code == 202
        refused(await there.send(await ann.message(2.0)), 409, reason="duplicate")
        assert await there.accepted() == 1

    play(test)


def test_a_message_of_an_earlier_round(play):
    async def test(there):
        await there.kit.enrol("cid")
        old = await there.kit.clients["ann"].message(5.0)
        kept = await there.kit.clients["bob"].message()
        assert (await there.send(kept)).status_code == 202
        for client in ("ann", "cid"):
            await there.kit.clients[client].send()
        assert (await there.kit.ended(0)).status == "committed"
        refused(await there.send(old), 409)  # another of hers counts there
        refused(await there.send(old, number=1), 422, reason="round")
        refused(await there.send(rewritten(old, round=1, base_version=1), number=1), 401, 422)
        refused(await there.send(rewritten(kept, round=1), number=1), 401, 422)
        again = await there.send(kept)  # which was acknowledged, and is so still
        assert again.json()["duplicate"] is True
        assert await there.accepted() == 0

    play(test)


def test_a_message_for_another_run(play):
    async def test(there):
        await there.kit.start("other")
        message = await there.kit.clients["ann"].message()
        refused(await there.send(message, run="other"), 422, reason="run")
        refused(await there.send(rewritten(message, run="other"), run="other"), 401)
        assert await there.accepted("other") == 0

    play(test)


def test_a_message_that_is_too_old(play):
    async def test(there):
        message = await there.kit.clients["ann"].message()
        there.kit.clock.ahead = 3600.0
        refused(await there.send(message), 401)
        assert await there.accepted() == 0

    play(test)


def test_a_message_in_the_session_of_another_client(play):
    async def test(there):
        message = await there.kit.clients["ann"].message()
        refused(await there.send(message, **there.kit.clients["bob"].bearer), 403, reason="client")
        assert await there.accepted() == 0

    play(test)


# keys -----------------------------------------------------------------------------------------------------------------


def test_an_update_signed_with_another_key(play):
    async def test(there):
        ann, bob = there.kit.clients["ann"], there.kit.clients["bob"]
        for key in (SigningKey.generate(), bob.key):
            refused(await there.send(await ann.message(key=key)), 401)
        assert await there.accepted() == 0

    play(test)


async def enrolment(there: Scene, client: str, holder: SigningKey, **changes: Any) -> httpx.Response:
    token = (await there.kit.service.invite(there.kit.admin, InviteRequest())).token
    challenge = (await there.web.post("/v1/challenge")).json()["challenge"]
    asked = EnrolmentRequest.signed(client, holder, token, challenge)
    body = {
        "client_id": client,
        "key": base64.b64encode(asked.key).decode(),
        "token": token,
        "challenge": challenge,
        "signature": base64.b64encode(asked.signature).decode(),
    }
    return await there.web.post("/v1/clients", json=body | changes)


def test_keys_and_ids_cannot_be_taken_over(play):
    async def test(there):
        ann, mallory = there.kit.clients["ann"], SigningKey.generate()
        other = base64.b64encode(ann.key.public.der).decode()
        refused(await enrolment(there, "ann", mallory), 409, reason="enrolled")
        refused(await enrolment(there, "mallory", ann.key), 409, reason="key_in_use")
        refused(await enrolment(there, "mallory", mallory, key=other), 401, reason="signature")
        refused(await enrolment(there, "mallory", mallory, client_id="malory"), 401, reason="signature")
        refused(await enrolment(there, "mallory", mallory, token="matl_inv_" + "0" * 43), 401, 400)
        refused(await enrolment(there, "mallory", mallory, challenge="1c" * 56), 401, reason="challenge")
        refused(await enrolment(there, "mallory", mallory, key="AAAA"), 400)
        assert (await enrolment(there, "mallory", mallory)).status_code == 201
        assert there.kit.service.access.identity("ann").key == ann.key.public

    play(test)


def test_an_invitation_is_used_up(play):
    async def test(there):
        token = (await there.kit.service.invite(there.kit.admin, InviteRequest())).token
        keys = [SigningKey.generate() for _ in range(4)]
        asked = [await there.kit.request(f"new-{index}", key, token) for index, key in enumerate(keys)]
        answers = await asyncio.gather(
            *(there.web.post("/v1/clients", json=one.model_dump(mode="json")) for one in asked)
        )
        assert sorted(answer.status_code for answer in answers) == [201, 401, 401, 401]

    play(test)


def test_sessions_are_for_who_holds_the_key(play):
    async def test(there):
        ann, bob = there.kit.clients["ann"], there.kit.clients["bob"]
        challenge = (await there.web.post("/v1/challenge")).json()["challenge"]

        async def session(client: str, signature: bytes, said: str = challenge) -> httpx.Response:
            signed = base64.b64encode(signature).decode()
            return await there.web.post(
                "/v1/sessions", json={"client_id": client, "challenge": said, "signature": signed}
            )

        text = SessionText(client_id="ann", challenge=challenge).to_bytes()
        refused(await session("ann", bob.key.sign(text)), 401)
        refused(await session("bob", ann.key.sign(text)), 401)
        refused(await session("nobody", ann.key.sign(text)), 401)
        refused(await session("ann", ann.key.sign(text), "1c" * 56), 401)
        joining = EnrolmentRequest.signed("ann", ann.key, "matl_inv_" + "0" * 43, challenge)
        refused(await session("ann", joining.signature), 401)  # of another text
        assert (await session("ann", ann.key.sign(text))).status_code == 200
        there.kit.clock.ahead = 3600.0
        refused(await session("ann", ann.key.sign(text)), 401)

    play(test)


# tokens ---------------------------------------------------------------------------------------------------------------


def test_tokens_that_were_changed_have_ended_or_come_another_way(play):
    async def test(there):
        ann, secret = there.kit.clients["ann"], there.kit.bearer["Authorization"].removeprefix("Bearer ")

        async def asked(**how: Any) -> httpx.Response:
            return await there.web.get("/v1/runs/demo", **how)

        assert (await asked(headers=ann.bearer)).status_code == 200
        for token in (
            ann.token.replace("ann", "bob"),
            ann.token[:-1] + ("A" if ann.token[-1] != "A" else "B"),
            ann.token.rpartition(".")[0],
            secret[:-1],
            secret + "x",
            "",
            "x" * 10_000,
        ):
            refused(await asked(headers={"Authorization": f"Bearer {token}"}), 401)
        for header in (f"Basic {secret}", secret, f"Bearer  {secret}", "Bearer"):
            refused(await asked(headers={"Authorization": header}), 401)
        refused(await asked(params={"token": secret, "access_token": secret}), 401)
        refused(await asked(headers={"Cookie": f"token={secret}", "X-Api-Key": secret}), 401)
        there.kit.clock.ahead = 3700.0
        refused(await asked(headers=ann.bearer), 401)

    play(test)


def test_a_client_that_was_revoked_is_out_at_once(play):
    async def test(there):
        ann = there.kit.clients["ann"]
        message = await ann.message()
        await there.kit.service.revoke(there.kit.admin, "ann", "key was lost")
        refused(await there.web.get("/v1/runs/demo", headers=ann.bearer), 401)
        refused(await there.send(message), 401, 403)

    play(test)


def test_clients_are_no_operators_and_see_nothing_of_each_other(play):
    async def test(there):
        ann, bob = there.kit.clients["ann"], there.kit.clients["bob"]
        await bob.send()
        for path in ("/v1/runs/demo/rounds/0/updates/bob", "/v1/runs/demo/rounds/0/updates/bob/receipt",
                     "/v1/runs/demo/trust/bob", "/v1/runs/demo/export", "/v1/metrics", "/v1/admin/audit",
                     "/v1/admin/clients", "/v1/admin/tokens", "/v1/admin/invitations"):  # fmt: skip
            refused(await there.web.get(path, headers=ann.bearer), 403)
        for path in ("/v1/runs/demo/stop", "/v1/admin/clients/bob/revoke", "/v1/admin/clients/bob/quarantine",
                     "/v1/admin/audit/1/undo", "/v1/admin/tokens/x/rotate"):  # fmt: skip
            refused(await there.web.post(path, headers=ann.bearer), 403)
        seen = (await there.web.get("/v1/events", headers=ann.bearer)).text
        assert "bob" not in seen

    play(test)


# addresses ------------------------------------------------------------------------------------------------------------

CLIMBING = ["..", "../..", "..%2f..%2fkeep%2fadmin.token", "%2e%2e", "..\\..", "%00", "a%00b", "%ff", "a/b", "~", ".",
            "file:%2f%2f%2fetc%2fpasswd", "x" * 3000, "%c0%ae%c0%ae%c0%af"]  # fmt: skip


@pytest.mark.parametrize("name", CLIMBING)
def test_names_that_climb(play, name):
    async def test(there):
        secret = (there.kit.folder / "keep" / "admin.token").read_text().strip()
        for path in (
            f"/v1/models/{name}", f"/v1/uploads/{name}", f"/v1/runs/{name}", f"/v1/runs/{name}/export",
            f"/v1/runs/demo/rounds/{name}", f"/v1/runs/demo/rounds/0/updates/{name}",
            f"/v1/runs/demo/rounds/0/updates/{name}/receipt", f"/v1/runs/demo/trust/{name}", f"/docs/{name}",
            f"/docs/files/{name}", f"/docs/{name}/openapi.json",
        ):  # fmt: skip
            answer = await there.web.get(path, headers=there.kit.bearer)
            assert secret not in answer.text
            if name not in (".", "..", "../.."):  # of which a client library makes another address
                refused(answer, 404, 422)

    play(test)


def test_names_in_an_address_that_climb_over_bare_connections(play):
    async def test(there):
        for path in (b"/v1/models/../../../keep/admin.token", b"/docs/files/../page.html", b"/../../etc/passwd"):
            scope = {
                "type": "http", "http_version": "1.1", "method": "GET", "scheme": "http", "headers": [],
                "path": path.decode(), "raw_path": path, "query_string": b"", "root_path": "", "client": None,
                "server": None,
            }  # fmt: skip
            messages = []

            async def receive():
                return {"type": "http.request"}

            async def send(message, messages=messages):
                messages.append(message)

            await create_app(there.kit.service)(scope, receive, send)
            assert messages[0]["status"] == 404

    play(test)


# uploads --------------------------------------------------------------------------------------------------------------


def test_uploads_cannot_be_stretched_guessed_or_swapped(play):
    async def test(there):
        update = await there.kit.clients["ann"].update()
        head = Head.of(update).to_bytes()
        begun = await there.web.post("/v1/runs/demo/rounds/0/uploads", headers=JSON, content=head)
        assert begun.status_code == 201
        path, size = f"/v1/uploads/{begun.json()['id']}", begun.json()["size"]
        assert len(begun.json()["id"]) >= 32

        async def piece(offset: object, content: bytes) -> httpx.Response:
            headers = {"Content-Type": "application/octet-stream", "Upload-Offset": str(offset)}
            return await there.web.patch(path, headers=headers, content=content)

        refused(await piece(1, b"x"), 409, reason="offset")
        refused(await piece(2**53, b"x"), 422)
        refused(await piece(-1, b"x"), 422)
        refused(await piece(0, b"x" * (size + 1)), 400, 413, 422)
        there_now = (await there.web.get(path)).json()["offset"]
        refused(await piece(there_now, b"x" * (size - there_now)), 400, 422)  # not what was signed
        assert await there.accepted() == 0
        refused(await there.web.get(path[:-1] + "_"), 404)

    play(test)


def test_the_head_of_an_upload_is_as_good_as_that_of_a_message(play):
    async def test(there):
        update = await there.kit.clients["ann"].update()
        forged = dataclasses.replace(update, client_id="bob")
        head = Head.of(forged).to_bytes()
        refused(await there.web.post("/v1/runs/demo/rounds/0/uploads", headers=JSON, content=head), 401)
        large = b" " * (LARGEST_HEAD + 1)
        refused(await there.web.post("/v1/runs/demo/rounds/0/uploads", headers=JSON, content=large), 413)

    play(test)


def test_messages_to_validate_that_lie(play):
    async def test(there):
        message = await there.kit.clients["ann"].message()
        headers = there.kit.bearer | {"Content-Type": "application/vnd.matl.updates"}
        for content in (
            b"\xff" * 8,
            b"\0" * 7,
            len(message).to_bytes(8, "big") + message[:-1],
            (8).to_bytes(8, "big") + b"\0\0\0\x02{}" + b"xx",
            len(rewritten(message, client_id="bob")).to_bytes(8, "big") + rewritten(message, client_id="bob"),
        ):
            refused(await there.web.post("/v1/runs/demo/validate", headers=headers, content=content), 400, 413, 422)
        assert await there.accepted() == 0

    play(test)


def test_what_is_kept_by_its_hash_is_what_was_sent(play):
    async def test(there):
        message = await there.kit.clients["ann"].message()
        answer = await there.send(message)
        length = int.from_bytes(message[:4], "big")
        assert answer.json()["payload_sha256"] == hashlib.sha256(message[4 + length :]).hexdigest()

    play(test)


def test_asking_again_and_again_whether_it_is_ready_is_refused(tmp_path):
    async def main():
        async with serving(tmp_path, Limits(address=Rate(per_second=0.1, burst=3))) as kit:
            transport = httpx.ASGITransport(create_app(kit.service))
            async with httpx.AsyncClient(transport=transport, base_url="http://matl") as web:
                for method in ("GET", "HEAD", "GET"):
                    assert (await web.request(method, "/v1/ready")).status_code == 204
                refused(await web.get("/v1/ready"), 429, reason="rate")
                assert (await web.get("/v1/health")).status_code == 200
                assert (await web.get("/v1/ready", headers=kit.bearer)).status_code == 204

    asyncio.run(main())
