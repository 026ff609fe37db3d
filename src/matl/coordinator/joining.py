"""How clients come: challenge, enrolment, session, evidence of their machines; and the signed chunks of phones."""

from __future__ import annotations

import base64
import binascii
import hashlib
from datetime import datetime

from matl.attest.enrolment import EnrolmentRequest, Identity
from matl.attest.texts import ChunkText
from matl.coordinator.access import Caller
from matl.coordinator.core import Core
from matl.coordinator.measures import measured
from matl.errors import ProtocolError
from matl.protocol.messages import (
    AttestationRequest,
    AttestationView,
    ChallengeView,
    Enrolled,
    EnrolRequest,
    GradientCheck,
    GradientRequest,
    Health,
    SessionRequest,
    SessionView,
)
from matl.protocol.problems import Code, refusal
from matl.version import VERSION

__all__ = ["Joining"]


class Joining(Core):
    """What anybody may ask."""

    async def health(self) -> Health:
        """That the service is there."""
        return Health(version=VERSION, time=self.settings.clock())

    async def ready(self) -> None:
        """Return if database and blobs answer and the service is doing its work.

        A run that cannot go on since the restart keeps nobody from the others: metrics count those.

        Raises
        ------
        ServiceError
            ``"busy"``
        """
        if self._closing.is_set():
            raise refusal(Code.BUSY, "the coordinator is about to end", reason="closing", retry_after=5.0)
        if self._keeping is None or self._keeping.done():
            words = "what the coordinator does by the clock has ended, its log says why; restart it"
            raise refusal(Code.BUSY, words, reason="keeping_house", retry_after=30.0)
        await self.store.ping()
        await self.blobs.exists("0" * 64)

    @measured
    async def challenge(self) -> ChallengeView:
        """A number for an answer to hold, for a few minutes. Nothing is kept of it."""
        return ChallengeView(challenge=self.access.challenge())

    @measured
    async def enrol(self, request: EnrolRequest) -> Enrolled:
        """Make a client of somebody with an invitation; a second time with the same key is the same answer.

        Raises
        ------
        ServiceError
            ``"unauthenticated"``, ``"forbidden"``, ``"conflict"``, ``"invalid"`` or ``"malformed"``; the reason is that
            of `matl.attest.enrolment.Roster.enrol`, or of the evidence.
        """
        asked = EnrolmentRequest(
            client_id=request.client_id,
            key=_bytes("key", request.key),
            token=request.token,
            challenge=request.challenge,
            signature=_bytes("signature", request.signature),
        )
        evidence = {name: _bytes("evidence", data) for name, data in request.evidence.items()}

        async def write_down(identity: Identity) -> None:
            details = {"key": identity.key.fingerprint, "attestation": dict(identity.attestation)}
            await self._audit(identity.client_id, "enrol", identity.client_id, details)

        identity, new = await self.access.enrol(asked, evidence, write_down)
        await self.confirm()  # that it was not revoked meanwhile, if it was enrolled before
        if new:
            root = bool(identity.attestation.get("hardware_root", False))
            await self._tell("client_enrolled", client=identity.client_id, hardware_root=root)
        return Enrolled(
            client_id=identity.client_id,
            fingerprint=identity.key.fingerprint,
            session=_session(*self.access.sessions.new(identity)),
        )

    @measured
    async def session(self, request: SessionRequest) -> SessionView:
        """A token for a client that signed for it, good for an hour.

        Raises
        ------
        ServiceError
            ``"unauthenticated"``, or ``"forbidden"`` if it was revoked.
        """
        signature = _bytes("signature", request.signature)
        opened = self.access.open_session(request.client_id, request.challenge, signature)
        await self.confirm()  # that it was not revoked
        return _session(*opened)

    @measured
    async def attest(self, caller: Caller, request: AttestationRequest) -> AttestationView:
        """Check evidence of a client's machine, and remember what it proved.

        The nonce is `matl.attest.attesting.AttestationText.nonce`.

        Raises
        ------
        ServiceError
            ``"invalid"``, with what is wrong with the evidence as reason; ``"unauthenticated"`` or ``"forbidden"``.
        """
        if caller.kind != "client":
            raise refusal(Code.FORBIDDEN, "evidence is of a client's machine: ask with the client's session")
        evidence = _bytes("evidence", request.evidence)
        claims, new = await self.access.attest(caller.name, request.challenge, request.format, evidence)
        if new:
            await self._tell("client_attested", client=caller.name, hardware_root=claims.hardware_root)
        return AttestationView(format=claims.format, hardware_root=claims.hardware_root, measurement=claims.measurement)

    @measured
    async def verify_gradient(self, request: GradientRequest) -> GradientCheck:
        """Whether a chunk is what a phone's hardware key signed for the current round. It is counted, and that is all.

        Parameters
        ----------
        request : GradientRequest
            Version 1 of the signed text; see `matl.attest.verifying.SignatureVerifier.check_chunk`. The same chunk
            passes once; which were used is not remembered over a restart.

        Raises
        ------
        ServiceError
            ``"malformed"``, or ``"not_found"``: there is no such run; or several, and none is named.
        """
        if request.run is None and len(self._lives) != 1:
            raise refusal(Code.INVALID, f"there are {len(self._lives)} runs: name one of them as run", reason="run")
        live = self.live(request.run or next(iter(self._lives)))
        chunk = _bytes("gradient_chunk_b64", request.gradient_chunk_b64)
        try:
            text = ChunkText(
                round=request.round,
                node_id=request.node_id,
                model_hash=request.model_hash,
                chunk=chunk,
                timestamp_unix_ms=request.timestamp_unix_ms,
            )
        except ProtocolError as error:
            raise refusal(Code.MALFORMED, str(error), reason=error.code) from error
        rejection = self._chunks.check_chunk(text, _bytes("signature", request.signature), live.spec)
        await self.confirm()
        self.measures.counters["chunks.refused" if rejection else "chunks.verified"] += 1
        return GradientCheck(
            verified=rejection is None,
            reason="" if rejection is None else rejection.code,
            chunk_sha256=hashlib.sha256(chunk).hexdigest(),
        )


def _bytes(name: str, text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError) as error:
        raise refusal(
            Code.MALFORMED, f"{name} is not base64 (RFC 4648, section 4, with padding)", reason=name
        ) from error


def _session(token: str, ends: datetime) -> SessionView:
    return SessionView(token=token, expires_at=ends)
