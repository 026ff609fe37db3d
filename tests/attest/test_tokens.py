"""Operators' tokens: scopes, an end, rotation, and nothing kept that lets anybody in."""

import re
from datetime import UTC, datetime, timedelta
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matl.attest import _bearer
from matl.attest.tokens import Scope, Tokens
from matl.errors import InvalidValueError, StateError, UnknownNameError
from matl.state import pack, unpack

NOW = datetime(2030, 1, 1, tzinfo=UTC)


@pytest.fixture
def issued():
    return Tokens().issue("carol", Scope.OPERATOR, now=NOW)


def test_a_token_is_recognisable_and_random(issued):
    assert re.fullmatch("matl_op_[A-Za-z0-9_-]{43}", issued[1])
    assert len({Tokens().issue("carol", Scope.VIEWER, now=NOW)[1] for _ in range(100)}) == 100


def test_only_the_hash_is_kept(issued):
    tokens, secret = issued
    assert list(tokens.tokens) == [sha256(secret.encode()).hexdigest()]
    assert secret[8:] not in repr(tokens) + str(tokens.state())


def test_a_token_is_known_by_its_secret_alone(issued):
    tokens, secret = issued
    other = Tokens().issue("carol", Scope.OPERATOR, now=NOW)[1]
    assert tokens.check(secret, now=NOW).name == "carol"
    stored = next(iter(tokens.tokens))
    for wrong in (other, secret[8:], secret + "A", secret + "\n", " " + secret, "", stored, None, 7, secret.encode()):
        assert tokens.check(wrong, now=NOW) is None


@given(st.text(max_size=100))
def test_any_text_is_no_token(text):
    assert Tokens().issue("carol", Scope.ADMIN, now=NOW)[0].check(text, now=NOW) is None


@pytest.mark.parametrize("scope", list(Scope))
def test_a_scope_allows_all_below_it(scope):
    tokens, secret = Tokens().issue("carol", scope, now=NOW)
    allowed = [each for each in Scope if tokens.check(secret, now=NOW).allows(each)]
    assert allowed == [each for each in (Scope.VIEWER, Scope.OPERATOR, Scope.ADMIN) if each <= scope]


def test_a_token_ends(issued):
    tokens, secret = issued
    end = NOW + timedelta(days=90)
    assert tokens.check(secret, now=end - timedelta(milliseconds=1))
    assert tokens.check(secret, now=end) is None


def test_rotation_leaves_the_old_one_for_a_while(issued):
    tokens, old = issued
    tokens, new = tokens.rotate(tokens.check(old, now=NOW).id, now=NOW, overlap=timedelta(hours=1))
    soon = NOW + timedelta(minutes=59)
    assert {tokens.check(each, now=soon).name for each in (old, new)} == {"carol"}
    assert tokens.check(new, now=soon).scope is Scope.OPERATOR
    assert tokens.check(old, now=NOW + timedelta(hours=1)) is None
    assert tokens.check(new, now=NOW + timedelta(hours=1))


def test_rotation_lengthens_nothing(issued):
    tokens, old = issued
    tokens, _ = tokens.rotate(tokens.check(old, now=NOW).id, now=NOW, overlap=timedelta(days=1000))
    assert tokens.check(old, now=NOW + timedelta(days=90)) is None


def test_rotation_without_overlap_ends_the_old_one_at_once(issued):
    tokens, old = issued
    tokens, new = tokens.rotate(tokens.check(old, now=NOW).id, now=NOW)
    assert tokens.check(old, now=NOW) is None
    assert tokens.check(new, now=NOW)


def test_a_revoked_token_is_none(issued):
    tokens, secret = issued
    tokens, other = tokens.issue("dave", Scope.VIEWER, now=NOW)
    tokens = tokens.revoke(tokens.check(secret, now=NOW).id)
    assert tokens.check(secret, now=NOW) is None
    assert tokens.check(other, now=NOW).name == "dave"


def test_there_is_no_such_token(issued):
    tokens, secret = issued
    for act in (tokens.revoke, lambda token: tokens.rotate(token, now=NOW)):
        with pytest.raises(UnknownNameError, match="unknown token"):
            act(secret)


def test_a_token_makes_sense():
    for name, lifetime in (("car ol", timedelta(1)), ("", timedelta(1)), ("carol", timedelta())):
        with pytest.raises(InvalidValueError, match="expected"):
            Tokens().issue(name, Scope.VIEWER, now=NOW, lifetime=lifetime)


def test_the_state_is_plain_data(issued):
    tokens, secret = issued
    back = Tokens.of_state(unpack(pack(tokens.state())))
    assert back == tokens
    assert back.check(secret, now=NOW).scope is Scope.OPERATOR


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"version": 2, "tokens": []},
        {"version": 1, "tokens": [{}]},
        {"version": 1, "tokens": [{"scope": "god"}]},
        {"version": 1, "tokens": [{"scope": 3}]},
        {"version": 1, "tokens": None},
        {"version": 1, "tokens": [{"name": "c", "scope": "admin", "hash": [], "created_at": 0, "expires_at": 0}]},
    ],
)
def test_another_state_is_refused(state):
    with pytest.raises(StateError, match="tokens cannot be read"):
        Tokens.of_state(state)


def test_every_hash_is_compared(monkeypatch):
    """A search that stopped at the first hit would tell by its time where it stands."""
    compared = []

    def compare(first, second):
        compared.append(first)
        return first == second

    monkeypatch.setattr(_bearer.hmac, "compare_digest", compare)
    assert _bearer.find(["a", "b", "c"], "a") == "a"
    assert _bearer.find(["a", "b", "c"], "x") is None
    assert compared == ["a", "b", "c"] * 2
