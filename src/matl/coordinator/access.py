"""Who asks: operators by their tokens, clients by a session that they signed for or by a certificate of their key."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from matl.attest.attesting import AttestationText
from matl.attest.canonical import unix_ms
from matl.attest.challenge import Challenger
from matl.attest.claims import Claims, Clock
from matl.attest.enrolment import EnrolmentRequest, Identity, Roster
from matl.attest.session import SessionText
from matl.attest.tokens import PREFIX as OPERATOR
from matl.attest.tokens import Scope, Tokens
from matl.coordinator.attestations import Evidence, about
from matl.coordinator.keys import Keys
from matl.coordinator.rounds.overrides import Overrides
from matl.coordinator.sessions import Sessions
from matl.coordinator.storage.kept import Kept
from matl.coordinator.storage.store import Store
from matl.errors import ProtocolError, ServiceError
from matl.protocol.problems import Code, refusal

__all__ = ["Access", "Caller", "needs"]

_LONGEST = 512  # characters of an Authorization header
_CODES = {
    "key": Code.MALFORMED,
    "malformed": Code.MALFORMED,
    "challenge": Code.UNAUTHENTICATED,
    "signature": Code.UNAUTHENTICATED,
    "invitation": Code.UNAUTHENTICATED,
    "revoked": Code.FORBIDDEN,
    "enrolled": Code.CONFLICT,
    "key_in_use": Code.CONFLICT,
    "attestation": Code.INVALID,
}


@dataclass(frozen=True, slots=True)
class Caller:
    """Who asks.

    Parameters
    ----------
    kind : str
        ``"anonymous"``, ``"client"`` or ``"operator"``.
    name : str
        The client's id, or whose the operator's token is.
    scope : Scope or None
        What an operator may.
    address : str
        Where the request came from.
    token : str
        Id of an operator's token.
    key : str
        Fingerprint of the key that the client is known by.
    ends : int or None
        Unix milliseconds at which the client's session ends; a certificate has none.
    """

    kind: str = "anonymous"
    name: str = ""
    scope: Scope | None = None
    address: str = ""
    token: str = ""
    key: str = ""
    ends: int | None = None


def needs(caller: Caller, scope: Scope) -> None:
    """Refuse whoever is no operator with this scope.

    Raises
    ------
    ServiceError
        ``"unauthenticated"`` or ``"forbidden"``.

    Examples
    --------
    >>> needs(Caller("operator", "carol", Scope.VIEWER), Scope.ADMIN)
    Traceback (most recent call last):
        ...
    matl.errors.ServiceError: this needs a token of scope admin; that of carol is of scope viewer
    """
    wanted = scope.name.lower()
    if caller.kind == "anonymous":
        raise refusal(Code.UNAUTHENTICATED, f"this needs an operator's token of scope {wanted}: Authorization: Bearer")
    if caller.scope is None:
        raise refusal(Code.FORBIDDEN, f"this needs an operator's token of scope {wanted}; {caller.name} is a client")
    if caller.scope < scope:
        raise refusal(
            Code.FORBIDDEN,
            f"this needs a token of scope {wanted}; that of {caller.name} is of scope {caller.scope.name.lower()}",
        )


class Access:
    """Knows operators and clients. Use `open`.

    Attributes
    ----------
    roster, tokens, overrides : Kept
        Who is enrolled or invited, the operators' tokens, and the clients that operators put into quarantine.
    sessions : Sessions
        Of clients.
    """

    def __init__(
        self, keys: Keys, kept: tuple[Kept[Roster], Kept[Tokens], Kept[Overrides]], clock: Clock, evidence: Evidence
    ) -> None:
        self.roster, self.tokens, self.overrides = kept
        self._clock, self._evidence = clock, evidence
        self._challenger = Challenger(keys.derived("challenge"))
        self.sessions = Sessions(keys.derived("session"), clock)

    @classmethod
    async def open(cls, store: Store, keys: Keys, clock: Clock, evidence: Evidence) -> Access:
        """Read who is known.

        Parameters
        ----------
        store : Store
            Which holds it.
        keys : Keys
            The coordinator's.
        clock : Clock
            Its clock.
        evidence : Evidence
            How evidence of a client's machine is checked, and whether it is needed.

        Raises
        ------
        StateError
            A document cannot be read.
        """
        kept = (
            await Kept.load(store, "roster", Roster.of_state, Roster()),
            await Kept.load(store, "tokens", Tokens.of_state, Tokens()),
            await Kept.load(store, "overrides", Overrides.of_state, Overrides()),
        )
        return cls(keys, kept, clock, evidence)

    def identity(self, client: str) -> Identity | None:
        """Who is enrolled under an id."""
        return self.roster.value.identities.get(client)

    def authenticate(self, authorization: str | None, *, certificate: bytes | None = None, address: str = "") -> Caller:
        """Who asks.

        Parameters
        ----------
        authorization : str or None
            The header of that name; tokens are taken from nowhere else.
        certificate : bytes, optional
            The certificate (DER) with which the client opened the TLS connection. It stands for the client whose
            enrolled key is in it; TLS has proved that it holds the key.
        address : str
            Where the request came from.

        Raises
        ------
        ServiceError
            ``"unauthenticated"``: a token is none, has ended, or is not (any more) a client's or operator's; or it is
            of another client than the certificate.
        """
        held = None if certificate is None else self._of_certificate(certificate)
        if authorization is None:
            return Caller("anonymous", address=address) if held is None else self._client(held, address)
        scheme, _, secret = authorization.partition(" ")
        if scheme.lower() != "bearer" or len(authorization) > _LONGEST:
            raise refusal(Code.UNAUTHENTICATED, "expected the header Authorization: Bearer <token>", reason="token")
        if secret.startswith(OPERATOR):
            token = self.tokens.value.check(secret, now=self._clock())
            if token is not None:
                return Caller("operator", token.name, token.scope, address, token.id)
        else:
            session = self.sessions.read(secret, self.roster.value.identities.get)
            if session is not None and held in (None, session.client):
                return self._client(session.client, address, session.ends)
        raise refusal(
            Code.UNAUTHENTICATED,
            "the token is not known here, or has ended: a client asks for a new session, an operator an admin for a "
            "new token",
            reason="token",
        )

    def still(self, caller: Caller) -> None:
        """Refuse a caller who was let in, and would not be any more.

        Raises
        ------
        ServiceError
            ``"unauthenticated"``.
        """
        now = unix_ms(self._clock())
        if caller.kind == "client":
            identity = self.identity(caller.name)
            good = identity is not None and identity.revoked_at is None and identity.key.fingerprint == caller.key
            good = good and (caller.ends is None or now < caller.ends)
        else:
            good = any(one.id == caller.token and now < one.expires_at for one in self.tokens.value.tokens.values())
        if not good:
            words = f"{caller.name} was revoked or has another key, or its token has ended"
            raise refusal(Code.UNAUTHENTICATED, words, reason="token")

    def challenge(self) -> str:
        """A new challenge."""
        return self._challenger.issue(now=self._clock())

    async def enrol(
        self, request: EnrolmentRequest, evidence: Mapping[str, bytes], before: Callable[[Identity], Any]
    ) -> tuple[Identity, bool]:
        """Make a client; and whether it was not one before. The same key under the same id changes nothing.

        Parameters
        ----------
        request : EnrolmentRequest
            What arrived.
        evidence : mapping of str to bytes
            Of its machine, by format; for the nonce that is the SHA-256 of the request's text.
        before : callable
            Awaited with the new client before it is one.

        Raises
        ------
        ServiceError
            With the reason of `Roster.enrol`, or that of the evidence.
        """
        now = self._clock()
        try:
            # What costs little first: only who has an invitation has evidence looked at, and nobody who is enrolled.
            known = self.identity(request.client_id)
            _, coming = self.roster.value.enrol(request, self._challenger, now=now)
            if coming is known:
                return coming, False
            nonce = hashlib.sha256(request.text.to_bytes()).digest()
            claims = await self._evidence.of_stranger(evidence, nonce, self._clock)
            known = self.identity(request.client_id)

            async def announce(identity: Identity) -> None:
                if identity is not known:
                    await before(identity)

            identity = await self.roster.change(
                lambda roster: roster.enrol(request, self._challenger, now=now, claims=claims), before=announce
            )
        except ProtocolError as error:
            raise _refusal(error) from error
        return identity, identity is not known

    async def attest(
        self,
        client: str,
        challenge: str,
        format: str,  # noqa: A002
        evidence: bytes,
    ) -> tuple[Claims, bool]:
        """Check evidence of an enrolled client's machine and remember what it proved; and whether that is new.

        What is signed or quoted is in `AttestationText`.

        Raises
        ------
        ServiceError
            It proves less than the policy asks for, or is not about this client's key and this challenge.
        """
        identity = self._active(client)
        try:
            self._challenger.check(challenge, now=self._clock())
            text = AttestationText(client_id=client, key=identity.key.fingerprint, challenge=challenge)
        except ProtocolError as error:
            raise _refusal(error) from error
        claims = await self._evidence.proved(format, evidence, text.nonce, self._clock)
        told = about(claims, client, identity.key.der, text.nonce)

        def step(roster: Roster) -> tuple[Roster, bool]:
            now = roster.identities[client]
            if now.key != identity.key or now.revoked_at is not None:
                raise refusal(Code.CONFLICT, f"the key of {client} was changed or revoked meanwhile", reason="revoked")
            if dict(now.attestation) == told:  # who proves the same again and again writes nothing
                return roster, False
            return replace(roster, identities={**roster.identities, client: replace(now, attestation=told)}), True

        return claims, await self.roster.change(step)

    def open_session(self, client: str, challenge: str, signature: bytes) -> tuple[str, datetime]:
        """A session token for a client that signed for it, and when it ends.

        Raises
        ------
        ServiceError
            ``"unauthenticated"`` or ``"forbidden"``: the challenge is not ours, the signature not of the enrolled key,
            or the client was revoked.
        """
        try:
            self._challenger.check(challenge, now=self._clock())
            text = SessionText(client_id=client, challenge=challenge)
        except ProtocolError as error:
            raise _refusal(error) from error
        identity = self.identity(client)
        if identity is None or not identity.key.verify(signature, text.to_bytes()):
            raise refusal(
                Code.UNAUTHENTICATED,
                f"the text matl-session/1 is not signed with the key enrolled for {client!r}; enrol first",
                reason="signature",
            )
        return self.sessions.new(self._active(client))

    def _client(self, client: str, address: str, ends: int | None = None) -> Caller:
        key = self.roster.value.identities[client].key.fingerprint
        return Caller("client", client, address=address, key=key, ends=ends)

    def _of_certificate(self, certificate: bytes) -> str | None:
        """The client whose key is in a certificate, if it is one's."""
        try:
            key = x509.load_der_x509_certificate(certificate).public_key()
            der = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        except (ValueError, UnsupportedAlgorithm, x509.InvalidVersion) as error:
            raise refusal(
                Code.UNAUTHENTICATED, f"the certificate cannot be read: {error}", reason="certificate"
            ) from error
        active = (one for one in self.roster.value.identities.values() if one.revoked_at is None)
        return next((one.client_id for one in active if one.key.der == der), None)

    def _active(self, client: str) -> Identity:
        identity = self.identity(client)
        if identity is None:
            raise refusal(
                Code.UNAUTHENTICATED, f"nobody is enrolled as {client!r}; enrol first", reason="unknown_client"
            )
        if identity.revoked_at is not None:
            raise refusal(
                Code.FORBIDDEN,
                f"{client} was revoked; it comes back with a new key alone: ask the operator for an invitation made "
                "with --replaces, and join with it from a new folder",
                reason="revoked",
            )
        return identity


def _refusal(error: ProtocolError) -> ServiceError:
    return refusal(_CODES.get(error.code, Code.INVALID), str(error), reason=error.code)
