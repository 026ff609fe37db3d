"""A client's count of what it sends, on the disk before it is sent: the theorem is about T transmissions, no more."""

from __future__ import annotations

import hashlib
from pathlib import Path
from types import TracebackType
from typing import Self

from matl import validate
from matl.errors import StateError
from matl.journal import Head, Journal
from matl.privacy.manifest import Manifest

__all__ = ["TransmissionCounter"]

_KIND = "matl transmission counter"


class TransmissionCounter:
    """Counts the transmissions of one client under one manifest.

    Use `create` once, when the client joins, and `open` ever after. The client calls `reserve` with the finished
    message and sends it only after that has returned. A crash in between costs a transmission, which is the safe side.

    Attributes
    ----------
    client : str
        Whose count it is.
    limit : int
        T of the manifest.

    Notes
    -----
    A rolled back pair of files cannot be told from the true one, see `matl.journal`; nor can a second copy of
    the client that counts for itself. Where machines are restored or cloned, keep `head` elsewhere and give it to
    `open` as the witness. A server may hold it: with a wrong one it can keep the client from sending, and no more.

    Examples
    --------
    >>> import tempfile
    >>> from fractions import Fraction
    >>> from matl.privacy.certificate import Instance
    >>> from matl.privacy.table import skellam_table
    >>> coarse = Instance(
    ...     bits=4, table=skellam_table("3/8").counts, resolution=40, survivors=16, bound=Fraction(1, 32),
    ...     squared_norm=Fraction(1, 3), transmissions=2, delta=Fraction(1, 100_000), orders=((1, 32),), cells=1,
    ... )  # fmt: skip
    >>> manifest = Manifest(coarse, block=64, kept=24, clip_norm=Fraction(1))
    >>> folder = tempfile.TemporaryDirectory()
    >>> with TransmissionCounter.create(Path(folder.name) / "sent", "alice", manifest) as counter:
    ...     counter.reserve(b"first"), counter.reserve(b"first"), counter.reserve(b"second"), counter.left
    (1, 1, 2, 0)
    >>> folder.cleanup()
    """

    def __init__(self, journal: Journal, manifest: Manifest) -> None:
        self._journal = journal
        first = journal.records[0]
        expected = {"kind": _KIND, "manifest": manifest.sha256, "limit": manifest.instance.transmissions}
        if {key: first.get(key) for key in expected} != expected:
            journal.close()
            raise StateError(f"{journal.path} does not count transmissions under manifest {manifest.sha256}: {first}")
        self.client, self.limit = str(first.get("client")), manifest.instance.transmissions

    @classmethod
    def create(cls, path: Path, client: str, manifest: Manifest) -> TransmissionCounter:
        """Begin to count.

        Raises
        ------
        StateError
            There is a counter, or what is left of one.
        StorageError
            It cannot be written.
        """
        first = {
            "kind": _KIND,
            "client": client,
            "manifest": manifest.sha256,
            "limit": manifest.instance.transmissions,
        }
        return cls(Journal.create(path, first), manifest)

    @classmethod
    def open(cls, path: Path, manifest: Manifest, witness: Head | None = None) -> TransmissionCounter:
        """Go on counting.

        Raises
        ------
        StateError
            The counter was lost, cut off, rolled back or changed, as far as that can be seen; it belongs to another
            manifest; or another process uses it.
        """
        return cls(Journal.open(path, witness), manifest)

    @property
    def used(self) -> int:
        """Transmissions that were reserved; a record that a crash tore counts as one."""
        return len(self._journal.records) - 1

    @property
    def left(self) -> int:
        """Transmissions that are left."""
        return self.limit - self.used

    @property
    def head(self) -> Head:
        """What a witness should remember."""
        return self._journal.head

    def reserve(self, message: bytes) -> int:
        """Count a message, on the disk, before it is sent; returns the number of the transmission, from 1.

        The very bytes of the last transmission are a retry of it and cost nothing: they tell nothing new.

        Parameters
        ----------
        message : bytes
            All that will be sent, noise and masks included. The same noise under another mask is another message: two
            sums that hold one share of noise are not what the theorem speaks of.

        Raises
        ------
        StateError
            All transmissions are used up.
        StorageError
            The count cannot be written, and the message must not be sent.
        """
        if self.repeats(message):
            return self.used
        if self.left <= 0:
            raise StateError(
                f"{self.client} has used all {self.limit} transmissions of its manifest, and another would void the "
                "stated epsilon; leave the federation, or agree to a new manifest, whose epsilon adds to this one"
            )
        self._journal.append({"message": hashlib.sha256(message).hexdigest()})
        return self.used

    def repeats(self, message: bytes) -> bool:
        """Whether these are the very bytes of the last transmission, so that to reserve them costs nothing."""
        validate.whole(1, bytes=len(message))
        last: object = self._journal.records[-1].get("message")
        return last == hashlib.sha256(message).hexdigest()

    def close(self) -> None:
        """Give the file back."""
        self._journal.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
