from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.attest.chains import (
    NOT_AFTER,
    NOT_BEFORE,
    NOW,
    Authority,
    authority,
    der,
    der_integer,
    extension,
    p256,
    p384,
    spki,
)
from tests.attest.samples import SECOND, at, refused, refused_if_at_all

from matl.attest._der import context
from matl.attest.android import AndroidPolicy, AndroidVerifier
from matl.attest.claims import Claims
from matl.attest.evidence import pack_evidence
from matl.attest.revocation import revoked_serials
from matl.errors import AttestationError, InvalidValueError

NONCE, PACKAGE, SIGNATURE = b"challenge of the one who asks", b"org.example.app", bytes([9] * 32)
DESCRIPTION = "1.3.6.1.4.1.11129.2.1.17"
SIGN, ATTEST_KEY = 2, 7
SOFTWARE, TEE, STRONG_BOX = range(3)
ROOT, BATCH = Authority("root", p384()), Authority("TEE", p256())
KEY = p256()
CARRIER = ROOT.issue("root", ROOT.spki, extensions=authority(), serial=90)
ISSUED = ROOT.issue("TEE", BATCH.spki, extensions=authority(), serial=91)


def tagged(number: int, value: bytes) -> bytes:
    return der(context(number), value)


def application(name: bytes = PACKAGE, digests: tuple[bytes, ...] = (SIGNATURE,), more: bytes = b"") -> bytes:
    package = der(0x30, der(4, name) + der_integer(12))
    sets = der(0x31, package + more) + der(0x31, b"".join(der(4, digest) for digest in digests))
    return der(4, der(0x30, sets))


def root_of_trust(*, locked: bytes = b"\xff", state: int = 0, digest: bytes | None = bytes(32)) -> bytes:
    fields = der(4, bytes([1] * 32)) + der(1, locked) + der_integer(state, 0x0A)
    return der(0x30, fields + (b"" if digest is None else der(4, digest)))


def description(**changes: Any) -> bytes:
    """A KeyDescription; ``hardware`` and ``software`` change single authorizations, None leaves one out."""
    fields = {"version": 300, "level": TEE, "keymint_level": TEE, "challenge": NONCE, "purpose": SIGN} | changes
    hardware = {
        1: der(0x31, der_integer(fields["purpose"])),
        2: der_integer(3),
        503: der(5, b""),
        702: der_integer(0),
        704: root_of_trust(),
        705: der_integer(160000),
        706: der_integer(202602),
    } | changes.get("hardware", {})
    software = {701: der_integer(1_700_000_000_000), 709: application()} | changes.get("software", {})
    lists = [
        der(0x30, b"".join(tagged(number, value) for number, value in sorted(entries.items()) if value is not None))
        for entries in (software, hardware)
    ]
    head = der_integer(fields["version"]) + der_integer(fields["level"], 0x0A) + der_integer(300)
    head += der_integer(fields["keymint_level"], 0x0A) + der(4, fields["challenge"]) + der(4, b"")
    return der(0x30, head + b"".join(lists))


def leaf_of(data: bytes | None = None, signer: Authority = BATCH, key: bytes | None = None, **options: Any) -> bytes:
    extensions = [extension(DESCRIPTION, data if data is not None else description())]
    return signer.issue("Android Keystore Key", key or spki(KEY), extensions=extensions, **options)


def evidence_of(*chain: bytes) -> bytes:
    return pack_evidence(chain=b"".join(chain or (leaf_of(), ISSUED, CARRIER)))


GOOD = evidence_of()
VERIFIER = AndroidVerifier(roots=[ROOT.spki])


def policy_of(**changes: Any) -> AndroidPolicy:
    options = {"package": PACKAGE.decode(), "signatures": frozenset({SIGNATURE.hex()}), "revoked": frozenset()}
    return AndroidPolicy(**(options | changes))


def verify(evidence: bytes = GOOD, nonce: bytes = NONCE, moment: Any = NOW, **changes: Any) -> Claims:
    return VERIFIER.verify(evidence, nonce, policy_of(**changes), at(moment))


def described(**changes: Any) -> bytes:
    return evidence_of(leaf_of(description(**changes)), ISSUED, CARRIER)


