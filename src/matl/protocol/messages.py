"""The messages of the protocol beside the update itself: what is asked, and what is answered, as JSON.

The documents under ``docs/api/`` are made of these classes, and the SDK reads answers with them.
"""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from matl.records import RoundSpec, Status, Visibility

__all__ = [
    "Acknowledgement", "ActionRequest", "AttestationRequest", "AttestationView", "AuditPage", "AuditView",
    "ChallengeView", "ClientView", "EnrolRequest", "Enrolled", "EventPage", "EventView", "GradientCheck",
    "GradientRequest", "Health", "InvitationView", "InviteRequest", "Invited", "Metrics", "OperatorTokenView",
    "OracleView", "ParticipantsView", "Problem", "ReputationView", "RoundPage", "RoundView", "RunExport", "RunView",
    "SessionRequest", "SessionView", "SpecView", "StandingView", "StartRequest", "TokenRequest", "TokenView",
    "TrustHistory", "UpdateView", "UploadView", "ValidateAnswer",
]  # fmt: skip

Id = Annotated[str, Field(min_length=1, max_length=128, pattern="^[A-Za-z0-9][A-Za-z0-9._:@-]*$")]
"""Ids of clients, runs and operators."""
Base64 = Annotated[str, Field(max_length=1 << 20, pattern="^[A-Za-z0-9+/]*={0,2}$")]
Hash = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
Words = Annotated[str, Field(max_length=1000)]


class _Asked(BaseModel):
    """What comes in: nothing unknown, no infinities."""

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)


class _Told(BaseModel):
    """What goes out. A reader bears keys that a later version adds."""

    model_config = ConfigDict(extra="ignore", frozen=True)


class Problem(_Told):
    """Why a request was refused; the body of every answer of 400 and above."""

    code: str = Field(description="Kind of refusal, see the protocol page.")
    message: str = Field(description="What was wrong, the value seen, the value allowed, what to do.")
    reason: str = Field("", description="Stable short name of the cause.")
    retry_after: float | None = Field(
        None, ge=0, allow_inf_nan=False, description="Seconds after which it may be tried again."
    )


class Health(_Told):
    """That somebody is there, and who."""

    status: Literal["ok"] = "ok"
    version: str
    protocol: int = 1
    time: datetime


class ChallengeView(_Told):
    """A number that an answer has to hold."""

    challenge: str


class EnrolRequest(_Asked):
    """Who wants to become a client, see `matl.attest.enrolment.EnrolmentRequest`."""

    client_id: Id
    key: Base64 = Field(description="Public key, DER SubjectPublicKeyInfo in base64: Ed25519 or ECDSA P-256.")
    token: str = Field(max_length=128, description="The invitation.")
    challenge: str = Field(max_length=256)
    signature: Base64 = Field(description="Of the key, over the text matl-enrolment/1.")
    evidence: dict[str, Base64] = Field({}, max_length=1, description="Evidence of the machine, by format.")


class SessionView(_Told):
    """A token that a client shows with what is not signed."""

    token: str
    expires_at: datetime


class Enrolled(_Told):
    """A client that is one now."""

    client_id: str
    fingerprint: str
    session: SessionView


class SessionRequest(_Asked):
    """A client that proves once more that it holds its key."""

    client_id: Id
    challenge: str = Field(max_length=256)
    signature: Base64 = Field(description="Of the enrolled key, over the text matl-session/1.")


class SpecView(_Told):
    """What a round asks of its clients, see `matl.records.RoundSpec`."""

    run: str
    round: int
    model_hash: str
    layout_hash: str
    kind: str
    visibility: Visibility
    codec: str
    max_norm: float | None
    max_examples: int
    clip: float | None
    public_seed: int
    groups: int | None
    phases: tuple[str, ...]
    deadline: float | None
    max_staleness: int
    recipe: dict[str, Any]
    config_digest: str

    @classmethod
    def of(cls, spec: RoundSpec) -> SpecView:
        """The view of a specification."""
        return cls(
            **{name: getattr(spec, name) for name in cls.model_fields if name != "recipe"}, recipe=dict(spec.recipe)
        )

    def spec(self) -> RoundSpec:
        """The specification."""
        return RoundSpec(**dict(self))


class OracleView(_Told):
    """The oracle that alone opens the updates of a run in Mode 2."""

    url: str
    config: str = Field(description="SHA-256 of the configuration that it measured.")


class RunView(_Told):
    """A run."""

    id: str
    status: Literal["running", "paused", "stopped", "finished"]
    rounds: int | None = Field(description="How many it will have; null for no end.")
    round: int = Field(description="The next that is committed.")
    visibility: Visibility
    mode: str
    model_hash: str
    layout: list[dict[str, Any]] = Field(description="The model's arrays: name, shape, dtype, role.")
    config_digest: str
    created_at: datetime
    receipts_key: str = Field(description="Public key (base64 DER) of the signer of receipts.")
    oracle: OracleView | None = None
    obstacle: str = Field("", description="What it cannot go on for at the moment; it tries again by itself.")


class RoundView(_Told):
    """A round."""

    run: str
    number: int
    status: Literal["open", "judging", "committed", "failed"]
    spec: SpecView
    opened_at: datetime
    deadline_at: datetime | None
    ended_at: datetime | None
    target: int = Field(description="Updates after which it closes.")
    quorum: int = Field(description="Fewest with which it is judged at its deadline.")
    invited: int | None = Field(None, description="How many clients were drawn for it; null: everybody may send.")
    selected: bool | None = Field(
        None, description="Of the client that asks, whether it was drawn; null where everybody may send."
    )
    accepted: int
    rejected: int
    model_hash: str = Field(description="The model that clients start from.")
    next_model_hash: str | None = None
    reason: str = Field("", description="Why it failed.")
    summary: dict[str, Any] = Field({}, description="Figures of the round; what only a simulation knows is not there.")


