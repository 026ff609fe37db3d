from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.attest.chains import (
    ECDSA_SHA384,
    NOT_AFTER,
    NOT_BEFORE,
    NOW,
    Authority,
    authority,
    der,
    extension,
    p256,
    p384,
    spki,
)
from tests.attest.samples import SECOND, at, refused
from tests.attest.test_cbor import cbor

from matl.attest.apple import AppAttestPolicy, AppleVerifier
from matl.attest.claims import Claims
from matl.errors import AttestationError, InvalidValueError

NONCE, APP_ID = b"client data of the one who asks", "TEAM123456.org.example.app"
PRODUCTION, DEVELOPMENT = b"appattest" + bytes(7), b"appattestdevelop"
ROOT, MIDDLE = Authority("root", p384()), Authority("Apple CA", p384())
ISSUED = ROOT.issue("Apple CA", MIDDLE.spki, algorithm=ECDSA_SHA384, extensions=authority(0))
KEY = p256()


def sha256(data: bytes) -> bytes:
    return hashlib.sha256(data).digest()


def point(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


def credential_of(key: ec.EllipticCurvePrivateKey = KEY, **changes: bytes) -> bytes:
    """Authenticator data of an attestation."""
    x, y = point(key)[1:33], point(key)[33:65]
    fields = {
        "application": sha256(APP_ID.encode()),
        "flags": b"\x40",
        "counter": bytes(4),
        "aaguid": PRODUCTION,
        "size": b"\0\x20",
        "id": sha256(point(key)),
        "cose": cbor({1: 2, 3: -7, -1: 1, -2: x, -3: y}),
    } | changes
    return b"".join(fields.values())


def nonce_extension(digest: bytes) -> bytes:
    return extension("1.2.840.113635.100.8.2", der(0x30, der(0xA1, der(4, digest))))


def leaf_of(data: bytes, nonce: bytes = NONCE, key: bytes | None = None, **options: Any) -> bytes:
    extensions = [nonce_extension(sha256(data + sha256(nonce)))]
    return MIDDLE.issue("leaf", key or spki(KEY), **({"extensions": extensions} | options))


def attestation_of(data: bytes | None = None, *, chain: list[bytes] | None = None, **changes: Any) -> bytes:
    data = credential_of() if data is None else data
    chain = [leaf_of(data), ISSUED] if chain is None else chain
    fields = {"fmt": "apple-appattest", "attStmt": {"x5c": chain, "receipt": b"receipt"}, "authData": data}
    return cbor(fields | changes)


def assertion_of(
    counter: int,
    nonce: bytes = NONCE,
    key: ec.EllipticCurvePrivateKey = KEY,
    app_id: str = APP_ID,
    extensions: bytes = b"",
    **changes: Any,
) -> bytes:
    data = sha256(app_id.encode()) + b"\x40" + counter.to_bytes(4, "big") + extensions
    signature = key.sign(sha256(data + sha256(nonce)), ec.ECDSA(hashes.SHA256()))
    return cbor({"signature": signature, "authenticatorData": data} | changes)


GOOD, ASSERTION = attestation_of(), assertion_of(8)
VERIFIER = AppleVerifier(roots=[ROOT.spki])
POLICY = AppAttestPolicy(app_id=APP_ID)


def verify(evidence: bytes = GOOD, nonce: bytes = NONCE, policy: AppAttestPolicy = POLICY, moment: Any = NOW) -> Claims:
    return VERIFIER.verify(evidence, nonce, policy, at(moment))


def verify_assertion(
    evidence: bytes = ASSERTION,
    nonce: bytes = NONCE,
    policy: AppAttestPolicy = POLICY,
    key: bytes | None = None,
    counter: int = 7,
) -> int:
    return VERIFIER.verify_assertion(evidence, nonce, policy, key=key or spki(KEY), counter=counter)


def test_an_attestation_proves_a_key_of_the_application() -> None:
    claims = verify()
    assert (claims.format, claims.measurement) == ("apple-app-attest", sha256(APP_ID.encode()).hex())
    assert (claims.key, claims.report_data) == (spki(KEY), NONCE)
    assert not claims.hardware_root  # the root is not Apple's
    assert claims.details == {
        "app_id": APP_ID,
        "environment": "production",
        "category": "unknown",
        "bundle_version": "unknown",
        "key_id": sha256(point(KEY)).hex(),
        "counter": 0,
    }


def test_another_nonce_is_refused() -> None:
    for nonce in (b"another", NONCE[:-1], NONCE + b"x"):
        with refused("nonce"):
            verify(nonce=nonce)
    with refused("nonce"):
        verify(attestation_of(chain=[leaf_of(credential_of(), b"another"), ISSUED]))


def test_only_pinned_roots_count() -> None:
    with refused("root"):
        AppleVerifier().verify(GOOD, NONCE, POLICY, at(NOW))
    other = Authority("root", p384())
    forged = other.issue("Apple CA", MIDDLE.spki, algorithm=ECDSA_SHA384, extensions=authority(0))
    with refused("root"):
        verify(attestation_of(chain=[leaf_of(credential_of()), forged]))
    with refused("signature"):
        verify(attestation_of(chain=[Authority("Apple CA", p384()).issue("leaf", spki(KEY)), ISSUED]))
    with refused("root"):
        verify(attestation_of(chain=[leaf_of(credential_of())]))


@pytest.mark.parametrize("moment", [NOT_BEFORE - SECOND, NOT_AFTER + SECOND])
def test_the_chain_is_valid_now(moment: Any) -> None:
    verify(moment=NOT_BEFORE)
    verify(moment=NOT_AFTER)
    with refused("expired"):
        verify(moment=moment)


def test_another_application_is_refused() -> None:
    with refused("measurement"):
        verify(policy=AppAttestPolicy(app_id="TEAM123456.org.example.other"))
    with refused("measurement"):
        verify(attestation_of(credential_of(application=bytes(32))))


def test_the_development_environment_has_to_be_allowed() -> None:
    development = attestation_of(credential_of(aaguid=DEVELOPMENT))
    with refused("debug"):
        verify(development)
    relaxed = AppAttestPolicy(app_id=APP_ID, allow_development=True)
    assert verify(development, policy=relaxed).details["environment"] == "development"
    assert verify(policy=relaxed).details["environment"] == "production"
    with refused("format", "no environment"):
        verify(attestation_of(credential_of(aaguid=bytes(16))), policy=relaxed)


def launched(category: int, version: str = "12") -> bytes:
    """What iOS 27 appends."""
    return cbor({"apple_bundle_version_01": version, "apple_validation_category_01": category.to_bytes(4, "little")})


def test_how_the_application_came_onto_the_phone_is_read() -> None:
    assert launched(3, "1") == bytes.fromhex(
        "a2 77 6170706c655f62756e646c655f76657273696f6e5f3031 6131"
        "78 1c 6170706c655f76616c69646174696f6e5f63617465676f72795f3031 4403000000"
    )
    details = verify(attestation_of(credential_of(extensions=launched(4)))).details
    assert (details["category"], details["bundle_version"]) == ("APP_STORE", "12")
    assert verify_assertion(assertion_of(8, extensions=launched(4))) == 8
    future = cbor({"apple_something_new_01": [1]})
    assert verify(attestation_of(credential_of(extensions=future))).details["category"] == "unknown"


@pytest.mark.parametrize(("category", "name"), [(2, "TESTFLIGHT"), (3, "DEVELOPMENT"), (5, "ENTERPRISE"), (10, "10")])
def test_only_an_allowed_way_onto_the_phone_passes(category: int, name: str) -> None:
    attestation = attestation_of(credential_of(extensions=launched(category)))
    assertion = assertion_of(8, extensions=launched(category))
    with refused("policy", f"came by {name}; allowed: APP_STORE"):
        verify(attestation)
    with refused("policy", f"came by {name}"):
        verify_assertion(assertion)
    if name == "10":
        return
    relaxed = AppAttestPolicy(app_id=APP_ID, categories=frozenset({name}))
    assert verify(attestation, policy=relaxed).details["category"] == name
    assert verify_assertion(assertion, policy=relaxed) == 8


def test_systems_that_do_not_say_it_can_be_refused() -> None:
    strict = AppAttestPolicy(app_id=APP_ID, require_category=True)
    verify(attestation_of(credential_of(extensions=launched(4))), policy=strict)
    for call in (verify, verify_assertion):
        with refused("policy", "does not say"):
            call(policy=strict)
    with pytest.raises(InvalidValueError, match="expected categories among"):
        AppAttestPolicy(app_id=APP_ID, categories=frozenset({"SIDELOADED"}))


def test_coordinates_without_their_leading_zeros_are_read() -> None:
    key = next(key for key in iter(p256, None) if point(key)[1] == 0 or point(key)[33] == 0)
    x, y = (part.lstrip(b"\0") for part in (point(key)[1:33], point(key)[33:]))
    data = credential_of(key, cose=cbor({1: 2, 3: -7, -1: 1, -2: x, -3: y}))
    assert verify(attestation_of(data, chain=[leaf_of(data, key=spki(key)), ISSUED])).key == spki(key)


def test_a_new_key_has_the_counter_0() -> None:
    with refused("policy", "counter 0, got 1"):
        verify(attestation_of(credential_of(counter=b"\0\0\0\1")))


def test_the_credential_is_the_certified_key() -> None:
    other = p256()
    for data in (
        credential_of(other),
        credential_of(id=sha256(point(other))),
        credential_of(other, id=sha256(point(KEY))),
    ):
        with refused("signature", "not the key that Apple certified"):
            verify(attestation_of(data, chain=[leaf_of(data), ISSUED]))


@pytest.mark.parametrize("key", [p384(), ec.generate_private_key(ec.SECP256K1())], ids=["P-384", "secp256k1"])
def test_a_key_on_another_curve_is_refused(key: ec.EllipticCurvePrivateKey) -> None:
    with refused("format"):
        verify(attestation_of(chain=[leaf_of(credential_of(), key=spki(key)), ISSUED]))
    with refused("format"):
        verify_assertion(key=spki(key))


X, Y = point(KEY)[1:33], point(KEY)[33:]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        credential_of()[:-1],
        credential_of() + b"\0",
        credential_of()[:54],
        credential_of(flags=b"\0"),
        credential_of(size=b"\0\x10"),
        credential_of(size=b"\xff\xff"),
        credential_of(cose=cbor({1: 2, 3: -7, -1: 2, -2: X, -3: Y})),
        credential_of(cose=cbor({1: 2, 3: -35, -1: 1, -2: X, -3: Y})),
        credential_of(cose=cbor({1: 2, 3: -7, -1: 1, -2: X})),
        credential_of(cose=cbor({1: 2, 3: -7, -1: 1, -2: X, -3: Y, 4: 1})),
        credential_of(cose=cbor({1: 2, 3: -7, -1: 1, -2: "x", -3: Y})),
        credential_of(extensions=cbor(1)),
        credential_of(extensions=cbor({}) + cbor({})),
        credential_of(extensions=cbor({"apple_validation_category_01": 4})),
        credential_of(extensions=cbor({"apple_validation_category_01": bytes(5)})),
        credential_of(extensions=cbor({"apple_bundle_version_01": b"1"})),
    ],
)
def test_malformed_authenticator_data_are_refused(data: bytes) -> None:
    with refused("format"):
        verify(attestation_of(data, chain=[leaf_of(data), ISSUED]))


