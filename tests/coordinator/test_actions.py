"""What operators do to clients and runs: held, released, revoked, undone, and on record before it is done."""

import asyncio
import threading

import pytest
from tests.coordinator.service_kit import network, pieces, serving
from tests.coordinator.test_access import refused

from matl.attest.audit_log import read_audit_log
from matl.attest.keys import SigningKey
from matl.coordinator import auditing
from matl.errors import StateError, StorageError
from matl.protocol.messages import InviteRequest


def test_an_operator_holds_a_client_and_lets_it_go(tmp_path):
    async def scenario():
        async with serving(tmp_path) as kit:
            ann, *_ = await network(kit)
            await ann.send()
            view = await kit.service.quarantine(kit.admin, "demo", "bob", "odd")
            assert view.quarantined_by_operator
            await refused(kit.clients["bob"].send(), "forbidden", "quarantined_by_operator")
            await refused(kit.service.quarantine(kit.admin, "other", "bob"), "not_found", "run")
            await refused(kit.service.quarantine(kit.admin, None, "nobody"), "not_found", "client")
            # That is not the hold for all runs, which is another one.
            await refused(kit.service.release(kit.admin, None, "bob"), "conflict", "not_held")
            await kit.service.release(kit.admin, "demo", "bob")
            await refused(kit.service.release(kit.admin, "demo", "bob"), "conflict", "not_held")

            # Held after it sent: it is not judged.
            await kit.service.quarantine(kit.admin, None, "ann", "odd")
            await kit.clients["bob"].send()
            await kit.clients["cid"].send()
            await kit.ended(0)
            standings = {one.client_id: one for one in await kit.service.trust(kit.admin, "demo")}
            assert (standings["ann"].status, standings["ann"].by_operator) == ("quarantined", True)
            assert standings["bob"].status == "accepted"
            await refused(ann.send(), "forbidden", "quarantined_by_operator")
            told = [event for event in (await kit.service.events(kit.admin)).events if "operator" in str(event.data)]
            assert [event.kind for event in told if event.data.get("by_operator")] == [
                "client_quarantined", "client_released", "client_quarantined",
            ]  # fmt: skip

    asyncio.run(scenario())


def test_the_audit_log_is_checked_once_for_all_until_it_changes(tmp_path, monkeypatch):
    times, gate = [], threading.Event()

    def checking(path):
        times.append(path)
        assert gate.wait(10)
        return read_audit_log(path)

    monkeypatch.setattr(auditing, "read_audit_log", checking)

    async def scenario():
        async with serving(tmp_path) as kit:
            await network(kit)
            first = asyncio.create_task(kit.service.audit(kit.admin))
            while not times:
                await asyncio.sleep(0.005)
            others = [asyncio.create_task(kit.service.audit(kit.admin)) for _ in range(3)]
            await asyncio.sleep(0.05)
            assert not any(other.done() for other in others)
            gate.set()
            entries = (await first).entries
            assert [(await other).entries for other in others] == [entries] * 3
            page = await kit.service.audit(kit.admin, after=entries[0].index, limit=2)
            assert page.entries == entries[1:3]
            assert len(times) == 1
            await kit.service.quarantine(kit.admin, None, "ann", "odd")
            assert [one.action for one in (await kit.service.audit(kit.admin)).entries][-1] == "quarantine"
            assert len(times) == 2
            path = kit.service.audit_file
            path.write_bytes(path.read_bytes().replace(b'"odd"', b'"off"'))
            for _ in range(2):
                with pytest.raises(StateError, match="is damaged"):
                    await kit.service.audit(kit.admin)

    asyncio.run(scenario())


def test_revoking_is_at_once_and_for_good(tmp_path):
    async def scenario():
        async with serving(tmp_path) as kit:
            ann, *_ = await network(kit)
            message = await ann.message()
            assert (await kit.service.revoke(kit.admin, "ann", "stolen")).standing == "revoked"
            await refused(kit.service.submit(None, "demo", 0, pieces(message)), "unauthenticated", "revoked")
            await kit.service.revoke(kit.admin, "ann", "again")
            done = [entry for entry in (await kit.service.audit(kit.admin)).entries if entry.action == "revoke"]
            assert [(one.subject, one.details) for one in done] == [("ann", {"reason": "stolen"})]
            error = await refused(kit.service.undo(kit.admin, done[0].index), "conflict", "for_good")
            assert "invitation that replaces it" in str(error)

    asyncio.run(scenario())


