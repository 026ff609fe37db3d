"""A strict reader of the part of CBOR (RFC 8949) that App Attest uses.

Integers, byte and text strings, arrays and maps, of definite length and in the shortest form, no key twice. Tags,
floats and simple values are refused: a full decoder turns them into dates, patterns and numbers of any size, for
nothing here.
"""

from __future__ import annotations

from typing import TypeAlias

from matl.errors import AttestationError

__all__ = ["Cbor", "read_cbor", "read_cbor_sequence"]

Cbor: TypeAlias = int | bytes | str | list["Cbor"] | dict[int | str, "Cbor"]

_MAX_DEPTH = 8
_MAX_ITEMS = 64
_ARGUMENT_SIZES = {24: 1, 25: 2, 26: 4, 27: 8}
_UNSIGNED, _NEGATIVE, _BYTES, _TEXT, _ARRAY, _MAP = range(6)  # major types


def read_cbor(data: bytes, what: str = "CBOR") -> Cbor:
    r"""The one value that ``data`` is.

    Raises
    ------
    AttestationError
        ``"format"``: it is none, or more than one, or none of those read here.

    Examples
    --------
    >>> read_cbor(bytes.fromhex("a2 6161 01 6162 82 20 4101"))
    {'a': 1, 'b': [-1, b'\x01']}
    """
    values = read_cbor_sequence(data, 1, what)
    if not values:
        raise AttestationError("format", f"{what}: a value expected, got nothing")
    return values[0]


def read_cbor_sequence(data: bytes, most: int, what: str = "CBOR") -> list[Cbor]:
    """At most ``most`` values that stand one behind the other, as `read_cbor`.

    Examples
    --------
    >>> read_cbor_sequence(bytes.fromhex("01 6161"), most=2)
    [1, 'a']
    """
    reader = _Reader(data, what)
    values: list[Cbor] = []
    while reader.at < len(data):
        if len(values) == most:
            raise reader.error(f"more than {most} values")
        values.append(reader.value(_MAX_DEPTH))
    return values


class _Reader:
    def __init__(self, data: bytes, what: str) -> None:
        self.data, self.what, self.at = data, what, 0

    def value(self, depth: int) -> Cbor:
        if not depth:
            raise self.error(f"values nest deeper than {_MAX_DEPTH}")
        major, argument = self._head()
        if major == _UNSIGNED:
            return argument
        if major == _NEGATIVE:
            return -1 - argument
        if major == _BYTES:
            return self._take(argument)
        if major == _TEXT:
            return self._text(argument)
        if major not in (_ARRAY, _MAP) or argument > _MAX_ITEMS:
            raise self.error(f"a tag, a simple value, or more than {_MAX_ITEMS} items")
        if major == _ARRAY:
            return [self.value(depth - 1) for _ in range(argument)]
        return self._map(argument, depth)

    def _map(self, size: int, depth: int) -> dict[int | str, Cbor]:
        found: dict[int | str, Cbor] = {}
        for _ in range(size):
            key = self.value(1)
            if not isinstance(key, int | str) or key in found:
                raise self.error("a key that is there twice, or is neither text nor an integer")
            found[key] = self.value(depth - 1)
        return found

    def _head(self) -> tuple[int, int]:
        first = self._take(1)[0]
        major, argument = first >> 5, first & 0x1F
        if argument < 24:
            return major, argument
        size = _ARGUMENT_SIZES.get(argument)
        if size is None:
            raise self.error("a length that is indefinite")
        argument = int.from_bytes(self._take(size), "big")
        if argument < 24 or (size > 1 and argument < 1 << 4 * size):
            raise self.error("a number that is not in its shortest form")
        return major, argument

    def _text(self, size: int) -> str:
        try:
            return self._take(size).decode("utf-8")
        except UnicodeDecodeError as error:
            raise self.error("text that is not UTF-8") from error

    def _take(self, size: int) -> bytes:
        if size > len(self.data) - self.at:
            raise self.error(f"{size} bytes where {len(self.data) - self.at} are left")
        self.at += size
        return self.data[self.at - size : self.at]

    def error(self, message: str) -> AttestationError:
        return AttestationError("format", f"{self.what} at byte {self.at}: {message}")
