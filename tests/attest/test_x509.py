from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta

import pytest
from cryptography.hazmat.primitives.asymmetric import dsa, ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.attest.chains import (
    BASIC_CONSTRAINTS,
    ECDSA_SHA256,
    ECDSA_SHA384,
    KEY_USAGE,
    NOT_AFTER,
    NOT_BEFORE,
    NOW,
    PSS_SHA384,
    RSA_SHA256,
    Authority,
    authority,
    der,
    extension,
    p256,
    p384,
    rsa_key,
    spki,
)
from tests.attest.samples import SECOND, refused

from matl.attest._x509 import Certificate, load_key, read_certificates, verify_chain
from matl.errors import AttestationError

RSA_KEY = rsa_key(0)
ROOT, MIDDLE = Authority("root", p384()), Authority("middle", p256())
LEAF_KEY = p256()
LEAF = MIDDLE.issue("leaf", spki(LEAF_KEY))
ISSUED = ROOT.issue("middle", MIDDLE.spki, extensions=authority(0), serial=7)
CARRIER = ROOT.issue("root", ROOT.spki, extensions=authority(), serial=8)


def check(*chain: bytes, roots: set[bytes] | None = None, **options: object) -> None:
    parsed = [Certificate.parse(der_) for der_ in chain]
    options.setdefault("moment", NOW)
    verify_chain(parsed, {ROOT.spki} if roots is None else roots, **options)  # type: ignore[arg-type]


def test_a_chain_may_end_below_the_root_or_carry_it() -> None:
    check(LEAF, ISSUED)
    check(LEAF, ISSUED, CARRIER)
    check(ROOT.issue("leaf", spki(LEAF_KEY)))
    check(LEAF, ISSUED, roots={MIDDLE.spki, ROOT.spki})


def test_the_fields_of_a_certificate_are_read() -> None:
    certificate = Certificate.parse(ISSUED)
    assert (certificate.serial, certificate.not_before, certificate.not_after) == (7, NOT_BEFORE, NOT_AFTER)
    assert certificate.spki == MIDDLE.spki
    assert certificate.critical == {BASIC_CONSTRAINTS, KEY_USAGE}
    assert certificate.extensions[KEY_USAGE] == bytes.fromhex("03020204")


PSS_WITH_TRAILER = der(0x30, PSS_SHA384[2:13] + der(0x30, PSS_SHA384[15:] + bytes.fromhex("a303020101")))


@pytest.mark.parametrize("algorithm", [RSA_SHA256, PSS_SHA384, PSS_WITH_TRAILER])
def test_rsa_chains_are_read(algorithm: bytes) -> None:
    root = Authority("root", RSA_KEY)
    check(root.issue("leaf", spki(LEAF_KEY), algorithm=algorithm), roots={root.spki})


def test_another_root_is_refused() -> None:
    with refused("root"):
        check(LEAF, ISSUED, roots={spki(p384()), spki(RSA_KEY)})
    with refused("root"):
        check(LEAF, ISSUED, CARRIER, roots={spki(p384())})
    with refused("root"):
        check(LEAF, ISSUED, roots=set())


def test_a_root_is_its_key_whatever_its_certificate_says() -> None:
    expired = ROOT.issue("root", ROOT.spki, not_before=NOT_BEFORE - 9 * timedelta(days=1), not_after=NOT_BEFORE)
    check(LEAF, ISSUED, expired)
    other_name = Authority("other", ROOT.key).issue("other", ROOT.spki)
    with refused("signature", "does not name"):
        check(LEAF, ISSUED, other_name)


def test_a_copied_root_key_does_not_make_a_root() -> None:
    forged = Authority("root", p384()).issue("root", ROOT.spki, extensions=authority())
    with refused("signature"):
        check(LEAF, ISSUED, forged)


