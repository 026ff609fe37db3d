"""Updates on their way in: whole or in pieces, and what hostile ones cannot do."""

import asyncio
from dataclasses import replace

import numpy as np
import pytest
from tests.coordinator.service_kit import LAYOUT, Client, D, Kit, pieces, serving
from tests.coordinator.test_access import refused
from tests.coordinator.test_service import NAMES, network
from tests.network import masked_kit

from matl.attest.keys import SigningKey
from matl.coordinator import incoming
from matl.coordinator.limits import Limits, Rate
from matl.errors import ServiceError
from matl.protocol.envelope import LARGEST_HEAD, Head, frame
from matl.protocol.messages import InviteRequest
from matl.protocol.problems import Code, refusal
from matl.screening import encode_payload


def staged(folder):
    """Files of blobs that are not done."""
    return sorted(path for path in (folder / "blobs").rglob("*") if path.is_file() and len(path.name) != 64)


def blobs_of(folder):
    return {path.name for path in (folder / "blobs").rglob("*") if path.is_file() and len(path.name) == 64}


async def broken_off(data):
    yield data
    raise ConnectionResetError("the peer is gone")


async def endless():
    while True:
        yield b"\0" * 4096
        await asyncio.sleep(0)


def test_an_update_is_acknowledged_and_the_same_once_more_is_too(tmp_path):
    async def scenario():
        async with serving(tmp_path) as kit:
            ann, *_ = await network(kit)
            message = await ann.message()
            first = await kit.service.submit(None, "demo", 0, pieces(message, 1))
            assert (first.client_id, first.round, first.duplicate) == ("ann", 0, False)
            again = await kit.service.submit(ann.caller, "demo", 0, pieces(message, 1000))
            assert (again.payload_sha256, again.duplicate) == (first.payload_sha256, True)
            await refused(ann.send(2.0), "conflict", "duplicate")
            view = await kit.service.update(ann.caller, "demo", 0, "ann")
            assert (view.status, view.verdict) == ("received", None)

    asyncio.run(scenario())


def test_an_update_goes_where_its_head_says_and_from_whom(tmp_path):
    async def scenario():
        async with serving(tmp_path) as kit:
            ann, bob, _ = await network(kit)
            await kit.start("second")
            message = await ann.message()
            await refused(kit.service.submit(None, "second", 0, pieces(message)), "invalid", "run")
            await refused(kit.service.submit(None, "demo", 1, pieces(message)), "invalid", "round")
            await refused(kit.service.submit(None, "other", 0, pieces(message)), "not_found", "run")
            await refused(kit.service.submit(bob.caller, "demo", 0, pieces(message)), "forbidden", "client")
            stranger = await ann.message(key=SigningKey.generate())
            await refused(kit.service.submit(None, "demo", 0, pieces(stranger)), "unauthenticated", "signature")
            assert not (await kit.service.submit(kit.admin, "demo", 0, pieces(message))).duplicate

    asyncio.run(scenario())


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "malformed"),
        (b"\0\0", "malformed"),
        (b"\0\0\0\0", "too_large"),
        (b"\xff\xff\xff\xff" + b"x" * 100, "too_large"),
        ((LARGEST_HEAD + 1).to_bytes(4, "big") + b"{", "too_large"),
        (b"\0\0\0\x09{}", "malformed"),
        (b"\0\0\0\x02{}", "malformed"),
        (b"\0\0\0\x02\xff\xfe", "malformed"),
    ],
)
def test_a_message_without_a_head_is_refused(tmp_path, data, code):
    async def scenario():
        async with serving(tmp_path) as kit:
            await kit.start()
            await refused(kit.service.submit(None, "demo", 0, pieces(data)), code)

    asyncio.run(scenario())


