"""Signatures: what a client signed passes once; all else is refused with the reason, and nothing raises."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature
from hypothesis import given
from hypothesis import strategies as st

from matl.attest.enrolment import Identity
from matl.attest.keys import Algorithm, SigningKey
from matl.attest.replay import ReplayCache
from matl.attest.signing import sign_chunk, sign_update
from matl.attest.texts import ChunkText, UpdateText
from matl.attest.verifying import REASONS, SignatureVerifier
from matl.errors import InvalidValueError, ProtocolError
from matl.records import Rejection, RoundSpec, Update
from matl.screening import screen_envelope

NOW = datetime(2030, 1, 1, tzinfo=UTC)
SPEC = RoundSpec(run="demo", round=3, model_hash="ab" * 32, layout_hash="cd" * 32, max_staleness=1)
KEYS = {
    "alice": SigningKey.generate(),
    "bob": SigningKey.generate(),
    "phone": SigningKey.generate(Algorithm.ECDSA_P256),
    "gone": SigningKey.generate(),
}
IDENTITIES = {name: Identity(client_id=name, key=key.public, enrolled_at=0) for name, key in KEYS.items()}
IDENTITIES["gone"] = replace(IDENTITIES["gone"], revoked_at=1)


def update(name="alice", **changes):
    return (
        Update(
            client_id=name, run="demo", round=3, base_version=3, model_hash="ab" * 32, payload=b"...", num_examples=9
        )
        if not changes
        else replace(update(name), **changes)
    )


def signed(name="alice", *, key=None, at=NOW, spec=SPEC, phase=None, **changes):
    return sign_update(update(name, **changes), key or KEYS[name], spec, phase=phase, clock=lambda: at)


def verifier(now=NOW):
    return SignatureVerifier(IDENTITIES.get, ReplayCache(), lambda: now)


def code(rejection):
    assert isinstance(rejection, Rejection)
    assert rejection.reason.startswith(REASONS[rejection.code])
    assert rejection.reason.isprintable()
    assert len(rejection.reason) < 500
    return rejection.code


@pytest.mark.parametrize("name", ["alice", "phone"])
def test_what_a_client_signed_passes_once(name):
    checked, sent = verifier(), signed(name)
    assert checked.check(sent, SPEC) is None
    assert code(checked.check(sent, SPEC)) == "replay"
    assert checked.check(signed(name), SPEC) is None


def test_signing_completes_the_update():
    sent = signed(evidence={"a": 1})
    assert sent.payload_sha256 == "ab5df625bc76dbd4e163bed2dd888df828f90159bb93556525c31821b6541d46"
    assert sent.created_at == NOW.timestamp()
    assert len({signed().nonce for _ in range(10)}) == 10
    assert UpdateText.of(sent, SPEC).evidence_hash


def test_arrays_cannot_be_signed():
    with pytest.raises(InvalidValueError, match=r"expected a payload of bytes, got a dict; see .*encode_payload"):
        signed(payload={"w": 1})
    with pytest.raises(ProtocolError, match="client_id"):
        sign_update(replace(update(), client_id="al ice"), KEYS["alice"], SPEC)


# Whose it is


def test_nobody_is_known_who_is_not_enrolled():
    assert code(verifier().check(signed("eve", key=SigningKey.generate()), SPEC)) == "unknown_client"


def test_a_revoked_identity_may_not_send():
    assert code(verifier().check(signed("gone"), SPEC)) == "revoked"


def test_key_substitution_a_good_signature_of_another_key():
    for key in (SigningKey.generate(), KEYS["bob"], KEYS["phone"]):
        assert code(verifier().check(signed(key=key), SPEC)) == "signature"


def test_a_key_inside_the_message_is_never_looked_at():
    mallory = SigningKey.generate()
    evidence = {"public_key": mallory.public.der, "algorithm": "ed25519"}
    assert code(verifier().check(signed(key=mallory, evidence=evidence), SPEC)) == "signature"


def test_algorithm_confusion_a_signature_of_another_algorithm():
    assert code(verifier().check(signed("phone", key=KEYS["alice"]), SPEC)) == "signature"
    assert code(verifier().check(signed("alice", key=KEYS["phone"]), SPEC)) == "signature"


@pytest.mark.parametrize("signature", [b"", bytes(64), bytes(10**6), None, "x", 7])
def test_no_signature(signature):
    for name in ("alice", "phone"):
        assert code(verifier().check(replace(signed(name), signature=signature), SPEC)) == "signature"


# What it says


CHANGES = {
    "client_id": "bob",
    "run": "other",
    "round": 4,
    "base_version": 2,
    "model_hash": "00" * 32,
    "payload_sha256": "00" * 32,
    "num_examples": 1_000_000,
    "kind": "masked",
    "nonce": "00" * 16,
    "created_at": NOW.timestamp() + 0.001,
    "evidence": {"hardware_root": True},
}


@pytest.mark.parametrize("name", CHANGES)
def test_every_field_is_signed(name):
    """Whichever field is changed on the way, the signature is not of it: cross-client and cross-round replay."""
    checked = verifier()
    assert code(checked.check(replace(signed(), **{name: CHANGES[name]}), SPEC)) == "signature"


@pytest.mark.parametrize("changes", [{"codec": "int8"}, {"layout_hash": "00" * 32}])
def test_the_reading_of_the_payload_is_signed(changes):
    assert code(verifier().check(signed(), replace(SPEC, **changes))) == "signature"


def test_cross_phase_replay_what_was_signed_for_one_phase_is_for_no_other():
    sent = signed(phase="keys")
    for phase in ("shares", None, "", "ke ys", 7):
        assert code(verifier().check(sent, SPEC, phase=phase)) in {"signature", "malformed"}
    assert verifier().check(sent, SPEC, phase="keys") is None


def test_what_the_host_adds_is_not_signed():
    assert verifier().check(replace(signed(), received_at=12.5), SPEC) is None


def test_evidence_that_was_taken_away_is_noticed():
    assert code(verifier().check(replace(signed(evidence={"a": 1}), evidence={}), SPEC)) == "signature"


def test_a_replay_in_another_round_is_refused_by_its_round():
    """The signature is good and the nonce new to this host; the round is not the one it was signed for."""
    later = replace(SPEC, round=4)
    sent = signed()
    assert verifier().check(sent, later) is None
    rejection = screen_envelope(sent, later, model_hashes={3: "ab" * 32, 4: "cd" * 32}, seen=set())
    assert code_of_screening(rejection) == "round"


def test_another_payload_under_a_good_signature_is_refused_by_screening():
    sent = replace(signed(), payload=b"poison")
    rejection = screen_envelope(
        sent, SPEC, model_hashes={3: "ab" * 32}, seen=set(), verify=lambda each: verifier().check(each, SPEC)
    )
    assert code_of_screening(rejection) == "payload_hash"


def code_of_screening(rejection):
    assert isinstance(rejection, Rejection)
    return rejection.code


def test_the_text_beside_the_fields_has_to_say_the_same():
    sent = signed()
    text = UpdateText.of(sent, SPEC)
    assert verifier().check(sent, SPEC, signed=text.to_bytes()) is None
    other = replace(text, round=4, num_examples=10)
    rejection = verifier().check(sent, SPEC, signed=other.to_bytes())
    assert code(rejection) == "mismatch"
    assert "round, num_examples" in rejection.reason
    assert code(verifier().check(sent, SPEC, signed=b"matl-update/2")) == "malformed"


def test_the_signature_of_another_text_is_none_whatever_text_comes_along():
    text = UpdateText.of(signed(), SPEC)
    other = replace(text, round=4)
    sent = replace(signed(), nonce=text.nonce, signature=KEYS["alice"].sign(other.to_bytes()))
    assert code(verifier().check(sent, SPEC, signed=text.to_bytes())) == "signature"


# When


@pytest.mark.parametrize(
    ("seconds", "reason"), [(-601, "expired"), (-599, None), (59, None), (61, "future"), (10**9, "future")]
)
def test_only_what_is_fresh_passes(seconds, reason):
    rejection = verifier().check(signed(at=NOW + timedelta(seconds=seconds)), SPEC)
    assert rejection is None if reason is None else code(rejection) == reason


def test_an_old_text_cannot_be_made_fresh():
    old = signed(at=NOW - timedelta(days=1))
    assert code(verifier().check(replace(old, created_at=NOW.timestamp()), SPEC)) == "signature"


def test_a_bad_signature_uses_up_nobodys_nonce():
    checked, sent = verifier(), signed()
    assert code(checked.check(replace(sent, signature=bytes(64)), SPEC)) == "signature"
    assert checked.check(sent, SPEC) is None


def test_the_other_s_of_an_ecdsa_signature_is_a_replay():
    checked, sent = verifier(), signed("phone")
    r, s = decode_dss_signature(sent.signature)
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    twin = replace(sent, signature=encode_dss_signature(r, order - s))
    assert checked.check(twin, SPEC) is None
    assert code(checked.check(sent, SPEC)) == "replay"


def test_two_that_come_at_once_count_once():
    """The second passes the first look at the cache, because the first is still being verified, and then fails."""

    class Racing(ReplayCache):
        def refusal(self, *text, now):
            reason = super().refusal(*text, now=now)
            if self.race:
                self.race = False
                assert self.admit(*text, now=now) == ""
            return reason

    racing = Racing()
    racing.race = True
    assert code(SignatureVerifier(IDENTITIES.get, racing, lambda: NOW).check(signed(), SPEC)) == "replay"


def test_a_sending_that_breaks_off_uses_nothing_up_and_a_long_one_is_not_lost():
    replays, sent = ReplayCache(), signed()
    begins = SignatureVerifier(IDENTITIES.get, replays, lambda: NOW)
    for _ in range(3):
        assert begins.check(sent, SPEC, admit=False) is None
    ends = SignatureVerifier(IDENTITIES.get, replays, lambda: NOW + timedelta(hours=1))
    assert code(ends.check(sent, SPEC)) == "expired"
    assert ends.check(sent, SPEC, arrived=NOW) is None
    for checked in (begins, ends):
        for admit in (True, False):
            assert code(checked.check(sent, SPEC, arrived=NOW, admit=admit)) == "replay"


# Junk


@pytest.mark.parametrize("name", sorted(Update.__dataclass_fields__))
@pytest.mark.parametrize(
    "value",
    [
        None,
        7,
        -1,
        1.5,
        float("nan"),
        10**5000,
        True,
        b"x",
        "",
        "x\n",
        "\u202ealice",
        "\ud800",
        "a" * 10**6,
        [],
        {},
        {1: 2},
    ],
    ids=range(16),
)
def test_junk_in_any_field_is_refused_and_raises_nothing(name, value):
    rejection = verifier().check(replace(signed(), **{name: value}), SPEC)
    if name in {"received_at", "payload"} or (name, value) == ("evidence", {}):
        assert rejection is None
    else:
        assert code(rejection) in {"malformed", "signature", "unknown_client", "expired"}
        assert rejection.client_id in {"alice", "", "x"} or len(rejection.client_id) <= 128


@pytest.mark.parametrize(
    "name", ["Alice", "alice ", "alic\u0435", "alice\u200b", "ali\u0301ce", "al\u00edce", "../alice"]
)
def test_a_name_that_looks_like_another_is_nobodys(name):
    rejection = verifier().check(replace(signed(), client_id=name), SPEC)
    assert code(rejection) in {"malformed", "unknown_client"}
    assert rejection.client_id in {"", "Alice"}


@given(st.binary(max_size=200))
def test_any_text_beside_the_fields_raises_nothing(text):
    assert code(verifier().check(FIXED, SPEC, signed=text)) in {"malformed", "mismatch"}


FIXED = signed()


# Version 1


def chunk(name="phone", **changes):
    fields = {"round": 3, "model_hash": "ab" * 32, "chunk": b"x", "timestamp_unix_ms": int(NOW.timestamp() * 1000)}
    return ChunkText(**{"node_id": name, **fields, **changes})


def test_a_chunk_passes_once():
    checked, text = verifier(), chunk()
    assert checked.check_chunk(text, sign_chunk(text, KEYS["phone"]), SPEC) is None
    assert (
        code(checked.check_chunk(text, sign_chunk(text, KEYS["phone"]), SPEC)) == "replay"
    )  # ECDSA signs anew each time
    other = chunk(chunk=b"y")
    assert checked.check_chunk(other, sign_chunk(other, KEYS["phone"]), SPEC) is None


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"round": 4}, "mismatch"),
        ({"model_hash": "00" * 32}, "mismatch"),
        ({"node_id": "eve"}, "unknown_client"),
        ({"timestamp_unix_ms": 0}, "expired"),
        ({"timestamp_unix_ms": 2**53 - 1}, "future"),
    ],
)
def test_a_chunk_is_for_this_round_and_fresh(changes, reason):
    text = chunk(**changes)
    assert code(verifier().check_chunk(text, sign_chunk(text, KEYS["phone"]), SPEC)) == reason


def test_a_chunk_is_signed_with_p256_alone():
    text = chunk("alice")
    with pytest.raises(InvalidValueError, match="expected a key of ecdsa-p256 for version 1, got ed25519"):
        sign_chunk(text, KEYS["alice"])
    assert code(verifier().check_chunk(text, KEYS["alice"].sign(text.to_bytes()), SPEC)) == "algorithm"
    assert code(verifier().check_chunk(chunk(), KEYS["alice"].sign(chunk().to_bytes()), SPEC)) == "signature"


def test_a_signature_on_one_version_is_none_on_the_other():
    sent = signed("phone")
    assert code(verifier().check_chunk(chunk(), sent.signature, SPEC)) == "signature"
    assert code(verifier().check(replace(sent, signature=sign_chunk(chunk(), KEYS["phone"])), SPEC)) == "signature"
