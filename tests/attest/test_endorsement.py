"""The challenge that ties an attestation key to a vendor's TPM, with a TPM made of Python at the other end."""

from __future__ import annotations

import hashlib
import hmac
import struct
from datetime import datetime, timedelta
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.decrepit.ciphers.modes import CFB
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st
from tests.attest.emulator import END, START, Vendor
from tests.attest.tpm_forge import Forge

from matl.attest.endorsement import MAX_IDENTITY, challenge_endorsement, make_credential, pack_identity
from matl.errors import AttestationError

VENDOR, FORGE = Vendor(), Forge()
EK = rsa.generate_private_key(65537, 2048)
MIDDLE = START + (END - START) / 2


def kdfa(key: bytes, label: bytes, context: bytes, bits: int) -> bytes:
    """Part 1 of the TPM specification, 11.4.10.2, to the letter; one round is enough here."""
    fixed = struct.pack(">I", 1) + label + b"\0" + context + struct.pack(">I", bits)
    return hmac.digest(key, fixed, "sha256")[: bits // 8]


def activate(blob: bytes, ek: rsa.RSAPrivateKey, name: bytes) -> bytes:
    """What a TPM does that holds an endorsement key and a key called ``name``."""
    (size,) = struct.unpack_from(">H", blob)
    identity, secret = blob[2 : 2 + size], blob[4 + size :]
    seed = ek.decrypt(secret, padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), b"IDENTITY\0"))
    integrity, encrypted = identity[2:34], identity[34:]
    if not hmac.compare_digest(hmac.digest(kdfa(seed, b"INTEGRITY", b"", 256), encrypted + name, "sha256"), integrity):
        raise InvalidSignature
    plain = Cipher(algorithms.AES(kdfa(seed, b"STORAGE", name, 128)), CFB(bytes(16))).decryptor().update(encrypted)
    assert plain[:2] == struct.pack(">H", len(plain) - 2)
    return plain[2:]


def identity(*certificates: bytes, public: bytes = b"") -> bytes:
    chain = certificates or (VENDOR.certify(EK.public_key()), VENDOR.intermediate)
    return pack_identity(public or FORGE.public(), b"".join(chain))


def ask(message: bytes, *, roots: Any = None, now: datetime = MIDDLE, **options: Any) -> Any:
    return challenge_endorsement(message, VENDOR.roots if roots is None else roots, clock=lambda: now, **options)


def test_the_tpm_with_both_keys_answers() -> None:
    challenge = ask(identity())
    endorsed = challenge.check(activate(challenge.blob, EK, bytes.fromhex(FORGE.name)))
    assert (endorsed.name, endorsed.model, endorsed.hardware) == (FORGE.name, "Model 9670", True)
    assert endorsed.expires == END
    assert challenge.secret.hex() not in repr(challenge)
    assert ask(identity()).secret != challenge.secret


def test_nobody_else_does() -> None:
    challenge = ask(identity())
    with pytest.raises(InvalidSignature):
        activate(challenge.blob, EK, bytes.fromhex(Forge().name))
    with pytest.raises(ValueError, match="Decryption failed"):
        activate(challenge.blob, rsa.generate_private_key(65537, 2048), bytes.fromhex(FORGE.name))
    for answer in (bytes(32), b"", challenge.secret + b"\0"):
        with pytest.raises(AttestationError) as refused:
            challenge.check(answer)
        assert refused.value.code == "root"


def test_a_credential_of_any_length_opens() -> None:
    for length in (0, 1, 16, 32):
        secret = hashlib.sha256(b"x").digest()[:length]
        assert activate(make_credential(EK.public_key(), b"name", secret), EK, b"name") == secret


def certificates(case: str) -> list[bytes]:
    good = VENDOR.certify(EK.public_key())
    match case:
        case "no certificate":
            return [b""]
        case "no authority between":
            return [good]
        case "another vendor":
            stranger = Vendor()
            return [stranger.certify(EK.public_key()), stranger.intermediate]
        case "another vendor's authority":
            return [good, Vendor().intermediate]
        case "signed by an endorsement key":
            return [VENDOR.certify(EK.public_key()), good]
        case "for another use":
            return [VENDOR.certify(EK.public_key(), usage=False), VENDOR.intermediate]
        case "an authority's":
            return [VENDOR.intermediate]
        case "of an elliptic curve":
            key = ec.generate_private_key(ec.SECP256R1()).public_key()
            return [VENDOR.certify(key), VENDOR.intermediate]
        case "of 3072 bits":
            return [VENDOR.certify(rsa.generate_private_key(65537, 3072).public_key()), VENDOR.intermediate]
        case "of no model":
            return [VENDOR.certify(EK.public_key(), model=None), VENDOR.intermediate]
        case "seven of them":
            return [good] * 7
    raise AssertionError(case)


@pytest.mark.parametrize(
    ("case", "code"),
    [
        ("no certificate", "root"),
        ("no authority between", "root"),
        ("another vendor", "root"),
        ("another vendor's authority", "signature"),
        ("signed by an endorsement key", "signature"),
        ("for another use", "root"),
        ("an authority's", "root"),
        ("of an elliptic curve", "root"),
        ("of 3072 bits", "root"),
        ("of no model", "root"),
        ("seven of them", "format"),
    ],
)
def test_certificates_that_vouch_for_nothing(case: str, code: str) -> None:
    with pytest.raises(AttestationError) as refused:
        ask(identity(*certificates(case)))
    assert refused.value.code == code


def test_dates_and_revocation() -> None:
    for now, options, code in [
        (END + timedelta(seconds=1), {}, "expired"),
        (START - timedelta(seconds=1), {}, "expired"),
        (MIDDLE, {"revoked": {77}}, "revoked"),
        (MIDDLE, {"revoked": {5}}, "revoked"),
    ]:
        with pytest.raises(AttestationError) as refused:
            ask(identity(), now=now, **options)
        assert refused.value.code == code


def test_the_root_may_be_sent_along_or_sign_at_once() -> None:
    root = VENDOR.root.public_key()
    carried = Vendor._certificate("root", root, "root", VENDOR.root, authority=True)
    chain = (VENDOR.certify(EK.public_key()), VENDOR.intermediate)
    assert ask(identity(*chain, carried)).key.expires == END
    below = VENDOR.below.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    assert ask(identity(chain[0]), roots={below}).key.hardware  # pinned one step lower


def test_an_emulator_says_so() -> None:
    assert not ask(identity(VENDOR.certify(EK.public_key(), "SWTPM"), VENDOR.intermediate)).key.hardware


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (b"", "format"),
        (bytes(MAX_IDENTITY + 1), "format"),
        (identity().replace(b"\xadtpm2_identity\xc4\x01\x01", b"\xadtpm2_identity\xc4\x01\x02"), "version"),
        (identity(public=FORGE.public(attributes=0x00040072)), "policy"),
        (identity(public=b"\0"), "format"),
        (identity(b"\x30\x03\x02\x01\x05"), "format"),
    ],
)
def test_identities_that_are_none(message: bytes, code: str) -> None:
    with pytest.raises(AttestationError) as refused:
        ask(message)
    assert refused.value.code == code


WHOLE = identity()


@given(st.integers(0, len(WHOLE) - 1), st.integers(0, 8), st.binary(max_size=8))
def test_changed_identities_raise_one_error_or_name_another_key(at: int, cut: int, new: bytes) -> None:
    changed = WHOLE[:at] + new + WHOLE[at + cut :]
    try:
        key = ask(changed).key
    except AttestationError:
        return
    assert changed == WHOLE or key.name != FORGE.name