def test_a_chain_proves_a_key_in_hardware() -> None:
    claims = verify()
    assert (claims.format, claims.measurement) == ("android-key-attestation", SIGNATURE.hex())
    assert (claims.key, claims.report_data) == (spki(KEY), NONCE)
    assert not claims.hardware_root  # the root is not Google's
    expected = {
        "attestation_version": 300,
        "security_level": "TRUSTED_ENVIRONMENT",
        "package": "org.example.app",
        "package_version": 12,
        "device_locked": True,
        "verified_boot_state": "VERIFIED",
        "os_patch_level": 202602,
    }
    assert claims.details.items() >= expected.items()


def test_the_root_need_not_be_sent() -> None:
    assert verify(evidence_of(leaf_of(), ISSUED)).key == spki(KEY)


def test_another_challenge_is_refused() -> None:
    for nonce in (b"another", NONCE[:-1], NONCE + b"x"):
        with refused("nonce"):
            verify(nonce=nonce)
    with refused("nonce"):
        verify(described(challenge=b""))


def test_only_pinned_roots_count() -> None:
    with refused("root"):
        AndroidVerifier().verify(GOOD, NONCE, policy_of(), at(NOW))
    other = Authority("root", p384())
    forged = other.issue("TEE", BATCH.spki, extensions=authority())
    with refused("root"):
        verify(evidence_of(leaf_of(), forged, other.issue("root", other.spki, extensions=authority())))
    with refused("signature"):
        verify(evidence_of(leaf_of(), forged, other.issue("root", ROOT.spki, extensions=authority())))
    with refused("signature"):
        verify(evidence_of(leaf_of(), forged, CARRIER))
    with refused("signature"):
        verify(evidence_of(leaf_of(signer=Authority("TEE", p256())), ISSUED, CARRIER))


@pytest.mark.parametrize("moment", [NOT_BEFORE - SECOND, NOT_AFTER + SECOND])
def test_the_chain_is_valid_now(moment: Any) -> None:
    verify(moment=NOT_BEFORE)
    verify(moment=NOT_AFTER)
    with refused("expired"):
        verify(moment=moment)


@pytest.mark.parametrize("serial", [1, 90, 91])
def test_revoked_serial_numbers_are_refused(serial: int) -> None:
    verify(revoked=frozenset({2}))
    with refused("revoked"):
        verify(revoked=frozenset({serial}))


@pytest.mark.parametrize(
    ("changes", "options", "code"),
    [
        ({"level": SOFTWARE}, {}, "policy"),
        ({"keymint_level": SOFTWARE}, {}, "policy"),
        ({}, {"require_strongbox": True}, "policy"),
        ({"level": STRONG_BOX}, {"require_strongbox": True}, "policy"),
        ({"version": 2}, {}, "version"),
        ({"hardware": {704: root_of_trust(locked=b"\0")}}, {}, "debug"),
        ({"hardware": {704: root_of_trust(state=1)}}, {}, "debug"),
        ({"hardware": {704: root_of_trust(state=2)}}, {}, "debug"),
        ({"hardware": {704: root_of_trust(state=3)}}, {}, "debug"),
        ({"hardware": {704: None}}, {}, "policy"),
        ({"hardware": {704: None}, "software": {704: root_of_trust()}}, {}, "policy"),
        ({"hardware": {702: der_integer(2)}}, {}, "policy"),  # imported
        ({"hardware": {702: None}}, {}, "policy"),
        ({}, {"min_os_patch_level": 202603}, "version"),
        ({"hardware": {706: None}}, {"min_os_patch_level": 1}, "version"),
        ({"hardware": {706: None}, "software": {706: der_integer(202612)}}, {"min_os_patch_level": 1}, "version"),
        ({"software": {709: None}}, {}, "measurement"),
        ({"software": {709: None}, "hardware": {709: application()}}, {}, "measurement"),
        ({"software": {709: application(b"org.example.other")}}, {}, "measurement"),
        ({"software": {709: application(b"\xff\xfe")}}, {}, "measurement"),
        ({"software": {709: application(digests=())}}, {}, "measurement"),
        ({"software": {709: application(digests=(bytes(32),))}}, {}, "measurement"),
        ({"software": {709: application(digests=(SIGNATURE, bytes(32)))}}, {}, "measurement"),
        ({"software": {709: application(more=der(0x30, der(4, b"org.second") + der_integer(1)))}}, {}, "measurement"),
        ({}, {"package": "org.example.other"}, "measurement"),
        ({}, {"signatures": frozenset({"00" * 32})}, "measurement"),
    ],
)
def test_less_than_the_policy_asks_for_is_refused(changes: Any, options: Any, code: str) -> None:
    with refused(code):
        verify(described(**changes), **options)


