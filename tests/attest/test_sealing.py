from __future__ import annotations

import hmac
import json
from dataclasses import replace
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from matl.attest import sealing
from matl.attest.sealing import OVERHEAD, SealedText, read_sealing_key, seal, unseal
from matl.errors import InvalidValueError, ProtocolError

TEXT = SealedText(run="demo", round=3, client_id="alice", oracle="ab" * 32)
VECTORS = json.loads((Path(__file__).parents[1] / "vectors/sealing.json").read_text())
ORACLE = X25519PrivateKey.from_private_bytes(bytes(range(32)))


# RFC 9180 in base mode, section by section, for this one suite: what the library is compared with.

KEM, HPKE = b"KEM\x00\x20", b"HPKE\x00\x20\x00\x01\x00\x02"


def extract(suite: bytes, salt: bytes, label: bytes, secret: bytes) -> bytes:
    return hmac.digest(salt or bytes(32), b"HPKE-v1" + suite + label + secret, "sha256")


def expand(suite: bytes, key: bytes, label: bytes, info: bytes, length: int) -> bytes:
    labelled = length.to_bytes(2, "big") + b"HPKE-v1" + suite + label + info
    return hmac.digest(key, labelled + b"\1", "sha256")[:length]


def schedule(shared: bytes, enc: bytes, receiver: bytes, info: bytes) -> tuple[bytes, bytes]:
    """Key and nonce of the first message; sections 4.1 and 5.1."""
    secret = expand(KEM, extract(KEM, b"", b"eae_prk", shared), b"shared_secret", enc + receiver, 32)
    context = b"\0" + extract(HPKE, b"", b"psk_id_hash", b"") + extract(HPKE, b"", b"info_hash", info)
    secret = extract(HPKE, secret, b"secret", b"")
    return expand(HPKE, secret, b"key", context, 32), expand(HPKE, secret, b"base_nonce", context, 12)


def raw(key: X25519PublicKey) -> bytes:
    return key.public_bytes_raw()


def reference_seal(
    ephemeral: X25519PrivateKey, to: X25519PublicKey, plaintext: bytes, info: bytes, aad: bytes
) -> bytes:
    enc = raw(ephemeral.public_key())
    key, nonce = schedule(ephemeral.exchange(to), enc, raw(to), info)
    return enc + AESGCM(key).encrypt(nonce, plaintext, aad)


def reference_open(private: X25519PrivateKey, box: bytes, info: bytes) -> bytes:
    enc = box[:32]
    key, nonce = schedule(
        private.exchange(X25519PublicKey.from_public_bytes(enc)), enc, raw(private.public_key()), info
    )
    return AESGCM(key).decrypt(nonce, box[32:], b"")


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["of"])
def test_vectors(vector: dict[str, str]) -> None:
    """Sender and receiver with the vector's keys; the library has no place for an ephemeral key, nor for ``aad``."""
    value = {name: bytes.fromhex(text) for name, text in vector.items() if name != "of"}
    ephemeral, receiver = (X25519PrivateKey.from_private_bytes(value[name]) for name in ("ephemeral", "receiver"))
    public, enc = receiver.public_key(), value["box"][:32]
    assert raw(public) == value["receiver_public"]
    assert schedule(ephemeral.exchange(public), enc, raw(public), value["info"]) == (value["key"], value["nonce"])
    assert reference_seal(ephemeral, public, value["plaintext"], value["info"], value["aad"]) == value["box"]
    if not value["aad"]:
        assert unseal(receiver, value["box"], value["info"]) == value["plaintext"]


@given(st.binary(max_size=300), st.binary(max_size=300), st.binary(min_size=32, max_size=32))
def test_library_and_reference_open_each_others_boxes(plaintext: bytes, info: bytes, seed: bytes) -> None:
    box = seal(ORACLE.public_key(), plaintext, info)
    assert len(box) == len(plaintext) + OVERHEAD
    assert reference_open(ORACLE, box, info) == plaintext
    theirs = reference_seal(X25519PrivateKey.from_private_bytes(seed), ORACLE.public_key(), plaintext, info, b"")
    assert unseal(ORACLE, theirs, info) == plaintext


def test_two_boxes_of_the_same_differ() -> None:
    one, other = (seal(ORACLE.public_key(), b"update", TEXT.to_bytes()) for _ in range(2))
    assert one[:32] != other[:32]
    assert one[32:] != other[32:]


@pytest.mark.parametrize("change", [{"run": "demp"}, {"round": 4}, {"client_id": "alicf"}, {"oracle": "ac" * 32}])
def test_a_box_opens_for_what_it_was_meant_alone(change: dict[str, object]) -> None:
    box = seal(ORACLE.public_key(), b"update", TEXT.to_bytes())
    assert unseal(ORACLE, box, TEXT.to_bytes()) == b"update"
    with pytest.raises(ProtocolError, match="does not open") as refused:
        unseal(ORACLE, box, replace(TEXT, **change).to_bytes())  # type: ignore[arg-type]
    assert refused.value.code == "sealed"
    with pytest.raises(ProtocolError):
        unseal(X25519PrivateKey.generate(), box, TEXT.to_bytes())


def test_every_byte_of_a_box_counts() -> None:
    box = seal(ORACLE.public_key(), b"update", b"")
    for at in range(len(box)):
        for bit in (0x01, 0x80):  # X25519 itself ignores the highest bit of a public key
            changed = box[:at] + bytes([box[at] ^ bit]) + box[at + 1 :]
            with pytest.raises(ProtocolError):
                unseal(ORACLE, changed, b"")


@given(st.binary(max_size=200))
def test_any_bytes(box: bytes) -> None:
    with pytest.raises(ProtocolError) as refused:
        unseal(ORACLE, box, b"")
    assert refused.value.code == ("sealed" if len(box) >= OVERHEAD else "size")


def test_points_of_small_order() -> None:
    for point in (bytes(32), b"\1" + bytes(31)):
        with pytest.raises(ProtocolError, match="small order"):
            seal(X25519PublicKey.from_public_bytes(point), b"update", b"")
        with pytest.raises(ProtocolError):
            unseal(ORACLE, point + bytes(40), b"")


def test_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sealing, "LARGEST_BOX", 100)
    box = seal(ORACLE.public_key(), bytes(52), b"")
    assert unseal(ORACLE, box, b"") == bytes(52)
    with pytest.raises(InvalidValueError, match="at most 52 bytes to seal, got 53"):
        seal(ORACLE.public_key(), bytes(53), b"")
    with pytest.raises(ProtocolError, match="got 101"):
        unseal(ORACLE, box + b"\0", b"")


def test_only_an_x25519_key_is_sealed_to() -> None:
    def der(key: object) -> bytes:
        return key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)  # type: ignore[attr-defined]

    assert raw(read_sealing_key(der(ORACLE))) == raw(ORACLE.public_key())
    with pytest.raises(ProtocolError, match="got Ed25519PublicKey"):
        read_sealing_key(der(Ed25519PrivateKey.generate()))
    for broken in (b"", der(ORACLE)[:-1], der(ORACLE) + b"\0"):
        with pytest.raises(ProtocolError, match="cannot be read"):
            read_sealing_key(broken)


def test_the_text_is_fixed() -> None:
    assert TEXT.to_bytes().hex() == VECTORS[1]["info"]
    assert SealedText.parse(TEXT.to_bytes()) == TEXT
    with pytest.raises(ProtocolError):
        replace(TEXT, client_id="alice\nround=4")
