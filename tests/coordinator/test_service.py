"""What is told to whom, and what is waited for: the service as its doors see it."""

import asyncio
import base64
import json
import os
import stat
from contextlib import aclosing

import httpx
import numpy as np
import pytest
from tests.coordinator.service_kit import LAYOUT, NAMES, Kit, Sceptic, network, pieces, serving
from tests.coordinator.test_access import refused

from matl.attest.keys import Algorithm, PublicKey, SigningKey
from matl.attest.receipts import verify_receipt
from matl.attest.signing import sign_chunk
from matl.attest.texts import ChunkText
from matl.attest.tokens import Scope
from matl.coordinator import reading
from matl.coordinator.access import Caller
from matl.coordinator.http.app import create_app
from matl.coordinator.keys import Keys
from matl.coordinator.limits import Limits, Rate
from matl.coordinator.rounds.overrides import Hold, Overrides
from matl.errors import StateError
from matl.params import values_hash
from matl.protocol.messages import GradientRequest, RunExport, StartRequest
from matl.protocol.problems import Code, refusal
from matl.records import Status
from matl.screening import decode_payload


def test_a_run_from_its_start_to_its_last_receipt(tmp_path, database_url):
    async def scenario():
        async with serving(tmp_path, database=database_url) as kit:
            ann, _, cid = await network(kit)
            run = await kit.service.run(ann.caller, "demo")
            assert (run.status, run.rounds, run.round, run.mode) == ("running", 3, 0, "sceptic")
            assert [entry["name"] for entry in run.layout] == ["w", "b"]
            assert (await kit.service.runs(ann.caller)) == [run]
            ended = await kit.round_of(NAMES, bob=3.0, cid=-1.0)
            assert (ended.status, ended.accepted, ended.target, ended.quorum) == ("committed", 3, 3, 2)

            blob = await kit.service.model(ann.caller, ended.next_model_hash)
            data = b"".join([piece async for piece in blob.stream(0, blob.size)])
            assert len(data) == blob.size
            params = LAYOUT.flatten(decode_payload(data))
            np.testing.assert_array_equal(params, np.arange(6, dtype=np.float32) + 2)
            assert values_hash(params) == ended.next_model_hash
            assert b"".join([piece async for piece in blob.stream(8, 20)]) == data[8:20]

            key = PublicKey(base64.b64decode(run.receipts_key))
            receipt = verify_receipt(await kit.service.receipt(cid.caller, "demo", 0, "cid"), [key])
            assert (receipt.status, receipt.weight, receipt.hardware_root) == (Status.QUARANTINED, 0.0, False)
            view = await kit.service.update(cid.caller, "demo", 0, "cid")
            assert (view.status, view.verdict, view.reason) == (
                "judged",
                "quarantined",
                "it pushes the first parameter down",
            )
            assert view.evidence == {"push": -1.0}

            await kit.round_of(NAMES)
            assert (await kit.round_of(NAMES)).number == 2
            last = await kit.service.current_round(ann.caller, "demo", after=2, wait=20)  # at once: it has ended
            assert (last.number, (await kit.service.run(ann.caller, "demo")).status) == (2, "finished")
            page = await kit.service.rounds(ann.caller, "demo", before=2, limit=1)
            assert [one.number for one in page.rounds] == [1]

    asyncio.run(scenario())


def test_what_is_not_there_is_not_found_and_says_what_is(tmp_path):
    async def scenario():
        async with serving(tmp_path) as kit:
            ann, *_ = await network(kit)
            error = await refused(kit.service.run(kit.admin, "dmeo"), "not_found", "run")
            assert "there are: demo" in str(error)
            await refused(kit.service.round(kit.admin, "demo", 7), "not_found", "round")
            await refused(kit.service.model(kit.admin, "ab" * 32), "not_found", "model")
            await refused(kit.service.update(ann.caller, "demo", 0, "ann"), "not_found", "update")
            await refused(kit.service.receipt(ann.caller, "demo", 0, "ann"), "not_found", "receipt")
            await refused(kit.service.receipt(kit.admin, "other", 0, "ann"), "not_found", "run")
            error = await refused(kit.service.revoke(kit.admin, "anne"), "not_found", "client")
            assert "did you mean 'ann'?" in str(error)

    asyncio.run(scenario())