def test_a_policy_can_ask_for_less_or_more() -> None:
    unlocked = described(hardware={704: root_of_trust(locked=b"\0", state=2, digest=None)})
    assert verify(unlocked, require_verified_boot=False).details["verified_boot_state"] == "UNVERIFIED"
    assert verify(described(version=1), min_version=0).details["attestation_version"] == 1
    strong = described(level=STRONG_BOX, keymint_level=STRONG_BOX)
    assert verify(strong, require_strongbox=True).details["security_level"] == "STRONG_BOX"
    verify(min_os_patch_level=202602)


def chain_with_issuer(purpose: int, data: bytes | None = None, **issuer: Any) -> bytes:
    """A leaf that another key of the phone has issued, which was made for ``purpose``."""
    other = Authority("Android Keystore Key", p256())
    described = description(purpose=purpose, **issuer)
    return evidence_of(leaf_of(data, signer=other), leaf_of(described, key=other.spki), ISSUED, CARRIER)


def test_a_key_for_attesting_may_issue_others() -> None:
    assert verify(chain_with_issuer(ATTEST_KEY, challenge=b"of its own")).key == spki(KEY)


def test_a_key_for_signing_may_not_issue_others() -> None:
    with refused("root", "not for attesting keys"):
        verify(chain_with_issuer(SIGN))
    both = der(0x31, der_integer(SIGN) + der_integer(ATTEST_KEY))
    with refused("root", "not for attesting keys"):
        verify(chain_with_issuer(ATTEST_KEY, hardware={1: both}))
    with refused("root", "not for attesting keys"):
        verify(chain_with_issuer(ATTEST_KEY, hardware={1: None}))


def test_a_key_for_attesting_is_held_to_the_policy_too() -> None:
    with refused("debug"):
        verify(chain_with_issuer(ATTEST_KEY, hardware={704: root_of_trust(locked=b"\0")}))
    with refused("policy"):
        verify(chain_with_issuer(ATTEST_KEY, level=SOFTWARE))


def test_the_leaf_and_those_above_it_without_a_gap_are_described() -> None:
    other = Authority("Android Keystore Key", p256())
    plain = other.issue("attacker", spki(KEY))
    attested = leaf_of(description(purpose=ATTEST_KEY), key=other.spki)
    with refused("format", "not described"):
        verify(evidence_of(plain, attested, ISSUED, CARRIER))
    with refused("format", "not described"):
        verify(evidence_of(BATCH.issue("leaf", spki(KEY)), ISSUED, CARRIER))


def test_a_key_of_another_kind_is_refused() -> None:
    with refused("format", "public key"):
        verify(evidence_of(leaf_of(key=spki(ec.generate_private_key(ec.SECP256K1()))), ISSUED, CARRIER))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x30\x80\x00\x00",
        description()[:-1],
        description() + b"\0",
        description(level=3),
        description(hardware={704: root_of_trust(locked=b"\1")}),  # true as some phones write it
        description(hardware={704: root_of_trust(state=4)}),
        description(hardware={704: root_of_trust() + b"\0"}),
        description(hardware={702: der_integer(0) + b"\0"}),
        description(hardware={702: der(4, b"")}),
        description(hardware={1: der_integer(SIGN)}),
        description(software={709: der(4, b"\x30\x00")}),
        description(software={709: application() + b"\0"}),
        description(software={709: application(more=b"\0")}),
    ],
)
def test_a_malformed_description_is_refused(data: bytes) -> None:
    with pytest.raises(AttestationError) as caught:
        verify(evidence_of(leaf_of(data), ISSUED, CARRIER))
    assert caught.value.code in {"format", "measurement"}


