"""Challenges: this host's, fresh, and not kept."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matl.attest.challenge import Challenger
from matl.errors import InvalidValueError, ProtocolError

NOW = datetime(2030, 1, 1, tzinfo=UTC)
CHALLENGER = Challenger(b"s" * 32)


def code(challenge, *, now=NOW, challenger=CHALLENGER):
    with pytest.raises(ProtocolError) as error:
        challenger.check(challenge, now=now)
    return error.value.code


def test_a_challenge_is_recognised_until_it_ends():
    challenge = CHALLENGER.issue(now=NOW)
    CHALLENGER.check(challenge, now=NOW + timedelta(minutes=5) - timedelta(milliseconds=1))
    assert code(challenge, now=NOW + timedelta(minutes=5)) == "challenge"
    Challenger(b"s" * 32).check(challenge, now=NOW)  # by another process with the same secret
    assert code(challenge, challenger=Challenger(b"t" * 32)) == "challenge"


def test_no_two_are_alike():
    assert len({CHALLENGER.issue(now=NOW) for _ in range(100)}) == 100


ISSUED = CHALLENGER.issue(now=NOW)  # once: what is drawn below depends on it


@given(st.data())
def test_a_changed_challenge_is_none(data):
    challenge = ISSUED
    where = data.draw(st.integers(0, len(challenge) - 1))
    digit = data.draw(st.sampled_from("0123456789abcdef").filter(lambda each: each != challenge[where]))
    assert code(challenge[:where] + digit + challenge[where + 1 :]) == "challenge"


@given(st.text(max_size=200))
def test_any_text_raises_the_one_error(text):
    assert code(text) in {"challenge", "malformed"}


@pytest.mark.parametrize(
    "change", [str.upper, lambda each: " " + each[1:], lambda each: each + "00", lambda each: each[:-2]]
)
def test_a_challenge_has_one_spelling(change):
    assert code(change(CHALLENGER.issue(now=NOW))) in {"challenge", "malformed"}


def test_a_short_secret_is_refused():
    with pytest.raises(InvalidValueError, match="expected bytes_of_the_secret >= 32"):
        Challenger(b"short")
