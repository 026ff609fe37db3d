from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matl.attest._event_log import EMPTY_PCR, Event, extended, parse_log, replay, write_log
from matl.errors import AttestationError

LIMIT = 100_000
EVENTS = st.lists(
    st.builds(
        Event,
        st.integers(0, 23),
        st.integers(0, 2**32 - 1),
        st.binary(min_size=32, max_size=32),
        st.binary(max_size=99),
    ),
    max_size=5,
)


@given(EVENTS)
def test_a_log_is_read_as_it_was_written(events: list[Event]) -> None:
    assert parse_log(write_log(events), LIMIT) == tuple(events)


@given(EVENTS, st.data())
def test_a_log_cut_short_is_none(events: list[Event], data: st.DataObject) -> None:
    whole = write_log(events)
    cut = whole[: data.draw(st.integers(0, len(whole) - 1))]
    try:
        read = parse_log(cut, LIMIT)
    except AttestationError:
        return
    assert read == tuple(events[: len(read)])  # cut between two events; replayed, it leads elsewhere
    assert len(read) < len(events)


def header(
    algorithms: list[tuple[int, int]], *, signature: bytes = b"Spec ID Event03\0", kind: int = 3, rest: bytes = b""
) -> bytes:
    body = signature + struct.pack("<IBBBBI", 0, 0, 2, 0, 2, len(algorithms))
    body += b"".join(struct.pack("<HH", *algorithm) for algorithm in algorithms) + b"\0" + rest
    return struct.pack("<II20sI", 0, kind, bytes(20), len(body)) + body


def event(*digests: tuple[int, bytes], count: int | None = None) -> bytes:
    whole = struct.pack("<III", 14, 6, len(digests) if count is None else count)
    return (
        whole + b"".join(struct.pack("<H", algorithm) + digest for algorithm, digest in digests) + struct.pack("<I", 0)
    )


BOTH = [(4, 20), (11, 32)]


def test_of_several_digests_the_sha256_one_counts() -> None:
    one = event((4, b"\1" * 20), (11, b"\2" * 32))
    other = event((11, b"\2" * 32), (4, b"\1" * 20))
    assert parse_log(header(BOTH) + one + other, LIMIT) == (Event(14, 6, b"\2" * 32, b""),) * 2


@pytest.mark.parametrize(
    ("log", "code"),
    [
        (b"", "format"),
        (header(BOTH, signature=b"Spec ID Event02\0"), "format"),
        (header(BOTH, kind=1), "format"),
        (header(BOTH, rest=b"\0"), "format"),
        (header([]), "format"),
        (header([(4, 20)] * 6), "format"),
        (header([(11, 20)]), "format"),
        (header([(99, 32), (11, 32)]), "format"),
        (header([(4, 20)]), "policy"),
        (header(BOTH) + event((11, bytes(32))), "format"),
        (header(BOTH) + event((11, bytes(32)), (11, bytes(32))), "format"),
        (header(BOTH) + event((11, bytes(32)), (12, bytes(48))), "format"),
        (header(BOTH) + event((11, bytes(32)), count=2**32 - 1), "format"),
        (header(BOTH) + event((4, bytes(20)), (11, bytes(32)))[:-4] + b"\xff" * 4, "format"),
        (header([(11, 32)]) + event((11, bytes(32))) * 8193, "format"),
        (bytes(LIMIT * 9), "format"),
    ],
)  # fmt: skip
def test_logs_that_are_none(log: bytes, code: str) -> None:
    with pytest.raises(AttestationError) as refused:
        parse_log(log, LIMIT * 8)
    assert refused.value.code == code


def test_replay_extends_in_order_and_skips_what_was_only_told() -> None:
    first, second = (Event(14, 6, bytes([i] * 32), b"") for i in (1, 2))
    told = Event(14, 3, bytes([3] * 32), b"")
    assert replay([]) == EMPTY_PCR
    assert replay([first, told, second]) == extended(extended(EMPTY_PCR, first.digest), second.digest)
    assert replay([second, first]) != replay([first, second])