def test_tags_ascend() -> None:
    first, second = tagged(705, der_integer(160000)), tagged(706, der_integer(202602))
    assert first + second in description()
    for bad in (second + first, first + first):
        with refused("format", "ascending"):
            verify(evidence_of(leaf_of(description().replace(first + second, bad)), ISSUED, CARRIER))


@pytest.mark.parametrize(
    "change",
    [
        lambda e: e[:-1],
        lambda e: e + b"\0",
        lambda _: evidence_of(leaf_of()),
        lambda _: pack_evidence(chain=b""),
        lambda _: evidence_of(leaf_of()[:-1]),
        lambda _: evidence_of(leaf_of(), b"\0"),
        lambda _: evidence_of(*[leaf_of()] * 13),
        lambda _: evidence_of(leaf_of(description(challenge=bytes(9000))), ISSUED, CARRIER),
        lambda _: pack_evidence(chain=bytes(1 << 20)),
        lambda _: pack_evidence(chain=b"\x30\x80" * 10_000),
        lambda _: b"",
    ],
)
def test_malformed_evidence_is_refused(change: Callable[[bytes], bytes]) -> None:
    with pytest.raises(AttestationError) as caught:
        verify(change(GOOD))
    assert caught.value.code in {"format", "root"}


@pytest.mark.parametrize(
    "changes",
    [
        {"package": ""},
        {"signatures": frozenset()},
        {"signatures": frozenset({"00"})},
        {"min_os_patch_level": -1},
        {"min_version": 1.5},
    ],
)
def test_a_policy_pins_an_application(changes: Any) -> None:
    with pytest.raises(InvalidValueError):
        policy_of(**changes)


@pytest.mark.parametrize("nonce", [b"", b"n" * 129])
def test_a_challenge_has_1_to_128_bytes(nonce: bytes) -> None:
    with pytest.raises(InvalidValueError, match="1 to 128 bytes"):
        verify(nonce=nonce)


def test_a_status_list_is_read_both_ways() -> None:
    entries = {"c35747a084470c31": {"status": "REVOKED", "reason": "KEY_COMPROMISE"}, "6681": {"status": "SUSPENDED"}}
    assert revoked_serials(json.dumps({"entries": entries}).encode()) == {0xC35747A084470C31, 0x6681, 6681}
    assert revoked_serials(b'{"entries": {}}') == frozenset()


@pytest.mark.parametrize(
    "bad",
    [
        b"",
        b"[]",
        b"{}",
        b"\xff",
        b'{"entries": []}',
        b'{"entries": {"zz": {"status": "REVOKED"}}}',
        b'{"entries": {"1": {}}}',
        b'{"entries": {"1": "REVOKED"}}',
        b'{"entries": {"1": {"status": "GOOD"}}}',
        b'{"entries": {"1": {"status": []}}}',
        b"[" * 100_000,
        bytes((16 << 20) + 1),
    ],
)
def test_what_is_no_status_list_is_refused(bad: bytes) -> None:
    with pytest.raises(InvalidValueError, match="status"):
        revoked_serials(bad)


@settings(max_examples=100)
@given(st.integers(0, len(GOOD) - 1), st.integers(1, 255))
def test_every_changed_byte_is_refused(index: int, change: int) -> None:
    data = bytearray(GOOD)
    data[index] ^= change
    with pytest.raises(AttestationError):
        verify(bytes(data))


@settings(max_examples=100)
@given(st.data())
def test_a_description_is_refused_or_says_the_same(data: st.DataObject) -> None:
    """Descriptions that the phone itself signs, broken in one place: one error, or claims that fit the policy."""
    broken = bytearray(description())
    broken[data.draw(st.integers(0, len(broken) - 1))] = data.draw(st.integers(0, 255))
    with refused_if_at_all():
        claims = verify(evidence_of(leaf_of(bytes(broken)), ISSUED, CARRIER))
        assert (claims.measurement, claims.report_data) == (SIGNATURE.hex(), NONCE)
        assert claims.details["verified_boot_state"] == "VERIFIED"


@given(st.binary(max_size=300), st.booleans())
def test_random_bytes_are_refused_in_one_way(data: bytes, inside: bool) -> None:
    with pytest.raises(AttestationError):
        verify(pack_evidence(chain=data) if inside else data)
