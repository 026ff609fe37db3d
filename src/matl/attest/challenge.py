"""Challenges: numbers that whoever answers cannot have known before."""

from __future__ import annotations

import hmac
import secrets
from datetime import datetime, timedelta

from matl import validate
from matl.attest.canonical import Grammar, unix_ms
from matl.errors import ProtocolError

__all__ = ["CHALLENGE", "Challenger"]

_BODY = 8 + 16  # when it ends, in milliseconds, and a random number
_CODE = 32  # HMAC-SHA256
_CONTEXT = b"matl-challenge/1\n"

CHALLENGE = Grammar(
    words=f"{_BODY + _CODE} bytes in lowercase hexadecimal digits",
    pattern=f"[0-9a-f]{{{2 * (_BODY + _CODE)}}}",
    longest=2 * (_BODY + _CODE),
)
"""How a challenge is spelled."""


class Challenger:
    """Issues challenges and recognises its own, without keeping any: a flood of requests fills no memory.

    A challenge ends, and is not used up. It serves where an answer may come twice, as at enrolment, where the same key
    under the same id a second time changes nothing.

    Parameters
    ----------
    secret : bytes
        At least 32, random, and the same as long as answers may come.
    lifetime : timedelta
        How long there is to answer.

    Examples
    --------
    >>> from datetime import UTC
    >>> challenger, now = Challenger(secrets.token_bytes(32)), datetime(2030, 1, 1, tzinfo=UTC)
    >>> challenge = challenger.issue(now=now)
    >>> challenger.check(challenge, now=now + timedelta(minutes=4))
    >>> challenger.check(challenge, now=now + timedelta(minutes=5))
    Traceback (most recent call last):
        ...
    matl.errors.ProtocolError: the challenge is not of this host, or was issued too long ago; ask for a new one
    """

    def __init__(self, secret: bytes, lifetime: timedelta = timedelta(minutes=5)) -> None:
        validate.at_least(32, bytes_of_the_secret=len(secret))
        self._secret, self._lifetime = secret, lifetime

    def issue(self, *, now: datetime) -> str:
        """A new challenge (hex)."""
        body = unix_ms(now + self._lifetime).to_bytes(8, "big") + secrets.token_bytes(16)
        return (body + self._code(body)).hex()

    def check(self, challenge: str, *, now: datetime) -> None:
        """Recognise a challenge.

        Raises
        ------
        ProtocolError
            With code ``"challenge"``: it is not of this host, or has ended; or with ``"malformed"``: it is none.
        """
        data = bytes.fromhex(CHALLENGE.read("challenge", challenge))
        body, code = data[:_BODY], data[_BODY:]
        if not hmac.compare_digest(code, self._code(body)) or int.from_bytes(body[:8], "big") <= unix_ms(now):
            raise ProtocolError(
                "challenge", "the challenge is not of this host, or was issued too long ago; ask for a new one"
            )

    def _code(self, body: bytes) -> bytes:
        return hmac.digest(self._secret, _CONTEXT + body, "sha256")