def test_actions_are_undone_once_and_only_while_they_stand(tmp_path):
    async def last(kit, action):
        entries = (await kit.service.audit(kit.admin, limit=500)).entries
        return next(entry.index for entry in reversed(entries) if entry.action == action)

    async def scenario():
        async with serving(tmp_path) as kit:
            await network(kit)
            await kit.service.quarantine(kit.admin, None, "ann", "odd")
            index = await last(kit, "quarantine")
            page = await kit.service.undo(kit.admin, index)
            assert [(entry.action, entry.details["of"]) for entry in page.entries] == [("undo", index)]
            assert not (await kit.service.clients(kit.admin))[0].quarantined_by_operator
            await refused(kit.service.undo(kit.admin, index), "conflict", "undone")
            await refused(kit.service.undo(kit.admin, page.entries[0].index), "conflict", "for_good")
            await refused(kit.service.undo(kit.admin, 9999), "not_found", "index")

            await kit.service.quarantine(kit.admin, "demo", "ann", "odd again")
            held = await last(kit, "quarantine")
            await kit.service.release(kit.admin, "demo", "ann")
            await refused(kit.service.undo(kit.admin, held), "conflict", "not_held")
            released = await last(kit, "release")
            await kit.service.undo(kit.admin, released)
            assert kit.service.access.overrides.value.of("ann", "demo").reason == "odd again"
            await kit.service.undo(kit.admin, held)  # it stands again

            await kit.service.quarantine(kit.admin, None, "ann", "odd")
            first = await last(kit, "quarantine")
            kit.clock.ahead += 1.0
            await kit.service.quarantine(kit.admin, None, "ann", "key stolen")
            await refused(kit.service.undo(kit.admin, first), "conflict", "superseded")
            assert kit.service.access.overrides.value.of("ann").reason == "key stolen"
            await kit.service.undo(kit.admin, await last(kit, "quarantine"))

            await kit.service.pause(kit.admin, "demo", "earlier")
            earlier = await last(kit, "pause")
            await kit.service.resume(kit.admin, "demo")
            await kit.service.pause(kit.admin, "demo", "later")
            await refused(kit.service.undo(kit.admin, earlier), "conflict", "superseded")
            await kit.service.resume(kit.admin, "demo")

            await kit.service.pause(kit.admin, "demo", "look")
            paused = await last(kit, "pause")
            await refused(kit.clients["ann"].send(), "busy", "paused")
            await kit.service.undo(kit.admin, paused)
            assert (await kit.service.run(kit.admin, "demo")).status == "running"
            await kit.clients["ann"].send()

            token = (await kit.service.invite(kit.admin, InviteRequest())).token
            await kit.service.undo(kit.admin, await last(kit, "invite"))
            await refused(
                kit.service.enrol(await kit.request("dan", SigningKey.generate(), token)),
                "unauthenticated",
                "invitation",
            )
            await kit.enrol("dan")
            await refused(kit.service.undo(kit.admin, await last(kit, "invite")), "conflict", "superseded")

    asyncio.run(scenario())


def test_what_is_done_was_written_down_before_and_what_cannot_be_written_down_is_not_done(tmp_path, monkeypatch):
    async def scenario():
        async with serving(tmp_path) as kit:
            await network(kit)
            seen = []
            change = kit.service.access.overrides._put

            async def put(value):
                seen.append([entry.action for entry in read_audit_log(kit.service.audit_file)[0]][-1])
                await change(value)

            monkeypatch.setattr(kit.service.access.overrides, "_put", put)
            await kit.service.quarantine(kit.admin, None, "ann", "odd")
            assert seen == ["quarantine"]

            def full(*_):
                raise StorageError("the disk is full")

            monkeypatch.setattr(kit.service._audit_log, "append", full)
            acts = {
                "pause": lambda: kit.service.pause(kit.admin, "demo"),
                "revoke": lambda: kit.service.revoke(kit.admin, "bob"),
                "release": lambda: kit.service.release(kit.admin, None, "ann"),
                "invite": lambda: kit.service.invite(kit.admin, InviteRequest()),
                "start": lambda: kit.start("second"),
            }
            for act in acts.values():
                await refused(act(), "busy", "audit_log")
            assert (await kit.service.run(kit.admin, "demo")).status == "running"
            assert len(await kit.service.runs(kit.admin)) == 1
            assert kit.service.access.identity("bob").revoked_at is None
            assert kit.service.access.overrides.value.of("ann") is not None

    asyncio.run(scenario())
