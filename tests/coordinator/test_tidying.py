"""What is deleted after a while, and what has to stay."""

import asyncio
import signal
import subprocess
import sys

from tests.coordinator.service_kit import NAMES, network, pieces, serving
from tests.coordinator.test_access import refused


def test_payloads_older_than_the_retention_are_deleted_and_needed_ones_are_not(tmp_path):
    async def scenario():
        async with serving(tmp_path, retention=1) as kit:
            await network(kit)
            await kit.round_of(NAMES, ann=5.0)
            old = await kit.service.update(kit.admin, "demo", 0, "ann")
            shared = await kit.service.update(kit.admin, "demo", 0, "bob")
            await kit.round_of(NAMES)  # bob's payload is the same once more
            await kit.service.tidy()
            assert not await kit.service.blobs.exists(old.payload_sha256)
            assert await kit.service.blobs.exists(shared.payload_sha256)
            await kit.round_of(NAMES)
            assert (await kit.service.update(kit.admin, "demo", 0, "ann")).payload_sha256 == old.payload_sha256

    asyncio.run(scenario())


def test_payloads_that_were_let_go_of_before_a_crash_are_deleted_after_it(tmp_path):
    """It dies when the rows are committed and nothing is deleted yet."""
    script = f"""
import asyncio, os, signal
from pathlib import Path
from tests.coordinator.service_kit import serving
from tests.coordinator.test_service import NAMES, network

async def main():
    async with serving(Path({str(tmp_path)!r}), retention=1) as kit:
        await network(kit)
        await kit.round_of(NAMES, ann=5.0)
        print((await kit.service.update(kit.admin, "demo", 0, "ann")).payload_sha256, flush=True)
        await kit.round_of(NAMES)

        async def die(_):
            os.kill(os.getpid(), signal.SIGKILL)

        kit.service.blobs.delete = die
        await kit.service.tidy()

asyncio.run(main())
"""
    done = subprocess.run([sys.executable, "-c", script], stdout=subprocess.PIPE, text=True, check=False)
    assert done.returncode == -signal.SIGKILL
    old = done.stdout.strip()

    async def afterwards():
        async with serving(tmp_path, retention=1) as kit:
            store, blobs = kit.service.store, kit.service.blobs
            doomed = await store.doomed_blobs()
            assert old in doomed
            assert all([await blobs.exists(name) for name in doomed])
            kept = await store.referenced_blobs()
            await kit.service.tidy()
            assert not any([await blobs.exists(name) for name in doomed])
            assert all([await blobs.exists(name) for name in kept])
            assert await store.doomed_blobs() == set()

    asyncio.run(afterwards())


def test_events_go_when_their_days_are_over_and_verdicts_do_not(tmp_path):
    async def scenario():
        async with serving(tmp_path, event_days=2.0) as kit:
            await network(kit)
            await kit.round_of(NAMES)
            kit.clock.ahead = 86_400.0
            await kit.start("second")
            there = (await kit.service.events(kit.admin)).events
            await kit.service.tidy()
            assert (await kit.service.events(kit.admin)).events == there
            kit.clock.ahead = 2.5 * 86_400.0
            await kit.service.tidy()
            left = (await kit.service.events(kit.admin)).events
            assert {event.run for event in left} == {"second"}
            assert left == there[-len(left) :]
            assert await kit.service.receipt(kit.admin, "demo", 0, "ann")

    asyncio.run(scenario())


def test_a_payload_that_comes_again_while_it_is_let_go_of_stays(tmp_path, monkeypatch):
    async def scenario():
        async with serving(tmp_path, retention=1) as kit:
            await network(kit)
            await kit.round_of(NAMES, ann=5.0)
            await kit.round_of(NAMES)
            name = (await kit.service.update(kit.admin, "demo", 0, "ann")).payload_sha256
            with kit.service.host.custody.holding(name):  # somebody is about to send it
                await kit.service.tidy()
            assert await kit.service.blobs.exists(name)
            await kit.clients["ann"].send(5.0)
            await kit.service.tidy()
            assert await kit.service.blobs.exists(name)

            needed = (await kit.service.update(kit.admin, "demo", 1, "bob")).payload_sha256

            async def hasty(run, *, keep_rounds):
                return [needed]

            monkeypatch.setattr(kit.service.store, "prune", hasty)
            await kit.service.tidy()
            assert await kit.service.blobs.exists(needed)

    asyncio.run(scenario())


