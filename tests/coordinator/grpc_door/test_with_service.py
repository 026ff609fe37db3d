"""The door before the real service: a run from enrolment to the last receipt, and what is refused."""

from __future__ import annotations

import asyncio
import base64
import dataclasses
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from tests.coordinator.service_kit import Kit, serving

from matl.attest.enrolment import EnrolmentRequest
from matl.attest.keys import PublicKey, SigningKey
from matl.attest.receipts import verify_receipt
from matl.attest.session import SessionText
from matl.client.grpc import GrpcTransport
from matl.client.transport import Message
from matl.coordinator.grpc_door import DoorSettings, GrpcDoor
from matl.coordinator.limits import Limits, Rate
from matl.errors import ServiceError
from matl.protocol.messages import EnrolRequest, InviteRequest, SessionRequest
from matl.records import Status
from matl.screening import decode_payload


@asynccontextmanager
async def network(folder: Path, **changes: Any) -> AsyncIterator[tuple[Kit, Any]]:
    """A service, its door, and what makes transports for a token."""
    async with serving(folder, **changes) as kit, GrpcDoor(kit.service, DoorSettings(grace=0.5)) as door:
        made: list[GrpcTransport] = []

        def transport(token: str = "") -> GrpcTransport:
            made.append(GrpcTransport(f"grpc://localhost:{door.port}"))
            made[-1].set_token(token)
            return made[-1]

        try:
            yield kit, transport
        finally:
            for each in made:
                await each.aclose()


async def message_of(client: Any, value: float = 1.0, **changes: Any) -> Message:
    head, payload = await client.signed(value, **changes)
    return Message(head.to_bytes(), payload)


class Kept(Message):
    """A message whose payload must not leave."""

    def pieces(self, offset: int = 0) -> Iterator[bytes]:
        raise AssertionError("the payload was asked for")


async def refused(call: Any) -> tuple[str, str]:
    with pytest.raises(ServiceError) as caught:
        await call
    return caught.value.code, caught.value.reason


def test_a_run_from_enrolment_to_the_receipt(tmp_path: Path) -> None:
    async def main() -> None:
        async with network(tmp_path) as (kit, connect):
            key, stranger = SigningKey.generate(), connect()
            token = (await kit.service.invite(kit.admin, InviteRequest())).token
            asked = EnrolmentRequest.signed("ann", key, token, await stranger.challenge())
            fields = {name: base64.b64encode(getattr(asked, name)).decode() for name in ("key", "signature")}
            enrolled = await stranger.enrol(
                EnrolRequest(client_id="ann", token=token, challenge=asked.challenge, **fields)
            )
            assert enrolled.fingerprint == key.public.fingerprint
            challenge = await stranger.challenge()
            signature = key.sign(SessionText(client_id="ann", challenge=challenge).to_bytes())
            session = await stranger.session(
                SessionRequest(client_id="ann", challenge=challenge, signature=base64.b64encode(signature).decode())
            )

            others = [await kit.enrol(name) for name in ("bob", "cid")]
            await kit.start()
            ann = connect(session.token)
            (run,) = await ann.runs()
            assert await ann.run("demo") == run
            opened = await ann.current_round("demo")
            assert (opened.number, opened.status) == (0, "open")
            waiting = asyncio.create_task(ann.current_round("demo", after=0, wait=20))

            model = b"".join([piece async for piece in ann.model(opened.model_hash)])
            assert [piece async for piece in ann.model(opened.model_hash, offset=len(model) - 3)] == [model[-3:]]
            kit.clients["ann"] = dataclasses.replace(others[0], id="ann", key=key)
            message = await message_of(kit.clients["ann"])
            assert not (await ann.submit("demo", 0, message)).duplicate
            assert (await ann.submit("demo", 0, Kept(message.head, message.payload))).duplicate
            for other, value in zip(others, (1.0, -1.0), strict=True):
                await connect(other.token).submit("demo", 0, await message_of(other, value))

            following = await waiting
            assert (following.number, following.status) == (1, "open")
            assert (await ann.round("demo", 0)).status == "committed"
            params = decode_payload(b"".join([piece async for piece in ann.model(following.model_hash)]))
            assert sorted(params) == ["b", "w"]
            assert (await ann.update("demo", 0, "ann")).verdict is Status.ACCEPTED
            receipt = await connect(others[1].token).receipt("demo", 0, "cid")
            signed = verify_receipt(receipt, [PublicKey(base64.b64decode(run.receipts_key))])
            assert (signed.client_id, signed.status) == ("cid", Status.QUARANTINED)

            operator = connect(kit.bearer["Authorization"].partition(" ")[2])
            kinds = []
            async with aclosing(operator.events(run="demo")) as events:
                async for event in events:
                    kinds.append(event.kind)
                    if event.kind == "round_committed":
                        break
            assert "round_opened" in kinds

    asyncio.run(main())


