"""Canonical texts: one spelling for every value, and one error for everything else."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta, timezone

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from matl.attest.canonical import COUNT, DIGEST, IDENTIFIER, LARGEST_COUNT, check_identifier, unix_ms
from matl.attest.challenge import CHALLENGE
from matl.attest.enrolment import EnrolmentText
from matl.attest.receipts import Receipt
from matl.attest.texts import LARGEST_CHUNK, ChunkText, UpdateText
from matl.errors import InvalidValueError, ProtocolError
from matl.records import RoundSpec, Status, Update

IDS = st.text("azAZ09._:@-", max_size=127).map("x".__add__)
DIGESTS = st.binary(min_size=32, max_size=32).map(bytes.hex)
COUNTS = st.integers(0, LARGEST_COUNT)
DECIMALS = st.floats(-1e6, 1e6)

CHUNKS = st.builds(
    ChunkText, round=COUNTS, node_id=IDS, model_hash=DIGESTS, chunk=st.binary(min_size=1), timestamp_unix_ms=COUNTS
)
UPDATES = st.builds(
    UpdateText,
    run=IDS,
    round=COUNTS,
    phase=st.sampled_from([None, "collect", "masked_input"]),
    client_id=IDS,
    base_version=COUNTS,
    model_hash=DIGESTS,
    layout_hash=DIGESTS,
    kind=st.text("az09_", max_size=31).map("k".__add__),
    codec=st.text([chr(code) for code in range(33, 127)], min_size=1, max_size=128) | st.just("two words"),
    payload_sha256=DIGESTS,
    num_examples=st.none() | COUNTS,
    evidence_hash=st.none() | DIGESTS,
    nonce=st.binary(min_size=16, max_size=16).map(bytes.hex),
    timestamp_unix_ms=COUNTS,
)
ENROLMENTS = st.builds(
    EnrolmentText,
    client_id=IDS,
    key=DIGESTS,
    invitation=DIGESTS,
    challenge=st.binary(min_size=56, max_size=56).map(bytes.hex),
)
RECEIPTS = st.builds(
    Receipt,
    run=IDS,
    round=COUNTS,
    client_id=IDS,
    model_hash=DIGESTS,
    update_hash=DIGESTS,
    status=st.sampled_from(Status),
    score=st.none() | DECIMALS,
    weight=st.floats(0, 1),
    policy_hash=DIGESTS,
    hardware_root=st.booleans(),
    signer=DIGESTS,
    timestamp_unix_ms=COUNTS,
)
TEXTS = CHUNKS | UPDATES | ENROLMENTS | RECEIPTS
KINDS: list[type] = [ChunkText, UpdateText, EnrolmentText, Receipt]

SPEC = RoundSpec(run="demo", round=3, model_hash="ab" * 32, layout_hash="cd" * 32)
UPDATE = Update(
    client_id="alice",
    run="demo",
    round=3,
    base_version=2,
    model_hash="ab" * 32,
    payload=b"...",
    payload_sha256="ef" * 32,
    num_examples=120,
    nonce="01" * 16,
    created_at=1700000000.123,
)


@given(TEXTS)
def test_what_is_written_is_read_back(text):
    data = text.to_bytes()
    assert type(text).parse(data) == text
    assert data.isascii()
    assert not data.endswith(b"\n")
    assert all(32 <= byte < 127 or byte == 10 for byte in data)


@given(TEXTS, st.data())
def test_what_is_read_is_what_would_be_written(text, data):
    """However bytes are changed, they are refused or are the text of what was read: no two texts mean the same."""
    changed = bytearray(text.to_bytes())
    where = data.draw(st.integers(0, len(changed) - 1))
    match data.draw(st.sampled_from(["change", "insert", "delete", "truncate"])):
        case "change":
            changed[where] = data.draw(st.integers(0, 255))
        case "insert":
            changed[where:where] = data.draw(st.sampled_from([b"\n", b"0", b" ", b"\0", b"=", b"\xe2\x80\x8b", b"\r"]))
        case "delete":
            del changed[where]
        case "truncate":
            del changed[where:]
    assert_read_or_refused(type(text), bytes(changed))


@given(st.binary(max_size=300) | st.text(max_size=100).map(str.encode))
@example(b"")
@example(b"\n" * 12)
@example(b"=\n" * 12)
@example(b"matl-update/2" + b"\n" * 13)
@example(b"matl-receipt/1" + b"\n=" * 12)
def test_any_bytes_are_refused_with_the_one_error(data):
    for kind in KINDS:
        assert_read_or_refused(kind, data)


def assert_read_or_refused(kind, data):
    refusal = None
    try:
        assert kind.parse(data).to_bytes() == data
    except ProtocolError as error:
        refusal = error
    assert refusal is None or (refusal.code in {"malformed", "size"} and len(str(refusal)) < 400)


def test_the_first_line_tells_texts_apart():
    firsts = {kind.DOMAIN or "round=" for kind in KINDS}
    assert len(firsts) == len(KINDS)
    assert [kind for kind in KINDS if not kind.DOMAIN] == [ChunkText]
    assert not any(kind.DOMAIN.startswith("round=") for kind in KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_a_long_text_is_refused_by_its_length_alone(kind):
    with pytest.raises(ProtocolError, match="expected at most") as error:
        kind.parse(b"\xff" * 2_000_000)
    assert error.value.code == "size"


def test_the_longest_chunk_there_may_be():
    fields = {"round": 0, "node_id": "a", "model_hash": "ab" * 32, "timestamp_unix_ms": 0}
    text = ChunkText(**fields, chunk=bytes(LARGEST_CHUNK))
    assert ChunkText.parse(text.to_bytes()) == text
    for chunk in (b"", bytes(LARGEST_CHUNK + 1), bytes(LARGEST_CHUNK + 3)):
        with pytest.raises(ProtocolError, match="gradient_chunk_b64: expected 1 to 786432 bytes"):
            ChunkText(**fields, chunk=chunk)


@pytest.mark.parametrize(
    ("grammar", "value"),
    [
        (COUNT, True),
        (COUNT, 3.0),
        (COUNT, "3"),
        (COUNT, np.int64(3)),
        (COUNT, -1),
        (COUNT, LARGEST_COUNT + 1),
        (COUNT, 10**5000),
        (COUNT, None),
        (IDENTIFIER, b"alice"),
        (IDENTIFIER, Status.ACCEPTED),
        (IDENTIFIER, ""),
        (IDENTIFIER, "-a"),
        (IDENTIFIER, "a\n"),
        (IDENTIFIER, "a/b"),
        (IDENTIFIER, "\ud800"),
        (IDENTIFIER, "a" * 129),
        (DIGEST, "AB" * 32),
        (CHALLENGE, "0" * 113),
    ],
    ids=lambda value: type(value).__name__,
)
def test_a_value_without_a_spelling_is_refused(grammar, value):
    with pytest.raises(ProtocolError, match="key: expected ") as error:
        grammar.write("key", value)
    assert error.value.code == "malformed"
    assert len(str(error.value)) < 200


def test_our_own_mistakes_are_another_error():
    check_identifier(name="carol")
    with pytest.raises(InvalidValueError, match="name: expected 1 to 128 ASCII letters"):
        check_identifier(name="car ol")


def test_differences_name_the_lines():
    text = ChunkText(round=1, node_id="a", model_hash="ab" * 32, chunk=b"x", timestamp_unix_ms=5)
    assert text.differences(text) == []
    assert text.differences(replace(text, chunk=b"y", round=2)) == ["round", "gradient_chunk_b64"]


# The text of an update


def test_the_text_of_an_update_covers_every_field_but_the_hosts_own():
    """A field that is added to Update or taken from the text fails here."""
    text = UpdateText.of(UPDATE, SPEC)
    changes = {
        "client_id": "bob",
        "run": "other",
        "round": 4,
        "base_version": 3,
        "model_hash": "00" * 32,
        "payload_sha256": "00" * 32,
        "num_examples": 121,
        "kind": "masked",
        "nonce": "02" * 16,
        "created_at": 1700000000.124,
        "evidence": {"a": 1},
    }
    beside = {"payload", "received_at", "signature"}  # covered by its digest; the host's; what signs
    assert {*changes} | beside == {*Update.__dataclass_fields__}
    for name, value in changes.items():
        assert len(text.differences(UpdateText.of(replace(UPDATE, **{name: value}), SPEC))) == 1, name
    for name, value in {"layout_hash": "00" * 32, "codec": "int8"}.items():
        assert text.differences(UpdateText.of(UPDATE, replace(SPEC, **{name: value}))) == [name]
    assert text.differences(UpdateText.of(UPDATE, SPEC, "keys")) == ["phase"]


def test_absent_examples_and_evidence_are_empty_lines():
    lines = UpdateText.of(replace(UPDATE, num_examples=None), SPEC).to_bytes().split(b"\n")
    assert b"num_examples=" in lines
    assert b"evidence_hash=" in lines
    zero = UpdateText.of(replace(UPDATE, num_examples=0), SPEC).to_bytes()
    assert b"\nnum_examples=0\n" in zero


def test_numbers_of_numpy_are_numbers():
    numpy = replace(UPDATE, round=np.int64(3), base_version=np.uint8(2), num_examples=np.int32(120))
    assert UpdateText.of(numpy, SPEC) == UpdateText.of(UPDATE, SPEC)


def nested(depth):
    value = {}
    for _ in range(depth):
        value = {"a": value}
    return value


@pytest.mark.parametrize(
    "changes",
    [
        {"created_at": float("nan")},
        {"created_at": float("inf")},
        {"created_at": -1.0},
        {"created_at": 1e300},
        {"created_at": 10**400},
        {"created_at": 1700000000.1234},
        {"created_at": "1700000000"},
        {"created_at": None},
        {"payload_sha256": None},
        {"round": 3.5},
        {"round": True},
        {"round": np.array([3])},
        {"client_id": 7},
        {"evidence": None},
        {"evidence": [1]},
        {"evidence": {"a": object()}},
        {"evidence": {1: 2}},
        {"evidence": {1: 2, "a": 3}},
        {"evidence": nested(5000)},
        {"evidence": nested(800)},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_fields_of_any_type_raise_the_one_error(changes):
    with pytest.raises(ProtocolError) as error:
        UpdateText.of(replace(UPDATE, **changes), SPEC)
    assert error.value.code == "malformed"


@given(COUNTS.filter(lambda value: value < 2**50))
def test_every_millisecond_can_be_signed(milliseconds):
    text = UpdateText.of(replace(UPDATE, created_at=milliseconds / 1000), SPEC)
    assert text.timestamp_unix_ms == milliseconds


def test_milliseconds_of_a_moment():
    moment = datetime(2023, 11, 14, 22, 13, 20, 999_999, tzinfo=UTC)
    assert unix_ms(moment) == 1700000000999
    assert unix_ms(moment.astimezone(timezone(timedelta(hours=5)))) == 1700000000999
    with pytest.raises(InvalidValueError, match="expected a time with a time zone"):
        unix_ms(datetime(2023, 11, 14))
