"""State survives packing bit for bit, and nothing but plain data goes in or out."""

import contextlib
import enum
import math
import struct

import msgpack
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from matl import state
from matl.errors import StateError

DTYPES = ["?", "i1", "<i4", "<i8", "u1", "<u8", "<f2", "<f4", "<f8", "<U3"]
arrays = st.sampled_from(DTYPES).flatmap(
    lambda dtype: hnp.arrays(np.dtype(dtype), hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3))
)
# Every bit pattern of a double, so that NaN payloads, -0.0 and subnormals are all in.
doubles = st.integers(0, 2**64 - 1).map(lambda bits: struct.unpack("<d", struct.pack("<Q", bits))[0])
leaves = st.none() | st.booleans() | st.integers(-(2**63), 2**64 - 1) | doubles | st.text() | st.binary() | arrays
values = st.recursive(
    leaves, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3), max_leaves=8
)
states = st.dictionaries(st.text(), values, max_size=4)


def same_bits(a, b):
    if isinstance(a, np.ndarray):
        return type(b) is np.ndarray and (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())
    if isinstance(a, dict):
        return list(a) == list(b) and all(same_bits(a[key], b[key]) for key in a)
    if isinstance(a, list):
        return len(a) == len(b) and all(map(same_bits, a, b))
    if isinstance(a, float):
        return type(b) is float and struct.pack("<d", a) == struct.pack("<d", b)
    return type(a) is type(b) and a == b


@given(states)
def test_round_trip_is_exact(value):
    packed = state.pack(value)
    again = state.unpack(packed)
    assert same_bits(value, again)
    assert state.pack(again) == packed


def test_quiet_and_signalling_nan_payloads_and_negative_zero_in_arrays():
    for dtype, bits in (("<f4", [0x7FC01234, 0x7F801234, 0x80000000]), ("<f8", [0x7FF0000000000001, 1 << 63])):
        array = np.array(bits, dtype=f"<u{dtype[-1]}").view(dtype)
        assert state.unpack(state.pack({"a": array}))["a"].tobytes() == array.tobytes()


def test_unpacked_arrays_may_be_written_to():
    state.unpack(state.pack({"a": np.zeros(2)}))["a"][0] = 1


def test_layouts_in_memory_do_not_matter():
    array = np.arange(12.0).reshape(3, 4)
    for other in (np.asfortranarray(array), array.astype(">f8"), np.repeat(array, 2, axis=1)[:, ::2]):
        assert state.pack({"a": other}) == state.pack({"a": array})


def test_numpy_scalars_become_python_numbers():
    packed = {"a": np.float32(0.5), "b": np.int8(-3), "c": np.bool_(True), "d": np.str_("x")}
    assert state.unpack(state.pack(packed)) == {"a": 0.5, "b": -3, "c": True, "d": "x"}


class Colour(enum.StrEnum):
    RED = "red"