def test_a_bad_head_is_refused_before_the_payload_leaves(tmp_path: Path) -> None:
    async def main() -> None:
        async with network(tmp_path) as (kit, connect):
            ann, bob = await kit.enrol("ann"), await kit.enrol("bob")
            await kit.start()
            line = connect(ann.token)
            message = await message_of(ann)
            kept = Kept(message.head, message.payload)
            assert (await refused(line.submit("demo", 1, kept)))[0] in ("invalid", "conflict", "malformed")
            assert (await refused(line.submit("other", 0, kept)))[0] in ("not_found", "invalid", "malformed")
            forged = await message_of(ann, key=bob.key)
            assert (await refused(line.submit("demo", 0, Kept(forged.head, forged.payload))))[0] == "unauthenticated"
            theirs = await message_of(bob)
            assert await refused(line.submit("demo", 0, Kept(theirs.head, theirs.payload))) == ("forbidden", "client")
            assert (await refused(line.submit("demo", 0, Kept(b"{}", b"x"))))[0] == "malformed"
            changed = Message(message.head, bytes(len(message.payload)))
            assert (await refused(line.submit("demo", 0, changed)))[0] in ("invalid", "malformed")
            assert not (await line.submit("demo", 0, message)).duplicate

    asyncio.run(main())


def test_who_may_not_is_told_so(tmp_path: Path) -> None:
    async def main() -> None:
        async with network(tmp_path) as (kit, connect):
            ann = await kit.enrol("ann")
            await kit.start()
            assert (await refused(connect("matl_cl_nobody").runs()))[0] == "unauthenticated"
            assert (await refused(connect().runs()))[0] == "unauthenticated"
            assert (await refused(anext(connect().events())))[0] == "unauthenticated"
            assert (await refused(connect(ann.token).run("other")))[0] == "not_found"
            assert (await refused(connect(ann.token).update("demo", 0, "bob")))[0] in ("forbidden", "not_found")
            assert (await refused(anext(connect(ann.token).model("00" * 32))))[0] == "not_found"

    asyncio.run(main())


def test_who_asks_too_often_is_told_when_to_come_back(tmp_path: Path) -> None:
    async def main() -> None:
        limits = Limits(address=Rate(per_second=0.1, burst=3))
        async with network(tmp_path, limits=limits) as (_, connect):
            line = connect()
            for _ in range(3):
                await line.challenge()
            with pytest.raises(ServiceError) as caught:
                await line.challenge()
            assert caught.value.code == "rate"
            assert caught.value.retry_after is not None
            assert caught.value.retry_after > 1

    asyncio.run(main())


@pytest.mark.parametrize("how", ["revoked", "ended"])
def test_a_stream_of_events_ends_with_the_right_to_it(tmp_path: Path, how: str) -> None:
    async def main() -> None:
        async with network(tmp_path) as (kit, connect):
            ann = await kit.enrol("ann")
            await kit.start()
            async with aclosing(connect(ann.token).events()) as events:
                await anext(events)
                if how == "revoked":
                    await kit.service.revoke(kit.admin, "ann")
                else:
                    kit.clock.ahead = 3601
                    await kit.service.pause(kit.admin, "demo")

                async def to_the_end() -> None:
                    async for _ in events:
                        pass

                async with asyncio.timeout(5):
                    assert await refused(to_the_end()) == ("unauthenticated", "token")

    asyncio.run(main())