def test_clients_learn_nothing_of_one_another(tmp_path):
    async def scenario():
        async with serving(tmp_path) as kit:
            ann, _, cid = await network(kit)
            await kit.round_of(NAMES, cid=-1.0)
            await refused(kit.service.update(ann.caller, "demo", 0, "cid"), "forbidden", "client")
            await refused(kit.service.receipt(ann.caller, "demo", 0, "cid"), "forbidden", "client")
            await refused(kit.service.trust_history(ann.caller, "demo", "cid"), "forbidden", "client")
            assert [one.client_id for one in await kit.service.trust(ann.caller, "demo")] == ["ann"]
            assert [one.client_id for one in await kit.service.reputation(ann.caller, "demo")] == ["ann"]
            assert "cid" not in str(await kit.service.events(ann.caller))
            assert "client_quarantined" in str(await kit.service.events(cid.caller))
            everything = await kit.service.events(kit.admin)
            assert {event.data.get("client") for event in everything.events} >= set(NAMES)
            assert (await kit.service.events(ann.caller)).next == everything.next

            # What a judge says at length may name others; the figures do not.
            assert "digests" in (await kit.service.round(kit.admin, "demo", 0)).summary
            told = (await kit.service.round(ann.caller, "demo", 0)).summary
            assert told["quarantined"] == 1
            assert not {"digests", "diagnostics"} & told.keys()
            for call in (kit.service.runs, kit.service.events):
                await refused(call(Caller()), "unauthenticated")
            await refused(kit.service.trust(Caller(), "demo"), "unauthenticated")
            await refused(kit.service.update(Caller(), "demo", 0, "ann"), "unauthenticated")

    asyncio.run(scenario())


async def exported_by(kit):
    return RunExport.model_validate_json(
        b"".join([piece async for piece in await kit.service.export(kit.admin, "demo")])
    )


def test_an_export_comes_round_by_round_and_is_one_document(tmp_path, monkeypatch):
    monkeypatch.setattr(reading, "_WINDOW", 2)

    async def scenario():
        async with serving(tmp_path) as kit:
            ann, *_ = await network(kit)
            for _ in range(3):
                await refused(ann.send(np.nan), "invalid", "not_finite")
                await kit.round_of(NAMES, cid=-1.0)
            parts = [piece async for piece in await kit.service.export(kit.admin, "demo")]
            assert len(parts) > 6
            found = RunExport.model_validate_json(b"".join(parts))
            assert found.model_dump_json().encode() == b"".join(parts)
            assert found.run == await kit.service.run(kit.admin, "demo")
            assert found.rounds == (await kit.service.rounds(kit.admin, "demo")).rounds[::-1]
            assert [(one.round, one.client_id, one.verdict) for one in found.verdicts] == [
                (number, name, verdict)
                for number in range(3)
                for name, verdict in (
                    ("ann", "accepted"), ("ann", None), ("bob", "accepted"), ("cid", "quarantined"),
                )
            ]  # fmt: skip

    asyncio.run(scenario())


def test_an_operator_reads_one_export_at_a_time_and_is_told_so_before_it_begins(tmp_path):
    async def scenario():
        async with serving(tmp_path) as kit:
            await network(kit)
            first = await kit.service.export(kit.admin, "demo")
            await anext(first)
            transport = httpx.ASGITransport(create_app(kit.service))
            async with httpx.AsyncClient(transport=transport, base_url="http://matl", headers=kit.bearer) as client:
                answer = await client.get("/v1/runs/demo/export")
                assert (answer.status_code, answer.json()["reason"]) == (503, "export")
                other = await kit.service.export(Caller("operator", "carol", Scope.VIEWER), "demo")
                assert await anext(other)
                await other.aclose()
                await first.aclose()
                answer = await client.get("/v1/runs/demo/export")
                assert (answer.status_code, answer.headers["Content-Type"]) == (200, "application/json")
                assert answer.json() == (await exported_by(kit)).model_dump(mode="json")

    asyncio.run(scenario())