@pytest.mark.parametrize(
    "extensions",
    [
        [],
        [extension("1.2.840.113635.100.8.2", b"")],
        [extension("1.2.840.113635.100.8.2", der(0x30, der(4, bytes(32))))],
        [extension("1.2.840.113635.100.8.2", der(0x30, der(0xA1, der(4, bytes(32)) + b"\0")))],
        [extension("1.2.840.113635.100.8.2", der(0x30, der(0xA1, der(4, bytes(32)))) + b"\0")],
    ],
)
def test_a_malformed_nonce_extension_is_refused(extensions: list[bytes]) -> None:
    with refused("format"):
        verify(attestation_of(chain=[leaf_of(credential_of(), extensions=extensions), ISSUED]))


@pytest.mark.parametrize(
    "change",
    [
        lambda e: e[:-1],
        lambda e: e + b"\0",
        lambda _: b"",
        lambda _: cbor([]),
        lambda _: cbor({}),
        lambda _: attestation_of(fmt="packed"),
        lambda _: attestation_of(fmt=b"apple-appattest"),
        lambda _: attestation_of(more=1),
        lambda _: attestation_of(attStmt={}),
        lambda _: attestation_of(attStmt={"x5c": b"", "receipt": b""}),
        lambda _: attestation_of(attStmt={"x5c": ["text"], "receipt": b""}),
        lambda _: attestation_of(authData="text"),
        lambda _: attestation_of(chain=[]),
        lambda _: attestation_of(chain=[leaf_of(credential_of())] + [ISSUED] * 4),
        lambda _: attestation_of(attStmt={"x5c": [leaf_of(credential_of()), ISSUED], "receipt": bytes(40_000)}),
        lambda _: b"\x81" * 20_000,
        lambda _: bytes(1 << 20),
    ],
)
def test_malformed_attestations_are_refused(change: Callable[[bytes], bytes]) -> None:
    with refused("format"):
        verify(change(GOOD))