def test_a_payload_is_asked_for_only_when_its_head_is_good_and_no_further_than_it_says(tmp_path):
    read = 0

    async def counted(message):
        nonlocal read
        head_end = 4 + int.from_bytes(message[:4], "big")
        yield message[:head_end]
        while True:
            read += 1
            yield b"\0" * 1024
            await asyncio.sleep(0)

    async def scenario():
        nonlocal read
        async with serving(tmp_path) as kit:
            ann, *_ = await network(kit)
            forged = await ann.message(key=SigningKey.generate())
            await refused(kit.service.submit(None, "demo", 0, counted(forged)), "unauthenticated")
            assert read == 0
            before = blobs_of(tmp_path)
            await refused(kit.service.submit(None, "demo", 0, counted(await ann.message())), "invalid", "payload_bytes")
            assert read <= 2
            assert blobs_of(tmp_path) == before
            assert staged(tmp_path) == []
            await ann.send()

    asyncio.run(scenario())


def test_an_update_that_is_larger_than_the_limit_is_refused_by_its_head(tmp_path):
    async def scenario():
        async with serving(tmp_path, Limits(message=100)) as kit:
            ann, *_ = await network(kit)
            assert kit.service.max_message == 4 + LARGEST_HEAD + 100
            await refused(ann.send(), "too_large", "payload_bytes")
            head, _ = await ann.signed()
            await refused(kit.service.begin_upload("demo", 0, head.to_bytes()), "too_large", "payload_bytes")

    asyncio.run(scenario())


def test_who_sends_what_has_to_be_refused_again_and_again_has_to_wait_and_nobody_else(tmp_path):
    async def scenario():
        async with serving(tmp_path, Limits(refused=Rate(0.001, 3))) as kit:
            ann, bob, _ = await network(kit)
            for _ in range(3):
                await refused(ann.send(np.nan), "invalid", "not_finite")
            error = await refused(ann.send(), "rate")
            assert "refused updates of ann" in str(error)
            for _ in range(5):  # what another signs in its name costs a client nothing
                await refused(bob.send(key=ann.key), "unauthenticated", "signature")
            await bob.send()
            view = await kit.service.update(ann.caller, "demo", 0, "ann")
            assert (view.status, view.verdict) == ("rejected", None)
            assert view.reason == "the update holds NaN or infinity: 6 of 6 entries"

    asyncio.run(scenario())


def test_heads_that_others_made_cost_the_client_that_they_name_nothing_in_masked_runs_either(tmp_path):
    async def scenario():
        async with serving(tmp_path, Limits(refused=Rate(0.001, 3)), planner=masked_kit.plan) as kit:
            ann, bob = await kit.enrol("ann"), await kit.enrol("bob")
            await kit.start()
            for _ in range(4):
                await refused(ann.send(key=bob.key), "unauthenticated", "signature")
                head, _ = await ann.signed(key=bob.key)
                await refused(kit.service.begin_upload("demo", 0, head.to_bytes()), "unauthenticated", "signature")
            await refused(kit.service.say(ann.caller, "demo", 0, "advertise", pieces(b"x")), "invalid", "malformed")
            for _ in range(2):  # and her own cost her
                await refused(ann.send(), "invalid", "masked")
            await refused(ann.send(), "rate")

    asyncio.run(scenario())


async def held_back(message, gate, started):
    """A message whose last byte waits."""
    yield message[:-1]
    started.set()
    await gate.wait()
    yield message[-1:]


def test_only_so_much_arrives_at_the_same_time(tmp_path):
    async def scenario():
        async with serving(tmp_path, Limits(submissions=2, submissions_of_client=1)) as kit:
            ann, bob, cid = await network(kit)
            gate, tasks = asyncio.Event(), []
            for client in (ann, bob):
                started = asyncio.Event()
                arriving = held_back(await client.message(), gate, started)
                tasks.append(asyncio.create_task(kit.service.submit(None, "demo", 0, arriving)))
                await started.wait()
            await refused(ann.send(), "rate", "in_flight")
            error = await refused(cid.send(), "busy")
            assert error.retry_after == 1.0
            # What nobody signed is told so, and takes nobody's place.
            await refused(cid.send(key=SigningKey.generate()), "unauthenticated", "signature")
            counters = (await kit.service.metrics(kit.admin)).counters
            assert counters["submissions.arriving"] == 2
            gate.set()
            assert [one.duplicate for one in await asyncio.gather(*tasks)] == [False, False]
            assert not (await cid.send()).duplicate

    asyncio.run(scenario())


