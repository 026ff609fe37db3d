"""Backups of a store in use, their restoration, and what is refused."""

from __future__ import annotations

import asyncio
import json
import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from tests.coordinator.postgres import Server
from tests.coordinator.samples import (
    event_row,
    open_store,
    phase_row,
    round_row,
    run_row,
    sha,
    update_row,
    upload_row,
    verdict_row,
)

from matl.coordinator.storage import backup as backup_module
from matl.coordinator.storage.backup import BackupSummary, backup, restore, verify
from matl.coordinator.storage.blobs import Blobs
from matl.coordinator.storage.rows import RoundStatus
from matl.coordinator.storage.schema import METADATA, doomed_blobs
from matl.coordinator.storage.store import Store
from matl.errors import MatlError, ServiceError, StateError, StorageError


async def fill(url: str, blobs: Blobs) -> Store:
    """A store with something in every table, and its blobs."""
    names = {
        text: await blobs.put(text.encode()) for text in ("state 0", "state 1", "model 0", "model 1", "alice", "bob")
    }
    store = await Store.open(url)
    run = run_row(state=names["state 0"])
    await store.create_run(run, [event_row("run_started")], models={run.model_hash: (names["model 0"], 7)})
    await store.open_round(round_row(), [event_row("round_opened", data={"x": 0.1 + 0.2})])
    for client, floor in (("alice", -1), ("bob", 5)):
        update = update_row(client, payload_sha256=names[client])
        await store.accept(update, machine={"n": 1}, floor=floor)
    await store.reject(update_row("eve", accepted=False, code="shape", reason="\x00 ü"))
    await store.close_round("run", 0, seed=2**100, machine={}, at=2.5)
    ended = round_row(status=RoundStatus.COMMITTED, ended_at=3.0, next_model_hash=sha("model 1"))
    after = run_row(round=1, state=names["state 1"], model_hash=sha("model 1"))
    verdicts = [verdict_row("alice", evidence={"x": math.nan}), verdict_row("bob", score=None, receipt=None)]
    models = {sha("model 1"): (names["model 1"], 7)}
    await store.end_round(ended, run=after, verdicts=verdicts, models=models)
    await store.open_round(round_row(number=1))
    await store.keep_phase_message(phase_row(round=1), machine={"n": 2})
    await store.put_document("roster", {"secret": b"\x00\xff"}, expected_version=0)
    await store.create_upload(upload_row())
    await store.database.write(lambda connection: connection.execute(doomed_blobs.insert().values(blob=sha("gone"))))
    await store.publish([event_row("many")] * 600)  # more than are read at once
    return store


async def content(store: Store) -> dict[str, list[str]]:
    """Every row of every table."""

    def read(connection: sa.Connection) -> dict[str, list[str]]:
        return {
            name: sorted(map(repr, connection.execute(sa.select(table)))) for name, table in METADATA.tables.items()
        }

    return await store.database.read(read)


def made(tmp_path: Path, url: str) -> BackupSummary:
    async def make() -> BackupSummary:
        blobs = Blobs(tmp_path / "blobs")
        async with await fill(url, blobs) as store:
            return await backup(store, blobs, tmp_path / "backup")

    return asyncio.run(make())


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, BackupSummary]:
    """A backup to be copied and spoiled."""
    folder = tmp_path_factory.mktemp("finished")
    return folder / "backup", made(folder, f"sqlite:///{folder}/matl.sqlite")


@pytest.fixture
def spoilt(finished: tuple[Path, BackupSummary], tmp_path: Path) -> tuple[Path, BackupSummary]:
    """A copy of it."""
    return shutil.copytree(finished[0], tmp_path / "backup"), finished[1]


@pytest.fixture(params=["sqlite", "postgresql"])
def other_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """Another database, of either kind."""
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/other.sqlite"
    return request.getfixturevalue("postgres").create()  # type: ignore[no-any-return]


def test_a_restored_store_is_the_same(tmp_path: Path, database_url: str, other_url: str) -> None:
    async def check() -> None:
        blobs = Blobs(tmp_path / "blobs")
        async with await fill(database_url, blobs) as store:
            summary = await backup(store, blobs, tmp_path / "backup")
            before = await content(store)
            needed = await store.referenced_blobs()
        assert (summary.rows, summary.blobs) == (sum(map(len, before.values())), 6)
        assert all(before.values())  # every table has rows
        assert await verify(tmp_path / "backup", digest=summary.digest) == summary
        again = Blobs(f"memory://{tmp_path.name}")
        assert await restore(tmp_path / "backup", other_url, f"memory://{tmp_path.name}") == summary
        async with await Store.open(other_url) as store:
            assert await content(store) == before
            assert await store.referenced_blobs() == needed
            for name in needed:
                assert await again.read(name) == await blobs.read(name)
            last = len(await store.events(limit=10_000))
            assert await store.publish([event_row("next")]) == last + 1

    asyncio.run(check())


