"""Disks that are full or gone, databases that are down, clocks that are wrong: nothing is lost, nothing counts twice.

Ends of processes, and clients that drip, are in `tests.network.test_endings`.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import logging
import os
import re
import threading
import time
from datetime import UTC, datetime, timedelta

import fsspec
import pytest
from fsspec.implementations.memory import MemoryFileSystem
from tests.network.outages import PATIENCE, RUN, Member, Town, busy

from matl.coordinator import service as service_module
from matl.coordinator.rounds import series as rounds
from matl.coordinator.storage import blob_places
from matl.coordinator.storage.rows import EventRow
from matl.errors import ServiceError
from matl.protocol.messages import Acknowledgement

NO_SPACE = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


class Gate:
    """Stops the judge before it begins, until it is opened."""

    def __init__(self, monkeypatch):
        self.reached, self.open = threading.Event(), threading.Event()
        judge = rounds.judge_here

        def judging(*args, **kwargs):
            self.reached.set()
            assert self.open.wait(PATIENCE)
            return judge(*args, **kwargs)

        monkeypatch.setattr(rounds, "judge_here", judging)

    async def until_reached(self):
        assert await asyncio.to_thread(self.reached.wait, PATIENCE)


async def all_sent(town):
    """Every client by hand, once."""
    for name in town.names:
        client = town.kit.clients.get(name) or await town.kit.enrol(name)
        number = await town.open_round()
        assert not await town.acknowledged(await town.message(client), client, number)


# The disk --------------------------------------------------------------------------------------------------------


class Disk:
    """The disk of the blobs, which can be full."""

    def __init__(self, monkeypatch):
        self.full = False
        write = blob_places._File.write

        def writing(file, data):
            if self.full:
                raise NO_SPACE
            write(file, data)

        monkeypatch.setattr(blob_places._File, "write", writing)


async def pages(town, most):
    """Let the file of the database have so many pages at most."""

    def limit(connection):
        return connection.exec_driver_sql(f"PRAGMA max_page_count={most}").scalar()

    await town.service.store.database.write(limit)


async def no_room(town):
    """Let the file of the database grow no further, and use up what is free in it."""
    await pages(town, 1)  # as many as there are
    large = EventRow(at=0.0, kind="filler", run="", round=0, data={"text": "x" * 3000})

    async def use_up():
        while True:
            await town.service.store.publish([large])

    with pytest.raises(ServiceError, match="the database is full"):
        await use_up()


def test_a_disk_of_blobs_that_is_full_while_updates_arrive(tmp_path, monkeypatch):
    town, disk = Town.of(tmp_path, rounds=5), Disk(monkeypatch)

    async def story():
        async with town.open():
            ann = await town.kit.enrol("client-9")
            async with town.clients() as members:
                await town.round_of(0)
                disk.full = True
                await asyncio.sleep(0.2)  # what was written before may be acknowledged yet
                told, before = None, len(town.ledger.acknowledged)
                for _ in range(10):
                    number = (await town.service.current_round(ann.caller, RUN)).number
                    answer = await town.post(await town.message(ann), number)
                    if answer.status_code == 503 and answer.json()["reason"] == "blobs":
                        told = busy(answer)["message"]
                    await asyncio.sleep(0.1)
                assert told == "the disk of the blobs is full: free some space"
                assert len(town.ledger.acknowledged) == before
                assert not list((tmp_path / "blobs" / "new").iterdir())
                disk.full = False
                await town.over()
            assert all(member.sent >= 3 for member in members)

    asyncio.run(story())
    town.check()


async def command(town, *statements):
    """What the database does for whoever owns it."""

    def run(connection):
        for statement in statements:
            connection.exec_driver_sql(statement)

    await town.service.store.database.write(run)


async def no_room_on_the_server(town):
    """Let PostgreSQL say of every update what it says when its disk is full."""
    await command(
        town,
        "CREATE FUNCTION full_disk() RETURNS trigger LANGUAGE plpgsql AS "
        "$$ BEGIN RAISE 'could not extend file: No space left on device' USING ERRCODE = 'disk_full'; END $$",
        "CREATE TRIGGER full_disk BEFORE INSERT ON updates FOR EACH ROW EXECUTE FUNCTION full_disk()",
    )


def test_a_database_that_is_full_while_updates_arrive(tmp_path, database_url):
    clients = 16  # more than find room in the pages that are there
    terms = {"clients": clients, "rounds": 2, "quorum": clients, "deadline": None}
    town = Town.of(tmp_path, changes={"database": database_url}, **terms)
    sqlite = database_url.startswith("sqlite")

    async def story():
        async with town.open():
            everybody = [await town.kit.enrol(name) for name in town.names]
            messages = [await town.message(client) for client in everybody]
            await (no_room(town) if sqlite else no_room_on_the_server(town))

            async def send(client, message):
                """Whether it is taken; if not, it is said why and when to come again."""
                answer = await town.post(message, 0)
                if answer.status_code == 202:
                    told = Acknowledgement.model_validate_json(answer.content)
                    town.ledger.note(told.round, client.id, told.payload_sha256)
                    return True
                refusals.append(busy(answer))
                return False

            # Who finds room is taken, at whatever attempt, and then counts; the others are refused again and again.
            taken, refusals = set(), []
            for _ in range(3):
                answers = await asyncio.gather(*map(send, everybody, messages))
                taken |= {client.id for client, counts in zip(everybody, answers, strict=True) if counts}
                stored = await town.service.store.updates(RUN, 0)
                assert {row.client for row in stored} == taken
                assert len(taken) < clients
            assert {told["reason"] for told in refusals} <= {"database", "between_rounds"}
            assert "the database is full: free some space on its disk" in {told["message"] for told in refusals}
            assert (await town.service.round(town.kit.admin, RUN, 0)).status == "open"
            await (pages(town, 100_000) if sqlite else command(town, "DROP TRIGGER full_disk ON updates"))
            for client, message in zip(everybody, messages, strict=True):
                assert await town.acknowledged(message, client, 0) == (client.id in taken)
            ended = await town.round_of(0)
            assert (ended.status, ended.accepted) == ("committed", clients)
            await all_sent(town)
            await town.over()

    asyncio.run(story())
    assert town.check().counted == 2 * clients


@pytest.mark.parametrize("which", ["database", "blobs", "scratch"])
def test_a_disk_that_is_full_when_a_round_is_committed(tmp_path, monkeypatch, caplog, which):
    town, disk, gate = Town.of(tmp_path, rounds=2), Disk(monkeypatch), Gate(monkeypatch)
    caplog.set_level(logging.WARNING, "matl.coordinator")
    allocate = os.posix_fallocate

    def nothing_left(*_):
        raise NO_SPACE

    async def story():
        async with town.open():
            await all_sent(town)
            await gate.until_reached()
            if which == "database":
                await no_room(town)
            elif which == "blobs":
                disk.full = True
            else:
                monkeypatch.setattr(os, "posix_fallocate", nothing_left)
                monkeypatch.setattr(rounds, "_AGAIN", 1.0)
            gate.open.set()
            await asyncio.sleep(1.5)
            assert (await town.service.round(town.kit.admin, RUN, 0)).status == "judging"
            words = {
                "database": "the database is full: free some space",
                "blobs": "the disk of the blobs is full: free some space",
                "scratch": "No space left on device; free some space",
            }
            assert words[which] in caplog.text
            await pages(town, 100_000)
            disk.full = False
            monkeypatch.setattr(os, "posix_fallocate", allocate)
            ended = await town.round_of(0)
            assert (ended.status, ended.accepted) == ("committed", len(town.names))
            await all_sent(town)
            await town.over()

    asyncio.run(story())
    assert town.check().counted == 2 * len(town.names)


# The database ----------------------------------------------------------------------------------------------------


def test_a_database_that_is_down_for_a_while(tmp_path, monkeypatch, postgres, postgres_url):
    town = Town.of(tmp_path, rounds=6, changes={"database": postgres_url})
    monkeypatch.setattr(service_module, "_TIDY", 0.3)  # seconds

    async def story():
        async with town.open():
            ann = await town.kit.enrol("client-9")
            async with town.clients() as members:
                await town.round_of(1)
                await asyncio.to_thread(postgres.stop)
                stopped = time.monotonic()
                number = (await town.service.current_round(ann.caller, RUN)).number
                told = busy(await town.post(await town.message(ann), number))
                assert (told["message"], told["reason"]) == ("the database is down", "database")
                await asyncio.sleep(10 - (time.monotonic() - stopped))
                with pytest.raises(ServiceError, match="the database is down"):
                    await town.service.ready()
                assert await asyncio.to_thread(postgres.start)
                await town.over()
                await town.service.ready()
            assert all(member.sent >= 3 for member in members)

    asyncio.run(story())
    town.check()


# The blobs -------------------------------------------------------------------------------------------------------


class Bucket(MemoryFileSystem):
    """A store elsewhere, which fails in words of its own."""

    protocol = "outage"
    store: dict = {}  # noqa: RUF012
    pseudo_dirs = [""]  # noqa: RUF012
    down = False

    def _open(self, *args, **kwargs):
        self._reach()
        return super()._open(*args, **kwargs)

    def info(self, path, **kwargs):
        self._reach()
        return super().info(path, **kwargs)

    def cat_file(self, path, **kwargs):
        self._reach()
        return super().cat_file(path, **kwargs)

    def _reach(self):
        if Bucket.down:
            raise RuntimeError("EndpointConnectionError: could not connect to the endpoint URL")


fsspec.register_implementation("outage", Bucket, clobber=True)


class Away:
    """The place of the blobs, which can be out of reach: a disk that is not mounted, a store that does not answer."""

    def __init__(self, kind, folder):
        self.kind, self.folder = kind, folder / "blobs"
        self.url = str(self.folder) if kind == "folder" else f"outage://{folder.name}"

    @contextlib.contextmanager
    def away(self):
        if self.kind == "folder":
            self.folder.rename(self.folder.with_name("elsewhere"))
        Bucket.down = True
        try:
            yield
        finally:
            Bucket.down = False
            if self.kind == "folder":
                self.folder.with_name("elsewhere").rename(self.folder)


@pytest.fixture(params=["folder", "bucket"])
def place(request, tmp_path):
    return Away(request.param, tmp_path)


def test_blobs_that_are_out_of_reach_while_updates_arrive(tmp_path, place):
    town = Town.of(tmp_path, rounds=4, changes={"blobs": place.url})

    async def story():
        async with town.open():
            ann = await town.kit.enrol("client-9")
            async with town.clients() as members:
                await town.round_of(0)
                with place.away():
                    told = []
                    for _ in range(10):
                        number = (await town.service.current_round(ann.caller, RUN)).number
                        answer = await town.post(await town.message(ann), number)
                        if answer.status_code != 409:  # the round ended meanwhile
                            told.append(busy(answer))
                        await asyncio.sleep(0.1)
                    assert any("the blobs are out of reach" in each["message"] for each in told)
                    assert {each["reason"] for each in told} <= {"blobs", "between_rounds"}
                    with pytest.raises(ServiceError, match="the blobs are out of reach"):
                        await town.service.ready()
                await town.over()
            assert all(member.sent >= 2 for member in members)

    asyncio.run(story())
    town.check()


def test_blobs_that_are_out_of_reach_while_a_round_is_judged(tmp_path, monkeypatch, place):
    town, gate = Town.of(tmp_path, rounds=1, changes={"blobs": place.url}), Gate(monkeypatch)
    monkeypatch.setattr(rounds, "_AGAIN", 0.3)

    async def story():
        async with town.open():
            await all_sent(town)
            await gate.until_reached()
            with place.away():
                gate.open.set()
                await asyncio.sleep(1)
                assert (await town.service.round(town.kit.admin, RUN, 0)).status == "judging"
            ended = await town.round_of(0)
            assert (ended.status, ended.accepted) == ("committed", len(town.names))

    asyncio.run(story())
    assert town.check().counted == len(town.names)


def test_a_folder_of_blobs_that_was_away_for_a_moment_is_no_reason_for_a_round_to_fail(tmp_path, monkeypatch):
    town, place, calls = Town.of(tmp_path, rounds=1), Away("folder", tmp_path), []
    monkeypatch.setattr(rounds, "_AGAIN", 0.3)
    judge = rounds.judge_here

    def judging(*args, **kwargs):
        calls.append(args)
        with place.away() if len(calls) == 1 else contextlib.nullcontext():
            return judge(*args, **kwargs)

    monkeypatch.setattr(rounds, "judge_here", judging)

    async def story():
        async with town.open():
            await all_sent(town)
            ended = await town.round_of(0)
            assert (ended.status, ended.accepted, ended.reason) == ("committed", len(town.names), "")

    asyncio.run(story())
    assert len(calls) == 2
    assert town.check().counted == len(town.names)


# Clocks ----------------------------------------------------------------------------------------------------------

HOUR = 3600.0


@pytest.mark.parametrize("jump", [HOUR, -HOUR], ids=["ahead", "back"])
def test_the_clock_of_the_coordinator_jumps_and_comes_back(tmp_path, jump):
    town = Town.of(tmp_path, rounds=1, deadline=2.5)
    clock = town.kit.clock

    async def story():
        async with town.open():
            ann, bob, cid, dan = [await town.kit.enrol(name) for name in town.names[:4]]
            opened = time.monotonic()
            first = await town.message(ann)
            assert not await town.acknowledged(first, ann, 0)
            clock.ahead = jump
            refused = await town.post(await town.message(bob), 0)
            told = refused.json()
            assert (refused.status_code, told["reason"]) == (401, "expired" if jump > 0 else "future")
            # One that was counted is known, by whatever clock.
            assert await town.acknowledged(first, ann, 0)
            # Nor does it matter to the round: it is neither over, nor is its end put off.
            by_that_clock = {"clock": clock}
            assert not await town.acknowledged(await town.message(dan, **by_that_clock), dan, 0)
            clock.ahead = 0.0
            assert await town.acknowledged(first, ann, 0)
            assert not await town.acknowledged(await town.message(cid), cid, 0)
            clock.ahead = jump
            ended = await town.round_of(0)
            assert time.monotonic() - opened < 10
            assert 2.5 <= (ended.ended_at - ended.opened_at).total_seconds() < 10
            assert (ended.status, ended.accepted, ended.reason) == ("committed", 3, "")
            clock.ahead = 0.0
            late = await town.post(first, 0)
            assert late.status_code == 202
            assert late.json()["duplicate"]

    asyncio.run(story())
    assert town.check().counted == 3


def test_a_clock_that_runs_backwards_keeps_no_failure_from_being_mended(tmp_path, monkeypatch, caplog):
    town, disk, gate = Town.of(tmp_path, rounds=1), Disk(monkeypatch), Gate(monkeypatch)

    async def story():
        async with town.open():
            await all_sent(town)
            await gate.until_reached()
            disk.full = True
            gate.open.set()
            while "the disk of the blobs is full" not in caplog.text:
                await asyncio.sleep(0.05)
            town.kit.clock.ahead = -HOUR
            disk.full = False
            assert (await town.round_of(0)).status == "committed"

    asyncio.run(story())
    town.check()


@pytest.mark.parametrize(("minutes", "words"), [(5, "300 s ahead of"), (-15, "900 s behind")])
def test_a_client_whose_clock_is_wrong_is_told_so_and_keeps_its_update(tmp_path, minutes, words):
    town = Town.of(tmp_path, rounds=1, quorum=1, deadline=60.0)
    off = timedelta(0)

    def clock():
        return datetime.now(UTC) + off

    async def story():
        nonlocal off
        async with town.open():
            member = Member(town.ledger, town.url, client_id="client-0", folder=tmp_path / "client-0", clock=clock)
            async with member:
                invitation = await town.invitation()
                await member.join(invitation)
                off = timedelta(minutes=minutes)
                with pytest.raises(ServiceError) as caught:
                    await member.take_part(invitation)
                assert caught.value.reason in ("future", "expired")
                said = str(caught.value)
                assert f"This machine's clock is {words} the coordinator's: set it, for example with NTP" in said
                times = re.search(r"here it is ([0-9: -]{19}), there ([0-9: -]{19}) .UTC.", said)
                here, there = (datetime.fromisoformat(each) for each in times.groups())
                assert abs(here - there - off) <= timedelta(seconds=1)
                assert member.waiting == 1
                off = timedelta(0)  # somebody sets it
                assert len(await member.flush()) == 1
            await town.service.live(RUN).hurry(town.service.live(RUN).round.number)
            assert (await town.round_of(0)).accepted == 1

    asyncio.run(story())
    assert town.check().acknowledged == 1


def test_a_clock_that_is_five_minutes_slow_is_borne(tmp_path):
    town = Town.of(tmp_path, rounds=1)

    async def story():
        async with town.open(), town.clients(clock=lambda: datetime.now(UTC) - timedelta(minutes=5)):
            await town.over()

    asyncio.run(story())
    assert town.check().counted == len(town.names)


# Mistakes --------------------------------------------------------------------------------------------------------


def test_a_mistake_of_ours_in_tidying_up_keeps_no_deadline_from_coming(tmp_path, monkeypatch, caplog):
    town = Town.of(tmp_path, rounds=1, quorum=1, deadline=1.0)
    monkeypatch.setattr(service_module, "_TIDY", 0.05)

    async def broken(*_, **__):
        raise RuntimeError("nobody thought of this")

    async def story():
        async with town.open():
            monkeypatch.setattr(town.service.store, "prune", broken)
            ann = await town.kit.enrol("client-0")
            await town.acknowledged(await town.message(ann), ann, 0)
            await asyncio.sleep(0.5)
            assert "nobody thought of this" in caplog.text
            await town.service.ready()
            assert (await town.round_of(0)).status == "committed"

    asyncio.run(story())
    town.check()
