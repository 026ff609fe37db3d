"""A copy of a store and its blobs that is consistent, can be checked, and goes back into any kind of database.

A backup is a folder: ``manifest.json``, the tables as JSON lines, and the blobs that they need. Tables are read in one
transaction, so they are as they were at one moment, whatever is written meanwhile; blobs never change. It holds the
secrets that the store holds. Keys and the audit log are files of the host, and are copied as such.
"""

from __future__ import annotations

import base64
import hashlib
import json
import os
import shutil
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import sqlalchemy as sa
from sqlalchemy.engine import Connection

from matl.coordinator.storage.blob_places import PIECE
from matl.coordinator.storage.blobs import Blobs
from matl.coordinator.storage.schema import METADATA, counters
from matl.coordinator.storage.store import Store
from matl.coordinator.storage.to_the_end import in_thread
from matl.coordinator.storage.transactions import referenced
from matl.coordinator.storage.upgrading import NEWEST
from matl.errors import ServiceError, StateError, StorageError
from matl.files import storage_error, sync_directory, write_atomic
from matl.protocol.problems import Code
from matl.version import VERSION

__all__ = ["BackupSummary", "backup", "restore", "verify"]

_FORMAT = 1
_ATTEMPTS = 3
_ROWS = 500  # at once


@dataclass(frozen=True, slots=True)
class BackupSummary:
    """What is in a backup.

    Parameters
    ----------
    rows, blobs : int
        How many.
    bytes : int
        Of tables and blobs.
    digest : str
        SHA-256 of the manifest, which holds the hashes of all else. Whoever keeps it elsewhere sees any change.
    """

    rows: int
    blobs: int
    bytes: int
    digest: str


async def backup(store: Store, blobs: Blobs, target: Path) -> BackupSummary:
    """Copy a store that is in use.

    Parameters
    ----------
    store, blobs : Store, Blobs
        What is copied.
    target : Path
        A folder that is not there yet. It is written as ``<target>.partial``, and gets its name when it is whole.

    Raises
    ------
    StateError
        There is something at ``target``, or a blob that the store needs is lost or damaged.
    StorageError
        The folder cannot be written.
    ServiceError
        ``"busy"``: the database or the blobs are out of reach.
    """
    if target.exists():
        raise StateError(f"{target} exists already; choose another folder for the backup")
    partial = target.with_name(target.name + ".partial")
    try:
        with _in_our_words(partial):
            return await _write(store, blobs, target, partial)
    finally:
        shutil.rmtree(partial, ignore_errors=True)  # whatever happened, nothing half-finished stays


async def verify(source: Path, *, digest: str | None = None) -> BackupSummary:
    """Check that a backup is whole and unchanged.

    Parameters
    ----------
    source : Path
        The folder.
    digest : str, optional
        That of the summary, kept elsewhere. Without it, a change is seen unless somebody adapted the manifest to it.

    Raises
    ------
    StateError
        It is not, and the message names the first file that is wrong.
    """
    manifest, actual = _manifest(source, digest)
    return await in_thread(_verify, source, manifest, actual)


async def restore(source: Path, url: str, blobs_url: str | Path, *, digest: str | None = None) -> BackupSummary:
    """Put a backup into an empty database, of the same kind as the first or of the other, and a place for blobs.

    The database is filled in one transaction, after the blobs: a restore that fails can be begun again.

    Raises
    ------
    StateError
        The backup is damaged, or of another version of the tables, or the database holds something.
    ServiceError
        ``"busy"``: the database or the place for blobs are out of reach.
    """
    manifest, actual = _manifest(source, digest)
    summary = await in_thread(_verify, source, manifest, actual)
    if manifest["schema"] != NEWEST:
        raise StateError(
            f"{source} has tables of version {manifest['schema']}, and this library restores version {NEWEST}: "
            f"restore it with matl {manifest['matl']}, then upgrade the database"
        )
    async with await Store.open(url) as store:
        await store.database.read(_expect_nothing)
        blobs = Blobs(blobs_url)
        for name, size in manifest["blobs"].items():
            await blobs.write(_pieces(_blob(source, name)), expected_sha256=name, size=size)
        await store.database.write(lambda connection: _fill(connection, source, manifest))
    return summary