def test_a_backup_is_for_its_owner_and_leaves_nothing_beside_it(tmp_path: Path, sqlite_url: str) -> None:
    made(tmp_path, sqlite_url)
    assert (tmp_path / "backup").stat().st_mode & 0o777 == 0o700
    assert {path.name for path in tmp_path.iterdir() if "matl" not in path.name} == {"backup", "blobs"}


def test_a_backup_shows_one_moment_while_others_write(tmp_path: Path, database_url: str) -> None:
    """Every round has as many updates as its count says, and every update has its nonce."""

    async def check() -> None:
        blobs = Blobs(tmp_path / "blobs")
        async with await open_store(database_url) as store:
            for text in ("state 0", "blob 0"):
                await blobs.put(text.encode())
            stop = asyncio.Event()

            async def write() -> int:
                number = 0
                while not stop.is_set():
                    client = f"c{number}"
                    payload = await blobs.put(client.encode())
                    update = update_row(client, payload_sha256=payload)
                    await store.accept(update, machine={"n": number}, floor=-1, events=[event_row("took")])
                    number += 1
                return number

            writer = asyncio.create_task(write())
            backups = []
            for number in range(4):
                await asyncio.sleep(0.05)
                backups.append(tmp_path / f"backup {number}")
                await backup(store, blobs, backups[-1])
            stop.set()
            assert await writer > 10
        counts = []
        for number, source in enumerate(backups):
            url = f"sqlite:///{tmp_path}/restored{number}.sqlite"
            await restore(source, url, tmp_path / f"restored{number}")
            async with await Store.open(url) as store:
                state = await store.round("run", 0)
                assert state is not None
                clients = {update.client for update in await store.updates("run", 0)}
                assert state.accepted == len(clients)
                assert set((await store.nonces())["seen"]) == clients
                assert [event.seq for event in await store.events()] == list(range(1, len(clients) + 3))
                restored = Blobs(tmp_path / f"restored{number}")
                assert all([await restored.exists(name) for name in await store.referenced_blobs()])
                counts.append(len(clients))
        assert counts == sorted(counts)

    asyncio.run(check())


def _append(path: Path) -> None:
    path.write_bytes(path.read_bytes() + b"\n")


def _change(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"e", b"f", 1))


def _cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-5])


@pytest.mark.parametrize("tamper", [_append, _change, _cut, Path.unlink])
@pytest.mark.parametrize("what", ["updates.jsonl", "runs.jsonl", "blobs/*/*", "manifest.json"])
def test_a_backup_that_was_changed_is_refused(
    tmp_path: Path, spoilt: tuple[Path, BackupSummary], what: str, tamper: Callable[[Path], None]
) -> None:
    source, digest = spoilt[0], spoilt[1].digest
    path = next(iter(sorted(source.glob(what))))
    tamper(path)
    target = tmp_path / "restored.sqlite"
    for call in (
        verify(source, digest=digest),
        restore(source, f"sqlite:///{target}", tmp_path / "elsewhere", digest=digest),
    ):
        with pytest.raises(StateError, match=r"damaged|cannot be read|not the manifest|not the backup that is known"):
            asyncio.run(call)
    assert not target.exists()


def test_who_adapts_the_manifest_too_is_seen_by_the_digest(spoilt: tuple[Path, BackupSummary]) -> None:
    source, summary = spoilt
    path = source / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["blobs"][min(manifest["blobs"])]
    path.write_text(json.dumps(manifest))
    assert asyncio.run(verify(source)).blobs == summary.blobs - 1
    with pytest.raises(StateError, match="is not the backup that is known"):
        asyncio.run(verify(source, digest=summary.digest))


def test_a_database_that_holds_something_is_left_alone(tmp_path: Path, sqlite_url: str) -> None:
    made(tmp_path, sqlite_url)

    async def check() -> None:
        with pytest.raises(StateError, match=r"the database holds .* already; restore into an empty one"):
            await restore(tmp_path / "backup", sqlite_url, tmp_path / "blobs")
        async with await Store.open(sqlite_url) as store:
            assert len(await store.runs()) == 1

    asyncio.run(check())


def test_a_backup_of_other_tables_is_refused(tmp_path: Path, spoilt: tuple[Path, BackupSummary]) -> None:
    path = spoilt[0] / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "schema": "0000", "matl": "0.0.1"}))
    with pytest.raises(StateError, match=r"has tables of version 0000, .* restore it with matl 0\.0\.1"):
        asyncio.run(restore(spoilt[0], f"sqlite:///{tmp_path}/o.sqlite", tmp_path / "b"))


