from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.attest.samples import refused, refused_if_at_all

from matl.attest._cbor import Cbor, read_cbor, read_cbor_sequence


def head(major: int, argument: int) -> bytes:
    for size, code in ((1, 24), (2, 25), (4, 26), (8, 27)):
        if argument < 24:
            return bytes([major << 5 | argument])
        if argument < 1 << 8 * size:
            return bytes([major << 5 | code]) + argument.to_bytes(size, "big")
    raise OverflowError


def cbor(value: Cbor) -> bytes:
    """Encode a value in its shortest form."""
    match value:
        case int():
            return head(0, value) if value >= 0 else head(1, -1 - value)
        case bytes():
            return head(2, len(value)) + value
        case str():
            return head(3, len(value.encode())) + value.encode()
        case list():
            return head(4, len(value)) + b"".join(map(cbor, value))
        case dict():
            return head(5, len(value)) + b"".join(cbor(key) + cbor(item) for key, item in value.items())


NUMBERS = st.integers(-(2**64), 2**64 - 1)
VALUES = st.recursive(
    NUMBERS | st.binary(max_size=40) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(NUMBERS | st.text(max_size=8), inner, max_size=4),
    max_leaves=8,
)


def depth(value: Cbor) -> int:
    items = list(value.values()) if isinstance(value, dict) else value if isinstance(value, list) else []
    return 1 + max(map(depth, items), default=0)


@settings(max_examples=50)
@given(VALUES.filter(lambda value: depth(value) <= 8))
def test_values_survive(value: Cbor) -> None:
    assert read_cbor(cbor(value)) == value


@pytest.mark.parametrize(
    ("bad", "why"),
    [
        ("", "got nothing"),
        ("1801", "shortest"),
        ("190017", "shortest"),
        ("1900ff", "shortest"),
        ("1a0000ffff", "shortest"),
        ("1b00000000ffffffff", "shortest"),
        ("1c", "indefinite"),
        ("5f4101ff", "indefinite"),
        ("9f01ff", "indefinite"),
        ("bf6161 01ff", "indefinite"),
        ("5b7fffffffffffffff", "are left"),
        ("9b7fffffffffffffff", "64 items"),
        ("bb7fffffffffffffff", "64 items"),
        ("9841" + "01" * 65, "64 items"),
        ("a2 6161 01 6161 02", "twice"),
        ("a1 4161 01", "neither text nor an integer"),
        ("a1 80 01", "neither text nor an integer"),
        ("a1 8101 01", "deeper"),
        ("c11a5f5e1000", "a tag"),
        ("d8235f", "a tag"),
        ("f4", "simple value"),
        ("f6", "simple value"),
        ("fb3ff0000000000000", "simple value"),
        ("62c328", "UTF-8"),
        ("0101", "more than 1 values"),
        ("61", "1 bytes where 0 are left"),
    ],
)
def test_what_app_attest_does_not_use_is_refused(bad: str, why: str) -> None:
    with refused("format", why):
        read_cbor(bytes.fromhex(bad))


@pytest.mark.parametrize("opening", [b"\x81", b"\xa1\x00"])
def test_deep_nesting_is_refused(opening: bytes) -> None:
    assert depth(read_cbor(opening * 7 + b"\x01")) == 8
    with refused("format", "deeper than 8"):
        read_cbor(opening * 8 + b"\x01")
    with refused("format", "deeper than 8"):
        read_cbor(opening * 10_000)


def test_values_may_follow_one_another() -> None:
    assert read_cbor_sequence(b"", 2) == []
    assert read_cbor_sequence(cbor({"a": 1}) + cbor([2]), 2) == [{"a": 1}, [2]]
    with refused("format", "more than 2 values"):
        read_cbor_sequence(b"\1\2\3", 2)


def test_numbers_and_keys_are_compared_as_they_are() -> None:
    assert read_cbor(bytes.fromhex("a2 01 02 20 03")) == {1: 2, -1: 3}


@given(st.binary(max_size=60))
def test_random_bytes_are_refused_in_one_way(data: bytes) -> None:
    with refused_if_at_all("format"):
        assert cbor(read_cbor(data)) == data
