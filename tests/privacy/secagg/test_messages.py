"""Messages: round trips, fixed bytes, and one error for whatever is wrong."""

import tracemalloc

import msgpack
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matl.errors import ProtocolError
from matl.privacy.secagg import messages
from matl.privacy.secagg.graph import MAX_CLIENTS
from matl.privacy.secagg.messages import (
    Advertisement,
    Certificate,
    Consistency,
    Delivery,
    MaskedInput,
    Message,
    Revealed,
    Roster,
    SealedShares,
    Survivors,
    pieces,
)

LIMIT = 1 << 16

EXAMPLES: list[tuple[Message, str]] = [
    (Advertisement("a", b"c" * 32, b"m" * 32, b"s" * 64), "960101a161c420" + "63" * 32),
    (Roster((b"x", b"yz")), "93010292c40178c402797a"),
    (SealedShares(b"s" * 80, b"c" * 32, b"d" * 32), "950103c450" + "73" * 80),
    (Delivery((0, 3), b""), "940104920003c400"),
    (MaskedInput(b"\1\2", b"c" * 16, (1,)), "950105c4020102c410" + "63" * 16 + "9101"),
    (Survivors((0, 300), b""), "9401069200cd012cc400"),
    (Consistency(b"s" * 64), "930107c440" + "73" * 64),
    (Certificate((5,), b"s" * 64), "9401089105c440" + "73" * 64),
    (Revealed((0, 1), b"s" * 64), "940109920001c440" + "73" * 64),
]
KINDS = [type(message) for message, _ in EXAMPLES]


@pytest.mark.parametrize(("message", "start"), EXAMPLES, ids=lambda value: type(value).__name__)
def test_the_bytes_of_a_message_are_fixed_and_read_back(message, start):
    data = message.to_bytes()
    assert data.hex().startswith(start)
    assert type(message).from_bytes(data, LIMIT) == message


def test_every_kind_has_a_number_of_its_own():
    assert len({kind.KIND for kind in KINDS}) == len(KINDS) == 9


def code_of(kind, data, limit=LIMIT):
    with pytest.raises(ProtocolError) as error:
        kind.from_bytes(data, limit)
    assert len(str(error.value)) < 300
    return error.value.code


def altered(*values):
    return msgpack.packb(list(values))


@pytest.mark.parametrize(
    ("kind", "data", "code"),
    [
        (Consistency, b"", "malformed"),
        (Consistency, b"\xc1", "malformed"),
        (Consistency, Consistency(bytes(64)).to_bytes()[:-1], "malformed"),  # truncated
        (Consistency, Consistency(bytes(64)).to_bytes() + b"\0", "malformed"),  # with a tail
        (Consistency, altered(), "malformed"),
        (Consistency, msgpack.packb({"a": 1}), "malformed"),
        (Consistency, msgpack.packb(7), "malformed"),
        (Consistency, altered(2, 7, bytes(64)), "version"),
        (Consistency, altered("1" * 100, 7, bytes(64)), "version"),
        (Consistency, altered(1, 8, (), b""), "kind"),
        (Consistency, altered(1, 7), "malformed"),
        (Consistency, altered(1, 7, bytes(64), 1), "malformed"),
        (Consistency, altered(1, 7, bytes(63)), "size"),
        (Consistency, altered(1, 7, "x" * 64), "malformed"),
        (Delivery, altered(1, 4, [0], bytes(79)), "size"),
        (Delivery, altered(1, 4, [1, 0], b""), "malformed"),
        (Delivery, altered(1, 4, [0, 0], b""), "malformed"),
        (Delivery, altered(1, 4, [-1], b""), "malformed"),
        (Delivery, altered(1, 4, [True], b""), "malformed"),
        (Delivery, altered(1, 4, [1.0], b""), "malformed"),
        (Delivery, altered(1, 4, [MAX_CLIENTS], b""), "malformed"),
        (Delivery, altered(1, 4, 5, b""), "malformed"),
        (Roster, altered(1, 2, ["text"]), "malformed"),
        (Roster, altered(1, 2, b"bytes"), "malformed"),
        (Advertisement, altered(1, 1, "", bytes(32), bytes(32), bytes(64)), "malformed"),
        (Advertisement, altered(1, 1, "x" * 129, bytes(32), bytes(32), bytes(64)), "malformed"),
        (Advertisement, altered(1, 1, b"x", bytes(32), bytes(32), bytes(64)), "malformed"),
        (Advertisement, b"\x96\1\1\xa2\xff\xff" + msgpack.packb(bytes(32)) * 2 + msgpack.packb(bytes(64)), "malformed"),
    ],
)
def test_whatever_is_wrong_is_one_error(kind, data, code):
    assert code_of(kind, data) == code


def test_a_message_over_the_limit_is_not_read():
    assert code_of(Consistency, Consistency(bytes(64)).to_bytes(), limit=68) == "size"


@pytest.mark.parametrize(
    "bomb",
    [
        b"\xdd\xff\xff\xff\xff",  # an array of 2^32 - 1
        b"\xdd\x00\x00\xea\x60" * 12000,  # nested arrays of 60,000
        b"\xdc\x0f\xff" * 20000,  # nested arrays of as many as are allowed
        b"\x91" * 60000,
        b"\xdf\xff\xff\xff\xff",  # a map
        b"\xc6\xff\xff\xff\xff",  # bytes
        b"\x93\x01\x07\xc9\xff\xff\xff\xff\x01",  # an extension
    ],
)
def test_a_bomb_is_refused_before_it_takes_memory(bomb):
    tracemalloc.start()
    try:
        assert code_of(Consistency, bomb) == "malformed"
        assert tracemalloc.get_traced_memory()[1] < 50e6
    finally:
        tracemalloc.stop()


@given(data=st.binary(max_size=300), kind=st.sampled_from(KINDS))
@settings(max_examples=200)
def test_random_bytes_raise_nothing_else(data, kind):
    with pytest.raises(ProtocolError):
        kind.from_bytes(data, LIMIT)


@given(example=st.sampled_from(EXAMPLES), data=st.data())
@settings(max_examples=300)
def test_a_changed_byte_raises_nothing_else(example, data):
    message, _ = example
    changed = bytearray(message.to_bytes())
    changed[data.draw(st.integers(0, len(changed) - 1))] = data.draw(st.integers(0, 255))
    for kind in KINDS:
        try:
            kind.from_bytes(bytes(changed), LIMIT)
        except ProtocolError:
            continue


def test_the_largest_advertisement_fits_its_bound():
    largest = Advertisement("x" * 128, bytes(32), bytes(32), bytes(64)).to_bytes()
    assert len(largest) <= messages.MAX_ADVERTISEMENT


def test_pieces_are_cut_only_from_as_many_bytes_as_are_due():
    assert pieces("field", b"aabbcc", 2, 3) == [b"aa", b"bb", b"cc"]
    for count in (2, 4):
        with pytest.raises(ProtocolError, match="field: expected"):
            pieces("field", b"aabbcc", 2, count)