@pytest.mark.parametrize("app_id", ["", "app", "TEAM.", ".bundle"])
def test_a_policy_pins_an_application(app_id: str) -> None:
    with pytest.raises(InvalidValueError, match=r"TEAM\.bundle"):
        AppAttestPolicy(app_id=app_id)


def test_an_assertion_counts_up() -> None:
    assert verify_assertion(counter=0) == 8
    assert verify_assertion(counter=7) == 8
    for counter in (8, 9, 2**32):
        with refused("nonce", "replay"):
            verify_assertion(counter=counter)
    with pytest.raises(InvalidValueError):
        verify_assertion(counter=-1)


def test_an_assertion_is_of_the_key_and_the_client_data() -> None:
    with refused("signature"):
        verify_assertion(nonce=b"another")
    with refused("signature"):
        verify_assertion(key=spki(p256()))
    with refused("measurement"):
        verify_assertion(assertion_of(8, app_id="TEAM123456.org.example.other"))
    with refused("signature"):
        verify_assertion(assertion_of(8, authenticatorData=sha256(APP_ID.encode()) + b"\x40\0\0\0\x09"))


@pytest.mark.parametrize(
    "change",
    [
        lambda a: a[:-1],
        lambda a: a + b"\0",
        lambda _: b"",
        lambda _: cbor([b"", b""]),
        lambda _: assertion_of(8, more=1),
        lambda _: assertion_of(8, signature="text"),
        lambda _: assertion_of(8, authenticatorData=bytes(36)),
        lambda _: assertion_of(8, authenticatorData=bytes(38)),
        lambda _: assertion_of(8, extensions=cbor({}) * 2),
        lambda _: assertion_of(8, extensions=cbor({"apple_validation_category_01": "4"})),
        lambda _: assertion_of(8, signature=bytes(2000)),
    ],
)
def test_malformed_assertions_are_refused(change: Callable[[bytes], bytes]) -> None:
    with refused("format"):
        verify_assertion(change(ASSERTION))


