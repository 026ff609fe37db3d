"""The bytes of an encoded vector: one format, versioned, self-describing, and bounded before anything is allocated.

::

    offset  bytes  what
    0       4      "MTLC"
    4       1      version of the format, 1
    5       2      length h of the header, at most 1024
    7       8      length p of the payload
    15      h      header: a msgpack map
    15 + h  p      payload
    15+h+p  4      CRC-32 of all of the above (zlib, IEEE 802.3)

Integers are little-endian and unsigned. The header maps ``codec`` to the parts by name with all their options, ``size``
to the length of the vector, ``seed`` to the public seed and ``context`` to bytes the message is bound to. The payload
is the scales (float32) followed by the packed words.

The checksum finds damage. It does not find an attacker, who can compute it as well: that is what the signature of the
envelope around the container is for.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Mapping
from typing import Any

import msgpack

from matl.errors import InvalidValueError, MatlError

__all__ = ["OVERHEAD", "VERSION", "ContainerError", "read", "write"]

VERSION = 1
"""The version that is written, and the newest that is read."""

_MAGIC = b"MTLC"
_FRAME = struct.Struct("<4sBHQ")
_CHECKSUM = struct.Struct("<I")
_LONGEST_HEADER = 1024

OVERHEAD = _FRAME.size + _LONGEST_HEADER + _CHECKSUM.size
"""Bytes that a container never has beyond its payload."""


class ContainerError(MatlError, ValueError):
    """Bytes that somebody sent are not an encoded vector, or not the one that is due.

    Whatever the bytes are, decoding them raises nothing else. Hosts turn it into a `matl.records.Rejection`.
    """


def write(header: Mapping[str, Any], payload: bytes) -> bytes:
    """A container of a header, which is plain data, and a payload.

    Examples
    --------
    >>> read(write({"size": 3}, b"abc"))
    ({'size': 3}, b'abc')
    """
    packed: bytes = msgpack.packb(dict(header))
    if len(packed) > _LONGEST_HEADER:
        raise InvalidValueError(f"expected a header of at most {_LONGEST_HEADER} bytes, got {len(packed)}")
    body = _FRAME.pack(_MAGIC, VERSION, len(packed), len(payload)) + packed + payload
    return body + _CHECKSUM.pack(zlib.crc32(body))


def read(data: bytes) -> tuple[dict[str, Any], bytes]:
    """Header and payload of a container that anybody may have sent.

    Raises
    ------
    ContainerError
        The bytes are no container, are damaged, cut short or continued, or were written by a newer version.
    """
    if len(data) < _FRAME.size + _CHECKSUM.size:
        raise ContainerError(f"{len(data)} bytes are too few for a container")
    magic, version, header_length, payload_length = _FRAME.unpack_from(data)
    if magic != _MAGIC:
        raise ContainerError(f"a container begins with {_MAGIC!r}, this begins with {magic!r}")
    if version > VERSION:
        raise ContainerError(
            f"written by a newer version: format {version}, this library reads up to {VERSION}; upgrade matl"
        )
    if version != VERSION:
        raise ContainerError(f"there is no format {version}, only {VERSION}")
    if header_length > _LONGEST_HEADER:
        raise ContainerError(f"header of {header_length} bytes, allowed are {_LONGEST_HEADER}")
    due = _FRAME.size + header_length + payload_length + _CHECKSUM.size
    if len(data) != due:
        what = "truncated" if len(data) < due else "trailing bytes"
        raise ContainerError(f"{what}: got {len(data)} bytes, {due} are due")
    body, (checksum,) = memoryview(data)[: -_CHECKSUM.size], _CHECKSUM.unpack_from(data, due - _CHECKSUM.size)
    if zlib.crc32(body) != checksum:
        raise ContainerError("damaged: the checksum does not match")
    start = _FRAME.size + header_length
    return _header(bytes(body[_FRAME.size : start])), bytes(body[start:])


def _header(packed: bytes) -> dict[str, Any]:
    try:
        header = msgpack.unpackb(packed, strict_map_key=True)
    except (ValueError, TypeError, msgpack.exceptions.UnpackException) as error:
        raise ContainerError(f"the header cannot be read: {str(error) or type(error).__name__}") from error
    if not isinstance(header, dict):
        raise ContainerError(f"the header is a {type(header).__name__}, not a map")
    return header
