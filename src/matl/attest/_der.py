"""A strict reader of DER (ITU-T X.690): what has a second encoding is refused.

A reader that takes more than one encoding of a value can be made to see something else than the signer saw. `Der` walks
along a schema that its caller knows, so nothing nests deeper than that schema, and a length is compared with what is
there before anything is taken.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime

from matl.errors import AttestationError

__all__ = ["BIT_STRING", "INTEGER", "OCTET_STRING", "OID", "SEQUENCE", "SET", "Der", "context"]

# Identifier octets (X.690, 8.1.2) of the universal types used here.
BOOLEAN, INTEGER, BIT_STRING, OCTET_STRING = b"\x01", b"\x02", b"\x03", b"\x04"
OID, ENUMERATED, SEQUENCE, SET = b"\x06", b"\x0a", b"\x30", b"\x31"
UTC_TIME, GENERALIZED_TIME = b"\x17", b"\x18"

_MAX_LENGTH_OCTETS = 3  # 16 MiB, far above any evidence
_MAX_TAG_OCTETS = 4  # tag numbers below 2**21; the largest in use is Android's [724]
_MAX_OID_OCTETS = 32
_MAX_INTEGER_OCTETS = 32
_TIME = {UTC_TIME: re.compile(rb"\d{12}Z"), GENERALIZED_TIME: re.compile(rb"\d{14}Z")}


def context(number: int) -> bytes:
    """Identifier octets of an EXPLICIT context-specific tag.

    Examples
    --------
    >>> context(1).hex(), context(704).hex()
    ('a1', 'bf8540')
    """
    if number < 31:
        return bytes([0xA0 | number])
    octets = [number & 0x7F]
    while number := number >> 7:
        octets.append(0x80 | number & 0x7F)
    return b"\xbf" + bytes(reversed(octets))


class Der:
    """A cursor over concatenated DER values.

    Every method takes the next value and moves behind it, or raises `AttestationError` with the code ``"format"``.

    Examples
    --------
    >>> sequence = Der(bytes.fromhex("3006 020105 0101ff")).enter()
    >>> sequence.integer(), sequence.boolean(), sequence.done
    (5, True, True)
    """

    __slots__ = ("_at", "_data", "_what")

    def __init__(self, data: bytes, what: str = "DER") -> None:
        self._data, self._what, self._at = data, what, 0

    @property
    def done(self) -> bool:
        """Whether everything was taken."""
        return self._at == len(self._data)

    def finish(self) -> None:
        """Nothing may be left."""
        if not self.done:
            raise self._error(f"{len(self._data) - self._at} bytes too many")

    def peek(self) -> bytes:
        """Identifier octets of the next value, empty at the end."""
        return b"" if self.done else self._identifier()

    def raw(self, tag: bytes) -> bytes:
        """The next value with its identifier and length."""
        start = self._at
        self.take(tag)
        return self._data[start : self._at]

    def take(self, tag: bytes) -> bytes:
        """Content octets of the next value, which has this tag."""
        found = self.peek()
        if found != tag:
            raise self._error(f"expected tag {tag.hex()}, got {found.hex() or 'the end'}")
        start, length = self._length(self._at + len(tag))
        if length > len(self._data) - start:
            raise self._error(f"a value of {length} bytes where {len(self._data) - start} are left")
        self._at = start + length
        return self._data[start : self._at]

    def enter(self, tag: bytes = SEQUENCE) -> Der:
        """A cursor over the content of the next value."""
        return Der(self.take(tag), self._what)

    def optional(self, tag: bytes) -> Der | None:
        """A cursor over the content of the next value if it has this tag."""
        return self.enter(tag) if self.peek() == tag else None

    def octets(self) -> bytes:
        """An OCTET STRING."""
        return self.take(OCTET_STRING)

    def boolean(self) -> bool:
        """A BOOLEAN, which is 00 or ff and nothing else (X.690, 11.1)."""
        content = self.take(BOOLEAN)
        if content not in (b"\x00", b"\xff"):
            raise self._error(f"a BOOLEAN is 00 or ff, got {content[:4].hex() or 'nothing'}")
        return content == b"\xff"

    def integer(self, tag: bytes = INTEGER) -> int:
        """A non-negative INTEGER."""
        content = self.take(tag)
        padded = len(content) > 1 and content[0] == 0 and content[1] < 0x80
        if not content or len(content) > _MAX_INTEGER_OCTETS or content[0] >= 0x80 or padded:
            raise self._error(f"expected a non-negative integer of at most {_MAX_INTEGER_OCTETS} bytes, shortest form")
        return int.from_bytes(content, "big")

    def enumerated(self) -> int:
        """An ENUMERATED."""
        return self.integer(ENUMERATED)

    def bits(self) -> tuple[bytes, int]:
        """A BIT STRING: its octets, and how many bits of the last one are unused (they are zero)."""
        content = self.take(BIT_STRING)
        unused = content[0] if content else 8
        if unused > 7 or (unused and (len(content) < 2 or content[-1] & ((1 << unused) - 1))):
            raise self._error("a BIT STRING with impossible unused bits")
        return content[1:], unused

    def whole_bits(self) -> bytes:
        """A BIT STRING of whole octets."""
        content, unused = self.bits()
        if unused:
            raise self._error("a BIT STRING of whole octets expected")
        return content

    def oid(self) -> str:
        """An OBJECT IDENTIFIER in dotted form."""
        content = self.take(OID)
        if not content or len(content) > _MAX_OID_OCTETS or content[-1] >= 0x80:
            raise self._error(f"an OBJECT IDENTIFIER of 1 to {_MAX_OID_OCTETS} whole bytes expected")
        arcs, value, fresh = [], 0, True
        for octet in content:
            if fresh and octet == 0x80:
                raise self._error("an OBJECT IDENTIFIER with a padded arc")
            value, fresh = value << 7 | octet & 0x7F, octet < 0x80
            if fresh:
                arcs.append(value)
                value = 0
        first = min(arcs[0] // 40, 2)
        return ".".join(map(str, [first, arcs[0] - 40 * first, *arcs[1:]]))

    def time(self) -> datetime:
        """A UTCTime or GeneralizedTime to the second, in UTC (RFC 5280, 4.1.2.5)."""
        tag = self.peek()
        if tag not in _TIME:
            raise self._error("a time expected")
        content = self.take(tag)
        if not _TIME[tag].fullmatch(content):
            raise self._error(f"a time in UTC to the second expected, got {content[:20]!r}")
        text = content.decode("ascii")
        if tag == UTC_TIME:
            text = ("19" if text >= "50" else "20") + text
        try:
            return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)
        except ValueError as error:
            raise self._error(f"no such time: {text}") from error

    def _identifier(self) -> bytes:
        start = self._at
        if self._data[start] & 0x1F != 0x1F:
            return self._data[start : start + 1]
        octets = self._data[start + 1 : start + 1 + _MAX_TAG_OCTETS]
        size = next((i for i, octet in enumerate(octets, 1) if octet < 0x80), 0)
        if not size or octets[0] == 0x80 or (size == 1 and octets[0] < 0x1F):
            raise self._error("a tag that is not in its shortest form")
        return self._data[start : start + 1 + size]

    def _length(self, at: int) -> tuple[int, int]:
        """Where the content begins, and its length in octets."""
        if at >= len(self._data):
            raise self._error("it ends before a length")
        first = self._data[at]
        if first < 0x80:
            return at + 1, first
        octets = self._data[at + 1 : at + 1 + (first & 0x7F)]
        count = first & 0x7F
        if not 1 <= count <= _MAX_LENGTH_OCTETS or len(octets) != count:
            raise self._error("a length that is indefinite, too large or cut short")
        length = int.from_bytes(octets, "big")
        if octets[0] == 0 or length < 0x80:
            raise self._error("a length that is not in its shortest form")
        return at + 1 + count, length

    def _error(self, message: str) -> AttestationError:
        return AttestationError("format", f"{self._what} at byte {self._at}: {message}")
