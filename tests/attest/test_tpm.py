"""Quotes without a TPM: everything that can be wrong with one, and vectors of one that ran."""

from __future__ import annotations

import json
import struct
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.attest.tpm_forge import (
    ATTESTATION_KEY,
    KEY,
    MEASUREMENT,
    NONCE,
    RSAPSS,
    RSASSA,
    SHA1,
    Forge,
    attest_bytes,
    selection,
    sized,
)

from matl.attest._event_log import EVENT_TAG, Event, write_log
from matl.attest.endorsement import EndorsedKey
from matl.attest.evidence import pack_evidence
from matl.attest.tpm import MAX_EVIDENCE, MAX_LOG, TpmPolicy, TpmVerifier, bound_data, measured
from matl.errors import AttestationError, InvalidValueError

NOW = datetime(2030, 1, 1, tzinfo=UTC)
FORGE = Forge()
SOFTWARE = TpmPolicy(measurements=frozenset({MEASUREMENT.digest}), require_hardware=False)
VECTORS = json.loads((Path(__file__).parents[1] / "vectors/tpm2.json").read_text())
OTHER = replace(MEASUREMENT, config="0f" * 32)


def endorsed(name: str, *, hardware: bool = True) -> EndorsedKey:
    model = "Model 9670" if hardware else "swtpm"
    return EndorsedKey(name=name, expires=NOW + timedelta(days=1), hardware=hardware, model=model)


def code_of(evidence: bytes, policy: TpmPolicy = SOFTWARE, nonce: bytes = NONCE) -> str:
    """What the verifier finds wrong, or nothing."""
    try:
        TpmVerifier().verify(evidence, nonce, policy, clock=lambda: NOW)
    except AttestationError as error:
        return error.code
    return ""


def test_what_is_claimed() -> None:
    policy = replace(SOFTWARE, endorsed=(endorsed(FORGE.name),), pinned={7: frozenset({"07" * 32})})
    claims = TpmVerifier().verify(FORGE.evidence(others={7: b"\x07" * 32}), NONCE, policy, clock=lambda: NOW)
    assert (claims.format, claims.hardware_root, claims.measurement) == ("tpm2", True, MEASUREMENT.digest)
    assert (claims.key, claims.report_data) == (KEY, bound_data(NONCE, KEY))
    assert claims.details == {
        "attestation_key": FORGE.name, "model": "Model 9670", "firmware": 5, "resets": 7, "restarts": 2,
        "clock_safe": True, "pcr": 14, "pinned_pcrs": "7", "package": MEASUREMENT.package,
        "config": MEASUREMENT.config, "policy": MEASUREMENT.policy,
    }  # fmt: skip


@pytest.mark.parametrize("scheme", [RSASSA, RSAPSS])
def test_rsa_keys_serve_too(scheme: int) -> None:
    forge = Forge(rsa.generate_private_key(65537, 2048), scheme)
    assert code_of(forge.evidence()) == ""
    other = RSASSA + RSAPSS - scheme  # a right signature, but not with the algorithm the key is bound to
    assert code_of(forge.evidence(public=forge.public(scheme=other))) == "signature"


@pytest.mark.parametrize("vector", VECTORS["quotes"], ids=lambda vector: vector["scheme"])
def test_vectors_of_an_emulator(vector: dict[str, Any]) -> None:
    nonce, key = bytes.fromhex(VECTORS["nonce"]), bytes.fromhex(VECTORS["key"])
    assert bound_data(nonce, key).hex() == VECTORS["extra_data"]
    claims = TpmVerifier().verify(bytes.fromhex(vector["evidence"]), nonce, SOFTWARE)
    assert claims.measurement == VECTORS["measurement"]["digest"]
    assert claims.key == key
    assert vector["expect"].items() <= claims.details.items()


def test_without_a_key_the_nonce_alone_is_bound() -> None:
    evidence = FORGE.evidence(say={"extra": bound_data(NONCE)}, key=b"")
    assert TpmVerifier().verify(evidence, NONCE, SOFTWARE).key is None
    assert code_of(FORGE.evidence(key=b"")) == "nonce"  # a key that was bound cannot be left out
    assert code_of(FORGE.evidence(key=b"another key")) == "nonce"
    assert code_of(FORGE.evidence(), nonce=NONCE[:-1] + b"\0") == "nonce"
    with pytest.raises(InvalidValueError, match="nonce of 1 to 64 bytes"):
        TpmVerifier().verify(evidence, b"", SOFTWARE)


