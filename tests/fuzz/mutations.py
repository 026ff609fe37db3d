"""Bytes like those of a sample, and bytes that are hard to bear."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from typing import Any

import msgpack
from hypothesis import strategies as st

from matl.errors import MatlError
from matl.state import pack, unpack

__all__ = ["bombs", "exchanged", "mutated"]

_DEEP = 100_000

# What decoders have stumbled over: of JSON, msgpack, CBOR, DER, protobuf and of numbers in general.
FRAGMENTS = [
    b"", b"\0", b"\xff", b"\x80", b"\x7f", b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", b"\n", b'"', b"=",
    b"-", b"null", b"NaN", b"1e999", b"-1", b"9" * 400, b"9" * 5000, b'"\\ud800"', b'"\\u0000"', b"[]", b"{}",
    b"[[[[[[[[", b"0.5", b"\xc0", b"\xcb\x7f\xf0" + bytes(6), b"\xcb\x7f\xf8" + bytes(6), b"\xcf" + b"\xff" * 8,
    b"\xd3\x80" + bytes(7), b"\x90", b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff",
    b"\xdb\xff\xff\xff\xff", b"\xc9\xff\xff\xff\xff\x01", b"\xd6\xff" + bytes(4), b"\x9b" + b"\xff" * 8,
    b"\x5b" + b"\xff" * 8, b"\xbf", b"\x9f", b"\x30\x80", b"\x30\x84\xff\xff\xff\xff", b"\x30\x88" + b"\xff" * 8,
    b"\x06\x81\x80", b"\x02\x00", b"\xed\xa0\x80",
]  # fmt: skip

# In place of any part of plain data.
_VALUES: list[Any] = [
    None, True, 0, -1, 2**53, 2**63 - 1, 0.5, "", "x", "\0", "\ud800", "x" * 70_000, [], [[]], ["x"], {}, {"x": "x"},
    {"": []}, float("inf"), float("nan"),
]  # fmt: skip


def mutated(seeds: tuple[bytes, ...]) -> st.SearchStrategy[bytes]:
    """Samples with a few changes, samples cut off, and now and then anything at all."""
    longest = max(len(seed) for seed in seeds)
    place = st.integers(0, max(longest, 1))
    change = st.tuples(place, st.integers(0, 8), st.sampled_from(FRAGMENTS) | st.binary(max_size=8))

    def changed(seed: bytes, changes: list[tuple[int, int, bytes]], end: int) -> bytes:
        data = bytearray(seed)
        for at, length, piece in changes:
            start = at % (len(data) + 1)
            data[start : start + length] = piece
        return bytes(data[: end if end else None])

    near = st.builds(changed, st.sampled_from(seeds), st.lists(change, min_size=1, max_size=4), st.just(0))
    short = st.builds(changed, st.sampled_from(seeds), st.lists(change, max_size=2), st.integers(0, longest))
    return near | short | st.binary(max_size=300)


def exchanged(seed: bytes, form: str) -> Iterator[bytes]:
    """The sample with every part in turn left out, exchanged for something else, or joined by a stranger."""
    if form == "json":
        for variant in _variants(json.loads(seed)):
            yield json.dumps(variant).encode()
    elif form == "msgpack":
        try:
            content: Any = unpack(seed)
        except MatlError:
            content = msgpack.unpackb(seed)
        for variant in _variants(content):
            try:
                yield pack(variant) if isinstance(variant, dict) else bytes(msgpack.packb(variant))
            except (MatlError, ValueError):  # what cannot be sent
                continue


def _variants(value: Any) -> Iterator[Any]:
    yield from _VALUES
    if isinstance(value, dict):
        yield {**value, "stranger": 1}
        for key, item in value.items():
            yield {each: value[each] for each in value if each != key}
            for variant in _variants(item):
                yield {**value, key: variant}
    elif isinstance(value, list | tuple):
        for place, item in enumerate(value):
            yield [*value[:place], *value[place + 1 :]]
            yield [*value[:place], item, *value[place:]]
            for variant in _variants(item):
                yield [*value[:place], variant, *value[place + 1 :]]


def bombs(seed: bytes) -> dict[str, bytes]:
    """Bytes that claim much, or nest deep."""
    whole = {
        "nothing": b"",
        "zeros": bytes(1 << 16),
        "ones": b"\xff" * (1 << 16),
        "JSON lists": b"[" * _DEEP,
        "JSON lists that end": b"[" * 900 + b"]" * 900,
        "JSON objects": b'{"a":' * _DEEP,
        "JSON objects that end": b'{"a":' * 900 + b"1" + b"}" * 900,
        "a long number": b"9" * _DEEP,
        "a long text": b'"' + b"a" * _DEEP + b'"',
        "msgpack lists": b"\x91" * _DEEP,
        "msgpack maps": b"\x81\xa1a" * _DEEP,
        "msgpack in a map": b"\x81\xa1a" + b"\x91" * 1000 + b"\xc0",
        "msgpack maps in a map": b"\x81\xa1a" * 1000 + b"\xc0",
        "msgpack arrays that claim much": b"\xdd\x00\xff\xff\xff" * 64,
        "msgpack extensions": b"\x81\xa1a" + b"\xc7\x40\x01" * 1000,
        "CBOR lists": b"\x81" * _DEEP,
        "CBOR maps": b"\xa1\x61a" * _DEEP,
        "CBOR that claims much": b"\x9b\0\0\0\0\xff\xff\xff\xff" * 64,
        "DER": b"\x30\x82\xff\xff" * (1 << 14),
        "DER that fits": _nested(3000),
        "safetensors": struct.pack("<Q", 1 << 40) + b"{",
        "safetensors lists": struct.pack("<Q", 5000) + b"[" * 5000,
        "lines": b"\n" * _DEEP,
    }
    middle = len(seed) // 2
    inside = {f"{name} in a sample": seed[:middle] + bomb + seed[middle:] for name, bomb in whole.items()}
    return whole | inside | {"a sample many times": seed * (1 + (1 << 16) // max(len(seed), 1))}


def _nested(depth: int) -> bytes:
    data = b""
    for _ in range(depth):
        data = b"\x30" + (b"\x82" + len(data).to_bytes(2, "big") if len(data) > 255 else _short(len(data))) + data
    return data


def _short(length: int) -> bytes:
    return bytes([length]) if length < 128 else bytes([0x81, length])
