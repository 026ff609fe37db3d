"""Enrolment: an invitation, a key, the proof that it is one's own; and nobody takes another's name."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from hashlib import sha256

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matl.attest.challenge import Challenger
from matl.attest.claims import Claims
from matl.attest.enrolment import EnrolmentRequest, Identity, Roster, Standing
from matl.attest.keys import Algorithm, SigningKey
from matl.errors import InvalidValueError, ProtocolError, StateError, UnknownNameError
from matl.state import pack, unpack

NOW = datetime(2030, 1, 1, tzinfo=UTC)
LATER = NOW + timedelta(minutes=1)
CHALLENGER = Challenger(b"s" * 32)
KEYS = {name: SigningKey.generate() for name in ("alice", "bob", "mallory")}


def invited(**settings):
    return Roster().invite(now=NOW, **settings)


def request(name, token, key=None):
    return EnrolmentRequest.signed(name, key or KEYS[name], token, CHALLENGER.issue(now=NOW))


def enrolled(*names):
    roster, token = invited(uses=len(names))
    for name in names:
        roster, _ = roster.enrol(request(name, token), CHALLENGER, now=NOW)
    return roster, token


def refused(roster, asked, *, now=NOW, claims=None):
    before = roster.state()
    with pytest.raises(ProtocolError) as error:
        roster.enrol(asked, CHALLENGER, now=now, claims=claims)
    assert roster.state() == before
    return error.value.code


@pytest.mark.parametrize("algorithm", list(Algorithm))
def test_whoever_is_invited_and_has_a_key_is_enrolled(algorithm):
    key = SigningKey.generate(algorithm)
    roster, token = invited()
    after, identity = roster.enrol(request("alice", token, key), CHALLENGER, now=LATER)
    assert identity == Identity(client_id="alice", key=key.public, enrolled_at=int(LATER.timestamp() * 1000))
    assert after.identities == {"alice": identity}
    assert identity.standing is Standing.ACTIVE
    assert not roster.identities  # nothing was changed in place


# Invitations


def test_a_token_is_kept_as_a_hash_alone():
    roster, token = invited()
    assert token.startswith("matl_inv_")
    assert token not in str(roster.state())
    assert list(roster.invitations) == [sha256(token.encode()).hexdigest()]


def test_an_invitation_has_as_many_uses_as_it_says():
    roster, token = enrolled("alice", "bob")
    assert refused(roster, request("mallory", token)) == "invitation"


@pytest.mark.parametrize(
    ("after", "good"), [(timedelta(days=7) - timedelta(seconds=1), True), (timedelta(days=7), False)]
)
def test_an_invitation_ends(after, good):
    roster, token = invited()
    asked = EnrolmentRequest.signed("alice", KEYS["alice"], token, CHALLENGER.issue(now=NOW + after))
    if good:
        assert roster.enrol(asked, CHALLENGER, now=NOW + after)
    else:
        assert refused(roster, asked, now=NOW + after) == "invitation"


def test_an_invitation_may_be_for_one_client():
    roster, token = invited(client_id="alice")
    assert refused(roster, request("mallory", token)) == "invitation"
    assert roster.enrol(request("alice", token), CHALLENGER, now=NOW)


def test_an_unknown_token_is_no_invitation():
    roster, token = invited()
    other = invited()[1]
    assert refused(roster, request("alice", other)) == "invitation"
    for junk in ("", token[:-1], token + "A", "matl_op_" + token[9:], token[:-1] + "\n", None, 7):
        with pytest.raises(ProtocolError, match="invitation: expected"):
            request("alice", junk)
        assert refused(roster, replace(request("alice", token), token=junk)) == "malformed"


def test_a_stolen_request_is_of_no_use_to_a_thief():
    """He knows all that was sent, and has neither the key nor an invitation of his own."""
    roster, token = invited()
    seen = request("alice", token)
    for changes in ({"client_id": "mallory"}, {"key": KEYS["mallory"].public.der}, {"token": invited()[1]}):
        assert refused(roster, replace(seen, **changes)) == "signature"
    roster, _ = roster.enrol(seen, CHALLENGER, now=NOW)
    assert roster.enrol(seen, CHALLENGER, now=NOW)[0] is roster  # sent again it changes nothing


@pytest.mark.parametrize(
    "settings",
    [
        {"uses": 0},
        {"uses": 2.0},
        {"lifetime": timedelta()},
        {"client_id": "al ice"},
        {"client_id": "alice", "uses": 2},
        {"replaces": True},
    ],
)
def test_an_invitation_makes_sense(settings):
    with pytest.raises(InvalidValueError, match="expected"):
        invited(**settings)


def test_tidying_removes_what_nobody_can_use():
    roster, _ = enrolled("alice")
    roster, _ = roster.invite(now=NOW, lifetime=timedelta(days=1))
    roster, kept = roster.invite(now=NOW)
    tidy = roster.tidy(now=NOW + timedelta(days=2))
    assert list(tidy.invitations) == [sha256(kept.encode()).hexdigest()]
    assert tidy.identities == roster.identities


# The proof


def test_the_key_has_to_be_ones_own():
    roster, token = invited()
    stolen = replace(request("alice", token, KEYS["mallory"]), key=KEYS["alice"].public.der)
    assert refused(roster, stolen) == "signature"
    for signature in (b"", bytes(64), None, "x"):
        assert refused(roster, replace(request("alice", token), signature=signature)) == "signature"


def test_a_signature_on_an_update_is_no_proof():
    roster, token = invited()
    asked = request("alice", token)
    text = asked.text.to_bytes()
    elsewhere = KEYS["alice"].sign(text.replace(b"matl-enrolment/1", b"matl-update/2"))
    assert refused(roster, replace(asked, signature=elsewhere)) == "signature"


def test_a_challenge_is_this_hosts_and_fresh():
    roster, token = invited()
    asked = request("alice", token)
    assert refused(roster, asked, now=NOW + timedelta(minutes=5)) == "challenge"
    other = Challenger(b"o" * 32).issue(now=NOW)
    assert refused(roster, EnrolmentRequest.signed("alice", KEYS["alice"], token, other)) == "challenge"
    for junk in ("", "zz" * 56, "AB" * 56, "ab" * 56 + "\n", None):
        assert refused(roster, replace(asked, challenge=junk)) == "malformed"


@pytest.mark.parametrize("key", [b"", b"junk", None, "x", bytes(10**6)])
def test_a_key_that_is_none(key):
    roster, token = invited()
    assert refused(roster, replace(request("alice", token), key=key)) == "key"


@pytest.mark.parametrize("name", ["", "al ice", "alic\u0435", "alice\u200b", "../alice", "a" * 129, None, 7])
def test_a_name_that_is_none(name):
    roster, token = invited()
    assert refused(roster, replace(request("alice", token), client_id=name)) == "malformed"


@given(
    st.fixed_dictionaries(
        {
            "client_id": st.text(max_size=20),
            "key": st.binary(max_size=100),
            "token": st.text(max_size=60),
            "challenge": st.text("0123456789abcdef", max_size=112),
            "signature": st.binary(max_size=80),
        }
    )
)
def test_any_request_raises_the_one_error(fields):
    refused(invited()[0], EnrolmentRequest(**fields))


# Names and keys for ever


def test_a_retry_after_a_lost_answer_is_answered_and_uses_nothing_up():
    roster, token = invited(uses=2)
    roster, identity = roster.enrol(request("alice", token), CHALLENGER, now=NOW)
    again, same = roster.enrol(request("alice", token), CHALLENGER, now=LATER)
    assert again is roster
    assert same is identity
    assert [each.uses_left for each in again.invitations.values()] == [1]


def test_key_substitution_is_refused():
    roster, token = invited(uses=5)
    roster, _ = roster.enrol(request("alice", token), CHALLENGER, now=NOW)
    assert refused(roster, request("alice", token, KEYS["mallory"])) == "enrolled"
    roster, bound = roster.invite(now=NOW, client_id="alice")  # which is not enough: it says nothing of a new key
    assert refused(roster, request("alice", bound, KEYS["mallory"])) == "enrolled"


def test_who_has_no_invitation_does_not_learn_who_is_enrolled():
    roster, _ = enrolled("alice")
    assert refused(roster, request("alice", invited()[1], KEYS["mallory"])) == "invitation"
    assert refused(roster, request("nobody", invited()[1], KEYS["mallory"])) == "invitation"


def test_an_operator_can_replace_a_key():
    roster, _ = enrolled("alice")
    roster, token = roster.invite(now=NOW, client_id="alice", replaces=True)
    assert refused(roster, request("bob", token)) == "invitation"
    new = SigningKey.generate()
    roster, identity = roster.enrol(request("alice", token, new), CHALLENGER, now=NOW)
    assert roster.identities["alice"].key == identity.key == new.public
    assert refused(roster, request("alice", token)) == "invitation"  # used up: the old key does not come back
    assert refused(roster, request("alice", token, KEYS["mallory"])) == "invitation"


def test_two_clients_have_two_keys():
    roster, token = invited(uses=2)
    roster, _ = roster.enrol(request("alice", token), CHALLENGER, now=NOW)
    assert refused(roster, request("bob", token, KEYS["alice"])) == "key_in_use"


def test_a_key_that_was_replaced_never_comes_back():
    roster, _ = enrolled("alice")
    roster, token = roster.revoke("alice", now=NOW).invite(now=NOW, client_id="alice", replaces=True)
    roster, _ = roster.enrol(request("alice", token, SigningKey.generate()), CHALLENGER, now=NOW)
    roster, anybodys = roster.invite(now=NOW, uses=5)
    roster, again = roster.invite(now=NOW, client_id="alice", replaces=True)
    for after in (roster, roster.tidy(now=NOW), Roster.of_state(unpack(pack(roster.state())))):
        assert refused(after, request("mallory", anybodys, KEYS["alice"])) == "revoked"
        assert refused(after, request("alice", again, KEYS["alice"])) == "revoked"
    assert refused(roster, request("mallory", invited()[1], KEYS["alice"])) == "invitation"  # and learns nothing
    roster, _ = roster.revoke("alice", now=NOW).enrol(
        request("alice", again, SigningKey.generate()), CHALLENGER, now=NOW
    )
    assert refused(roster, request("mallory", anybodys, KEYS["alice"])) == "revoked"  # two keys later too


# Revocation


def test_a_revoked_identity_stays_and_its_key_is_good_for_nothing():
    roster, token = enrolled("alice", "bob")
    roster, more = roster.invite(now=NOW, uses=5)
    revoked = roster.revoke("alice", now=LATER)
    assert revoked.identities["alice"].standing is Standing.REVOKED
    assert revoked.identities["bob"].standing is Standing.ACTIVE
    assert revoked.revoke("alice", now=NOW + timedelta(days=1)) is revoked
    for each in (token, more):
        assert refused(revoked, request("alice", each)) == "revoked"
    assert refused(revoked, request("mallory", more, KEYS["alice"])) == "key_in_use"
    assert refused(revoked, request("alice", more, KEYS["mallory"])) == "revoked"
    used = replace(revoked.invitations[sha256(more.encode()).hexdigest()], uses_left=0)
    revoked = replace(revoked, invitations={used.hash: used})
    assert refused(revoked, request("alice", more, KEYS["mallory"])) == "revoked"


def test_an_operator_can_let_a_revoked_client_in_with_a_new_key():
    roster, _ = enrolled("alice")
    roster, token = roster.revoke("alice", now=NOW).invite(now=NOW, client_id="alice", replaces=True)
    assert refused(roster, request("alice", token)) == "revoked"
    roster, identity = roster.enrol(request("alice", token, SigningKey.generate()), CHALLENGER, now=NOW)
    assert identity.standing is Standing.ACTIVE


def test_nobody_is_not_revoked():
    with pytest.raises(UnknownNameError, match=r"unknown client 'alise' \(did you mean 'alice'\?\)"):
        enrolled("alice")[0].revoke("alise", now=NOW)


# Attestation


def claims(**changes):
    return Claims(**{"format": "example", "hardware_root": False, "measurement": "ab" * 32, **changes})


def test_what_evidence_proved_is_kept():
    roster, token = invited()
    asked = request("alice", token)
    for proof in (
        claims(key=KEYS["alice"].public.der),
        claims(report_data=sha256(asked.text.to_bytes()).digest()),
        claims(report_data=sha256(asked.text.to_bytes()).digest() + bytes(32)),
    ):
        _, identity = roster.enrol(asked, CHALLENGER, now=NOW, claims=proof)
        assert identity.attestation == {"format": "example", "hardware_root": False, "measurement": "ab" * 32}
    assert roster.enrol(asked, CHALLENGER, now=NOW)[1].attestation == {}


def test_evidence_of_another_key_is_refused():
    roster, token = invited()
    asked = request("alice", token)
    for proof in (claims(), claims(key=KEYS["mallory"].public.der), claims(report_data=bytes(64))):
        assert refused(roster, asked, claims=proof) == "attestation"


# State


def test_the_state_is_plain_data():
    roster, token = enrolled("alice", "bob")
    roster, _ = roster.revoke("bob", now=LATER).invite(now=NOW, client_id="carol")
    alice = replace(roster.identities["alice"], attestation={"format": "x", "ok": True})
    roster = replace(roster, identities={**roster.identities, "alice": alice})
    back = Roster.of_state(unpack(pack(roster.state())))
    assert back == roster
    assert refused(back, request("mallory", token)) == "invitation"


@pytest.mark.parametrize(
    "state",
    [
        {},
        {"version": 2, "identities": [], "invitations": []},
        {"version": 1, "identities": [{"client_id": "alice"}], "invitations": []},
        {"version": 1, "identities": [{"client_id": "a", "key": b"x", "enrolled_at": 0}], "invitations": []},
        {"version": 1, "identities": [None], "invitations": []},
        {"version": 1, "identities": [], "invitations": [{}]},
        {"version": 1, "identities": [], "invitations": [{"hash": [], "expires_at": 0}]},
        {"version": 1, "identities": []},
        {"version": 1, "identities": [], "invitations": [], "former_keys": None},
    ],
)
def test_another_state_is_refused(state):
    with pytest.raises(StateError, match="the roster cannot be read"):
        Roster.of_state(state)


def test_a_state_from_before_former_keys_were_kept_is_read():
    roster, _ = enrolled("alice")
    state = {name: value for name, value in roster.state().items() if name != "former_keys"}
    assert Roster.of_state(state) == roster