def test_trust_and_reputation_follow_the_verdicts_and_are_the_same_after_a_restart(tmp_path):
    async def scenario():
        kit = Kit(tmp_path)
        async with kit.open():
            await network(kit)
            await kit.round_of(NAMES, cid=-1.0)
            await kit.round_of(NAMES, cid=-1.0)
            standings = {one.client_id: one for one in await kit.service.trust(kit.admin, "demo")}
            assert (standings["cid"].status, standings["cid"].since_round, standings["cid"].weight) == (
                "quarantined",
                0,
                0,
            )
            assert (standings["ann"].status, standings["ann"].by_operator) == ("accepted", False)
            history = await kit.service.trust_history(kit.clients["cid"].caller, "demo", "cid")
            assert [(view.round, view.verdict) for view in history.verdicts] == [(1, "quarantined"), (0, "quarantined")]
            earned = await kit.service.reputation(kit.admin, "demo")
            assert {one.client_id: (one.reputation, one.rounds) for one in earned} == {
                "ann": (0.24, 2), "bob": (0.24, 2), "cid": (0.1, 2),
            }  # fmt: skip
            exported = await exported_by(kit)
            assert [(view.round, view.client_id) for view in exported.verdicts] == [
                (number, name) for number in (0, 1) for name in NAMES
            ]
        async with kit.open():
            assert await kit.service.reputation(kit.admin, "demo") == earned
            assert {one.client_id: one for one in await kit.service.trust(kit.admin, "demo")} == standings
            assert (await exported_by(kit)).verdicts == exported.verdicts
            assert (await kit.round_of(NAMES)).number == 2

    asyncio.run(scenario())


def test_a_judge_that_names_nobody_earns_nobody_a_reputation(tmp_path):
    async def scenario():
        async with serving(tmp_path) as kit:
            await network(kit)
            await kit.round_of(NAMES)
            kit.service.live("demo").plan.workload.__dict__["mode"] = Sceptic(gives_verdicts=False)
            assert await kit.service.reputation(kit.admin, "demo") == []

    asyncio.run(scenario())


def test_readers_wait_for_rounds_and_events_and_are_woken(tmp_path):
    async def scenario():
        async with serving(tmp_path) as kit:
            await network(kit)
            known = (await kit.service.events(kit.admin)).next
            waiting = asyncio.create_task(kit.service.current_round(kit.admin, "demo", after=0, wait=25))
            told = asyncio.create_task(kit.service.events(kit.admin, after=known, wait=25))
            mine = asyncio.create_task(kit.service.events(kit.clients["bob"].caller, after=known, wait=25))
            await asyncio.sleep(0.05)
            assert not waiting.done()
            await kit.clients["ann"].send()
            assert [event.kind for event in (await told).events] == ["update_received"]
            assert not mine.done()  # that was ann's
            await kit.clients["bob"].send()
            assert [event.data["client"] for event in (await mine).events] == ["bob"]
            await kit.clients["cid"].send()
            assert (await waiting).number == 1
            assert (await kit.service.metrics(kit.admin)).counters["readers.waiting"] == 0
            nothing = await kit.service.events(kit.admin, after=10_000, wait=0.05)
            assert (nothing.events, nothing.next) == ([], 10_000)

    asyncio.run(scenario())


