"""Evidence without hardware: what it can say, and that it says what it is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from matl.attest.evidence import pack_evidence, unpack_evidence
from matl.attest.keys import SigningKey
from matl.attest.measurement import Measurement
from matl.attest.software import SoftwarePolicy, SoftwareVerifier, sign_software
from matl.errors import AttestationError, InvalidValueError

MEASUREMENT = Measurement(package="0" * 64, config="1" * 64, policy="2" * 64)
SIGNER = SigningKey.generate()
POLICY = SoftwarePolicy(measurements=frozenset({MEASUREMENT.digest}))
NONCE = b"n" * 32
EVIDENCE = sign_software(MEASUREMENT, NONCE, b"key", SIGNER)
FIELDS = {"software": 1, "measurement": 512, "public": 1024, "signature": 128}


def refusal(evidence: bytes, nonce: bytes = NONCE, policy: SoftwarePolicy = POLICY) -> str:
    with pytest.raises(AttestationError) as caught:
        SoftwareVerifier().verify(evidence, nonce, policy)
    return caught.value.code


def test_it_never_claims_hardware() -> None:
    claims = SoftwareVerifier().verify(EVIDENCE, NONCE, POLICY)
    assert not claims.hardware_root
    assert (claims.measurement, claims.key) == (MEASUREMENT.digest, b"key")
    assert claims.details == {
        "signer": SIGNER.public.fingerprint, "package": "0" * 64, "config": "1" * 64, "policy": "2" * 64
    }  # fmt: skip
    assert SoftwareVerifier().verify(sign_software(MEASUREMENT, NONCE, b"", SIGNER), NONCE, POLICY).key is None


def test_refusals_name_their_cause() -> None:
    assert refusal(EVIDENCE, b"m" * 32) == "nonce"
    assert refusal(EVIDENCE, policy=SoftwarePolicy(measurements=frozenset({"3" * 64}))) == "measurement"
    parts = unpack_evidence(EVIDENCE, FIELDS, {"key": 1024})
    other = Measurement(package="9" * 64, config="1" * 64, policy="2" * 64)
    assert refusal(pack_evidence(**{**parts, "key": b"yek"})) == "nonce"
    assert refusal(pack_evidence(**{**parts, "measurement": other.to_bytes()})) == "nonce"
    assert refusal(pack_evidence(**{**parts, "public": SigningKey.generate().public.der})) == "nonce"
    assert refusal(pack_evidence(**{**parts, "public": b"none"})) == "format"
    assert refusal(pack_evidence(**{**parts, "measurement": b"none"})) == "format"
    assert refusal(pack_evidence(**{**parts, "software": b"\2"})) == "version"
    pinned = SoftwarePolicy(measurements=POLICY.measurements, signers=frozenset({"4" * 64}))
    assert refusal(EVIDENCE, policy=pinned) == "root"
    own = SoftwarePolicy(measurements=POLICY.measurements, signers=frozenset({SIGNER.public.fingerprint}))
    assert SoftwareVerifier().verify(EVIDENCE, NONCE, own).measurement == MEASUREMENT.digest


@given(st.integers(0, len(EVIDENCE) - 1), st.integers(1, 255))
def test_no_byte_can_be_changed(place: int, change: int) -> None:
    assert refusal(EVIDENCE[:place] + bytes([EVIDENCE[place] ^ change]) + EVIDENCE[place + 1 :])


@given(st.binary(max_size=200))
def test_junk_is_refused(junk: bytes) -> None:
    assert refusal(junk)


def test_a_policy_names_digests() -> None:
    with pytest.raises(InvalidValueError, match="measurements"):
        SoftwarePolicy(measurements=frozenset())
    with pytest.raises(InvalidValueError, match="signers"):
        SoftwarePolicy(measurements=POLICY.measurements, signers=frozenset({"x"}))
