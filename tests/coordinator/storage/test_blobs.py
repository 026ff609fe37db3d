"""Blobs in a folder and in a bucket."""

from __future__ import annotations

import asyncio
import errno
import hashlib
import os
import stat
import uuid
from collections.abc import AsyncIterator, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import fsspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from matl.coordinator.storage import blob_places
from matl.coordinator.storage.blobs import Blobs
from matl.errors import InvalidValueError, ServiceError, StateError, StorageError

DATA = bytes(range(256)) * 9000  # more than two pieces
NAME = hashlib.sha256(DATA).hexdigest()


async def chunks(data: bytes, size: int = 70_000) -> AsyncIterator[bytes]:
    for start in range(0, len(data), size):
        yield data[start : start + size]


@pytest.fixture(params=["folder", "url", "bucket"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "bucket":
        name = uuid.uuid4().hex
        yield f"memory://{name}/prefix"
        system = fsspec.filesystem("memory")
        if system.exists(f"/{name}"):
            system.rm(f"/{name}", recursive=True)
    else:
        yield str(tmp_path / "blobs") if request.param == "folder" else f"file://{tmp_path}/blobs"


def names(url: str) -> set[str]:
    """All files below a place, as paths within it."""
    system, root = fsspec.core.url_to_fs(url)
    return {name.removeprefix(root).strip("/") for name in system.find(root)} if system.exists(root) else set()


async def refusal(call: Any) -> tuple[str, str]:
    with pytest.raises(ServiceError) as caught:
        await call
    return caught.value.code, caught.value.reason


def test_a_blob_comes_back(url: str) -> None:
    async def check() -> None:
        blobs = Blobs(url)
        assert not await blobs.exists(NAME)
        await blobs.write(chunks(DATA), expected_sha256=NAME, size=len(DATA))
        assert await blobs.exists(NAME)
        assert await blobs.size(NAME) == len(DATA)
        assert await blobs.read(NAME) == DATA
        assert b"".join([piece async for piece in blobs.stream(NAME)]) == DATA
        assert b"".join([piece async for piece in blobs.stream(NAME, 5, 2_000_000)]) == DATA[5:2_000_000]
        assert b"".join([piece async for piece in blobs.stream(NAME, 2_300_000, 9_999_999)]) == DATA[2_300_000:]
        assert await blobs.put(DATA) == NAME  # a second time
        assert await blobs.put(b"") == hashlib.sha256(b"").hexdigest()
        assert names(url) == {
            f"{NAME[:2]}/{NAME}",
            "e3/e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        }
        path = blobs.path(NAME)
        assert (path is None) == url.startswith("memory")
        assert path is None or path.read_bytes() == DATA
        await blobs.delete(NAME)
        await blobs.delete(NAME)
        assert not await blobs.exists(NAME)

    asyncio.run(check())


def test_what_is_not_there(url: str) -> None:
    async def check() -> None:
        blobs = Blobs(url)
        assert await refusal(blobs.read(NAME)) == ("not_found", "not_found")
        assert await refusal(blobs.size(NAME)) == ("not_found", "not_found")
        assert await refusal(anext(blobs.stream(NAME))) == ("not_found", "not_found")
        assert await refusal(blobs.finish("u1", NAME)) == ("not_found", "not_found")
        await blobs.discard("u1")

    asyncio.run(check())


@pytest.mark.parametrize(
    ("sent", "size", "reason"),
    [(DATA[:-1], len(DATA), "payload_bytes"), (DATA + b"x", len(DATA), "payload_bytes"), (b"", 5, "payload_bytes"),
     (DATA[:-1] + b"x", len(DATA), "payload_hash")],
)  # fmt: skip
def test_what_is_not_as_announced_leaves_nothing(url: str, sent: bytes, size: int, reason: str) -> None:
    async def check() -> None:
        call = Blobs(url).write(chunks(sent), expected_sha256=NAME, size=size)
        assert await refusal(call) == ("invalid", reason)
        assert names(url) == set()

    asyncio.run(check())


def test_no_more_is_taken_than_was_announced(url: str) -> None:
    taken = 0

    async def endless() -> AsyncIterator[bytes]:
        nonlocal taken
        while True:
            taken += 1
            yield bytes(1000)

    async def check() -> None:
        assert await refusal(Blobs(url).write(endless(), expected_sha256=NAME, size=5000)) == (
            "invalid",
            "payload_bytes",
        )
        assert await refusal(Blobs(url).append("u1", 0, endless(), limit=5000)) == ("invalid", "payload_bytes")

    asyncio.run(check())
    assert taken == 12


def test_a_sender_that_breaks_off_leaves_nothing(url: str) -> None:
    async def breaks() -> AsyncIterator[bytes]:
        yield DATA
        raise ConnectionResetError("gone")

    async def hangs(started: asyncio.Event) -> AsyncIterator[bytes]:
        yield DATA
        started.set()
        await asyncio.sleep(3600)

    async def check() -> None:
        blobs = Blobs(url)
        with pytest.raises(ConnectionResetError):
            await blobs.write(breaks(), expected_sha256=NAME, size=len(DATA) + 1)
        started = asyncio.Event()
        task = asyncio.create_task(blobs.write(hangs(started), expected_sha256=NAME, size=len(DATA) + 1))
        await started.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert names(url) == set()

    asyncio.run(check())


def test_a_writer_that_is_cancelled_at_any_moment_leaves_nothing_or_all(url: str) -> None:
    async def check() -> None:
        blobs = Blobs(url)
        for turn in range(12):
            task = asyncio.create_task(blobs.write(chunks(DATA), expected_sha256=NAME, size=len(DATA)))
            for _ in range(turn * 3):
                await asyncio.sleep(0.0002)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            assert names(url) <= {f"{NAME[:2]}/{NAME}"}
            if await blobs.exists(NAME):
                assert await blobs.read(NAME) == DATA
                await blobs.delete(NAME)

    asyncio.run(check())


def test_an_upload_grows_by_pieces_and_becomes_a_blob(url: str) -> None:
    async def lost() -> AsyncIterator[bytes]:
        yield DATA[1_000_000:1_500_000]
        raise ConnectionResetError

    async def check() -> None:
        blobs = Blobs(url)
        assert await blobs.append("u1", 0, chunks(DATA[:700_000]), limit=len(DATA)) == 700_000
        assert await blobs.append("u1", 700_000, chunks(DATA[700_000:1_000_000])) == 1_000_000
        with pytest.raises(ConnectionResetError):
            await blobs.append("u1", 1_000_000, lost())
        # Written, and forgotten before it was acknowledged; the client repeats less of it, and then the rest.
        await blobs.append("u1", 1_000_000, chunks(bytes(len(DATA))))
        assert await blobs.append("u1", 1_000_000, chunks(DATA[1_000_000:1_100_000])) == 1_100_000
        other = Blobs(url)  # the process began again
        assert await other.append("u1", 1_100_000, chunks(DATA[1_100_000:]), limit=len(DATA)) == len(DATA)
        assert not await other.exists(NAME)
        await other.finish("u1", NAME)
        assert names(url) == {f"{NAME[:2]}/{NAME}"}
        assert await other.read(NAME) == DATA
        assert await refusal(other.finish("u1", NAME)) == ("not_found", "not_found")  # it is one already
        assert await other.read(NAME) == DATA

    asyncio.run(check())


def test_an_upload_of_other_bytes_is_no_blob(url: str) -> None:
    async def check() -> None:
        blobs = Blobs(url)
        await blobs.append("u1", 0, chunks(b"something else"))
        assert await refusal(blobs.finish("u1", NAME)) == ("invalid", "payload_hash")
        assert not await blobs.exists(NAME)
        await blobs.discard("u1")
        assert names(url) == set()

    asyncio.run(check())


def test_a_piece_cannot_follow_one_that_is_not_there(tmp_path: Path) -> None:
    assert asyncio.run(refusal(Blobs(tmp_path).append("u1", 5, chunks(b"abc")))) == ("not_found", "not_found")


@settings(max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=60), cuts=st.lists(st.integers(0, 60)), again=st.sets(st.integers(0, 60)))
def test_an_upload_in_any_pieces(tmp_path: Path, data: bytes, cuts: list[int], again: set[int]) -> None:
    """Also when pieces are sent twice, and when what was sent first was longer."""
    edges = [0, *sorted({cut for cut in cuts if 0 < cut < len(data)}), len(data)]

    async def check(blobs: Blobs, upload: str) -> None:
        for start, stop in pairwise(edges):
            if start in again:
                await blobs.append(upload, start, chunks(bytes(70)))
            assert await blobs.append(upload, start, chunks(data[start:stop], 7)) == stop
        name = hashlib.sha256(data).hexdigest()
        await blobs.finish(upload, name)
        assert await blobs.read(name) == data

    for place in (Blobs("memory://pieces"), Blobs(tmp_path)):
        asyncio.run(check(place, uuid.uuid4().hex))


def test_a_damaged_blob_is_not_read(tmp_path: Path) -> None:
    async def check() -> None:
        blobs = Blobs(tmp_path)
        name = await blobs.put(b"model")
        path = blobs.path(name)
        assert path is not None
        path.write_bytes(b"modem")
        with pytest.raises(StateError, match=f"blob {name} is damaged"):
            await blobs.read(name)

    asyncio.run(check())


@pytest.mark.parametrize("step", ["write", "fsync", "replace"])
def test_a_full_disk_is_said_and_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: str) -> None:
    def full(*args: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    async def check() -> None:
        blobs = Blobs(tmp_path)
        with monkeypatch.context() as patch:
            if step == "write":
                patch.setattr(blob_places._File, "write", full)
            elif step == "fsync":
                patch.setattr(os, "fsync", full)
            else:
                patch.setattr(Path, "replace", full)
            with pytest.raises(ServiceError, match="the disk of the blobs is full: free some space") as caught:
                await blobs.put(DATA)
            assert (caught.value.code, caught.value.reason) == ("busy", "blobs")
            assert names(str(tmp_path)) == set()
        assert await blobs.put(DATA) == NAME

    asyncio.run(check())


def test_a_folder_that_is_gone_is_out_of_reach(tmp_path: Path) -> None:
    async def check() -> None:
        blobs = Blobs(tmp_path / "blobs")
        name = await blobs.put(b"another")
        (tmp_path / "blobs").rename(tmp_path / "gone")
        for call in (blobs.put(b"model"), blobs.read(name), blobs.exists(name), blobs.append("u", 0, chunks(b"x"))):
            assert await refusal(call) == ("busy", "blobs")
        assert not (tmp_path / "blobs").exists()  # and nothing takes its place
        (tmp_path / "blobs").write_text("a file")
        assert await refusal(blobs.put(b"model")) == ("busy", "blobs")

    asyncio.run(check())


@pytest.mark.parametrize("name", ["", "../../etc/passwd", NAME.upper(), NAME + "\n", "ab/" + NAME[:61]])
def test_names_cannot_lead_elsewhere(tmp_path: Path, name: str) -> None:
    async def check() -> None:
        blobs = Blobs(tmp_path)
        for call in (
            blobs.read(name),
            blobs.delete(name),
            blobs.append(name + "/", 0, chunks(b"")),
            blobs.discard(".."),
        ):
            with pytest.raises(InvalidValueError, match="expected a name like"):
                await call
        with pytest.raises(InvalidValueError, match="expected a name like"):
            blobs.path(name)

    asyncio.run(check())


def test_addresses_that_cannot_be_used(tmp_path: Path) -> None:
    with pytest.raises(InvalidValueError, match="blobs cannot lie in 'carrier-pigeon'://"):
        Blobs("carrier-pigeon://loft")
    (tmp_path / "file").write_text("")
    with pytest.raises(StorageError, match="a file stands where a folder is needed"):
        Blobs(tmp_path / "file")


def test_what_a_crash_left_behind_goes_away_in_time(tmp_path: Path) -> None:
    Blobs(tmp_path)
    for kind in ("new", "uploads"):
        old, new = tmp_path / kind / "old", tmp_path / kind / "new"
        for path in (old, new):
            path.write_bytes(b"half")
        os.utime(old, (0, 0))
        Blobs(tmp_path)
        assert (old.exists(), new.exists()) == (False, True)


def test_updates_are_for_their_owner_alone(tmp_path: Path) -> None:
    async def check() -> None:
        blobs = Blobs(tmp_path)
        name = await blobs.put(b"an update")
        await blobs.append("u", 0, chunks(b"a piece"))
        for path in (blobs.path(name), tmp_path / "uploads" / "u"):
            assert path is not None
            assert stat.S_IMODE(path.stat().st_mode) == 0o600

    asyncio.run(check())
