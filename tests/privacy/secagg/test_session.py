"""Sessions: what is refused, and that nothing about a round can change unnoticed."""

from dataclasses import replace

import numpy as np
import pytest

from matl.errors import InvalidValueError, ProtocolError
from matl.privacy.secagg import Phase, Session, quorum
from matl.privacy.secagg.session import Registration

SESSION = Session(run="r", round=1, length=10, min_survivors=4, corrupt=1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"bits": 12}, "2 to 8, 16 or 32"),
        ({"length": 0}, "length to be a whole number >= 1"),
        ({"length": (1 << 30) + 1}, "aggregate in parts"),
        ({"round": -1}, "round to be a whole number >= 0"),
        ({"corrupt": -1}, "corrupt to be a whole number >= 0"),
        ({"min_survivors": 2}, "min_survivors to be a whole number >= 3"),  # one honest client would be alone
        ({"min_survivors": 5000}, "min_survivors <= 4096"),
        ({"terms": "the ones of yesterday"}, "expected terms to be a SHA-256 in 64 hexadecimal digits, got 'the ones"),
        ({"terms": "AB" * 32}, "expected terms to be a SHA-256"),
    ],
)
def test_what_cannot_be_aggregated_is_refused(changes, message):
    with pytest.raises(InvalidValueError, match=message):
        replace(SESSION, **changes)


def test_every_field_changes_the_digest():
    changes = {"run": "s", "round": 2, "group": "g", "length": 11, "bits": 16, "corrupt": 2, "min_survivors": 5}
    changes["terms"] = "ab" * 32
    digests = {replace(SESSION, **{name: value}).digest for name, value in changes.items()}
    assert len(digests | {SESSION.digest}) == len(changes) + 1


def test_the_digest_is_fixed():
    assert SESSION.digest[:16] == "7bf5196153d252ba"


def test_the_minimum_is_that_of_the_session_and_a_quorum_at_least():
    assert SESSION.needed(4) == 4
    assert SESSION.needed(20) == quorum(20, 1) == 11
    assert SESSION.graph(20).threshold == 10


@pytest.mark.parametrize("bits", [8, 16, 32])
def test_vectors_travel_as_little_endian_words(bits):
    session = replace(SESSION, bits=bits, length=2)
    vector = np.array([1, 2], session.dtype)
    data = session.raw(vector)
    assert data == b"".join(int(word).to_bytes(bits // 8, "little") for word in vector)
    np.testing.assert_array_equal(session.vector(data), vector)
    with pytest.raises(ProtocolError, match="expected a vector of"):
        session.vector(data + b"\0")


@pytest.mark.parametrize("bits", range(2, 8))
def test_short_words_travel_without_gaps_and_without_their_high_bits(bits):
    session = replace(SESSION, bits=bits, length=11)
    vector = np.arange(200, 211, dtype=np.uint8)
    data = session.raw(vector)
    assert len(data) == session.nbytes == -(-11 * bits // 8)
    number = sum((int(word) % (1 << bits)) << (bits * place) for place, word in enumerate(vector))
    assert data == number.to_bytes(session.nbytes, "little")
    np.testing.assert_array_equal(session.vector(data), vector % (1 << bits))


def test_a_transcript_binds_session_and_keys(make):
    parties = make(4).until(Phase.SHARE)
    signed = tuple(parties.answers[Phase.ADVERTISE].values())
    transcripts = {
        Registration(parties.session, signed).transcript,
        Registration(replace(parties.session, round=9), signed).transcript,
        Registration(parties.session, signed[:-1]).transcript,
        Registration(parties.session, signed[::-1]).transcript,
    }
    assert len(transcripts) == 4