def test_what_takes_too_long_to_arrive_is_given_up(tmp_path, monkeypatch):
    async def scenario():
        async with serving(tmp_path, Limits(upload_seconds=0.2)) as kit:
            ann, bob, _ = await network(kit)
            never, started = asyncio.Event(), asyncio.Event()
            arriving = held_back(await ann.message(), never, started)
            await refused(kit.service.submit(None, "demo", 0, arriving), "busy", "too_slow")
            assert (await kit.service.metrics(kit.admin)).counters["submissions.arriving"] == 0
            assert not staged(tmp_path)

            monkeypatch.setattr(incoming, "_HEAD_SECONDS", 0.1)
            arriving = held_back((await bob.message())[:20], never, started)
            await refused(kit.service.submit(None, "demo", 0, arriving), "busy", "too_slow")

    asyncio.run(scenario())


async def dripping(message, seconds=0.01, size=1):
    """A message that never stops for long, and takes its time."""
    for start in range(0, len(message), size):
        yield message[start : start + size]
        await asyncio.sleep(seconds)


def test_who_sends_too_slowly_is_given_up_and_it_is_counted(tmp_path, monkeypatch):
    monkeypatch.setattr(incoming, "GRACE_SECONDS", 0.5)
    monkeypatch.setattr(incoming, "LEAST_RATE", 64 << 10)

    async def scenario():
        async with serving(tmp_path, Limits(refused=Rate(0.001, 2))) as kit:
            ann, bob, cid = await network(kit)
            message = await ann.message()
            head = 4 + int.from_bytes(message[:4], "big")

            async def slow():
                yield message[:head]
                async for piece in dripping(message[head:]):
                    yield piece

            error = await refused(kit.service.submit(None, "demo", 0, slow()), "busy", "too_slow")
            assert "65536 a second" in str(error)
            counters = (await kit.service.metrics(kit.admin)).counters
            assert (counters["submissions.arriving"], counters["submissions.arriving_bytes"]) == (0, 0)
            assert not staged(tmp_path)

            view, *_, payload = await begun(kit, ann)
            await refused(kit.service.append(view.id, 0, dripping(payload)), "busy", "too_slow")
            assert 0 < (await kit.service.upload(view.id)).offset < len(payload)  # what came is kept
            await refused(ann.send(), "rate")
            monkeypatch.setattr(incoming, "LEAST_RATE", 50)
            assert not (await kit.service.submit(None, "demo", 0, dripping(await bob.message(), size=8))).duplicate
            await cid.send()

    asyncio.run(scenario())


def test_a_message_that_comes_as_fast_as_expected_may_take_long_and_its_reader_longer(monkeypatch):
    monkeypatch.setattr(incoming, "GRACE_SECONDS", 0.1)
    monkeypatch.setattr(incoming, "LEAST_RATE", 1000)

    async def scenario():
        read = bytearray()
        async for piece in incoming.in_time(dripping(bytes(3000), 0.01, 100), 60.0):
            read += piece
        assert read == bytes(3000)
        read.clear()
        async for piece in incoming.in_time(pieces(bytes(50), 10), 0.2):
            await asyncio.sleep(0.1)
            read += piece
        assert read == bytes(50)
        with pytest.raises(ServiceError, match=r"all after 0\.2 s"):
            async for _ in incoming.in_time(dripping(bytes(10_000), 0.01, 100), 0.2):
                pass

        async def failing():
            yield b"x"
            raise TimeoutError("of somebody else")

        with pytest.raises(TimeoutError, match="somebody else"):
            async for _ in incoming.in_time(failing(), 60.0):
                pass

    asyncio.run(scenario())


