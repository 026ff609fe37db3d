"""A backup of a whole coordinator: its database and blobs, its keys, its audit log, and its privacy ledgers."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from matl.coordinator.keys import write_private
from matl.coordinator.storage.backup import BackupSummary, backup, restore, verify
from matl.coordinator.storage.blobs import Blobs
from matl.coordinator.storage.store import Store
from matl.errors import StateError
from matl.files import make_directory, storage_error
from matl.network.folder import in_use
from matl.network.settings import NetworkSettings

__all__ = ["Saved", "put_back", "save"]

_STORE, _FILES, _MANIFEST = "store", "files", "coordinator.json"
# The head of a log before the log: what is remembered of it is then never more than what is there.
_HOST_FILES = ("receipts.pem", "coordinator.secret", "audit.log.head", "audit.log", "admin.token", "network.toml")
_CLIENTS = "clients"  # of a local network
# After the database: a sum that was unmasked is then charged in the copy, though it may be charged once more.
_LEDGERS = ("privacy/*.ledger.head", "privacy/*.ledger", "privacy/*.json")
_FORMAT = 1


@dataclass(frozen=True, slots=True)
class Saved:
    """What a backup holds.

    Parameters
    ----------
    store : BackupSummary
        Of the database and the blobs.
    files : int
        How many files of the coordinator's folder.
    digest : str
        SHA-256 over all of it. Whoever keeps it elsewhere sees any change.
    """

    store: BackupSummary
    files: int
    digest: str

    def as_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return asdict(self)


async def save(settings: NetworkSettings, target: Path) -> Saved:
    """Back a coordinator up, while it runs or not.

    Parameters
    ----------
    settings : NetworkSettings
        Of the coordinator.
    target : Path
        A folder that is not there yet, for its owner alone: it holds keys.

    Raises
    ------
    StateError
        There is something at ``target``, or the database is of another version or lacks a blob.
    StorageError
        The folder cannot be written.
    ServiceError
        The database or the blobs are out of reach.
    """
    if target.exists():
        raise StateError(f"{target} exists already; choose another folder for the backup")
    partial = target.with_name(f"{target.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.parent.mkdir(parents=True, exist_ok=True)
        partial.mkdir(mode=0o700)
        files = {name: _copy(settings.folder / name, partial / _FILES / name) for name in _names(settings.folder)}
        async with await Store.open(settings.database_url, upgrade=False) as store:
            summary = await backup(store, Blobs(settings.blobs_url), partial / _STORE)
        ledgers = [str(path.relative_to(settings.folder)) for path in _found(settings.folder, *_LEDGERS)]
        files |= {name: _copy(settings.folder / name, partial / _FILES / name) for name in ledgers}
        manifest = {"format": _FORMAT, "store": summary.digest, "files": files}
        write_private(partial / _MANIFEST, json.dumps(manifest, indent=1))
        partial.rename(target)
    except OSError as error:
        raise storage_error(target, error) from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return await check(target)


async def check(source: Path, *, digest: str | None = None) -> Saved:
    """Check that a backup is whole and unchanged.

    Raises
    ------
    StateError
        It is not; the message names what is wrong.
    """
    manifest, actual = _manifest(source)
    if digest is not None and digest != actual:
        raise StateError(f"{source} is not the backup that is known: its digest is {actual}, expected {digest}")
    for name, sha256 in manifest["files"].items():
        if _hash(source / _FILES / name) != sha256:
            raise StateError(f"{source / _FILES / name} of the backup is damaged: its bytes have another hash")
    return Saved(await verify(source / _STORE, digest=manifest["store"]), len(manifest["files"]), actual)


async def put_back(source: Path, settings: NetworkSettings, *, digest: str | None = None) -> Saved:
    """Put a backup into an empty folder and an empty database, of the same kind as the first or of the other.

    Parameters
    ----------
    source : Path
        The backup.
    settings : NetworkSettings
        Of the coordinator that will run from it.
    digest : str, optional
        That of `Saved`, kept elsewhere.

    Raises
    ------
    StateError
        The backup is damaged or of another version, or the folder or the database holds something already.
    StorageError
        The folder cannot be written.
    ServiceError
        The database or the place for blobs is out of reach.
    """
    saved = await check(source, digest=digest)
    manifest, _ = _manifest(source)
    folder = make_directory(settings.folder)
    with in_use(folder):
        if there := [name for name in manifest["files"] if (folder / name).exists()]:
            raise StateError(f"{folder} holds {there[0]} already; restore into an empty folder")
        await restore(source / _STORE, settings.database_url, settings.blobs_url, digest=manifest["store"])
        try:
            for name in manifest["files"]:
                _copy(source / _FILES / name, folder / name)
        except OSError as error:
            raise storage_error(folder, error) from error
    return saved


def _names(folder: Path) -> list[str]:
    """The files of a coordinator's folder that are nowhere else, in the order in which they are copied."""
    keys = _found(folder, f"{_CLIENTS}/*/key.pem", f"{_CLIENTS}/*/client.json")
    own = [name for name in _HOST_FILES if (folder / name).is_file()]
    return own + [str(path.relative_to(folder)) for path in keys]


def _found(folder: Path, *patterns: str) -> list[Path]:
    return [path for pattern in patterns for path in sorted(folder.glob(pattern))]


def _copy(source: Path, target: Path) -> str:
    """Copy a file for its owner alone; the SHA-256 of what was copied."""
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    content = source.read_bytes()
    handle = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(handle, "wb") as stream:
        stream.write(content)
        stream.flush()
        os.fsync(stream.fileno())
    return hashlib.sha256(content).hexdigest()


def _hash(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise StateError(f"{path} of the backup cannot be read: {error.strerror}") from error


def _manifest(source: Path) -> tuple[dict[str, Any], str]:
    path = source / _MANIFEST
    try:
        content = path.read_bytes()
        manifest = json.loads(content)
        if manifest["format"] != _FORMAT:
            raise ValueError(f"format {manifest['format']}, this library reads {_FORMAT}")
        str(manifest["store"])
        for name, sha256 in manifest["files"].items():
            if Path(name).is_absolute() or ".." in Path(name).parts:
                raise ValueError(f"a file outside of it: {name!r}")
            bytes.fromhex(sha256)
    except (OSError, KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise StateError(f"{path} is not that of a backup: {error!r:.200}") from error
    return manifest, hashlib.sha256(content).hexdigest()
