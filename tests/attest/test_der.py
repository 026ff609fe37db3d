from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.attest.chains import der, der_integer, der_oid, der_time
from tests.attest.samples import refused, refused_if_at_all

from matl.attest._der import INTEGER, SEQUENCE, Der, context


@pytest.mark.parametrize(
    ("method", "good", "value"),
    [
        ("boolean", "0101ff", True),
        ("boolean", "010100", False),
        ("integer", "020100", 0),
        ("integer", "02020080", 128),
        ("enumerated", "0a0102", 2),
        ("octets", "0402abcd", b"\xab\xcd"),
        ("whole_bits", "030200ff", b"\xff"),
        ("bits", "03020204", (b"\x04", 2)),
        ("bits", "030100", (b"", 0)),
        ("oid", "06032a0304", "1.2.3.4"),
        ("oid", "0603883703", "2.999.3"),
        ("oid", "060127", "0.39"),
        ("oid", "060150", "2.0"),
        ("time", b"\x17\x0d700101000000Z".hex(), datetime(1970, 1, 1, tzinfo=UTC)),
        ("time", b"\x17\x0d491231235959Z".hex(), datetime(2049, 12, 31, 23, 59, 59, tzinfo=UTC)),
        ("time", b"\x18\x0f21060207062815Z".hex(), datetime(2106, 2, 7, 6, 28, 15, tzinfo=UTC)),
    ],
)
def test_values_are_read(method: str, good: str, value: object) -> None:
    cursor = Der(bytes.fromhex(good))
    assert getattr(cursor, method)() == value
    assert cursor.done


@pytest.mark.parametrize(
    ("method", "bad"),
    [
        ("boolean", "010101"),  # true as some write it
        ("boolean", "0100"),
        ("boolean", "0102ffff"),
        ("integer", "0200"),
        ("integer", "02020001"),  # padded
        ("integer", "0201ff"),  # negative
        ("integer", "0221" + "01" * 33),
        ("octets", "2404" + "0402abcd"),  # constructed
        ("octets", "048102abcd"),  # long form of a short length
        ("octets", "0480abcd0000"),  # indefinite
        ("octets", "04820002abcd"),  # padded length
        ("octets", "0483000080" + "00" * 128),
        ("octets", "0484ffffffff"),
        ("octets", "0483ffffff"),
        ("octets", "0481"),
        ("octets", "04"),
        ("octets", "0403abcd"),
        ("whole_bits", "030201fe"),
        ("bits", "03020205"),  # an unused bit is set
        ("bits", "030208ff"),
        ("bits", "0300"),
        ("bits", "030101"),
        ("oid", "0600"),
        ("oid", "060280"),
        ("oid", "06028001"),  # padded arc
        ("oid", "060281"),
        ("oid", "0621" + "01" * 33),
        ("time", b"\x17\x0d701301000000Z".hex()),
        ("time", b"\x17\x0b7001010000Z".hex()),
        ("time", b"\x17\x11700101000000+0100".hex()),
        ("time", b"\x18\x1120260101000000.1Z".hex()),
        ("time", b"\x18\x0f00000101000000Z".hex()),
        ("time", b"\x18\x0f20260101000060Z".hex()),
        ("time", "020101"),
        ("peek", "1f"),
        ("peek", "bf1e00"),  # a low tag in the high form
        ("peek", "bf808001"),
        ("peek", "bfffffffffffff7f"),
    ],
)
def test_what_has_another_encoding_is_refused(method: str, bad: str) -> None:
    with refused("format"):
        getattr(Der(bytes.fromhex(bad)), method)()


def test_nothing_may_be_left() -> None:
    cursor = Der(bytes.fromhex("020101 020102"), "two numbers")
    cursor.integer()
    with refused("format", "two numbers at byte 3: 3 bytes too many"):
        cursor.finish()


def test_an_optional_value_may_be_absent() -> None:
    cursor = Der(bytes.fromhex("a003020101"))
    assert cursor.optional(context(1)) is None
    tagged = cursor.optional(context(0))
    assert tagged is not None
    assert tagged.integer() == 1
    assert cursor.peek() == b""
    assert cursor.optional(context(0)) is None


def test_raw_keeps_identifier_and_length() -> None:
    value = der(0x30, der_integer(5))
    cursor = Der(value + b"\x05\x00")
    assert cursor.raw(SEQUENCE) == value


@given(st.integers(0, 2**248 - 1))
def test_integers_survive(number: int) -> None:
    assert Der(der_integer(number)).integer() == number


@given(st.integers(0, 2**20))
def test_tags_survive(number: int) -> None:
    tag = context(number)
    assert Der(der(tag, der_integer(7))).enter(tag).take(INTEGER) == b"\x07"


@given(st.integers(0, 2), st.integers(0, 39), st.lists(st.integers(0, 2**32), max_size=4))
def test_object_identifiers_survive(first: int, second: int, arcs: list[int]) -> None:
    dotted = ".".join(map(str, [first, second, *arcs]))
    assert Der(der_oid(dotted)).oid() == dotted


@given(st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31)))
def test_times_survive(moment: datetime) -> None:
    moment = moment.replace(microsecond=0, tzinfo=UTC)
    text = f"{moment.year:04}{moment:%m%d%H%M%S}Z".encode()
    assert Der(der(0x18, text)).time() == moment
    assert moment.year < 1000 or Der(der_time(moment)).time() == moment


METHODS = ["peek", "boolean", "integer", "enumerated", "octets", "bits", "whole_bits", "oid", "time", "enter"]


@given(st.binary(max_size=40), st.lists(st.sampled_from(METHODS), max_size=4))
def test_random_bytes_are_refused_in_one_way(data: bytes, methods: list[str]) -> None:
    cursor = Der(data)
    with refused_if_at_all("format"):
        for method in methods:
            getattr(cursor, method)()