def test_no_client_has_all_of_the_bytes_that_may_arrive(tmp_path):
    async def scenario():
        size = len(await encoded(1.0))
        async with serving(tmp_path, Limits(submission_bytes=8 * size - 4)) as kit:
            ann, bob, _ = await network(kit)
            gate, started = asyncio.Event(), asyncio.Event()
            task = asyncio.create_task(
                kit.service.submit(None, "demo", 0, held_back(await ann.message(), gate, started))
            )
            await started.wait()
            error = await refused(ann.send(2.0), "rate", "in_flight")
            assert f"no more than 2 of {2 * size - 1} bytes" in str(error)
            await bob.send()
            gate.set()
            await task

        # One alone may be larger than its share, or it could never come.
        async with serving(tmp_path / "small", Limits(submission_bytes=8)) as kit:
            ann, *_ = await network(kit)
            await ann.send()

    asyncio.run(scenario())


def test_of_an_upload_a_piece_takes_room_and_no_more_of_it_is_taken(tmp_path):
    async def scenario():
        async with serving(tmp_path, Limits(submission_bytes=100)) as kit:
            gate, tasks = asyncio.Event(), []
            clients = await network(kit)
            for client in clients[:2]:
                view, *_, payload = await begun(kit, client)
                started = asyncio.Event()
                arriving = held_back(payload[:20], gate, started)
                tasks.append(asyncio.create_task(kit.service.append(view.id, 0, arriving, size=20)))
                await asyncio.wait_for(started.wait(), 10)
            assert (await kit.service.metrics(kit.admin)).counters["submissions.arriving_bytes"] == 40
            gate.set()
            assert [view.offset for view in await asyncio.gather(*tasks)] == [20, 20]
            view, *_, payload = await begun(kit, clients[2])
            await refused(kit.service.append(view.id, 0, pieces(payload, 7), size=20), "invalid", "payload_bytes")
            assert (await kit.service.append(view.id, 0, pieces(payload), size=1 << 40)).acknowledgement is not None

    asyncio.run(scenario())


def test_what_is_said_in_a_phase_takes_the_room_of_that_phase(tmp_path):
    async def scenario():
        async with serving(tmp_path, planner=masked_kit.plan) as kit:
            ann = await kit.enrol("ann")
            await kit.start()
            session = kit.service.live("demo").session()
            for phase, most in (("advertise", session.max_message - session.nbytes), ("mask", session.max_message)):
                gate, started = asyncio.Event(), asyncio.Event()
                said = kit.service.say(ann.caller, "demo", 0, phase, held_back(b"xx", gate, started))
                task = asyncio.create_task(said)
                await asyncio.wait_for(started.wait(), 10)
                assert (await kit.service.metrics(kit.admin)).counters["submissions.arriving_bytes"] == most
                gate.set()
                await asyncio.gather(task, return_exceptions=True)
                await refused(
                    kit.service.say(ann.caller, "demo", 0, phase, pieces(bytes(most + 1), 1 << 16)), "too_large", "body"
                )

    asyncio.run(scenario())


def test_bytes_in_flight_are_bounded(tmp_path):
    async def scenario():
        async with serving(tmp_path, Limits(submission_bytes=200)) as kit:
            ann, bob, _ = await network(kit)
            gate, started = asyncio.Event(), asyncio.Event()
            arriving = held_back(await ann.message(), gate, started)
            task = asyncio.create_task(kit.service.submit(None, "demo", 0, arriving))
            await started.wait()
            await refused(bob.send(), "busy")
            gate.set()
            await task
            await bob.send()

    asyncio.run(scenario())


async def begun(kit, client, value=1.0, **changes):
    head, payload = await client.signed(value, **changes)
    return await kit.service.begin_upload("demo", head.round, head.to_bytes()), head, payload