@pytest.mark.parametrize(
    "value",
    [
        object(),
        (1, 2),
        {1, 2},
        1j,
        Colour.RED,
        2**64,
        -(2**63) - 1,
        "\ud800",
        np.array([object()]),
        np.array([1j]),
        np.array(["2020"], "datetime64[D]"),
        np.zeros(1, [("a", "f4")]),
        np.longdouble(1),
        msgpack.Timestamp(1),
        msgpack.ExtType(7, b""),
        {1: "a"},
        {b"a": 1},
        {None: 1},
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_not_plain_data_is_refused_before_it_is_written(value):
    for nested in ({"a": value}, {"a": [{"b": value}]}):
        with pytest.raises(StateError, match="state is not plain data"):
            state.pack(nested)


def test_a_state_that_holds_itself_is_refused():
    loop = []
    loop.append(loop)
    with pytest.raises(StateError):
        state.pack({"a": loop})


def foreign_array(*header):
    return msgpack.packb({"a": msgpack.ExtType(1, msgpack.packb(list(header)))})


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\xc1",
        b"\x81\xa1a",
        state.pack({"a": 1}) + b"\x00",
        msgpack.packb([1, 2]),
        msgpack.packb(None),
        msgpack.packb({1: 2}),
        msgpack.packb({b"a": 2}),
        msgpack.packb({"a": msgpack.ExtType(2, b"")}),
        msgpack.packb({"a": msgpack.Timestamp(1)}),
        msgpack.packb({"a": msgpack.ExtType(1, b"")}),
        msgpack.packb({"a": msgpack.ExtType(1, msgpack.packb(5))}),
        foreign_array("<f4", [2], b"1234"),
        foreign_array("<f4", [-1], b"1234"),
        foreign_array("<f4", [-1, -1], b"1234"),
        foreign_array("<f4", [2**63, 0], b""),
        foreign_array("<f4", [1] * 70, b"1234"),
        foreign_array("<f4", 1, b"1234"),
        foreign_array("<f4", ["x", 2**62], b"1234"),
        foreign_array("<f4", [[1], 2**30, 2**30], b"1234"),
        foreign_array("<f4", [True], b"1234"),
        foreign_array("<f4", [1], "1234"),
        foreign_array("<f4", [1]),
        foreign_array("<f3", [1], b"123"),
        foreign_array("<U0", [1], b""),
        foreign_array("|O", [1], b"12345678"),
        foreign_array("<c8", [1], b"12345678"),
        foreign_array("f4,f4", [1], b"12345678"),
        foreign_array("f4,(", [1], b"1234"),
        foreign_array({"names": ["a"]}, [1], b"1234"),
        foreign_array(None, [1], b"12345678"),
        b"\x81\xa1a" * 102 + b"\xc0",
        b"\x81\xa1a" + b"\x91" * 1000 + b"\xc0",
        b"\x81\xa1a" * 1000 + b"\xc0",
        {"not": "bytes"},
    ],
    ids=repr,
)
def test_damaged_or_foreign_bytes_are_refused(data):
    with pytest.raises(StateError, match=r"state cannot be read: ."):
        state.unpack(data)


def test_what_nests_too_deep_is_not_packed():
    deep = {}
    for _ in range(100):
        deep = {"a": deep}
    assert state.unpack(state.pack(deep)) == deep
    with pytest.raises(StateError, match="nested deeper than 100"):
        state.pack({"a": {"a": deep}})


@given(st.binary(max_size=60))
def test_no_bytes_raise_anything_else(data):
    with contextlib.suppress(StateError):
        assert isinstance(state.unpack(data), dict)


GOOD = state.pack({"round": 3, "scores": np.arange(3.0), "names": ["a", "b"], "nested": {"x": None}})


@settings(max_examples=300)
@given(st.integers(0, len(GOOD) - 1), st.integers(1, 255))
def test_a_damaged_byte_is_an_error_or_another_state_and_never_a_crash(position, flip):
    data = bytearray(GOOD)
    data[position] ^= flip
    with contextlib.suppress(StateError):
        assert isinstance(state.unpack(bytes(data)), dict)


@pytest.mark.parametrize("length", range(len(GOOD)))
def test_a_truncated_state_is_an_error(length):
    with pytest.raises(StateError):
        state.unpack(GOOD[:length])


def test_digest_is_stable():
    value = {"b": [1, 2.5, None, True], "a": {"y": "ü", "x": b"\x00"}, "array": np.arange(3, dtype=np.float32)}
    assert state.digest(value) == "1ee2e8fb372e488ec204cece9e3ed04db4df4af90cdfcdc9e6dce7c51f5bad2c"
    assert state.digest(dict(reversed(value.items()))) == state.digest(value)
    assert state.digest((1, (2, 3))) == state.digest([1, [2, 3]])


def test_digest_tells_values_apart():
    different = [1, 1.0, "1", b"1", True, None, [1], {"1": 1}, math.nan, -0.0, 0.0, np.zeros(1), np.zeros(1, "f4")]
    assert len({state.digest(value) for value in different}) == len(different)