EVENTS = [measured(MEASUREMENT)]
SAID: Mapping[str, tuple[dict[str, Any], str]] = {
    "no TPM made it": ({"magic": 0xFF544348}, "format"),
    "a certification": ({"kind": 0x8017}, "format"),
    "bytes behind it": ({"rest": b"\0"}, "format"),
    "safe is 2": ({"safe": 2}, "format"),
    "a long name": ({"signer": bytes(67)}, "format"),
    "a long digest": ({"digest": bytes(65)}, "format"),
    "another nonce": ({"extra": bytes(32)}, "nonce"),
    "no nonce": ({"extra": b""}, "nonce"),
    "old firmware": ({"firmware": 4}, "version"),
    "the SHA-1 bank": ({"selections": [selection([14], SHA1)]}, "policy"),
    "two banks": ({"selections": [selection([14]), selection([14], SHA1)]}, "policy"),
    "no bank": ({"selections": []}, "policy"),
    "many banks": ({"selections": [selection([14])] * 9}, "policy"),
    "a wide selection": ({"selections": [struct.pack(">HB", 0x000B, 5) + bytes(5)]}, "format"),
    "another PCR": ({"selections": [selection([13])]}, "measurement"),
    "two PCRs of one": ({"selections": [selection([13, 14])]}, "format"),
    "another digest": ({"digest": bytes(32)}, "measurement"),
    "a short digest": ({"digest": b""}, "measurement"),
}


@pytest.mark.parametrize("case", SAID)
def test_what_the_tpm_must_not_say(case: str) -> None:
    changes, code = SAID[case]
    assert code_of(FORGE.evidence(say=changes), replace(SOFTWARE, min_firmware=5)) == code


KEYS: Mapping[str, tuple[dict[str, Any], str]] = {
    **{f"without bit {bit}": ({"attributes": ATTESTATION_KEY & ~(1 << bit)}, "policy") for bit in (1, 4, 5, 16, 18)},
    "that also decrypts": ({"attributes": ATTESTATION_KEY | 1 << 17}, "policy"),
    "of no known type": ({"type": 0x0008}, "policy"),
    "named with SHA-1": ({"name": SHA1}, "policy"),
    "with a cipher": ({"symmetric": 0x0006}, "policy"),
    "with no scheme": ({"scheme": 0x0010}, "policy"),
    "with the scheme of RSA": ({"scheme": RSASSA}, "policy"),
    "with SHA-1": ({"hash": SHA1}, "policy"),
    "on P-384": ({"curve": 4}, "policy"),
    "with a KDF": ({"kdf": 0x0020}, "policy"),
    "off the curve": ({"x": b"\1"}, "format"),
    "with a long coordinate": ({"x": bytes(33)}, "format"),
    "with bytes behind": ({"rest": b"\0"}, "format"),
    "with a long policy": ({"auth": bytes(65)}, "format"),
}


@pytest.mark.parametrize("case", KEYS)
def test_keys_that_attest_nothing(case: str) -> None:
    changes, code = KEYS[case]
    assert code_of(FORGE.evidence(public=FORGE.public(**changes))) == code


def test_rsa_keys_that_are_too_weak() -> None:
    weak = Forge(rsa.generate_private_key(65537, 2048), RSASSA)
    for changes, code in [
        ({"exponent": 3}, "policy"), ({"bits": 1024, "modulus": bytes(128)}, "policy"),
        ({"bits": 3072}, "policy"), ({"modulus": b"\0" * 255 + b"\2"}, "format"), ({"modulus": bytes(513)}, "format"),
    ]:  # fmt: skip
        assert code_of(weak.evidence(public=weak.public(**changes))) == code, changes


def test_a_signature_by_nobody_or_somebody_else() -> None:
    attest = attest_bytes()
    head = struct.pack(">HH", 0x0018, 0x000B)
    for signature, code in {
        Forge().sign(attest): "signature",
        head + sized(bytes(32)) * 2: "signature",
        head + sized(b"") * 2: "signature",
        struct.pack(">HH", 0x0018, SHA1) + FORGE.sign(attest)[4:]: "signature",
        FORGE.sign(attest) + b"\0": "format",
        FORGE.sign(attest)[:-1]: "format",
        head + sized(bytes(513)): "format",
        b"": "format",
    }.items():
        assert code_of(FORGE.evidence(signature=signature, attest=attest)) == code


