"""What a client signs to be known for a while without signing everything it asks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from matl.attest.canonical import IDENTIFIER, CanonicalText, line
from matl.attest.challenge import CHALLENGE

__all__ = ["SessionText"]


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionText(CanonicalText):
    """A client's proof that it holds its key now.

    Parameters
    ----------
    client_id : str
        Who it is.
    challenge : str
        What `matl.attest.challenge.Challenger.issue` said.

    Examples
    --------
    >>> print(SessionText(client_id="alice", challenge="ab" * 56).to_bytes().decode()[:40])
    matl-session/1
    client_id=alice
    challenge
    """

    DOMAIN: ClassVar[str] = "matl-session/1"

    client_id: str = line(IDENTIFIER)
    challenge: str = line(CHALLENGE)
