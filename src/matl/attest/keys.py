"""Keys: Ed25519 and ECDSA on P-256, one of which every identity has.

The enrolled key says by itself which algorithm verifies. Nothing in a message does, so no message can choose another
one. A key has one encoding, its DER SubjectPublicKeyInfo with an uncompressed point, and is known by its SHA-256.

Ed25519 is RFC 8032, ECDSA FIPS 186-5, keys are RFC 5280, 5480 and 8410; all from the ``cryptography`` package.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_der_public_key,
    load_pem_private_key,
    load_pem_public_key,
)

from matl.errors import ProtocolError, StateError
from matl.files import read_private, storage_error, sync_directory

__all__ = ["LARGEST_KEY", "Algorithm", "PublicKey", "SigningKey"]

LARGEST_KEY = 4096
"""Bytes of the longest key, or file with a key, that is read; ours have 44 to 250."""

_ECDSA = ec.ECDSA(SHA256())
# Points of small order, by their y coordinate mod p, whatever the sign of x (order 1, 2, 4 and 8). Under such a key one
# signature fits many texts and anybody can make it, so that its owner could deny what he signed.
_P = 2**255 - 19
_ORDER_8 = 0x05FC536D880238B13933C6D305ACDFD5F098EFF289F4C345B027B2C28F95E826
_SMALL_ORDER = frozenset({0, 1, _P - 1, _ORDER_8, _P - _ORDER_8})


class Algorithm(StrEnum):
    """What a key signs with."""

    ED25519 = "ed25519"
    ECDSA_P256 = "ecdsa-p256"  # over SHA-256, the signature in DER


@dataclass(frozen=True, slots=True)
class PublicKey:
    """Who somebody is.

    Parameters
    ----------
    der : bytes
        SubjectPublicKeyInfo of an Ed25519 or P-256 key, in its one encoding.

    Raises
    ------
    ProtocolError
        With code ``"key"``: it is no such key, is a point that is not on the curve or of small order, or is encoded in
        another way, by which one key could have two fingerprints.

    Examples
    --------
    >>> key = SigningKey.generate()
    >>> signature = key.sign(b"text")
    >>> key.public.verify(signature, b"text"), key.public.verify(signature, b"another")
    (True, False)
    >>> PublicKey.from_pem(key.public.pem) == key.public
    True
    """

    der: bytes
    _key: Ed25519PublicKey | ec.EllipticCurvePublicKey = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        key = _load(self.der, load_der_public_key)
        if isinstance(key, ec.EllipticCurvePublicKey):
            if not isinstance(key.curve, ec.SECP256R1):
                raise _refusal(f"it is on the curve {key.curve.name}")
        elif isinstance(key, Ed25519PublicKey):
            y = int.from_bytes(key.public_bytes_raw(), "little") & (2**255 - 1)
            if y >= _P or y in _SMALL_ORDER:
                raise _refusal("its point is of small order or written in another way")
        else:
            raise _refusal(f"it is a {type(key).__name__}")
        if key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo) != self.der:
            raise _refusal("it is not in DER, or its point is compressed")
        object.__setattr__(self, "_key", key)

    @classmethod
    def from_pem(cls, pem: bytes) -> PublicKey:
        """Read a PEM file's content.

        Raises
        ------
        ProtocolError
            It holds no key that is allowed.
        """
        key = _load(pem, load_pem_public_key)
        return cls(key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))

    @property
    def algorithm(self) -> Algorithm:
        """What the key verifies."""
        return Algorithm.ED25519 if isinstance(self._key, Ed25519PublicKey) else Algorithm.ECDSA_P256

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of the DER encoding."""
        return hashlib.sha256(self.der).hexdigest()

    @property
    def ed25519(self) -> bytes | None:
        """The 32 bytes of an Ed25519 key, as secure aggregation knows clients; ``None`` for other keys."""
        return self._key.public_bytes_raw() if isinstance(self._key, Ed25519PublicKey) else None

    @property
    def pem(self) -> bytes:
        """The key as a PEM file's content."""
        return self._key.public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo)

    def verify(self, signature: bytes, text: bytes) -> bool:
        """Whether a signature is this key's on a text.

        With an ECDSA signature (r, s) also (r, -s) is valid. Nothing rests on the bytes of a signature being the only
        ones: replays are told by what was signed.
        """
        try:
            if isinstance(self._key, Ed25519PublicKey):
                self._key.verify(signature, text)
            else:
                self._key.verify(signature, text, _ECDSA)  # strict DER: others are refused by OpenSSL itself
        except (InvalidSignature, ValueError, TypeError):
            return False
        return True