def test_every_signature_counts() -> None:
    other = Authority("middle", p256()).issue("leaf", spki(LEAF_KEY))
    with refused("signature", "not signed by the key above"):
        check(other, ISSUED)
    with refused("signature", "does not name"):
        check(Authority("other", MIDDLE.key).issue("leaf", spki(LEAF_KEY)), ISSUED)
    with refused("signature"):
        check(LEAF, Authority("root", p384()).issue("middle", MIDDLE.spki, extensions=authority()), CARRIER)


@pytest.mark.parametrize("moved", [-SECOND, SECOND])
@pytest.mark.parametrize("position", [0, 1])
def test_every_certificate_is_valid_at_the_moment(position: int, moved: timedelta) -> None:
    window = {"not_before": NOW + max(moved, 0 * SECOND), "not_after": NOW + min(moved, 0 * SECOND) + 9 * SECOND}
    if moved < 0 * SECOND:
        window = {"not_before": NOW - 9 * SECOND, "not_after": NOW - SECOND}
    leaf = MIDDLE.issue("leaf", spki(LEAF_KEY), **(window if position == 0 else {}))
    middle = ROOT.issue("middle", MIDDLE.spki, extensions=authority(), **(window if position else {}))
    with refused("expired"):
        check(leaf, middle)
    inside = window["not_before"] if moved > 0 * SECOND else window["not_after"]
    check(leaf, middle, moment=inside)


def test_authorities_say_that_they_are() -> None:
    plain = ROOT.issue("middle", MIDDLE.spki)
    denied = ROOT.issue("middle", MIDDLE.spki, extensions=[extension(BASIC_CONSTRAINTS, der(0x30, b""))])
    no_signing = [authority()[0], extension(KEY_USAGE, bytes.fromhex("03020780"), critical=True)]
    for middle in (plain, denied, ROOT.issue("middle", MIDDLE.spki, extensions=no_signing)):
        with refused("signature", "was issued by"):
            check(LEAF, middle)


def test_an_authority_has_no_more_below_than_it_may() -> None:
    lower = Authority("lower", p256())
    leaf = lower.issue("leaf", spki(LEAF_KEY))
    below = MIDDLE.issue("lower", lower.spki, extensions=authority())
    check(leaf, below, ROOT.issue("middle", MIDDLE.spki, extensions=authority(1)))
    with refused("signature", "not an authority for it"):
        check(leaf, below, ISSUED)


def test_leaves_need_not_be_authorities() -> None:
    lower = Authority("lower", p256())
    leaf = lower.issue("leaf", spki(LEAF_KEY))
    check(leaf, MIDDLE.issue("lower", lower.spki), ISSUED, leaves=2)
    with refused("format", "too short"):
        check(leaf, leaves=2)
    with refused("format", "too short"):
        check(leaves=1)


def test_critical_extensions_are_known() -> None:
    strange = MIDDLE.issue("leaf", spki(LEAF_KEY), extensions=[extension("1.2.3", b"", critical=True)])
    with refused("format", "critical extension that is not known: 1.2.3"):
        check(strange, ISSUED)
    check(strange, ISSUED, known=("1.2.3",))


@pytest.mark.parametrize("serial", [1, 7, 8])
def test_revoked_serial_numbers_are_refused_anywhere(serial: int) -> None:
    check(LEAF, ISSUED, CARRIER, revoked={9})
    with refused("revoked", f"serial number {serial:x}"):
        check(LEAF, ISSUED, CARRIER, revoked={9, serial})


def test_the_algorithm_is_that_of_the_key() -> None:
    for algorithm, key in ((RSA_SHA256, p256()), (ECDSA_SHA256, RSA_KEY)):
        signer = Authority("middle", RSA_KEY if algorithm == RSA_SHA256 else p256())
        leaf = signer.issue("leaf", spki(LEAF_KEY), algorithm=algorithm)
        with refused("signature"):
            check(leaf, ROOT.issue("middle", spki(key), extensions=authority()))