def test_every_byte_that_the_tpm_says_is_signed() -> None:
    whole = FORGE.evidence()
    attest = attest_bytes()
    start = whole.index(attest[:6])
    length = whole.index(b"\xa9signature") - start
    for at in range(start, start + length):
        changed = whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]
        assert code_of(changed) == "signature"


def tagged(text: bytes, event: Event = EVENTS[0]) -> Event:
    return replace(event, data=b"MATL" + struct.pack("<I", len(text)) + text)


LOGS: Mapping[str, tuple[list[Event], str]] = {
    "nothing": ([], "measurement"),
    "another measurement": ([measured(OTHER)], "measurement"),
    "two measurements": ([measured(OTHER), measured(MEASUREMENT)], "measurement"),
    "the same twice": (EVENTS * 2, "measurement"),
    "another text than was extended": (
        [tagged(MEASUREMENT.to_bytes(), measured(OTHER))], "measurement",
    ),
    "no text": ([tagged(b"matl-measurement/2")], "format"),
    "a text of no end": ([replace(EVENTS[0], data=b"MATL" + struct.pack("<I", 1 << 31))], "format"),
    "bytes behind the text": ([replace(EVENTS[0], data=EVENTS[0].data + b"\0")], "format"),
    "a long text": ([tagged(bytes(513))], "format"),
    "somebody else's tag": ([Event(14, EVENT_TAG, bytes(32), b"LTAM")], "measurement"),
    "an event of another type": ([replace(EVENTS[0], kind=0x0D)], "measurement"),
    "an event told and not extended": ([replace(EVENTS[0], kind=0x03)], "measurement"),
    "another PCR": ([replace(EVENTS[0], pcr=13)], "format"),
}  # fmt: skip


@pytest.mark.parametrize("case", LOGS)
def test_logs_that_prove_no_measurement(case: str) -> None:
    events, code = LOGS[case]
    assert code_of(FORGE.evidence(events)) == code


def test_a_log_is_the_whole_truth_about_its_pcr() -> None:
    events = [Event(14, 0x0D, bytes([3] * 32), b"MokList"), *EVENTS, Event(14, EVENT_TAG, bytes(32), b"")]
    assert code_of(FORGE.evidence(events)) == ""
    for told in (
        events[:-1],
        events[1:],
        events[:1] + events[2:],
        [events[1], events[0], events[2]],
        [*events, events[0]],
    ):
        assert code_of(FORGE.evidence(events, log=write_log(told))) == "measurement"
    assert (
        code_of(FORGE.evidence(log=write_log([replace(EVENTS[0], data=EVENTS[0].data + bytes(MAX_LOG))]))) == "format"
    )


def test_pcr_values_are_those_of_the_quote() -> None:
    assert code_of(FORGE.evidence(pcrs=bytes(32))) == "measurement"
    assert code_of(FORGE.evidence(pcrs=bytes(64))) == "format"
    assert code_of(FORGE.evidence(pcrs=b"")) == "format"
    assert code_of(FORGE.evidence(), replace(SOFTWARE, pcr=13)) == "measurement"


def test_pinned_pcrs_have_to_be_quoted_and_right() -> None:
    pinned = replace(SOFTWARE, pinned={0: frozenset({"11" * 32, "22" * 32}), 7: frozenset({"77" * 32})})
    right = {0: b"\x22" * 32, 7: b"\x77" * 32}
    assert code_of(FORGE.evidence(others=right), pinned) == ""
    assert code_of(FORGE.evidence(others={**right, 3: bytes(32)}), pinned) == ""
    assert code_of(FORGE.evidence(others={0: right[0]}), pinned) == "measurement"
    assert code_of(FORGE.evidence(others={**right, 7: b"\x22" * 32}), pinned) == "measurement"


def test_only_a_challenged_key_of_a_device_counts_as_hardware() -> None:
    evidence = FORGE.evidence()
    strict = TpmPolicy(measurements=SOFTWARE.measurements)
    assert code_of(evidence, strict) == "root"
    assert code_of(evidence, replace(strict, endorsed=(endorsed(Forge().name),))) == "root"
    assert code_of(evidence, replace(strict, endorsed=(endorsed(FORGE.name),))) == ""
    assert code_of(evidence, replace(strict, endorsed=(endorsed(FORGE.name, hardware=False),))) == "root"
    late = replace(endorsed(FORGE.name), expires=NOW - timedelta(seconds=1))
    for policy in (strict, SOFTWARE):
        assert code_of(evidence, replace(policy, endorsed=(late,))) == "expired"
    emulated = replace(SOFTWARE, endorsed=(endorsed(FORGE.name, hardware=False),))
    claims = TpmVerifier().verify(evidence, NONCE, emulated, clock=lambda: NOW)
    assert (claims.hardware_root, claims.details["model"]) == (False, "swtpm")
    claims = TpmVerifier().verify(evidence, NONCE, SOFTWARE)
    assert (claims.hardware_root, claims.details["model"]) == (False, "unknown")