class SigningKey:
    """A private key. It is never printed; `save` and `load` are the only way out of memory and back.

    Attributes
    ----------
    public : PublicKey
        Its public half.

    Examples
    --------
    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> key = SigningKey.generate(Algorithm.ECDSA_P256)
    >>> key.save(Path(folder.name) / "key.pem")
    >>> SigningKey.load(Path(folder.name) / "key.pem").public == key.public
    True
    >>> folder.cleanup()
    """

    __slots__ = ("_key", "public")

    def __init__(self, key: Ed25519PrivateKey | ec.EllipticCurvePrivateKey) -> None:
        self._key = key
        self.public = PublicKey(key.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))

    @classmethod
    def generate(cls, algorithm: Algorithm = Algorithm.ED25519) -> SigningKey:
        """A new key, from the operating system's randomness."""
        if algorithm is Algorithm.ED25519:
            return cls(Ed25519PrivateKey.generate())
        return cls(ec.generate_private_key(ec.SECP256R1()))

    @classmethod
    def load(cls, path: Path) -> SigningKey:
        """Read what `save` wrote, or another PKCS #8 file in PEM without a passphrase.

        Raises
        ------
        StateError
            It cannot be read, is no such key, or somebody other than its owner may read it.
        """
        try:
            pem = read_private(path, LARGEST_KEY)
        except OSError as error:
            raise StateError(f"{path} cannot be read: {error.strerror}") from error
        try:
            key = load_pem_private_key(pem, password=None)
            if isinstance(key, Ed25519PrivateKey | ec.EllipticCurvePrivateKey):
                return cls(key)
            raise ProtocolError("key", f"it is a {type(key).__name__}")
        except (ValueError, TypeError, UnsupportedAlgorithm, ProtocolError) as error:
            raise StateError(
                f"{path} is no signing key: expected Ed25519 or P-256 as PKCS #8 in PEM without a passphrase ({error})"
            ) from error

    @property
    def ed25519(self) -> Ed25519PrivateKey | None:
        """The key itself, as secure aggregation signs with it; ``None`` for one that is not Ed25519."""
        return self._key if isinstance(self._key, Ed25519PrivateKey) else None

    def sign(self, text: bytes) -> bytes:
        """Sign a text: 64 bytes, or DER of up to 72."""
        if isinstance(self._key, Ed25519PrivateKey):
            return self._key.sign(text)
        return self._key.sign(text, _ECDSA)

    def save(self, path: Path) -> None:
        """Write the key, whole or not at all, for its owner alone; a file that is there is never replaced.

        Raises
        ------
        StateError
            There is a file of that name.
        StorageError
            It cannot be written.
        """
        pem = self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        try:
            # mkstemp gives mode 0600 from the start, and a link, unlike a rename, fails where there is a file.
            handle, temporary = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
            try:
                with os.fdopen(handle, "wb") as stream:
                    stream.write(pem)
                    stream.flush()
                    os.fsync(stream.fileno())
                os.link(temporary, path)
            finally:
                Path(temporary).unlink()
            sync_directory(path.parent)
        except FileExistsError as error:
            raise StateError(
                f"{path} is there already: load it, or choose another name; keys are not replaced"
            ) from error
        except OSError as error:
            raise storage_error(path, error) from error


def _load(data: object, load: Callable[[bytes], PublicKeyTypes]) -> PublicKeyTypes:
    """A key of any kind, if there is one in bytes that anybody may have sent."""
    if not isinstance(data, bytes) or len(data) > LARGEST_KEY:
        raise _refusal(f"it is not bytes, at most {LARGEST_KEY} of them")
    try:
        return load(data)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise _refusal("it cannot be read, or its point is not on the curve") from error


def _refusal(why: str) -> ProtocolError:
    return ProtocolError("key", f"the public key is refused: {why}; use Ed25519 or P-256")
