"""Keys: one encoding each, one algorithm each, and files that only their owner reads. Most refusals are vectors."""

import contextlib
import os
import stat

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
)
from hypothesis import given
from hypothesis import strategies as st

from matl.attest import keys
from matl.attest.keys import LARGEST_KEY, Algorithm, PublicKey, SigningKey
from matl.errors import ProtocolError, StateError, StorageError

ALGORITHMS = list(Algorithm)


@pytest.fixture(params=ALGORITHMS)
def key(request):
    return SigningKey.generate(request.param)


def private_pem(key, encryption=None):
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, encryption or NoEncryption())


def test_a_signature_is_of_one_key_and_one_text(key):
    signature = key.sign(b"text")
    assert key.public.verify(signature, b"text")
    assert not key.public.verify(signature, b"texts")
    assert not SigningKey.generate(key.public.algorithm).public.verify(signature, b"text")


def test_a_key_verifies_with_its_own_algorithm_alone():
    ed25519, p256 = (SigningKey.generate(each) for each in ALGORITHMS)
    assert not ed25519.public.verify(p256.sign(b"text"), b"text")
    assert not p256.public.verify(ed25519.sign(b"text"), b"text")


@given(signature=st.binary(max_size=100), text=st.binary(max_size=10))
def test_no_bytes_are_a_signature_and_none_raise(signature, text):
    for each in FIXED:
        assert not each.public.verify(signature, text)


@pytest.mark.parametrize("signature", [None, "text", 7, [1, 2], bytearray(64)])
def test_what_is_no_bytes_is_no_signature(key, signature):
    assert not key.public.verify(signature, b"text")


@given(st.binary(max_size=200))
def test_no_bytes_are_a_key_and_only_one_error_comes(data):
    refused(data)


@given(st.data())
def test_a_changed_key_is_another_key_or_none(data):
    der = data.draw(st.sampled_from(FIXED)).public.der
    changed = bytearray(der)
    changed[data.draw(st.integers(0, len(der) - 1))] ^= data.draw(st.integers(1, 255))
    with contextlib.suppress(ProtocolError):
        other = PublicKey(bytes(changed))
        assert other.der == changed
        assert other.fingerprint != PublicKey(der).fingerprint


@pytest.mark.parametrize("data", [None, "text", 7, bytes(LARGEST_KEY + 1), bytearray(44)])
def test_what_is_no_short_bytes_is_no_key(data):
    refused(data)


def test_a_key_of_small_order_would_let_anybody_sign():
    """The reason to refuse it: one signature, made without any secret, fits every text."""
    point = Ed25519PublicKey.from_public_bytes(b"\1" + bytes(31))
    point.verify(b"\1" + bytes(63), b"whatever")
    refused(point.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


def test_pem_is_the_same_key(key):
    assert PublicKey.from_pem(key.public.pem) == key.public
    for pem in (b"", b"junk", key.public.der, bytes(LARGEST_KEY + 1)):
        with pytest.raises(ProtocolError, match="the public key is refused"):
            PublicKey.from_pem(pem)
    other = ec.generate_private_key(ec.SECP384R1()).public_key()
    with pytest.raises(ProtocolError, match="it is on the curve secp384r1"):
        PublicKey.from_pem(other.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo))


def test_a_private_key_is_not_printed(key):
    secret = private_pem(key._key).decode().splitlines()[1]
    assert secret not in repr(key) + str(key)


# Files


def test_a_key_is_saved_for_its_owner_alone_and_read_back(key, tmp_path):
    path = tmp_path / "key.pem"
    previous = os.umask(0)
    try:
        key.save(path)
    finally:
        os.umask(previous)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert list(tmp_path.iterdir()) == [path]
    back = SigningKey.load(path)
    assert back.public == key.public
    assert key.public.verify(back.sign(b"text"), b"text")


def test_a_key_is_never_replaced(key, tmp_path):
    path = tmp_path / "key.pem"
    key.save(path)
    with pytest.raises(StateError, match="is there already: load it, or choose another name"):
        SigningKey.generate().save(path)
    assert SigningKey.load(path).public == key.public
    assert list(tmp_path.iterdir()) == [path]


def test_a_key_that_cannot_be_written_leaves_nothing(key, tmp_path, monkeypatch):
    with pytest.raises(StorageError):
        key.save(tmp_path / "none" / "key.pem")

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(StorageError, match="the disk is full"):
        key.save(tmp_path / "key.pem")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o602, 0o644, 0o610])
def test_a_key_that_others_may_read_or_write_is_refused(tmp_path, mode):
    path = tmp_path / "key.pem"
    SigningKey.generate().save(path)
    path.chmod(mode)
    with pytest.raises(StateError, match=f"mode {mode:04o} and owner .*; chmod 600 it"):
        SigningKey.load(path)


def test_a_key_of_another_user_is_refused(tmp_path, monkeypatch):
    path = tmp_path / "key.pem"
    SigningKey.generate().save(path)
    monkeypatch.setattr(os, "geteuid", lambda: 12345)
    owner = path.stat().st_uid
    if owner == 0:  # what root gave is trusted
        assert SigningKey.load(path)
    else:
        with pytest.raises(StateError, match=f"owner {owner}"):
            SigningKey.load(path)


def test_what_is_no_file_is_no_key(tmp_path):
    os.mkfifo(tmp_path / "pipe", 0o600)
    for path, message in ((tmp_path / "none", "No such file"), (tmp_path / "pipe", "no file"), (tmp_path, "no file")):
        with pytest.raises(StateError, match=message):
            SigningKey.load(path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"junk",
        bytes(LARGEST_KEY + 1),
        private_pem(rsa.generate_private_key(65537, 2048)),
        private_pem(ec.generate_private_key(ec.SECP384R1())),
        private_pem(Ed25519PrivateKey.generate(), BestAvailableEncryption(b"pass")),
    ],
    ids=["empty", "junk", "long", "RSA", "P-384", "encrypted"],
)
def test_another_content_is_no_key(tmp_path, content):
    path = tmp_path / "key.pem"
    path.touch(0o600)
    path.write_bytes(content)
    with pytest.raises(StateError, match=r"is no signing key|is longer than 4096 bytes"):
        SigningKey.load(path)


def test_the_constants_of_small_order_are_what_they_say():
    """A point times 8 is the neutral element, in the arithmetic of the curve -x^2 + y^2 = 1 + d x^2 y^2."""
    p = keys._P
    d = -121665 * pow(121666, -1, p) % p

    def square_root(a):
        root = pow(a, (p + 3) // 8, p)
        root = root if root * root % p == a else root * pow(2, (p - 1) // 4, p) % p
        assert root * root % p == a
        return root

    def double(x, y):
        product = d * x * x * y * y
        return (
            2 * x * y * pow(1 + product, -1, p) % p,
            (y * y + x * x) * pow(1 - product, -1, p) % p,
        )

    for y in keys._SMALL_ORDER:
        x = square_root((y * y - 1) * pow(d * y * y + 1, -1, p) % p)
        assert double(*double(*double(x, y))) == (0, 1)
    assert len(keys._SMALL_ORDER) == 5  # with both signs of x, and x = 0 twice: all eight points


def refused(data):
    with pytest.raises(ProtocolError, match="the public key is refused") as error:
        PublicKey(data)
    assert error.value.code == "key"


FIXED = [SigningKey.generate(each) for each in ALGORITHMS]