def test_a_backup_of_before_a_table_was_added_is_whole_and_says_what_restores_it(
    tmp_path: Path, spoilt: tuple[Path, BackupSummary]
) -> None:
    path = spoilt[0] / "manifest.json"
    manifest = json.loads(path.read_text())
    del manifest["tables"]["doomed_blobs"]
    (spoilt[0] / "doomed_blobs.jsonl").unlink()
    path.write_text(json.dumps(manifest))
    with pytest.raises(StateError, match=r"not the manifest of a backup: .*no table doomed_blobs"):
        asyncio.run(verify(spoilt[0]))
    path.write_text(json.dumps({**manifest, "schema": "0001"}))
    assert asyncio.run(verify(spoilt[0])).rows == spoilt[1].rows - 1
    with pytest.raises(StateError, match=r"has tables of version 0001, .* restore it with matl"):
        asyncio.run(restore(spoilt[0], f"sqlite:///{tmp_path}/o.sqlite", tmp_path / "b"))
    path.write_text(json.dumps({**manifest, "tables": {"../../etc/hosts": {"rows": 0, "sha256": ""}}, "schema": "1"}))
    with pytest.raises(StateError, match=r"not the manifest of a backup: .*a table named"):
        asyncio.run(verify(spoilt[0]))


def test_what_cannot_be_backed_up_leaves_nothing(
    tmp_path: Path, sqlite_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = tmp_path / "backup"

    async def attempt(store: Store, blobs: Blobs, kind: type[MatlError], words: str) -> None:
        with pytest.raises(kind, match=words):
            await backup(store, blobs, target)
        assert not [path for path in tmp_path.iterdir() if path.name.startswith("backup")]

    async def check() -> None:
        blobs = Blobs(tmp_path / "blobs")
        async with await fill(sqlite_url, blobs) as store:
            path = blobs.path(sha("alice"))
            assert path is not None
            path.write_bytes(b"alicf")
            await attempt(store, blobs, StateError, "is damaged")
            path.unlink()
            await attempt(store, blobs, StateError, "is needed and is not there")
            await blobs.put(b"alice")
            with monkeypatch.context() as patch:

                def full(*args: object) -> None:
                    raise OSError(28, "No space left on device")

                patch.setattr(backup_module.os, "fsync", full)
                await attempt(store, blobs, StorageError, "the disk is full")
            target.mkdir()
            with pytest.raises(StateError, match="exists already"):
                await backup(store, blobs, target)

    asyncio.run(check())


def test_retention_may_delete_blobs_meanwhile(tmp_path: Path, sqlite_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The tables that were read first named them; the backup begins again, and is whole."""

    async def check() -> None:
        blobs = Blobs(tmp_path / "blobs")
        async with await fill(sqlite_url, blobs) as store:
            copy, turns = backup_module._copy, 0

            async def slow(*args: Any) -> Any:
                nonlocal turns
                turns += 1
                if turns == 1:
                    for name in await store.prune("run", keep_rounds=0):
                        await blobs.delete(name)
                return await copy(*args)

            monkeypatch.setattr(backup_module, "_copy", slow)
            summary = await backup(store, blobs, tmp_path / "backup")
            assert summary.blobs == len(await store.referenced_blobs()) == 2
        assert (await verify(tmp_path / "backup")) == summary

    asyncio.run(check())


def test_a_restore_that_failed_can_be_begun_again(
    tmp_path: Path, spoilt: tuple[Path, BackupSummary], monkeypatch: pytest.MonkeyPatch
) -> None:
    (source, summary), url, blobs = spoilt, f"sqlite:///{tmp_path}/other.sqlite", tmp_path / "other"

    def fails(*args: object) -> None:
        raise ServiceError("busy", "the database is down")

    with monkeypatch.context() as patch:
        patch.setattr(backup_module, "_unpacked", fails)
        with pytest.raises(ServiceError):
            asyncio.run(restore(source, url, blobs))
    assert asyncio.run(restore(source, url, blobs)) == summary


def test_a_server_that_is_down_is_said(postgres: Server, postgres_url: str, tmp_path: Path) -> None:
    async def check() -> None:
        blobs = Blobs(tmp_path / "blobs")
        async with await fill(postgres_url, blobs) as store:
            postgres.stop()
            with pytest.raises(ServiceError, match="the database is down"):
                await backup(store, blobs, tmp_path / "backup")
            assert postgres.start()
            await backup(store, blobs, tmp_path / "backup")

    asyncio.run(check())