async def _write(store: Store, blobs: Blobs, target: Path, partial: Path) -> BackupSummary:
    for _ in range(_ATTEMPTS):
        shutil.rmtree(partial, ignore_errors=True)
        partial.mkdir(mode=0o700, parents=True)
        tables, needed = await store.database.read(lambda connection: _dump(connection, partial))
        sizes = {name: await _copy(blobs, name, partial) for name in sorted(needed)}
        lost = {name for name, size in sizes.items() if size is None}
        if not lost:
            break
        if lost & await store.referenced_blobs():
            raise StateError(f"blob {min(lost)} is needed and is not there; nothing was backed up")
        # Retention let go of it while tables were copied that name it: once more.
    else:
        raise StateError("blobs were deleted each time while they were copied; run the backup again")
    manifest = {"format": _FORMAT, "matl": VERSION, "schema": NEWEST, "tables": tables, "blobs": sizes}
    write_atomic(partial / "manifest.json", json.dumps(manifest, indent=1))
    for folder in (partial, partial.parent):
        sync_directory(folder)
    partial.rename(target)
    sync_directory(target.parent)
    return await verify(target)


def _dump(connection: Connection, folder: Path) -> tuple[dict[str, Any], set[str]]:
    with _in_our_words(folder):
        tables = {table.name: _dump_table(connection, table, folder) for table in METADATA.sorted_tables}
    return tables, referenced(connection)


def _dump_table(connection: Connection, table: sa.Table, folder: Path) -> dict[str, Any]:
    rows, hasher = 0, hashlib.sha256()
    with _table(folder, table.name).open("xb") as stream:
        for found in connection.execute(sa.select(table), execution_options={"yield_per": _ROWS}).mappings():
            line = json.dumps(_packed(table, found), separators=(",", ":")).encode() + b"\n"
            hasher.update(line)
            stream.write(line)
            rows += 1
        stream.flush()
        os.fsync(stream.fileno())
    return {"rows": rows, "sha256": hasher.hexdigest()}


async def _copy(blobs: Blobs, name: str, folder: Path) -> int | None:
    """Copy a blob; its bytes, or ``None`` if it is not there."""
    path = _blob(folder, name)
    path.parent.mkdir(parents=True, exist_ok=True)
    hasher, size = hashlib.sha256(), 0
    with path.open("xb") as stream:
        try:
            async for data in blobs.stream(name):
                hasher.update(data)
                size += await in_thread(stream.write, data)
        except ServiceError as error:
            if error.code != Code.NOT_FOUND:
                raise
            return None
        stream.flush()
        await in_thread(os.fsync, stream.fileno())
    if hasher.hexdigest() != name:
        raise StateError(f"blob {name} is damaged: its bytes have another hash; nothing was backed up")
    return size


def _verify(source: Path, manifest: Mapping[str, Any], digest: str) -> BackupSummary:
    total = rows = 0
    for table in manifest["tables"]:
        rows += sum(1 for _ in _lines(source, table, manifest))
        total += _table(source, table).stat().st_size
    for name, size in manifest["blobs"].items():
        try:
            with _blob(source, name).open("rb") as stream:
                right = hashlib.file_digest(stream, "sha256").hexdigest() == name and stream.tell() == size
        except OSError as error:
            raise StateError(f"{error.filename} of the backup cannot be read: {error.strerror}") from error
        if not right:
            raise StateError(f"{_blob(source, name)} of the backup is damaged: its bytes have another hash")
        total += size
    return BackupSummary(rows=rows, blobs=len(manifest["blobs"]), bytes=total, digest=digest)