def test_all_waits_end_when_the_service_drains(tmp_path):
    async def scenario():
        async with serving(tmp_path, Limits(watchers=2)) as kit:
            await network(kit)
            waiting = [
                asyncio.create_task(kit.service.current_round(kit.admin, "demo", after=0, wait=30)),
                asyncio.create_task(kit.service.events(kit.admin, after=10_000, wait=30)),
            ]
            await asyncio.sleep(0.05)
            await refused(kit.service.events(kit.admin, after=10_000, wait=1), "busy")
            await kit.service.ready()
            kit.service.drain()
            async with asyncio.timeout(2):
                found, page = await asyncio.gather(*waiting)
            assert (found.number, page.events) == (0, [])
            await refused(kit.service.ready(), "busy", "closing")

    asyncio.run(scenario())


def test_a_subscription_misses_nothing_and_ends_with_the_right_to_it(tmp_path):
    async def scenario():
        async with serving(tmp_path) as kit:
            ann, *_ = await network(kit)
            seen = []

            async def follow(caller):
                async with aclosing(kit.service.subscribe(caller, after=0)) as events:
                    async for event in events:
                        seen.append(event.seq)

            operator = await kit.service.authenticate(kit.bearer["Authorization"])
            following = asyncio.create_task(follow(operator))
            leaving = asyncio.create_task(follow(ann.caller))
            await kit.round_of(NAMES)
            await kit.service.revoke(kit.admin, "ann")
            async with asyncio.timeout(5):
                await refused(leaving, "unauthenticated", "token")
            before = kit.clients["bob"].caller
            await kit.enrol("bob", client_id="bob", replaces=True)
            await refused(anext(kit.service.subscribe(before, after=0)), "unauthenticated", "token")
            leaving = asyncio.create_task(
                follow(await kit.service.authenticate(kit.clients["bob"].bearer["Authorization"]))
            )
            kit.clock.ahead = 3601  # a session is good for an hour
            await kit.service.pause(kit.admin, "demo")
            async with asyncio.timeout(5):
                await refused(leaving, "unauthenticated", "token")
            seen.clear()
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)
            following = asyncio.create_task(follow(operator))
            everything = [event.seq for event in (await kit.service.events(kit.admin)).events]
            while len(seen) < len(everything):
                await asyncio.sleep(0.01)
            assert seen == everything == list(range(1, len(everything) + 1))
            await refused(anext(kit.service.subscribe(Caller(), after=0)), "unauthenticated")
            kit.service.drain()
            async with asyncio.timeout(2):
                await following

    asyncio.run(scenario())


def test_who_asks_too_often_waits_and_nobody_else(tmp_path):
    async def many(asking, count):
        codes = []
        for _ in range(count):
            try:
                await asking()
                codes.append("ok")
            except Exception as error:  # noqa: BLE001 - its code is looked at
                codes.append(error.code)
        return codes

    async def scenario():
        slow = Limits(address=Rate(0.001, 3), sender=Rate(0.001, 5))
        async with serving(tmp_path, slow) as kit:
            ann, bob = await kit.enrol("ann"), await kit.enrol("bob")

            def asks(header, address):
                return lambda: kit.service.authenticate(header, address=address)

            assert await many(asks(None, "10.0.0.1"), 5) == ["ok"] * 3 + ["rate"] * 2
            assert await many(asks(None, "10.0.0.2"), 1) == ["ok"]
            assert await many(asks("Bearer junk", "10.0.0.3"), 5) == ["unauthenticated"] * 3 + ["rate"] * 2
            assert await many(asks(ann.bearer["Authorization"], "10.0.0.1"), 6) == ["ok"] * 5 + ["rate"]
            assert await many(asks(bob.bearer["Authorization"], "10.0.0.1"), 1) == ["ok"]
            # Who has one address of IPv6 has 2^64 of them.
            assert await many(asks(None, "2001:db8::1"), 3) == ["ok"] * 3
            assert await many(asks(None, "2001:db8::ffff:2"), 1) == ["rate"]
            assert await many(asks(None, "2001:db8:0:1::1"), 1) == ["ok"]
            error = await refused(kit.service.authenticate(None, address="10.0.0.1"), "rate")
            assert error.retry_after == pytest.approx(1000, rel=0.01)
            assert (await kit.service.metrics(kit.admin)).counters["authenticate.rate"] == 7

    asyncio.run(scenario())


