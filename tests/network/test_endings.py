"""A coordinator's process is ended, in an orderly way and otherwise, and clients hold on to it: nothing is lost."""

from __future__ import annotations

import asyncio
import contextlib
import sys
import time
from pathlib import Path

from tests.network import halting
from tests.network.outages import PATIENCE, RUN, Member, Town, case, settings_of

from matl.coordinator.storage.store import Store


@contextlib.asynccontextmanager
async def members_of(coordinator, ledger, count=5):
    """Clients of a coordinator in another process, at work until the run is over or the block is left."""
    invitation = await asyncio.to_thread(coordinator.invite, count)
    async with contextlib.AsyncExitStack() as stack:
        members = [
            await stack.enter_async_context(
                Member(ledger, coordinator.url, client_id=f"client-{index}", folder=coordinator.folder / f"{index}")
            )
            for index in range(count)
        ]
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(member.take_part(invitation)) for member in members]
            yield members
            for task in tasks:
                task.cancel()


async def until(so):
    """Return when it is so."""
    async with asyncio.timeout(PATIENCE):
        while not so():
            await asyncio.sleep(0.005)


async def stored(url, number):
    """A round and its updates, as they lie in the database of a process that is gone."""
    async with await Store.open(url) as store:
        return await store.round(RUN, number), await store.updates(RUN, number, accepted=True)


# Orderly ends ----------------------------------------------------------------------------------------------------


def test_what_was_acknowledged_before_a_sigterm_is_there_after_it(tmp_path, postgres_url):
    settings, ledger = settings_of(rounds=1_000_000), case.Ledger()
    coordinator = case.Coordinator(tmp_path, {RUN: settings}, database=postgres_url)
    coordinator.start()

    async def story():
        async with members_of(coordinator, ledger):
            await until(lambda: len(ledger.acknowledged) > 7)  # in the middle of a round
            began = time.monotonic()
            await asyncio.to_thread(coordinator.stop)
            assert coordinator.process.returncode == 0
            assert time.monotonic() - began < 10
            told = dict(ledger.acknowledged)
            last = max(number for number, _ in told)
            _, updates = await stored(postgres_url, last)
            there = {update.client for update in updates}
            assert there >= {client for number, client in told if number == last}
            await asyncio.to_thread(coordinator.start)
            await until(lambda: len(ledger.acknowledged) > len(told) + 7)

    try:
        asyncio.run(story())
    finally:
        coordinator.stop()
    assert "Traceback" not in coordinator.tail()
    found = case.check(postgres_url, settings, ledger)
    assert found.problems == []
    assert found.committed >= 3
    assert found.failed == 0


# Clients that drip -----------------------------------------------------------------------------------------------


class Dripping:
    """A client that sends something and then a byte now and again."""

    def __init__(self, port, begins, goes_on=b"x"):
        self.port, self.begins, self.goes_on, self.sent = port, begins, goes_on, 0

    async def drip(self):
        with contextlib.suppress(ConnectionError):
            reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
            try:
                writer.write(self.begins)
                while not reader.at_eof():
                    writer.write(self.goes_on)
                    await writer.drain()
                    self.sent += 1
                    with contextlib.suppress(TimeoutError):
                        async with asyncio.timeout(0.2):
                            await reader.read(4096)
            finally:
                writer.close()


def posting(path, kind, length):
    return f"POST {path} HTTP/1.1\r\nHost: here\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n".encode()


def test_clients_that_drip_hold_up_neither_a_deadline_nor_the_end(tmp_path):
    town = Town.of(tmp_path, rounds=1, deadline=2.0)

    async def story():
        async with town.open(grpc_port=0):
            port, number = int(town.url.rpartition(":")[2]), 0
            clients = [await town.kit.enrol(name) for name in town.names]
            slow = await town.message(clients[0])
            path = f"/v1/runs/{RUN}/rounds/{number}/updates"
            head = posting(path, "application/vnd.matl.update", len(slow))
            socket = b"GET /v1/ws HTTP/1.1\r\nHost: here\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            socket += b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
            drippers = [
                Dripping(port, b"POST " + path.encode() + b" HTTP/1.1\r\nHost: here\r\nX-Slow: "),
                Dripping(port, head + slow[:100], b" "),
                Dripping(port, head + slow[:-1000], b"\0"),
                Dripping(port, posting("/v1/sessions", "application/json", 1000), b" "),
                Dripping(port, socket + b"\x82\xfe\x10\x00mask", b"\0"),
                Dripping(int(town.grpc_url.rpartition(":")[2]), b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", b"\0"),
            ]
            tasks = [asyncio.create_task(each.drip()) for each in drippers]
            while not all(each.sent for each in drippers):
                await asyncio.sleep(0.01)
            began = time.monotonic()
            for client in clients[1:4]:
                await town.acknowledged(await town.message(client), client, number)
            ended = await town.round_of(number)
            assert (ended.status, ended.accepted) == ("committed", 3)
            assert time.monotonic() - began < 2.0 + 3.0
            held = [number for number, task in enumerate(tasks) if not task.done()]
            assert {0, 1, 2, 3} <= set(held)
            began = time.monotonic()
        assert time.monotonic() - began < 3.0 + 4.0  # what requests are given to end, and a busy machine
        async with asyncio.timeout(5):
            await asyncio.gather(*tasks)

    asyncio.run(story())
    town.check()
    assert not list((tmp_path / "blobs" / "new").iterdir())


# Kills -----------------------------------------------------------------------------------------------------------


def test_a_round_that_is_cut_off_again_and_again_comes_to_the_same_model(tmp_path, monkeypatch):
    settings = {**settings_of(rounds=2, deadline=60.0), "mode": "mode1"}
    coordinator, ledger, note = case.Coordinator(tmp_path, {RUN: settings}), case.Ledger(), tmp_path / "halted"
    monkeypatch.setattr(case, "MATL", [sys.executable, str(Path(halting.__file__))])
    monkeypatch.setenv("MATL_TEST_HALTED", str(note))
    came_to = []

    async def story():
        monkeypatch.setenv("MATL_TEST_HALT", halting.PLACES[0])
        coordinator.start()
        async with members_of(coordinator, ledger):
            for place in halting.PLACES:
                await until(note.exists)
                await asyncio.to_thread(coordinator.kill)
                came_to.append(note.read_text())
                note.unlink()
                row, updates = await stored(coordinator.store_url, 0)
                assert row.status == ("committed" if place == "after the commit" else "judging")
                assert len(updates) == 5
                following = (*halting.PLACES[1:], "")
                monkeypatch.setenv("MATL_TEST_HALT", following[halting.PLACES.index(place)])
                await asyncio.to_thread(coordinator.start)
            await until(lambda: len(ledger.acknowledged) == 10)

    try:
        asyncio.run(story())
    finally:
        coordinator.stop()
    row, _ = asyncio.run(stored(coordinator.store_url, 0))
    assert came_to == [f"{row.seed} {row.next_model_hash}"] * 3
    found = case.check(coordinator.store_url, settings, ledger)
    assert (found.problems, found.acknowledged) == ([], 10)
