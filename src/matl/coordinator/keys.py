"""Secrets of a coordinator, in files that its owner alone can read."""

from __future__ import annotations

import hmac
import secrets
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from matl.attest.keys import SigningKey
from matl.errors import StateError, StorageError
from matl.files import make_directory, read_private, write_atomic

__all__ = ["PUBLIC", "Keys", "write_private"]

PUBLIC = "receipts.pub.pem"
"""File of the folder with the public key of receipts."""

_SECRET = 32  # bytes
_LARGEST = 4 * _SECRET  # bytes of the file, which is hexadecimal


@dataclass(frozen=True, slots=True)
class Keys:
    """What a coordinator signs with, and what it recognises its own tokens by.

    Parameters
    ----------
    receipts : SigningKey
        Of receipts.
    secret : bytes
        32 random ones, from which secrets for one purpose each are derived.

    Examples
    --------
    >>> import tempfile
    >>> folder = tempfile.TemporaryDirectory()
    >>> keys = Keys.of(Path(folder.name))
    >>> keys.derived("challenge") == Keys.of(Path(folder.name)).derived("challenge"), keys
    (True, Keys())
    >>> sorted(path.name for path in Path(folder.name).iterdir())
    ['coordinator.secret', 'receipts.pem', 'receipts.pub.pem']
    >>> folder.cleanup()
    """

    receipts: SigningKey = field(repr=False)
    secret: bytes = field(repr=False)

    @classmethod
    def of(cls, folder: Path) -> Self:
        """Those in a folder; they are made where there are none.

        Beside the key of receipts lies its public half, for whoever is to check receipts.

        Raises
        ------
        StateError
            A file holds no such thing, or others may read it.
        StorageError
            A file cannot be written.
        """
        make_directory(folder, private=True)
        receipts, secret = folder / "receipts.pem", folder / "coordinator.secret"
        if not receipts.exists():
            SigningKey.generate().save(receipts)
        if not secret.exists():
            write_private(secret, secrets.token_hex(_SECRET))
        keys = cls(SigningKey.load(receipts), _read_secret(secret))
        public, pem = folder / PUBLIC, keys.receipts.public.pem
        if not public.is_file() or public.read_bytes() != pem:
            write_atomic(public, pem)
        return keys

    def derived(self, purpose: str) -> bytes:
        """The secret (32 bytes) for one purpose; none tells anything about another."""
        return hmac.digest(self.secret, b"matl-coordinator/1\n" + purpose.encode(), "sha256")


def write_private(path: Path, content: str) -> None:
    """Write a file, whole or not at all, that its owner alone can read; what was there is replaced.

    Raises
    ------
    StorageError
        It cannot be written.
    """
    write_atomic(path, content + "\n", mode=0o600)


def _read_secret(path: Path) -> bytes:
    try:
        secret = bytes.fromhex(read_private(path, _LARGEST).decode("ascii"))
    except OSError as error:
        raise StorageError(f"{path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise StateError(f"{path} holds no secret: remove it, and a new one is made (sessions end then)") from error
    if len(secret) != _SECRET:
        raise StateError(f"{path} holds no secret of {_SECRET} bytes: remove it, and a new one is made")
    return secret
