"""Secrets that let in whoever presents them: 32 random bytes in text, of which only a hash is kept.

A hash that is slow on purpose protects secrets that can be guessed, such as passwords. Of 2^256 equally likely ones
none is guessed, whatever a guess costs, so that SHA-256 is enough; a slow hash would let anybody burn the host's time.
"""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
from collections.abc import Iterable

__all__ = ["find", "hashed", "new_secret"]


def new_secret(prefix: str) -> str:
    """A new secret. The prefix makes it recognisable, to scanners for leaked secrets among others."""
    return prefix + secrets.token_urlsafe(32)


def hashed(prefix: str, secret: object) -> str:
    """SHA-256 (hex) of a secret, or nothing if it does not have the form of one."""
    if not isinstance(secret, str) or not re.fullmatch(re.escape(prefix) + "[A-Za-z0-9_-]{43}", secret):
        return ""
    return hashlib.sha256(secret.encode()).hexdigest()


def find(hashes: Iterable[str], wanted: str) -> str | None:
    """The hash that equals the wanted one. All are compared, each in constant time, wherever it stands."""
    found = None
    for each in hashes:
        if hmac.compare_digest(each, wanted):
            found = each
    return found