def test_validating_judges_and_changes_nothing(tmp_path):
    async def scenario():
        async with serving(tmp_path) as kit:
            ann, bob, cid = await network(kit)
            before = kit.service.live("demo").state["mode"]["rounds"], len((await kit.service.events(kit.admin)).events)
            messages = [await ann.message(1.0), await cid.message(-1.0)]
            answer = await kit.service.validate(kit.admin, "demo", messages)
            key = PublicKey(base64.b64decode((await kit.service.run(kit.admin, "demo")).receipts_key))
            receipts = [verify_receipt(json.dumps(one).encode(), [key]) for one in answer.receipts]
            assert [(one.client_id, one.status) for one in receipts] == [("ann", "accepted"), ("cid", "quarantined")]
            after = kit.service.live("demo").state["mode"]["rounds"], len((await kit.service.events(kit.admin)).events)
            assert before == after
            assert await kit.service.trust(kit.admin, "demo") == []
            # Nothing was used up: the very same messages count.
            for client, message in zip((ann, cid), messages, strict=True):
                assert not (await kit.service.submit(client.caller, "demo", 0, pieces(message))).duplicate

            forged = await bob.message(key=SigningKey.generate())
            error = await refused(kit.service.validate(kit.admin, "demo", [forged]), "invalid", "signature")
            assert "nothing was judged" in str(error)
            await refused(kit.service.validate(kit.admin, "demo", [messages[0][:-1]]), "malformed", "malformed")
            await refused(kit.service.validate(kit.admin, "demo", [b"\xff" * 9]), "too_large", "size")
            await refused(kit.service.validate(kit.admin, "demo", [await bob.message()] * 65), "too_large", "messages")
            await refused(kit.service.validate(kit.admin, "demo", [await bob.message()] * 2), "invalid")

    asyncio.run(scenario())


def test_a_phones_chunk_is_verified_and_counted_and_never_an_update(tmp_path):
    async def scenario():
        async with serving(tmp_path) as kit:
            key = SigningKey.generate(Algorithm.ECDSA_P256)
            await kit.enrol("phone", key)
            await kit.enrol("laptop")
            await kit.start()
            spec = (await kit.service.current_round(kit.admin, "demo")).spec

            def check(**changes):
                text = {
                    "round": 0, "node_id": "phone", "model_hash": spec.model_hash, "chunk": b"\x01\x02",
                    "timestamp_unix_ms": round(kit.clock().timestamp() * 1000),
                }  # fmt: skip
                chunk = ChunkText(**{**text, **{k: v for k, v in changes.items() if k in text}})
                signature = changes.get("signature") or sign_chunk(chunk, changes.get("key", key))
                return kit.service.verify_gradient(
                    GradientRequest(
                        round=chunk.round,
                        node_id=chunk.node_id,
                        model_hash=chunk.model_hash,
                        gradient_chunk_b64=base64.b64encode(changes.get("sent", chunk.chunk)).decode(),
                        timestamp_unix_ms=chunk.timestamp_unix_ms,
                        signature=base64.b64encode(signature).decode(),
                        run=changes.get("run"),
                    )
                )

            good = await check(timestamp_unix_ms=round(kit.clock().timestamp() * 1000) - 5)
            assert (good.verified, good.reason) == (True, "")
            assert (await check(key=SigningKey.generate(Algorithm.ECDSA_P256))).reason == "signature"
            assert (await check(sent=b"\x01\x03")).reason == "signature"
            assert (await check(round=1)).reason == "mismatch"
            assert (await check(node_id="laptop")).reason == "algorithm"
            assert (await check(node_id="nobody")).reason == "unknown_client"
            assert (await check(timestamp_unix_ms=1)).reason == "expired"
            at = round(kit.clock().timestamp() * 1000) - 9
            assert [(await check(timestamp_unix_ms=at)).reason for _ in range(2)] == ["", "replay"]
            counters = (await kit.service.metrics(kit.admin)).counters
            assert (counters["chunks.verified"], counters["chunks.refused"]) == (2, 7)
            assert (await kit.service.current_round(kit.admin, "demo")).accepted == 0
            await refused(check(run="other"), "not_found", "run")
            await kit.start("second")
            await refused(check(), "invalid", "run")

    asyncio.run(scenario())


