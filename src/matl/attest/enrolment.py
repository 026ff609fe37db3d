"""How a stranger becomes a client: an invitation, a key, and the proof that the key is its own."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Set
from dataclasses import asdict, dataclass, field, replace
from datetime import datetime, timedelta
from enum import StrEnum
from types import MappingProxyType
from typing import Any, ClassVar

from matl import validate
from matl.attest._bearer import find, hashed, new_secret
from matl.attest.canonical import DIGEST, IDENTIFIER, CanonicalText, check_identifier, line, unix_ms
from matl.attest.challenge import CHALLENGE, Challenger
from matl.attest.claims import Claims
from matl.attest.keys import PublicKey, SigningKey
from matl.errors import InvalidValueError, ProtocolError, StateError, UnknownNameError

__all__ = [
    "PREFIX",
    "EnrolmentRequest",
    "EnrolmentText",
    "Identity",
    "Invitation",
    "Roster",
    "Standing",
]

PREFIX = "matl_inv_"
"""How every invitation begins."""

_VERSION = 1
_REPLACE = "it comes back with a new key, and an invitation that replaces the old one (--replaces)"


class Standing(StrEnum):
    """Whether an identity may send."""

    ACTIVE = "active"
    REVOKED = "revoked"


@dataclass(frozen=True, slots=True, kw_only=True)
class Identity:
    """A client that is enrolled.

    Parameters
    ----------
    client_id : str
        Its name, for ever: reputation goes by it.
    key : PublicKey
        What its signatures are verified with, and nothing else ever.
    enrolled_at : int
        Unix milliseconds.
    revoked_at : int or None
        When it lost the right to send.
    attestation : mapping of str to str or bool
        What was proved about its machine when it enrolled: format, hardware_root, measurement; empty if nothing was.
    """

    client_id: str
    key: PublicKey
    enrolled_at: int
    revoked_at: int | None = None
    attestation: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def standing(self) -> Standing:
        """Whether it may send."""
        return Standing.ACTIVE if self.revoked_at is None else Standing.REVOKED


@dataclass(frozen=True, slots=True, kw_only=True)
class Invitation:
    """What is kept of an invitation.

    Parameters
    ----------
    hash : str
        SHA-256 (hex) of the token.
    expires_at : int
        Unix milliseconds.
    uses_left : int
        How many clients may still enrol with it.
    client_id : str or None
        The only id that may; ``None`` for any that is free.
    replaces : bool
        Whether that client may come with a new key although it is enrolled: it lost the old one, or changes keys.
    """

    hash: str
    expires_at: int
    uses_left: int = 1
    client_id: str | None = None
    replaces: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrolmentText(CanonicalText):
    """What a client signs with the key it wants to enrol.

    Parameters
    ----------
    client_id : str
        The id it wants.
    key : str
        The key's fingerprint.
    invitation : str
        SHA-256 (hex) of the token: a host to whom the text is shown can use it nowhere else.
    challenge : str
        What `Challenger.issue` said.
    """

    DOMAIN: ClassVar[str] = "matl-enrolment/1"

    client_id: str = line(IDENTIFIER)
    key: str = line(DIGEST)
    invitation: str = line(DIGEST)
    challenge: str = line(CHALLENGE)


@dataclass(frozen=True, slots=True, kw_only=True)
class EnrolmentRequest:
    """What a client sends to be enrolled.

    Parameters
    ----------
    client_id : str
        The id it wants.
    key : bytes
        Its public key, DER SubjectPublicKeyInfo.
    token : str
        The invitation.
    challenge : str
        What `Challenger.issue` said.
    signature : bytes
        Of the key, over `text`.
    """

    client_id: str
    key: bytes
    token: str
    challenge: str
    signature: bytes = b""

    @classmethod
    def signed(cls, client_id: str, key: SigningKey, token: str, challenge: str) -> EnrolmentRequest:
        """The client's side: a request with its signature.

        Raises
        ------
        ProtocolError
            The id, the token or the challenge does not have the form of one.
        """
        request = cls(client_id=client_id, key=key.public.der, token=token, challenge=challenge)
        return replace(request, signature=key.sign(request.text.to_bytes()))

    @property
    def text(self) -> EnrolmentText:
        """What is signed.

        Its SHA-256 is also the nonce to ask for evidence with, where the evidence does not hold the key itself.
        """
        fingerprint = PublicKey(self.key).fingerprint
        return EnrolmentText(
            client_id=self.client_id, key=fingerprint, invitation=hashed(PREFIX, self.token), challenge=self.challenge
        )


@dataclass(frozen=True, slots=True)
class Roster:
    """Who is enrolled or invited. Its methods return what follows and change nothing; the host keeps its `state`.

    Parameters
    ----------
    identities : mapping of str to Identity
        By client id. Revoked ones stay: an id is its owner's for good, and a key never comes back. Whoever was revoked
        or lost a key comes with a new one and an invitation that replaces the old.
    invitations : mapping of str to Invitation
        By hash.
    former_keys : set of str
        Fingerprints of the keys that others took the place of: nobody comes with one of them again.

    Examples
    --------
    >>> import secrets
    >>> from datetime import UTC
    >>> now, challenger = datetime(2030, 1, 1, tzinfo=UTC), Challenger(secrets.token_bytes(32))
    >>> roster, token = Roster().invite(now=now)
    >>> key = SigningKey.generate()
    >>> request = EnrolmentRequest.signed("alice", key, token, challenger.issue(now=now))
    >>> roster, alice = roster.enrol(request, challenger, now=now)
    >>> roster.identities["alice"].key == key.public, str(alice.standing)
    (True, 'active')
    >>> other = EnrolmentRequest.signed("alice", SigningKey.generate(), token, challenger.issue(now=now))
    >>> roster.enrol(other, challenger, now=now)
    Traceback (most recent call last):
        ...
    matl.errors.ProtocolError: 'alice' is enrolled with another key; ask for an invitation that replaces it (--replaces)
    """

    identities: Mapping[str, Identity] = field(default_factory=lambda: MappingProxyType({}))
    invitations: Mapping[str, Invitation] = field(default_factory=lambda: MappingProxyType({}))
    former_keys: Set[str] = frozenset()

    def invite(
        self,
        *,
        now: datetime,
        lifetime: timedelta = timedelta(days=7),
        uses: int = 1,
        client_id: str | None = None,
        replaces: bool = False,
    ) -> tuple[Roster, str]:
        """Make an invitation. The token that is returned is given to the client and kept nowhere.

        Parameters
        ----------
        now : datetime
            The host's clock.
        lifetime, uses, client_id, replaces
            See `Invitation`.

        Raises
        ------
        InvalidValueError
            The lifetime is not above zero, there are no uses or several for one client, or a key is replaced of nobody.
        """
        validate.whole(1, uses=uses)
        if client_id is not None:
            check_identifier(client_id=client_id)
        if lifetime <= timedelta() or (client_id is not None and uses > 1) or (replaces and client_id is None):
            raise InvalidValueError(
                f"expected a lifetime > 0, one use for a named client, and a client_id where a key is replaced, got "
                f"lifetime={lifetime}, uses={uses}, client_id={client_id!r} and replaces={replaces}"
            )
        token = new_secret(PREFIX)
        invitation = Invitation(
            hash=hashed(PREFIX, token),
            expires_at=unix_ms(now + lifetime),
            uses_left=uses,
            client_id=client_id,
            replaces=replaces,
        )
        return replace(self, invitations={**self.invitations, invitation.hash: invitation}), token

    def enrol(
        self, request: EnrolmentRequest, challenger: Challenger, *, now: datetime, claims: Claims | None = None
    ) -> tuple[Roster, Identity]:
        """Enrol a client; the same key under the same id a second time is the answer again, and uses nothing up.

        Parameters
        ----------
        request : EnrolmentRequest
            What arrived.
        challenger : Challenger
            The host's.
        now : datetime
            The host's clock.
        claims : Claims, optional
            What evidence of the client's machine proved. They have to hold the key, or the SHA-256 of the request text.

        Raises
        ------
        ProtocolError
            With the reason as ``code``: ``"key"``, ``"malformed"``, ``"challenge"``, ``"signature"``, ``"revoked"``
            (the client, or this key), ``"invitation"``, ``"enrolled"`` (with another key), ``"key_in_use"`` (by another
            client) or ``"attestation"``.
        """
        text, key = request.text, PublicKey(request.key)
        challenger.check(request.challenge, now=now)
        if not key.verify(request.signature, text.to_bytes()):
            raise ProtocolError("signature", "the request is not signed with the key it wants to enrol")
        known = self.identities.get(request.client_id)
        if known is not None and known.key == key:
            if known.revoked_at is not None:
                raise ProtocolError("revoked", f"{request.client_id!r} was revoked with this key; {_REPLACE}")
            return self, known
        invitation = self._invitation(text, known, now)
        if any(other.key == key for other in self.identities.values()):
            raise ProtocolError("key_in_use", "the key is another client's; every client has one of its own")
        if key.fingerprint in self.former_keys:
            raise ProtocolError("revoked", "the key was replaced by another one, and never comes back; make a new one")
        identity = Identity(
            client_id=request.client_id, key=key, enrolled_at=unix_ms(now), attestation=_summary(claims, key, text)
        )
        used = replace(invitation, uses_left=invitation.uses_left - 1)
        after = Roster(
            {**self.identities, identity.client_id: identity},
            {**self.invitations, invitation.hash: used},
            self.former_keys if known is None else self.former_keys | {known.key.fingerprint},
        )
        return after, identity

    def revoke(self, client_id: str, *, now: datetime) -> Roster:
        """Take the right to send from a client; a second time changes nothing.

        Raises
        ------
        UnknownNameError
            Nobody is enrolled under the id.
        """
        identity = self.identities.get(client_id)
        if identity is None:
            raise UnknownNameError("client", client_id, self.identities)
        if identity.revoked_at is not None:
            return self
        return replace(self, identities={**self.identities, client_id: replace(identity, revoked_at=unix_ms(now))})

    def tidy(self, *, now: datetime) -> Roster:
        """Without the invitations that are used up or ended."""
        kept = {
            key: each for key, each in self.invitations.items() if each.uses_left and each.expires_at > unix_ms(now)
        }
        return replace(self, invitations=kept)

    def state(self) -> dict[str, Any]:
        """All of it as plain data, without a secret."""
        identities = [
            {
                "client_id": each.client_id,
                "key": each.key.der,
                "enrolled_at": each.enrolled_at,
                "revoked_at": each.revoked_at,
                "attestation": dict(each.attestation),
            }
            for each in self.identities.values()
        ]
        return {
            "version": _VERSION,
            "identities": identities,
            "invitations": [asdict(each) for each in self.invitations.values()],
            "former_keys": sorted(self.former_keys),
        }

    @classmethod
    def of_state(cls, state: Mapping[str, Any]) -> Roster:
        """What `state` returned.

        Raises
        ------
        StateError
            It cannot be read.
        """
        try:
            if state["version"] != _VERSION:
                raise ValueError(f"version {state['version']}, this library reads {_VERSION}")
            identities = [Identity(**{**row, "key": PublicKey(row["key"])}) for row in state["identities"]]
            invitations = [Invitation(**row) for row in state["invitations"]]
            former = frozenset(map(str, state.get("former_keys", ())))  # there are older states, without
            return cls({each.client_id: each for each in identities}, {each.hash: each for each in invitations}, former)
        except (KeyError, TypeError, ValueError, ProtocolError) as error:
            raise StateError(f"the roster cannot be read: {error!r}") from error

    def _invitation(self, text: EnrolmentText, known: Identity | None, now: datetime) -> Invitation:
        """The invitation that lets a client in."""
        found = find(self.invitations, text.invitation)
        invitation = self.invitations[found] if found is not None else None
        if invitation is None or invitation.client_id not in (None, text.client_id):
            raise ProtocolError(
                "invitation",
                "there is no such invitation for this client; ask the operator for one, made with "
                "--replaces if it was revoked or lost its key",
            )
        if known is not None and known.revoked_at is not None and not invitation.replaces:
            raise ProtocolError("revoked", f"{text.client_id!r} was revoked; {_REPLACE}")
        if known is not None and not invitation.replaces:
            raise ProtocolError(
                "enrolled",
                f"{text.client_id!r} is enrolled with another key; ask for an invitation that replaces it (--replaces)",
            )
        if not invitation.uses_left or invitation.expires_at <= unix_ms(now):
            raise ProtocolError(
                "invitation", "the invitation was used up or has ended; ask the operator for another one"
            )
        return invitation


def _summary(claims: Claims | None, key: PublicKey, text: EnrolmentText) -> dict[str, Any]:
    """What is kept of claims, if they are about this key and this request."""
    if claims is None:
        return {}
    bound = hashlib.sha256(text.to_bytes()).digest()
    if claims.key != key.der and not claims.report_data.startswith(bound):
        raise ProtocolError(
            "attestation", f"the {claims.format} evidence is not about this key: it holds neither it nor the request"
        )
    return {"format": claims.format, "hardware_root": claims.hardware_root, "measurement": claims.measurement}