@pytest.mark.parametrize("nonce", [b"", bytes((1 << 16) + 1)])
def test_client_data_have_1_to_65536_bytes(nonce: bytes) -> None:
    for call in (verify, verify_assertion):
        with pytest.raises(InvalidValueError, match="1 to 65536 bytes"):
            call(nonce=nonce)


@settings(max_examples=80)
@given(st.integers(0, len(GOOD) - 1), st.integers(1, 255))
def test_every_changed_byte_is_refused_or_of_no_account(index: int, change: int) -> None:
    data = bytearray(GOOD)
    data[index] ^= change
    receipt = GOOD.index(b"\x67receipt\x47")  # what Apple's own servers read; nothing here looks at its name or content
    if receipt <= index < receipt + 16:
        return
    with pytest.raises(AttestationError):
        verify(bytes(data))


@given(st.integers(0, len(ASSERTION) - 1), st.integers(1, 255))
def test_every_changed_byte_of_an_assertion_is_refused(index: int, change: int) -> None:
    data = bytearray(ASSERTION)
    data[index] ^= change
    with pytest.raises(AttestationError):
        verify_assertion(bytes(data))


@settings(max_examples=50)
@given(st.binary(max_size=300))
def test_random_bytes_are_refused_in_one_way(data: bytes) -> None:
    for evidence in (data, attestation_of(data), attestation_of(chain=[data, data])):
        with pytest.raises(AttestationError):
            verify(evidence)
    with pytest.raises(AttestationError):
        verify_assertion(data)