def test_an_upload_goes_on_where_it_broke_off_and_the_same_head_finds_it(tmp_path):
    async def scenario():
        async with serving(tmp_path) as kit:
            ann, *_ = await network(kit)
            view, head, payload = await begun(kit, ann)
            assert (view.offset, view.size, view.acknowledgement) == (0, len(payload), None)
            view = await kit.service.append(view.id, 0, pieces(payload[:50], 7))
            assert view.offset == 50
            with pytest.raises(ConnectionResetError):
                await kit.service.append(view.id, 50, broken_off(payload[50:60]))
            assert (await kit.service.upload(view.id)).offset == 60  # what came of it is kept
            await refused(kit.service.append(view.id, 50, pieces(payload[50:])), "conflict", "offset")
            found = await kit.service.begin_upload("demo", 0, head.to_bytes())
            assert (found.id, found.offset) == (view.id, 60)
            view = await kit.service.append(view.id, 60, pieces(payload[60:]))
            assert (view.offset, view.acknowledgement.client_id) == (len(payload), "ann")
            await refused(kit.service.upload(view.id), "not_found", "upload")
            assert staged(tmp_path) == []
            # The acknowledgement was lost on its way: the head asks for it once more.
            again = await kit.service.begin_upload("demo", 0, head.to_bytes())
            assert (again.offset, again.acknowledgement.duplicate) == (len(payload), True)
            for name in ("bob", "cid"):
                await kit.clients[name].send()
            assert (await kit.ended(0)).accepted == 3

    asyncio.run(scenario())


def test_an_upload_outlives_the_process(tmp_path):
    async def scenario():
        kit = Kit(tmp_path)
        async with kit.open():
            ann, *_ = await network(kit)
            view, _, payload = await begun(kit, ann)
            await kit.service.append(view.id, 0, pieces(payload[:33]))
        async with kit.open():
            assert (await kit.service.upload(view.id)).offset == 33
            done = await kit.service.append(view.id, 33, pieces(payload[33:]))
            assert done.acknowledgement is not None

    asyncio.run(scenario())


def test_an_upload_may_take_longer_than_a_signature_is_fresh_but_not_for_ever(tmp_path):
    async def scenario():
        async with serving(tmp_path) as kit:
            ann, bob, _ = await network(kit)
            late, _, payload = await begun(kit, ann)
            never, *_ = await begun(kit, bob)
            kit.clock.ahead = 3000
            done = await kit.service.append(late.id, 0, pieces(payload))
            assert done.acknowledgement is not None
            kit.clock.ahead = 3700
            await refused(kit.service.append(never.id, 0, pieces(b"x")), "not_found", "upload")
            await kit.service.tidy()
            assert (await kit.service.metrics(kit.admin)).counters["uploads.begun"] == 0
            assert await kit.service.store.upload(never.id) is None

    asyncio.run(scenario())


def test_what_is_not_the_payload_that_was_signed_is_refused_and_forgotten(tmp_path):
    async def scenario():
        async with serving(tmp_path) as kit:
            ann, *_ = await network(kit)
            view, _, payload = await begun(kit, ann)
            await refused(kit.service.append(view.id, 0, endless()), "invalid", "payload_bytes")
            assert (await kit.service.upload(view.id)).offset == 0
            wrong = bytes([payload[0] ^ 1]) + payload[1:]
            await refused(kit.service.append(view.id, 0, pieces(wrong)), "invalid", "payload_hash")
            await refused(kit.service.upload(view.id), "not_found")
            assert staged(tmp_path) == []
            view, _, payload = await begun(kit, ann, np.nan)
            await refused(kit.service.append(view.id, 0, pieces(payload)), "invalid", "not_finite")
            view, _, payload = await begun(kit, ann)
            assert (await kit.service.append(view.id, 0, pieces(payload))).acknowledgement is not None

    asyncio.run(scenario())


