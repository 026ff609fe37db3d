"""A strict reader of structures whose layout is fixed, as a TPM and an event log have them."""

from __future__ import annotations

from typing import Literal

from matl.errors import AttestationError

__all__ = ["Reader", "malformed"]


def malformed(message: str) -> AttestationError:
    """The error of bytes that are not what they should be."""
    return AttestationError("format", message)


class Reader:
    """Walks once through a structure, which has to end where its last field ends.

    Whatever is missing, left over or too long is an `AttestationError` with code ``"format"``.

    Parameters
    ----------
    data : bytes
        The structure.
    what : str
        Its name, for messages.
    order : str
        ``"big"`` as in the structures of a TPM, or ``"little"`` as in an event log.

    Examples
    --------
    >>> reader = Reader(bytes.fromhex("00020003aabbcc"), "a TPM2B")
    >>> reader.number(2), reader.sized(64).hex()
    (2, 'aabbcc')
    >>> reader.end()
    """

    __slots__ = ("_at", "_data", "_order", "_what")

    def __init__(self, data: bytes, what: str, order: Literal["big", "little"] = "big") -> None:
        self._data, self._what, self._order, self._at = data, what, order, 0

    @property
    def left(self) -> int:
        """How many bytes are not read yet."""
        return len(self._data) - self._at

    def take(self, size: int) -> bytes:
        """The next ``size`` bytes."""
        if size > self.left:
            raise malformed(f"{self._what}: {size} bytes are due at offset {self._at}, {self.left} are left")
        self._at += size
        return self._data[self._at - size : self._at]

    def number(self, size: int) -> int:
        """The next ``size`` bytes as an unsigned number."""
        return int.from_bytes(self.take(size), self._order)

    def sized(self, limit: int, *, width: int = 2) -> bytes:
        """A byte string of at most ``limit`` bytes behind its length, a number of ``width`` bytes."""
        size = self.number(width)
        if size > limit:
            raise malformed(f"{self._what}: a field of {size} bytes at offset {self._at}, allowed are {limit}")
        return self.take(size)

    def end(self) -> None:
        """Nothing may be left."""
        if self.left:
            raise malformed(f"{self._what}: {self.left} bytes are left over")