def test_one_reader_has_only_so_many_places_to_wait(tmp_path):
    async def scenario():
        async with serving(tmp_path, Limits(watchers_of_one=2)) as kit:
            ann, bob, _ = await network(kit)
            last = (await kit.service.events(kit.admin)).next
            tasks = [
                asyncio.create_task(kit.service.events(ann.caller, after=last, wait=30)),
                asyncio.create_task(kit.service.current_round(ann.caller, "demo", after=0, wait=30)),
            ]
            await asyncio.sleep(0.05)
            await refused(kit.service.events(ann.caller, after=last, wait=1), "rate", "watchers")
            await kit.service.events(ann.caller, after=last)  # who does not wait is told
            await kit.service.events(bob.caller, after=last, wait=0.01)
            kit.service.drain()
            await asyncio.gather(*tasks)
            assert not kit.service._waiters

    asyncio.run(scenario())


def test_measures_count_what_was_done_and_what_was_refused(tmp_path):
    async def scenario():
        async with serving(tmp_path) as kit:
            ann, *_ = await network(kit)
            await ann.send()
            await refused(kit.clients["bob"].send(key=SigningKey.generate()), "unauthenticated", "signature")
            told = await kit.service.metrics(kit.admin)
            assert (told.counters["submit.ok"], told.counters["submit.unauthenticated"]) == (1, 1)
            assert told.counters["clients.enrolled"] == 3
            assert told.latencies_ms["submit"]["count"] == 1
            assert told.latencies_ms["submit"]["p50"] <= told.latencies_ms["submit"]["max"]

    asyncio.run(scenario())


def test_one_process_at_a_time_uses_a_folder(tmp_path):
    async def scenario():
        async with serving(tmp_path):
            with pytest.raises(StateError, match="another process"):
                async with Kit(tmp_path).open():
                    pytest.fail("was opened")

    asyncio.run(scenario())


def test_a_lost_audit_log_is_noticed(tmp_path):
    async def scenario():
        kit = Kit(tmp_path)
        async with kit.open():
            pass
        (tmp_path / "keep" / "audit.log").unlink()
        with pytest.raises(StateError, match="is lost"):
            async with kit.open():
                pytest.fail("was opened")

    asyncio.run(scenario())


def test_a_change_that_is_cancelled_is_finished_before_the_next_one(tmp_path, monkeypatch):
    async def scenario():
        async with serving(tmp_path) as kit:
            await network(kit)
            put, writing, gate = kit.service.store.put_document, asyncio.Event(), asyncio.Event()

            async def slow(*args, **kwargs):
                writing.set()
                await gate.wait()
                return await put(*args, **kwargs)

            monkeypatch.setattr(kit.service.store, "put_document", slow)
            first = asyncio.create_task(kit.service.quarantine(kit.admin, None, "ann", "first"))
            await writing.wait()
            first.cancel()
            second = asyncio.create_task(kit.service.quarantine(kit.admin, None, "bob", "second"))
            await asyncio.sleep(0.1)
            gate.set()
            with pytest.raises(asyncio.CancelledError):
                await first
            await second
            stored = Overrides.of_state((await kit.service.store.document("overrides"))[1])
            assert stored == kit.service.access.overrides.value
            assert [hold.reason for hold in stored.holds] == ["first", "second"]

    asyncio.run(scenario())