class ParticipantsView(_Told):
    """Who may take part in masked rounds: every client that is enrolled with an Ed25519 key and was not revoked."""

    clients: dict[str, str] = Field(description="By id the public key, DER SubjectPublicKeyInfo in base64.")


class RoundPage(_Told):
    """Rounds, latest first."""

    rounds: list[RoundView]


class Acknowledgement(_Told):
    """That an update is on the disk of the coordinator, or was before."""

    run: str
    round: int
    client_id: str
    payload_sha256: str
    duplicate: bool = Field(description="Whether it had been accepted before; it counts once.")


class UploadView(_Told):
    """An update that arrives in pieces."""

    id: str
    offset: int = Field(description="Bytes of the payload that are there; the next piece begins here.")
    size: int
    expires_at: datetime
    acknowledgement: Acknowledgement | None = None


class UpdateView(_Told):
    """What became of an update."""

    run: str
    round: int
    client_id: str
    status: Literal["received", "rejected", "judged"]
    received_at: datetime
    payload_sha256: str
    verdict: Status | None = None
    weight: float | None = None
    score: float | None = None
    reason: str = ""
    evidence: dict[str, float] = Field({}, repr=False)


class StandingView(_Told):
    """What is thought of a client."""

    client_id: str
    status: Status
    since_round: int
    weight: float
    score: float | None
    reason: str
    by_operator: bool = Field(description="Whether an operator, and no judge, put it into quarantine.")


class TrustHistory(_Told):
    """Verdicts on a client, latest first."""

    client_id: str
    verdicts: list[UpdateView]


class ReputationView(_Told):
    """What a client has earned, see the reputation page."""

    client_id: str
    reputation: float
    rounds: int


class ValidateAnswer(_Told):
    """Signed receipts of updates that were judged and did not count."""

    receipts: list[dict[str, str]]


class EventView(_Told):
    """Something that happened."""

    seq: int
    time: datetime
    kind: str
    run: str
    round: int
    data: dict[str, Any]


class EventPage(_Told):
    """Events in order."""

    events: list[EventView]
    next: int = Field(description="What to ask for next: events after this number.")


class RunExport(_Told):
    """A run as one document."""

    run: RunView
    rounds: list[RoundView]
    verdicts: list[UpdateView]


class Metrics(_Told):
    """Counts and latencies since the coordinator started."""

    uptime_seconds: float
    counters: dict[str, int]
    latencies_ms: dict[str, dict[str, float]] = Field(description="By operation: count, p50, p99, max.")
    broken_runs: dict[str, str] = Field({}, description="Runs that cannot go on since the restart, and why.")


class AttestationRequest(_Asked):
    """Evidence of a client's machine."""

    format: Annotated[str, Field(max_length=32)]
    challenge: str = Field(max_length=256)
    evidence: Base64


class AttestationView(_Told):
    """What evidence proved."""

    format: str
    hardware_root: bool
    measurement: str


class GradientRequest(_Asked):
    """A chunk that a mobile hardware key signed, version 1 of the text."""

    round: Annotated[int, Field(ge=0, lt=2**53)]
    node_id: Id
    model_hash: Hash
    gradient_chunk_b64: Base64
    timestamp_unix_ms: Annotated[int, Field(ge=0, lt=2**53)]
    signature: Base64 = Field(description="ECDSA P-256 with SHA-256, DER, of the enrolled key.")
    run: Id | None = Field(None, description="The run; may be left out where there is but one.")


class GradientCheck(_Told):
    """Whether a chunk is what its sender signed. It is counted, and never a submission."""

    verified: bool
    reason: str = ""
    chunk_sha256: str


class StartRequest(_Asked):
    """A run to begin."""

    id: Id
    settings: dict[str, Any] = Field({}, description="Keys of the configuration of a run.")


class InviteRequest(_Asked):
    """An invitation to make."""

    client_id: Id | None = None
    uses: Annotated[int, Field(ge=1, le=100_000)] = 1
    lifetime_hours: Annotated[float, Field(gt=0, le=24 * 365)] = 24 * 7
    replaces: bool = False


class Invited(_Told):
    """An invitation; its token is shown once."""

    token: str
    expires_at: datetime


class InvitationView(_Told):
    """What is kept of an invitation."""

    id: str
    client_id: str | None
    uses_left: int
    expires_at: datetime
    replaces: bool


class ClientView(_Told):
    """A client that is enrolled."""

    client_id: str
    fingerprint: str
    algorithm: str
    standing: Literal["active", "revoked"]
    enrolled_at: datetime
    hardware_root: bool
    attestation: dict[str, Any]
    quarantined_by_operator: bool


class ActionRequest(_Asked):
    """Why an operator acts; it is written into the audit log."""

    reason: Words = ""


class AuditView(_Told):
    """A line of the audit log."""

    index: int
    time: datetime
    actor: str
    action: str
    subject: str
    details: dict[str, Any]


class AuditPage(_Told):
    """Lines of the audit log in order, and what a witness should remember of it."""

    entries: list[AuditView]
    records: int
    chain: str


class TokenRequest(_Asked):
    """An operator's token to make."""

    name: Id
    scope: Literal["viewer", "operator", "admin"]
    lifetime_days: Annotated[float, Field(gt=0, le=3650)] = 90


class TokenView(_Told):
    """What is kept of an operator's token; the secret itself is told once, when it is made."""

    id: str
    name: str
    scope: Literal["viewer", "operator", "admin"]
    created_at: datetime
    expires_at: datetime


class OperatorTokenView(TokenView):
    """A token that was just made."""

    secret: str