def test_messages() -> None:
    whole = FORGE.evidence()
    assert code_of(whole.replace(b"\xa4tpm2\xc4\x01\x01", b"\xa4tpm2\xc4\x01\x02")) == "version"
    assert code_of(whole + b"\0") == "format"
    assert code_of(pack_evidence(tpm2=b"\x01")) == "format"
    assert code_of(bytes(MAX_EVIDENCE)) == "format"
    assert len(FORGE.evidence(log=bytes(MAX_LOG), pcrs=bytes(768), key=bytes(1024))) <= MAX_EVIDENCE


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"measurements": frozenset()}, "measurements"),
        ({"measurements": frozenset({"AB" * 32})}, "lower-case hex"),
        ({"pcr": 16}, "can be reset"),
        ({"pcr": 23}, "can be reset"),
        ({"pcr": -1}, "pcr"),
        ({"pinned": {16: frozenset({"00" * 32})}}, "not 16"),
        ({"pinned": {24: frozenset({"00" * 32})}}, "got 24"),
        ({"pinned": {14: frozenset({"00" * 32})}}, "the log explains"),
        ({"pinned": {7: frozenset()}}, "pinned"),
        ({"min_firmware": -1}, "min_firmware"),
    ],
)
def test_policies_that_make_no_sense(arguments: dict[str, Any], words: str) -> None:
    with pytest.raises(InvalidValueError, match=words):
        TpmPolicy(**{"measurements": SOFTWARE.measurements, **arguments})


# Whoever sends the bytes makes them as he likes, signatures by a key of his own included.

GOLDEN = bytes.fromhex(VECTORS["quotes"][0]["evidence"])
PROVED = TpmPolicy(
    measurements=SOFTWARE.measurements, endorsed=(endorsed(VECTORS["quotes"][0]["expect"]["attestation_key"]),)
)


@given(st.data())
@settings(max_examples=300)
def test_changed_evidence_is_refused_or_proves_the_same(data: st.DataObject) -> None:
    """The second, where bytes say nothing, such as the platform class in the log's first record."""
    start = data.draw(st.integers(0, len(GOLDEN)))
    stop = data.draw(st.integers(start, min(start + 8, len(GOLDEN))))
    changed = GOLDEN[:start] + data.draw(st.binary(max_size=8)) + GOLDEN[stop:]
    try:
        claims = TpmVerifier().verify(changed, NONCE, PROVED, clock=lambda: NOW)
    except AttestationError:
        return
    assert claims == TpmVerifier().verify(GOLDEN, NONCE, PROVED, clock=lambda: NOW)


@given(st.binary(max_size=2000))
def test_any_bytes(evidence: bytes) -> None:
    assert code_of(evidence)


def mangled(whole: bytes) -> st.SearchStrategy[bytes]:
    """Something like ``whole``: parts of it, other bytes, extreme numbers."""
    piece = st.integers(0, len(whole)).flatmap(lambda a: st.integers(0, 40).map(lambda n: whole[a : a + n]))
    extreme = st.sampled_from([b"\xff" * 2, b"\xff" * 4, b"\x7f\xff\xff\xff", bytes(8)])
    cut = st.integers(0, len(whole)).map(lambda a: whole[:a])
    return st.tuples(cut, st.lists(st.one_of(piece, extreme, st.binary(max_size=8)), max_size=4)).map(
        lambda parts: parts[0] + b"".join(parts[1])
    )


@given(mangled(attest_bytes()), mangled(FORGE.public()), mangled(write_log(EVENTS)))
@settings(max_examples=100)
def test_structures_somebody_made_and_signed(attest: bytes, public: bytes, log: bytes) -> None:
    """They get as far as the parsers, and nothing but `AttestationError` comes out."""
    for parts in ({"attest": attest}, {"public": public}, {"log": log}):
        code_of(FORGE.evidence(**parts))
