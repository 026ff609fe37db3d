"""Sessions of clients: tokens that say for a while who sends what is not signed; nothing is kept of them."""

from __future__ import annotations

import base64
import hmac
import re
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import NamedTuple

from matl.attest.canonical import unix_ms
from matl.attest.claims import Clock
from matl.attest.enrolment import Identity

__all__ = ["PREFIX", "Session", "Sessions"]

PREFIX = "matl_cl_"
"""How every session token begins."""

_LIFETIME = timedelta(hours=1)
# An id may hold dots; what follows it does not.
_TOKEN = re.compile(re.escape(PREFIX) + r"([A-Za-z0-9][A-Za-z0-9._:@-]{0,127})\.([0-9]{1,15})\.[A-Za-z0-9_-]{43}")


class Session(NamedTuple):
    """What a token says: of which client it is, and until when (Unix milliseconds)."""

    client: str
    ends: int


class Sessions:
    """Makes session tokens and recognises its own: client, end, and a code over these and the client's key.

    Parameters
    ----------
    secret : bytes
        32 random ones, for this purpose alone.
    clock : Clock
        The host's.

    Examples
    --------
    >>> from datetime import UTC
    >>> from matl.attest.keys import SigningKey
    >>> sessions = Sessions(bytes(32), lambda: datetime(2030, 1, 1, tzinfo=UTC))
    >>> alice = Identity(client_id="alice", key=SigningKey.generate().public, enrolled_at=0)
    >>> token, ends = sessions.new(alice)
    >>> token[:28], ends.hour
    ('matl_cl_alice.1893459600000.', 1)
    >>> sessions.read(token, {"alice": alice}.get)
    Session(client='alice', ends=1893459600000)
    >>> sessions.read(token[:-1] + "_", {"alice": alice}.get)
    """

    def __init__(self, secret: bytes, clock: Clock) -> None:
        self._secret, self._clock = secret, clock

    def new(self, identity: Identity) -> tuple[str, datetime]:
        """A token for a client, and when it ends."""
        ends = self._clock() + _LIFETIME
        return self._token(identity.client_id, unix_ms(ends), identity.key.fingerprint), ends

    def read(self, token: str, identities: Callable[[str], Identity | None]) -> Session | None:
        """What a token says; ``None`` if it is none, has ended, or the client was revoked or has a new key.

        Parameters
        ----------
        token : str
            What was presented.
        identities : callable
            The identity enrolled under a client id.
        """
        match = _TOKEN.fullmatch(token)
        if match is None:
            return None
        client, ends = match[1], int(match[2])
        identity = identities(client)
        due = self._token(client, ends, "" if identity is None else identity.key.fingerprint)
        if not hmac.compare_digest(due.encode(), token.encode()):
            return None
        if identity is None or identity.revoked_at is not None or ends <= unix_ms(self._clock()):
            return None
        return Session(client, ends)

    def _token(self, client: str, ends: int, fingerprint: str) -> str:
        # The key is in it, so that who changes keys, or comes back after a revocation, has no old sessions.
        text = f"matl-client-token/1\n{client}\n{ends}\n{fingerprint}".encode()
        code = base64.urlsafe_b64encode(hmac.digest(self._secret, text, "sha256")).rstrip(b"=").decode()
        return f"{PREFIX}{client}.{ends}.{code}"
