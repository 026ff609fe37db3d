"""What a client keeps: its key, its name, what is still to be sent, and the model it was sent last."""

from __future__ import annotations

import fcntl
import json
import os
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Self

from matl.attest.canonical import check_identifier
from matl.attest.keys import SigningKey
from matl.errors import ProtocolError, StateError
from matl.files import make_directory, storage_error, write_atomic
from matl.journal import Head

__all__ = ["ClientFolder"]

_VERSION = 1


class ClientFolder:
    """The folder of one client. One process at a time may use it, in several threads.

    ``key.pem`` is the client's identity: whoever has it is the client, and who loses it needs a new invitation.
    ``client.json`` holds no secrets. ``queue/`` holds updates that no coordinator has acknowledged, in the clear, and
    ``models/`` the latest model; both are closed to others at every start.

    Parameters
    ----------
    path : Path
        It is made where there is none, for its owner alone; one that is there keeps its mode.
    key : Path or SigningKey, optional
        The key, if it is kept elsewhere; ``key.pem`` of the folder otherwise, which is made if there is none.
    client_id : str, optional
        The name; the one of the folder otherwise, and a new one made of the key's fingerprint if it has none.

    Raises
    ------
    StateError
        Another process uses the folder, it belongs to a client of another name or key, or the key cannot be read.
    StorageError
        It cannot be written.
    InvalidValueError
        The name is none.

    Examples
    --------
    >>> import tempfile
    >>> place = tempfile.TemporaryDirectory()
    >>> with ClientFolder(Path(place.name) / "alice", client_id="alice") as folder:
    ...     fingerprint = folder.key.public.fingerprint
    >>> with ClientFolder(Path(place.name) / "alice") as folder:
    ...     folder.client_id, folder.key.public.fingerprint == fingerprint
    ('alice', True)
    >>> place.cleanup()
    """

    def __init__(self, path: Path, *, key: Path | SigningKey | None = None, client_id: str | None = None) -> None:
        if client_id is not None:
            check_identifier(client_id=client_id)
        self.path = path
        make_directory(path, private=True)
        self._lock = _locked(path / "lock")
        self._changing = threading.Lock()  # client.json, between what was read and what is written
        try:
            self._content = self._read()
            self.key = self._key(key)
            self.client_id = self._name(client_id)
            self.queue, self.models = _private(path / "queue"), _private(path / "models")
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Let others use the folder. A second time does nothing."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def pin(self, run: str, receipts_key: str) -> None:
        """Remember who signs the receipts of a run, from the first time on.

        Raises
        ------
        ProtocolError
            ``"signer"``: it was another key before. A coordinator that changes it could deny what it said.
        """
        if self._first("receipts_keys", run, receipts_key) != receipts_key:
            raise ProtocolError(
                "signer",
                f"the coordinator now signs receipts of run {run!r} with another key than before. If its operator "
                f"confirms that, remove the run from receipts_keys in {self.path / 'client.json'}",
            )

    def pin_manifest(self, run: str, sha256: str) -> None:
        """Remember the privacy manifest of a run, from the first time on.

        Raises
        ------
        ProtocolError
            ``"manifest"``: it was another one before. Constants that change prove nothing of what was sent.
        """
        known = self._first("manifests", run, sha256)
        if known != sha256:
            raise ProtocolError(
                "manifest",
                f"the coordinator now serves run {run!r} with the privacy manifest {sha256}, and this client agreed to "
                f"{known}; nothing is sent. If you agree to the new one, whose epsilon adds to that of the old, begin "
                "with a new client folder",
            )

    @property
    def manifests(self) -> Mapping[str, str]:
        """By run the SHA-256 of the privacy manifest that this client agreed to."""
        return self._content["manifests"]  # type: ignore[no-any-return]

    def witness(self, journal: str) -> Head | None:
        """What was remembered last of a journal in this folder."""
        known = self._content["journals"].get(journal)
        return None if known is None else Head(**known)

    def remember(self, heads: Mapping[str, Head]) -> None:
        """Remember how far journals in this folder have come, by the names of their files."""
        with self._changing:
            self._change("journals", {name: head._asdict() for name, head in heads.items()})

    def last_round(self, run: str) -> int:
        """The last masked round of a run that this client took part in; -1 for none."""
        return int(self._content["last_rounds"].get(run, -1))

    def take_part(self, run: str, number: int) -> None:
        """Write down that this client takes part in a masked round, before it says anything in it."""
        with self._changing:
            self._change("last_rounds", {run: number})

    def _first(self, part: str, run: str, value: str) -> str:
        """What is remembered of a run: the value, if it is the first."""
        with self._changing:
            known: str | None = self._content[part].get(run)
            if known is None:
                self._change(part, {run: value})
            return value if known is None else known

    def _change(self, part: str, entries: Mapping[str, Any]) -> None:
        """Remember entries of a part, unless they are there. What cannot be written is not remembered."""
        content = {**self._content, part: {**self._content[part], **entries}}
        if content != self._content:
            self._write(content)
            self._content = content

    def _read(self) -> dict[str, Any]:
        file = self.path / "client.json"
        if not file.exists():
            return {"version": _VERSION, "client_id": None, "key": None, "receipts_keys": {}, **_masked({})}
        try:
            content = json.loads(file.read_text("utf-8"))
            if content["version"] != _VERSION:
                raise ValueError(f"version {content['version']}, this library reads {_VERSION}")
            names = ("version", "client_id", "key", "receipts_keys")
            return {**{name: content[name] for name in names}, **_masked(content)}
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise StateError(f"{file} cannot be read: {error!r}; move it away to begin with a new name") from error

    def _write(self, content: Mapping[str, Any]) -> None:
        write_atomic(self.path / "client.json", json.dumps(content, indent=1) + "\n")

    def _key(self, given: Path | SigningKey | None) -> SigningKey:
        if isinstance(given, SigningKey):
            return given
        file = self.path / "key.pem" if given is None else given
        if given is None and not file.exists():
            SigningKey.generate().save(file)
        return SigningKey.load(file)

    def _name(self, given: str | None) -> str:
        fingerprint = self.key.public.fingerprint
        known = self._content["client_id"]
        if known is not None and given not in (None, known):
            raise StateError(
                f"{self.path} belongs to client {known!r}, got client_id={given!r}; give every client a folder of its "
                "own"
            )
        if self._content["key"] not in (None, fingerprint):
            raise StateError(
                f"{self.path} belongs to {known!r} with the key {self._content['key'][:12]}, got the key "
                f"{fingerprint[:12]}; put the old key back, or begin anew with an empty folder and a new invitation"
            )
        name = known or given or f"client-{fingerprint[:12]}"
        if known is None:
            self._content.update(client_id=name, key=fingerprint)
            self._write(self._content)
        return str(name)


def _masked(content: dict[str, Any]) -> dict[str, Any]:
    """What is remembered of masked rounds, by run, and of journals, by file; folders that saw no such round have none.

    Raises
    ------
    TypeError, ValueError, KeyError
        Something else stands there.
    """
    found = {name: dict(content.get(name, {})) for name in ("manifests", "last_rounds", "journals")}
    found["journals"] = {
        name: Head(int(head["records"]), str(head["chain"]))._asdict() for name, head in found["journals"].items()
    }
    return found


def _private(path: Path) -> Path:
    """A folder for its owner alone, which it may not have been before."""
    make_directory(path, private=True)
    try:
        if path.stat().st_mode & 0o077:  # else it may be another user's, who lets this one in
            path.chmod(0o700)
    except OSError as error:
        raise storage_error(path, error) from error
    return path


def _locked(path: Path) -> int | None:
    """The descriptor of a file that this process alone has locked; the lock ends with the process, however it ends."""
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise storage_error(path, error) from error
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        with suppress(OSError):
            os.close(descriptor)
        raise StateError(
            f"{path.parent} is in use by another client; end that one, or give this one a folder of its own: "
            "MATLClient(..., folder=...)"
        ) from error
    return descriptor