def test_who_knows_the_hash_of_anothers_payload_has_not_sent_it(tmp_path):
    async def scenario():
        async with serving(tmp_path) as kit:
            ann, bob, _ = await network(kit)
            view, head, payload = await begun(kit, ann, 2.0)
            theirs, _ = await bob.signed(2.0)
            await bob.send(2.0)
            assert theirs.payload_sha256 == head.payload_sha256
            await refused(kit.service.append(view.id, 0, pieces(bytes(len(payload)))), "invalid", "payload_hash")
            assert await kit.service.blobs.read(theirs.payload_sha256) == payload
            view, *_ = await begun(kit, ann, 2.0)
            assert (await kit.service.append(view.id, 0, pieces(payload))).acknowledgement is not None
            assert staged(tmp_path) == []

    asyncio.run(scenario())


def test_an_upload_of_other_bytes_that_could_not_be_forgotten_is_none_after_a_restart_either(tmp_path, monkeypatch):
    async def gone(*_):
        raise refusal(Code.BUSY, "the database is down", reason="database")

    async def scenario():
        kit = Kit(tmp_path)
        async with kit.open():
            ann, bob, _ = await network(kit)
            view, _, payload = await begun(kit, ann, 2.0)
            await bob.send(2.0)
            monkeypatch.setattr(kit.service.store, "delete_upload", gone)
            await refused(kit.service.append(view.id, 0, pieces(bytes(len(payload)))), "busy", "database")
        async with kit.open():
            assert (await kit.service.upload(view.id)).offset == len(payload)
            await refused(kit.service.append(view.id, len(payload), pieces(b"")), "invalid", "payload_hash")
            assert (await kit.service.current_round(kit.admin, "demo")).accepted == 1

    asyncio.run(scenario())


def test_a_payload_that_is_deleted_while_an_upload_of_it_ends_is_there_afterwards(tmp_path, monkeypatch):
    async def scenario():
        async with serving(tmp_path) as kit:
            ann, *_ = await network(kit)
            view, head, payload = await begun(kit, ann)
            await kit.service.append(view.id, 0, pieces(payload[:-1]))
            name, custody = await kit.service.blobs.put(payload), kit.service.host.custody
            deleting, gate = asyncio.Event(), asyncio.Event()

            async def slow(sha256):
                deleting.set()
                await gate.wait()
                await kit.service.blobs.delete(sha256)

            async def discard():
                with custody.holding(name):
                    await custody.discard(name, slow)

            discarding = asyncio.create_task(discard())
            await deleting.wait()
            ending = asyncio.create_task(kit.service.append(view.id, len(payload) - 1, pieces(payload[-1:])))
            await asyncio.sleep(0.2)
            gate.set()
            assert (await ending).acknowledgement is not None
            await discarding
            assert await kit.service.blobs.read(head.payload_sha256) == payload

    asyncio.run(scenario())


def test_an_upload_that_nobody_signed_is_not_begun(tmp_path):
    async def scenario():
        async with serving(tmp_path) as kit:
            ann, *_ = await network(kit)
            head, _ = await ann.signed(key=SigningKey.generate())
            await refused(kit.service.begin_upload("demo", 0, head.to_bytes()), "unauthenticated", "signature")
            await refused(kit.service.begin_upload("demo", 0, b"{}"), "malformed")
            await refused(kit.service.begin_upload("demo", 0, b" " * (LARGEST_HEAD + 1)), "too_large")
            await refused(kit.service.upload("x" * 32), "not_found", "upload")
            await refused(kit.service.append("../../etc", 0, pieces(b"x")), "not_found", "upload")

    asyncio.run(scenario())