def _manifest(source: Path, digest: str | None) -> tuple[dict[str, Any], str]:
    """The manifest and its digest, which has to be the one that is expected, if one is."""
    path = source / "manifest.json"
    try:
        text = path.read_bytes()
        manifest = json.loads(text)
        if manifest["format"] != _FORMAT:
            raise ValueError(f"format {manifest['format']}, this library reads {_FORMAT}")
        for table, entry in manifest["tables"].items():
            if not table.isidentifier():
                raise ValueError(f"a table named {table!r}")
            int(entry["rows"]), bytes.fromhex(entry["sha256"])
        lacking = METADATA.tables.keys() - manifest["tables"]
        if manifest["schema"] == NEWEST and lacking:  # those of other versions have other tables
            raise ValueError(f"no table {min(lacking)}")
        for name, size in manifest["blobs"].items():
            int(size), bytes.fromhex(name)
        str(manifest["schema"]), str(manifest["matl"])
    except (OSError, KeyError, TypeError, ValueError, OverflowError, AttributeError, RecursionError) as error:
        raise StateError(f"{path} is not the manifest of a backup: {error!r:.200}") from error
    actual = hashlib.sha256(text).hexdigest()
    if digest is not None and actual != digest:
        raise StateError(f"{source} is not the backup that is known: its digest is {actual}, expected {digest}")
    return manifest, actual


def _lines(source: Path, table: str, manifest: Mapping[str, Any]) -> Iterator[bytes]:
    """The lines of a table; at the end it is an error if they were not those of the manifest."""
    path, expected, hasher, rows = _table(source, table), manifest["tables"][table], hashlib.sha256(), 0
    try:
        with path.open("rb") as stream:
            for line in stream:
                hasher.update(line)
                rows += 1
                yield line
    except OSError as error:
        raise StateError(f"{path} of the backup cannot be read: {error.strerror}") from error
    if (rows, hasher.hexdigest()) != (expected["rows"], expected["sha256"]):
        raise StateError(f"{path} of the backup is damaged: its bytes have another hash")


def _expect_nothing(connection: Connection) -> None:
    for table in METADATA.sorted_tables:
        if table is not counters and connection.execute(sa.select(sa.literal(1)).select_from(table).limit(1)).first():
            raise StateError(f"the database holds {table.name} already; restore into an empty one")


def _fill(connection: Connection, source: Path, manifest: Mapping[str, Any]) -> None:
    _expect_nothing(connection)
    connection.execute(counters.delete())
    for table in METADATA.sorted_tables:
        rows: list[dict[str, Any]] = []
        for line in _lines(source, table.name, manifest):
            rows.append(_unpacked(table, json.loads(line)))
            if len(rows) == _ROWS:
                connection.execute(table.insert(), rows)
                rows = []
        if rows:
            connection.execute(table.insert(), rows)


def _packed(table: sa.Table, found: sa.RowMapping) -> dict[str, Any]:
    return {
        column.name: base64.b64encode(value).decode() if isinstance(value := found[column.name], bytes) else value
        for column in table.columns
    }


def _unpacked(table: sa.Table, line: Mapping[str, Any]) -> dict[str, Any]:
    def value(column: sa.Column[Any]) -> Any:
        found = line[column.name]
        return base64.b64decode(found) if isinstance(column.type, sa.LargeBinary) and found is not None else found

    return {column.name: value(column) for column in table.columns}


async def _pieces(path: Path) -> AsyncIterator[bytes]:
    with path.open("rb") as stream:
        while data := await in_thread(stream.read, PIECE):
            yield data


def _table(folder: Path, name: str) -> Path:
    return folder / f"{name}.jsonl"


def _blob(folder: Path, sha256: str) -> Path:
    return folder / "blobs" / sha256[:2] / sha256


@contextmanager
def _in_our_words(partial: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise error if isinstance(error, StorageError) else storage_error(partial, error) from error
