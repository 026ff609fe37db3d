"""What a host does: check that an update is its sender's, made for this round, fresh, and seen for the first time."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from datetime import datetime

from matl.attest.canonical import IDENTIFIER, unix_ms
from matl.attest.claims import Clock, system_clock
from matl.attest.enrolment import Identity
from matl.attest.keys import Algorithm
from matl.attest.replay import ReplayCache
from matl.attest.texts import ChunkText, UpdateText
from matl.errors import ProtocolError
from matl.records import Rejection, RoundSpec, Update

__all__ = ["REASONS", "SignatureVerifier"]

REASONS: Mapping[str, str] = {
    "malformed": "a field has no canonical spelling",
    "unknown_client": "nobody is enrolled under this id",
    "revoked": "the identity was revoked",
    "algorithm": "the enrolled key does not sign texts of this version",
    "mismatch": "what was signed is not what was sent",
    "expired": "it was created too long ago",
    "future": "it was created in the future",
    "replay": "its nonce was used before",
    "signature": "the signature is not that of the enrolled key",
}
"""Every rejection code with what it means."""


class SignatureVerifier:
    """Checks signatures against enrolled keys, cheap checks first.

    Parameters
    ----------
    identities : callable
        The identity enrolled under a client id, or ``None``; such as ``lambda client: roster.identities.get(client)``.
    replays : ReplayCache
        What was used; it has the freshness window too. Updates and chunks take one of their own each.
    clock : Clock
        The host's.

    Notes
    -----
    A rejection from here says nothing about the client whom it names: anybody may have sent the message. Screening
    comes after it, and what screening rejects was signed by the client. It is screening, too, that compares the payload
    with its digest, and the fields with what the round asks for.

    A nonce counts as used once the signature was found good, so that nobody can use up another's. A retry of an update
    that was accepted gets ``"replay"``, and it is for the host to find the answer it gave to (client, round).

    A host that reads the payload only after the envelope was found good checks twice: with ``admit=False`` when the
    envelope comes, and when it accepts the update, with the time of the first check as ``arrived``. A sending that
    breaks off in between uses nothing up, and one that takes longer than the window is not lost.

    Examples
    --------
    >>> from datetime import UTC, datetime
    >>> from matl.attest.keys import SigningKey
    >>> from matl.attest.signing import sign_update
    >>> key, spec = SigningKey.generate(), RoundSpec(run="demo", round=0, model_hash="ab" * 32, layout_hash="cd" * 32)
    >>> alice = Identity(client_id="alice", key=key.public, enrolled_at=0)
    >>> verifier = SignatureVerifier({"alice": alice}.get, ReplayCache())
    >>> update = Update(client_id="alice", run="demo", round=0, base_version=0, model_hash="ab" * 32, payload=b"...")
    >>> signed = sign_update(update, key, spec)
    >>> verifier.check(signed, spec) is None
    True
    >>> verifier.check(signed, spec).code, verifier.check(sign_update(update, SigningKey.generate(), spec), spec).code
    ('replay', 'signature')
    """

    def __init__(
        self, identities: Callable[[str], Identity | None], replays: ReplayCache, clock: Clock = system_clock
    ) -> None:
        self._identities, self._replays, self._clock = identities, replays, clock

    def check(
        self,
        update: Update,
        spec: RoundSpec,
        *,
        phase: str | None = None,
        signed: bytes | None = None,
        arrived: datetime | None = None,
        admit: bool = True,
    ) -> Rejection | None:
        """Whether an update is what its sender signed for this round.

        Parameters
        ----------
        update : Update
            What arrived; any types in its fields are borne.
        spec : RoundSpec
            The round.
        phase : str, optional
            Which of its phases the update was sent for, where it has several.
        signed : bytes, optional
            The text that the client says it signed, where the transport has a place for one. It has to say what the
            fields say; what is verified is the text that is made of the fields.
        arrived : datetime, optional
            When it began to arrive by the host's clock, if not now.
        admit : bool
            Whether its nonce counts as used from now on, if all is well.

        Returns
        -------
        Rejection or None
            ``None`` if all is well. Nothing is raised, whatever the update holds.
        """
        try:
            text = UpdateText.of(update, spec, phase)
            claimed = text if signed is None else UpdateText.parse(signed)
        except ProtocolError as error:
            return _rejection(update.client_id, "malformed", str(error))
        if differences := text.differences(claimed):
            return _rejection(text.client_id, "mismatch", f"text and fields differ in {', '.join(differences)}")
        now = unix_ms(arrived or self._clock())
        reason = self._refusal(text.client_id, text.nonce, text, update.signature, now)
        return reason or (self._admit(text.client_id, text.nonce, text, now) if admit else None)

    def check_chunk(self, chunk: ChunkText, signature: bytes, spec: RoundSpec) -> Rejection | None:
        """Whether a chunk is what its sender signed for this round, with version 1 of the text.

        It has no nonce: the SHA-256 of the text stands for one, so that the same chunk counts once.
        """
        for key, signed, due in (
            ("round", chunk.round, spec.round),
            ("model_hash", chunk.model_hash, spec.model_hash),
        ):
            if signed != due:
                return _rejection(chunk.node_id, "mismatch", f"{key} is {signed}, expected {due}")
        nonce = hashlib.sha256(chunk.to_bytes()).hexdigest()
        now = unix_ms(self._clock())
        reason = self._refusal(chunk.node_id, nonce, chunk, signature, now)
        return reason or self._admit(chunk.node_id, nonce, chunk, now)

    def _refusal(
        self, client: str, nonce: str, text: UpdateText | ChunkText, signature: object, now: int
    ) -> Rejection | None:
        identity = self._identities(client)
        if identity is None:
            return _rejection(client, "unknown_client", "enrol first")
        if identity.revoked_at is not None:
            return _rejection(client, "revoked", "ask the operator for an invitation that replaces the key")
        if isinstance(text, ChunkText) and identity.key.algorithm is not Algorithm.ECDSA_P256:
            return _rejection(
                client, "algorithm", f"version 1 takes {Algorithm.ECDSA_P256}, not {identity.key.algorithm}"
            )
        if reason := self._replays.refusal(client, nonce, text.timestamp_unix_ms, now=now):
            return self._not_fresh(client, reason, text, now)
        if not (isinstance(signature, bytes) and identity.key.verify(signature, text.to_bytes())):
            return _rejection(client, "signature", "sign the canonical text with the key that was enrolled")
        return None

    def _admit(self, client: str, nonce: str, text: UpdateText | ChunkText, now: int) -> Rejection | None:
        """Use the nonce up, which may have been done meanwhile: the same message may come twice at once."""
        reason = self._replays.admit(client, nonce, text.timestamp_unix_ms, now=now)
        return self._not_fresh(client, reason, text, now) if reason else None

    def _not_fresh(self, client: str, reason: str, text: UpdateText | ChunkText, now: int) -> Rejection:
        window = f"fresh are {self._replays.max_age_ms} ms back and {self._replays.max_ahead_ms} ms ahead"
        return _rejection(client, reason, f"created at {text.timestamp_unix_ms}, the clock here says {now}; {window}")


def _rejection(client: object, code: str, detail: str) -> Rejection:
    """A rejection names its client where that is an id at all."""
    try:
        named = IDENTIFIER.write("client_id", client)
    except ProtocolError:
        named = ""
    return Rejection(named, code, f"{REASONS[code]}: {detail}")
