"""Updates on their way: kept on the disk until a coordinator says that it has them."""

from __future__ import annotations

import hashlib
import json
import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from matl.errors import ProtocolError, StateError
from matl.files import write_atomic
from matl.protocol.envelope import Head, read_head
from matl.protocol.messages import SpecView

__all__ = ["Queue", "Waiting"]

_VERSION = 1
_MODE = 0o600  # updates lie here in the clear


@dataclass(frozen=True, slots=True)
class Waiting:
    """An update that waits.

    Parameters
    ----------
    name : str
        Of its files.
    head : Head
        As it was signed last.
    spec : SpecView
        What its round asks, by which it can be signed again.
    """

    name: str
    head: Head
    spec: SpecView


class Queue:
    """A folder of updates, each a payload and a note about it.

    The payload is written first and the note last, so that an update is there whole or not at all. An update for a
    round takes the place of one that was there for it before.

    Parameters
    ----------
    folder : Path
        Of one client, which has locked it.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._sweep()

    def put(self, spec: SpecView, head: Head, payload: bytes) -> Waiting:
        """Keep an update; when this returns, it survives a power cut.

        Raises
        ------
        StorageError
            The disk is full or the folder cannot be written.
        """
        # Ids may hold what file names cannot on some systems, and differ in case alone.
        name = f"{spec.round:09d}-{hashlib.sha256(spec.run.encode()).hexdigest()[:16]}-{head.payload_sha256[:16]}"
        waiting = Waiting(name, head, spec)
        same = (spec.run, spec.round)
        replaced = [each.name for each in self if (each.spec.run, each.spec.round) == same and each.name != name]
        write_atomic(self._folder / f"{name}.payload", payload, mode=_MODE)
        self._note(waiting)
        for other in replaced:
            self._remove(other)
        return waiting

    def sign_again(self, waiting: Waiting, head: Head) -> Waiting:
        """Replace the head: the update has become too old as it was signed before."""
        renewed = Waiting(waiting.name, head, waiting.spec)
        self._note(renewed)
        return renewed

    def done(self, waiting: Waiting) -> None:
        """Forget an update: it was acknowledged, or is no longer wanted."""
        self._remove(waiting.name)

    def __iter__(self) -> Iterator[Waiting]:
        """What waits, oldest rounds first.

        Raises
        ------
        StateError
            A note cannot be read.
        """
        for file in sorted(self._folder.glob("*.json")):
            yield _read(file)

    def __len__(self) -> int:
        return sum(1 for _ in self._folder.glob("*.json"))

    @contextmanager
    def payload(self, waiting: Waiting) -> Iterator[memoryview]:
        """The payload, mapped and not read, so that it may be larger than memory.

        Raises
        ------
        StateError
            It is not what it was.
        """
        file = self._folder / f"{waiting.name}.payload"
        advice = f"remove it and the note {waiting.name}.json beside it"
        try:
            stream = file.open("rb")
        except OSError as error:
            raise StateError(f"{file} cannot be read: {error.strerror}; {advice}") from error
        with stream:
            size = os.fstat(stream.fileno()).st_size
            if size != waiting.head.payload_bytes:
                raise StateError(f"{file} has {size} bytes, expected {waiting.head.payload_bytes}; {advice}")
            with mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ) as mapped, memoryview(mapped) as view:
                yield view

    def _note(self, waiting: Waiting) -> None:
        content = {
            "version": _VERSION,
            "head": json.loads(waiting.head.to_bytes()),
            "spec": waiting.spec.model_dump(mode="json"),
        }
        write_atomic(self._folder / f"{waiting.name}.json", json.dumps(content, indent=1) + "\n", mode=_MODE)

    def _remove(self, name: str) -> None:
        (self._folder / f"{name}.json").unlink(missing_ok=True)
        (self._folder / f"{name}.payload").unlink(missing_ok=True)

    def _sweep(self) -> None:
        """Remove what a process left that ended between two writes."""
        for file in self._folder.glob("*.payload"):
            if not file.with_suffix(".json").exists():
                file.unlink(missing_ok=True)
        for file in self._folder.glob(".*"):  # of write_atomic
            file.unlink(missing_ok=True)


def _read(file: Path) -> Waiting:
    try:
        content: dict[str, Any] = json.loads(file.read_text("utf-8"))
        if content["version"] != _VERSION:
            raise ValueError(f"version {content['version']}, this library reads {_VERSION}")
        head = read_head(json.dumps(content["head"]).encode())
        spec = SpecView.model_validate(content["spec"])
        return Waiting(file.stem, head, spec)
    except (OSError, ValueError, KeyError, TypeError, ProtocolError) as error:
        raise StateError(f"{file} cannot be read: {error!s:.200}; remove it if the update may be lost") from error