def test_a_model_that_a_run_begins_with_while_it_is_deleted_is_there_afterwards(tmp_path, monkeypatch):
    async def scenario():
        async with serving(tmp_path, retention=1) as kit:
            await network(kit)
            model = (await kit.service.round(kit.admin, "demo", 0)).model_hash
            name, _ = await kit.service.store.model(model)
            for _ in range(2):
                await kit.round_of(NAMES)
            deleting, gate, delete = asyncio.Event(), asyncio.Event(), kit.service.blobs.delete

            async def slow(sha256):
                if sha256 == name:
                    deleting.set()
                    await gate.wait()
                await delete(sha256)

            monkeypatch.setattr(kit.service.blobs, "delete", slow)
            tidying = asyncio.create_task(kit.service.tidy())
            await asyncio.wait_for(deleting.wait(), 10)
            beginning = asyncio.create_task(kit.start("second"))
            await asyncio.sleep(0.2)
            gate.set()
            await asyncio.gather(tidying, beginning)
            assert await kit.service.store.model(model) is not None
            assert await kit.service.blobs.exists(name)
            assert await kit.service.store.doomed_blobs() == set()

    asyncio.run(scenario())


def test_a_payload_that_comes_while_it_is_deleted_is_there_afterwards(tmp_path, monkeypatch):
    async def scenario():
        async with serving(tmp_path, retention=1) as kit:
            await network(kit)
            await kit.round_of(NAMES, ann=5.0)
            await kit.round_of(NAMES)
            name = (await kit.service.update(kit.admin, "demo", 0, "ann")).payload_sha256
            begun, gate, delete = asyncio.Event(), asyncio.Event(), kit.service.blobs.delete

            async def slow(sha256):
                if sha256 == name:
                    begun.set()
                    await gate.wait()
                await delete(sha256)

            monkeypatch.setattr(kit.service.blobs, "delete", slow)
            tidying = asyncio.create_task(kit.service.tidy())
            await begun.wait()
            sending = asyncio.create_task(kit.clients["ann"].send(5.0))
            await asyncio.sleep(0.2)
            gate.set()
            await asyncio.gather(tidying, sending)
            assert await kit.service.blobs.exists(name)

    asyncio.run(scenario())


def test_payloads_that_nobody_counts_do_not_stay(tmp_path, monkeypatch):
    async def scenario():
        async with serving(tmp_path) as kit:
            ann, bob, _ = await network(kit)

            # What may come again later is left, but not for ever.
            head, payload = await ann.signed(2.0)
            live = kit.service.live("demo")
            gate, started = asyncio.Event(), asyncio.Event()

            async def late():
                yield payload[:-1]
                started.set()
                await gate.wait()
                yield payload[-1:]

            sending = asyncio.create_task(live.take(head, late()))
            await started.wait()
            await kit.service.pause(kit.admin, "demo")
            gate.set()
            await refused(sending, "busy", "paused")
            assert await kit.service.blobs.exists(head.payload_sha256)
            await kit.service.tidy()
            assert not await kit.service.blobs.exists(head.payload_sha256)
            await kit.service.resume(kit.admin, "demo")

            # Who leaves when the last byte is there has stored it.
            head, payload = await bob.signed(3.0)
            write, there = kit.service.blobs.write, asyncio.Event()

            async def written(*args, **options):
                await write(*args, **options)
                there.set()
                await asyncio.Event().wait()

            monkeypatch.setattr(kit.service.blobs, "write", written)
            leaving = asyncio.create_task(live.take(head, pieces(payload)))
            await there.wait()
            leaving.cancel()
            await asyncio.gather(leaving, return_exceptions=True)
            assert await kit.service.blobs.exists(head.payload_sha256)
            await kit.service.tidy()
            assert not await kit.service.blobs.exists(head.payload_sha256)

    asyncio.run(scenario())


def test_a_complete_upload_that_waits_keeps_its_payload(tmp_path):
    async def scenario():
        async with serving(tmp_path) as kit:
            ann, *_ = await network(kit)
            head, payload = await ann.signed()
            view = await kit.service.begin_upload("demo", 0, head.to_bytes())
            await kit.service.pause(kit.admin, "demo")
            await refused(kit.service.append(view.id, 0, pieces(payload)), "busy", "paused")
            kit.service.host.custody.leave(head.payload_sha256)
            await kit.service.tidy()
            await kit.service.resume(kit.admin, "demo")
            assert (await kit.service.append(view.id, len(payload), pieces(b""))).acknowledgement is not None

    asyncio.run(scenario())