def test_a_client_has_only_so_many_uploads_and_those_of_rounds_that_are_over_do_not_count(tmp_path):
    async def scenario():
        async with serving(tmp_path, Limits(uploads=2)) as kit:
            ann, bob, _ = await network(kit, target=2)
            first, *_ = await begun(kit, ann, 1.0)
            await begun(kit, ann, 2.0)
            error = await refused(begun(kit, ann, 3.0), "rate", "uploads")
            assert 3500 < error.retry_after <= 3600
            await begun(kit, bob, 3.0)
            await kit.service.append(first.id, 0, pieces(await encoded(1.0)))
            await bob.send()
            await kit.ended(0)
            await begun(kit, ann, 1.0)
            await begun(kit, ann, 2.0)
            assert (await kit.service.metrics(kit.admin)).counters["uploads.begun"] == 3  # bob's old one is still there

    asyncio.run(scenario())


async def encoded(value):
    return encode_payload(LAYOUT.unflatten(np.full(D, value, np.float32)))[0]


def test_pieces_of_an_upload_come_one_after_another(tmp_path):
    async def scenario():
        async with serving(tmp_path) as kit:
            ann, *_ = await network(kit)
            view, _, payload = await begun(kit, ann)
            gate, started = asyncio.Event(), asyncio.Event()
            task = asyncio.create_task(kit.service.append(view.id, 0, held_back(payload, gate, started)))
            await started.wait()
            await refused(kit.service.append(view.id, 0, pieces(payload)), "conflict", "in_flight")
            gate.set()
            assert (await task).acknowledgement is not None

    asyncio.run(scenario())


def test_an_upload_that_is_complete_between_rounds_is_kept_and_asked_for_again(tmp_path):
    async def scenario():
        async with serving(tmp_path) as kit:
            ann, *_ = await network(kit)
            view, _, payload = await begun(kit, ann)
            await kit.service.pause(kit.admin, "demo")
            await refused(kit.service.append(view.id, 0, pieces(payload)), "busy", "paused")
            assert (await kit.service.upload(view.id)).offset == len(payload)
            await kit.service.resume(kit.admin, "demo")
            done = await kit.service.append(view.id, len(payload), pieces(b""))
            assert done.acknowledgement is not None
            await refused(kit.service.upload(view.id), "not_found")

    asyncio.run(scenario())


def test_hundreds_of_updates_at_once_are_all_acknowledged_or_told_to_come_later(tmp_path):
    async def scenario():
        names = [f"c{index}" for index in range(60)]
        async with serving(tmp_path, Limits(submissions=20)) as kit:
            token = (await kit.service.invite(kit.admin, InviteRequest(uses=60))).token
            for name in names:
                await enrol(kit, name, token)
            await kit.start(target=60, rounds=1)
            messages = {name: await kit.clients[name].message() for name in names}
            waiting = set(names)
            turned_away = 0
            while waiting:
                told = await asyncio.gather(
                    *(kit.service.submit(None, "demo", 0, pieces(messages[name])) for name in sorted(waiting)),
                    return_exceptions=True,
                )
                for name, answer in zip(sorted(waiting), told, strict=True):
                    if isinstance(answer, Exception):
                        assert answer.code == "busy", answer
                        turned_away += 1
                    else:
                        waiting.discard(name)
            assert turned_away > 0
            assert (await kit.ended(0)).accepted == 60

    async def enrol(kit, name, token):
        key = SigningKey.generate()
        enrolled = await kit.service.enrol(await kit.request(name, key, token))
        kit.clients[name] = Client(name, key, kit, enrolled.session.token)

    asyncio.run(scenario())


def test_a_head_is_refused_whose_words_are_not_what_was_signed(tmp_path):
    async def scenario():
        async with serving(tmp_path) as kit:
            ann, *_ = await network(kit)
            update = await ann.update()
            for changed in (
                replace(update, num_examples=99),
                replace(update, base_version=1),
                replace(update, nonce="ab" * 16),
            ):
                await refused(
                    kit.service.submit(None, "demo", 0, pieces(frame(changed))), "unauthenticated", "signature"
                )
            assert Head.of(update).client_id in NAMES

    asyncio.run(scenario())