def test_a_change_that_may_or_may_not_have_been_stored_is_read_again(tmp_path, monkeypatch):
    async def scenario():
        async with serving(tmp_path) as kit:
            await network(kit)
            put = kit.service.store.put_document

            async def lost(*args, **kwargs):
                await put(*args, **kwargs)
                raise refusal(Code.BUSY, "the connection was lost during the commit")

            monkeypatch.setattr(kit.service.store, "put_document", lost)
            await refused(kit.service.quarantine(kit.admin, None, "ann", "first"), "busy")
            monkeypatch.setattr(kit.service.store, "put_document", put)
            await kit.service.quarantine(kit.admin, None, "bob", "second")
            assert [hold.reason for hold in kit.service.access.overrides.value.holds] == ["first", "second"]

    asyncio.run(scenario())


def test_overrides_hold_in_one_run_or_in_all_of_them():
    everywhere = Hold(client="ann", run=None, reason="", actor="carol", at=1)
    here = Hold(client="ann", run="demo", reason="", actor="carol", at=2)
    both = Overrides().hold(everywhere).hold(here)
    assert Overrides.of_state(both.state()) == both
    assert both.release("ann", None).of("ann", "demo") == here
    assert both.release("ann", None).of("ann", "other") is None
    assert both.release("ann", "demo").of("ann", "other") == everywhere
    assert Overrides().hold(here).of("ann") == here
    for wrong in ({}, {"version": 2, "holds": []}, {"version": 1, "holds": [{"client": "ann"}]}):
        with pytest.raises(StateError, match="the operators' decisions cannot be read"):
            Overrides.of_state(wrong)


def test_health_says_who_and_when(tmp_path):
    async def scenario():
        async with serving(tmp_path) as kit:
            kit.clock.ahead = 1000
            assert abs((await kit.service.health()).time.timestamp() - kit.clock().timestamp()) < 5
            await kit.service.ready()
            kit.service._keeping.cancel()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
            await refused(kit.service.ready(), "busy", "keeping_house")

    asyncio.run(scenario())


def test_a_run_that_fails_by_the_clock_is_logged_and_the_others_go_on(tmp_path, monkeypatch, caplog):
    async def scenario():
        async with serving(tmp_path) as kit:
            await kit.start()
            await kit.start("second", deadline=0.5)

            async def faulty():
                raise RuntimeError("a fault of ours")

            monkeypatch.setattr(kit.service.live("demo"), "tick", faulty)
            assert (await kit.ended(0, "second")).reason == "0 of 2 updates in 0.5 seconds"
            await kit.service.ready()

    asyncio.run(scenario())
    assert "a fault of ours" in caplog.text


def test_the_names_of_secrets_are_on_the_disk_before_anybody_relies_on_them(tmp_path, monkeypatch):
    synced, fsync = [], os.fsync

    def noting(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            synced.append({path.name for path in tmp_path.iterdir()})
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", noting)
    Keys.of(tmp_path)
    assert synced[:2] == [{"receipts.pem"}, {"receipts.pem", "coordinator.secret"}]


def test_the_public_key_of_receipts_lies_beside_the_private_one(tmp_path):
    keys = Keys.of(tmp_path / "new")
    public = tmp_path / "new" / "receipts.pub.pem"
    assert PublicKey.from_pem(public.read_bytes()) == keys.receipts.public
    assert (tmp_path / "new").stat().st_mode & 0o077 == 0
    (tmp_path / "new" / "receipts.pem").unlink()  # as when it is changed
    changed = Keys.of(tmp_path / "new")
    assert PublicKey.from_pem(public.read_bytes()) == changed.receipts.public != keys.receipts.public


def test_a_start_request_of_a_stranger_starts_nothing(tmp_path):
    async def scenario():
        async with serving(tmp_path) as kit:
            await refused(kit.service.start(Caller(), StartRequest(id="demo")), "unauthenticated")
            assert await kit.service.runs(kit.admin) == []

    asyncio.run(scenario())
