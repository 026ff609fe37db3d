"""What the coordinator keeps, as records of plain data; how they lie in a database is for
`matl.coordinator.storage.schema`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from matl.records import Status

__all__ = ["EventRow", "PhaseRow", "RoundRow", "RoundStatus", "RunRow", "RunStatus", "UpdateRow", "UploadRow",
           "VerdictRow"]  # fmt: skip


class RunStatus(StrEnum):
    """Where a run stands."""

    RUNNING = "running"
    PAUSED = "paused"  # its open round waits; nothing is taken
    STOPPED = "stopped"  # by an operator, for good
    FINISHED = "finished"  # it had all its rounds


class RoundStatus(StrEnum):
    """Where a round stands. The last two are for ever."""

    OPEN = "open"  # updates are taken
    JUDGING = "judging"  # collection closed, and the seed of the judge was drawn
    COMMITTED = "committed"
    FAILED = "failed"  # the model stayed as it was; the reason says why


@dataclass(frozen=True, slots=True, kw_only=True)
class RunRow:
    """A run."""

    id: str
    status: RunStatus
    settings: Mapping[str, Any]  # what its workload is built from, JSON
    config_digest: str
    created_at: float  # Unix seconds, as all times here
    rounds: int | None
    round: int = 0  # the next that is committed
    state: str = ""  # SHA-256 of the blob that holds the packed state of the workload
    model_hash: str = ""  # of the model that clients start from


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundRow:
    """A round."""

    run: str
    number: int
    status: RoundStatus
    spec: Mapping[str, Any]  # JSON, see `matl.protocol.messages.SpecView`
    machine: Mapping[str, Any]  # JSON, the state of the round machine
    opened_at: float
    closed_at: float | None = None
    ended_at: float | None = None
    seed: int | None = None  # of the judge
    accepted: int = 0
    rejected: int = 0
    next_model_hash: str | None = None
    reason: str = ""
    summary: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateRow:
    """An update that was accepted, or that screening refused after its sender was known."""

    run: str
    round: int  # in which it is counted
    client: str
    accepted: bool
    base_version: int
    payload_sha256: str  # also the name of its blob
    payload_bytes: int
    num_examples: int | None
    nonce: str
    created_ms: int  # the client's clock
    received_at: float  # seconds after the round opened
    head: bytes  # as it was sent, with the signature
    code: str = ""  # of the rejection
    reason: str = ""


@dataclass(frozen=True, slots=True, kw_only=True)
class PhaseRow:
    """What a client said in a phase of a masked round."""

    run: str
    round: int
    phase: str
    client: str
    seq: int  # in the order in which they were taken
    sha256: str
    size: int  # bytes
    key: bytes  # the client's Ed25519 key (32 bytes) as it was then
    content: bytes | None  # None for a masked vector, which lies among the blobs as the payload of an update


@dataclass(frozen=True, slots=True, kw_only=True)
class VerdictRow:
    """What was decided about an update."""

    run: str
    round: int
    client: str
    status: Status
    weight: float
    reason: str
    evidence: Mapping[str, float]
    score: float | None = None
    receipt: bytes | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class EventRow:
    """Something that happened; ``seq`` is given by the store, from 1."""

    at: float
    kind: str
    run: str
    round: int
    data: Mapping[str, Any]
    seq: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class UploadRow:
    """An update that arrives in pieces."""

    id: str
    run: str
    round: int
    client: str
    head: bytes
    size: int
    offset: int
    began_at: float
    expires_at: float
