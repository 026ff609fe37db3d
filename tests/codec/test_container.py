import struct
import zlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matl.codec import ContainerError
from matl.codec.container import OVERHEAD, read, write
from matl.errors import InvalidValueError


def seal(body):
    return body + struct.pack("<I", zlib.crc32(body))


@given(st.dictionaries(st.text(max_size=5), st.integers(0, 2**64 - 1), max_size=5), st.binary(max_size=50))
def test_round_trip(header, payload):
    data = write(header, payload)
    assert read(data) == (header, payload)
    assert len(data) <= OVERHEAD + len(payload)


def test_golden_vector():
    golden = bytes.fromhex("4d544c43 01 0700 0300000000000000 81a473697a6507 616263 e712c852")
    assert write({"size": 7}, b"abc") == golden
    assert read(golden) == ({"size": 7}, b"abc")


def test_every_cut_and_every_continuation_is_found():
    data = write({"size": 7}, b"abcdefgh")
    for length in range(len(data)):
        with pytest.raises(ContainerError, match=r"too few|truncated"):
            read(data[:length])
    with pytest.raises(ContainerError, match=f"trailing bytes: got {len(data) + 1} bytes, {len(data)} are due"):
        read(data + b"\0")


def test_every_flipped_bit_is_found():
    data = write({"size": 7}, b"abc")
    for k in range(8 * len(data)):
        damaged = bytearray(data)
        damaged[k // 8] ^= 1 << (k % 8)
        with pytest.raises(ContainerError):
            read(bytes(damaged))


@pytest.mark.parametrize(
    ("start", "message"),
    [
        (struct.pack("<4sBHQ", b"MTLX", 1, 1, 0), "begins with b'MTLC', this begins with b'MTLX'"),
        (struct.pack("<4sBHQ", b"MTLC", 2, 1, 0), "written by a newer version: format 2, .* up to 1; upgrade"),
        (struct.pack("<4sBHQ", b"MTLC", 0, 1, 0), "no format 0"),
        (struct.pack("<4sBHQ", b"MTLC", 1, 1025, 0), "header of 1025 bytes, allowed are 1024"),
        (struct.pack("<4sBHQ", b"MTLC", 1, 1, 2**64 - 1), "truncated"),
        (struct.pack("<4sBHQ", b"MTLC", 1, 1, 0) + b"\x07", "the header is a int, not a map"),
        (struct.pack("<4sBHQ", b"MTLC", 1, 1, 0) + b"\xc1", "the header cannot be read"),
        (struct.pack("<4sBHQ", b"MTLC", 1, 3, 0) + b"\x81\x01\x01", "the header cannot be read"),
        (struct.pack("<4sBHQ", b"MTLC", 1, 5, 0) + b"\xdf\xff\xff\xff\xff", "the header cannot be read"),
        (struct.pack("<4sBHQ", b"MTLC", 1, 1024, 0) + b"\x91" * 1024, "the header cannot be read"),
    ],
)
def test_what_is_refused(start, message):
    with pytest.raises(ContainerError, match=message):
        read(seal(start))


def test_a_header_that_is_too_long_is_not_written():
    with pytest.raises(InvalidValueError, match="at most 1024 bytes"):
        write({"context": bytes(2000)}, b"")


@given(st.binary(max_size=100))
def test_any_bytes(data):
    with pytest.raises(ContainerError):
        read(data)