def test_unknown_and_disagreeing_algorithms_are_refused() -> None:
    sha1 = bytes.fromhex("300d06092a864886f70d0101050500")
    with refused("format", "not accepted"):
        check(Authority("middle", RSA_KEY).issue("leaf", spki(LEAF_KEY), algorithm=sha1), ISSUED)
    short_salt = PSS_SHA384[:-1] + b"\x20"
    with refused("format", "not accepted"):
        check(Authority("middle", RSA_KEY).issue("leaf", spki(LEAF_KEY), algorithm=short_salt), ISSUED)
    half = LEAF.replace(ECDSA_SHA256, ECDSA_SHA384, 1)
    with refused("format", "two signature algorithms"):
        Certificate.parse(half)


@pytest.mark.parametrize(
    "change",
    [
        lambda c: c + b"\0",
        lambda c: c[:-1],
        lambda c: c.replace(bytes.fromhex("a003020102"), bytes.fromhex("a003020101"), 1),
        lambda _: MIDDLE.issue("leaf", spki(LEAF_KEY), version=b""),
        lambda _: MIDDLE.issue("leaf", spki(LEAF_KEY), extensions=[extension("1.2.3", b"")] * 2),
        lambda _: MIDDLE.issue("leaf", spki(LEAF_KEY), extensions=[extension(f"1.2.{i}", b"") for i in range(33)]),
        lambda _: MIDDLE.issue("leaf", spki(LEAF_KEY), extensions=[extension("1.2.3", bytes(9000))]),
        lambda _: MIDDLE.issue("leaf", spki(LEAF_KEY) + bytes.fromhex("810100")),  # issuerUniqueID
        lambda _: bytes(100),
        lambda _: b"",
    ],
)
def test_malformed_certificates_are_refused(change: Callable[[bytes], bytes]) -> None:
    with refused("format"):
        Certificate.parse(change(LEAF))


def test_malformed_constraints_are_refused() -> None:
    constraints, usage = authority()
    for extensions in (
        [extension(BASIC_CONSTRAINTS, b"\x30\x80"), usage],
        [constraints, extension(KEY_USAGE, b"\x03")],
    ):
        middle = ROOT.issue("middle", MIDDLE.spki, extensions=extensions)
        with refused("format"):
            check(LEAF, middle)


def test_chains_are_read_one_behind_the_other() -> None:
    assert [c.serial for c in read_certificates(LEAF + ISSUED + CARRIER, 3)] == [1, 7, 8]
    assert read_certificates(b"", 3) == []
    with refused("format", "more than 2 certificates"):
        read_certificates(LEAF * 3, 2)


@pytest.mark.parametrize(
    "key",
    [
        ec.generate_private_key(ec.SECP256K1()),
        ec.generate_private_key(ec.SECP521R1()),
        ed25519.Ed25519PrivateKey.generate(),
        dsa.generate_private_key(1024),
        rsa.generate_private_key(65537, 1024),
        rsa.generate_private_key(3, 2048),
    ],
    ids=["secp256k1", "P-521", "Ed25519", "DSA", "RSA 1024", "RSA e=3"],
)
def test_other_keys_are_refused(key: ec.EllipticCurvePrivateKey) -> None:
    with refused("format", "neither RSA of 2,048"):
        load_key(key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


def test_what_is_no_key_is_refused() -> None:
    off_curve = bytearray(spki(LEAF_KEY))
    off_curve[-1] ^= 1
    for data in (b"", b"\x30\x00", bytes(off_curve)):
        with refused("format", "cannot be read"):
            load_key(data)


@settings(max_examples=100)
@given(st.integers(0, len(LEAF + ISSUED + CARRIER) - 1), st.integers(1, 255))
def test_every_changed_byte_is_refused(index: int, change: int) -> None:
    data = bytearray(LEAF + ISSUED + CARRIER)
    data[index] ^= change
    with pytest.raises(AttestationError):
        verify_chain(read_certificates(bytes(data), 3), {ROOT.spki}, NOW)


@given(st.binary(max_size=200))
def test_random_bytes_are_refused_in_one_way(data: bytes) -> None:
    with pytest.raises(AttestationError):
        Certificate.parse(b"\x30" + data)
