"""What is stored, as it is told."""

from __future__ import annotations

import base64
import math
from collections.abc import Mapping
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Any

from matl.attest.audit_log import AuditEntry
from matl.attest.enrolment import Identity, Invitation
from matl.attest.tokens import OperatorToken
from matl.coordinator.access import Caller
from matl.coordinator.rounds.live import LiveRun
from matl.coordinator.rounds.machine import Machine, due
from matl.coordinator.storage.rows import EventRow, RoundRow, UpdateRow, UploadRow, VerdictRow
from matl.protocol.messages import (
    Acknowledgement,
    AuditView,
    ClientView,
    EventView,
    InvitationView,
    RoundView,
    RunView,
    SpecView,
    TokenView,
    UpdateView,
    UploadView,
)

__all__ = [
    "audit_view",
    "client_view",
    "event_view",
    "invitation_view",
    "moment",
    "round_view",
    "run_view",
    "token_view",
    "update_view",
    "upload_view",
]

_ID = 12  # digits of the hash of an invitation that name it


def moment(seconds: float) -> datetime:
    """A time that is stored as Unix seconds."""
    return datetime.fromtimestamp(seconds, UTC)


def run_view(live: LiveRun, receipts_key: bytes) -> RunView:
    """A run."""
    row, plan = live.row, live.plan
    layout = [
        {"name": entry.name, "shape": list(entry.shape), "dtype": entry.dtype, "role": entry.role.value}
        for entry in plan.workload.layout.entries
    ]
    return RunView(
        id=row.id,
        status=row.status.value,
        rounds=row.rounds,
        round=row.round,
        visibility=plan.workload.channel.visibility,
        mode=plan.mode,
        model_hash=row.model_hash,
        layout=layout,
        config_digest=row.config_digest,
        created_at=moment(row.created_at),
        receipts_key=base64.b64encode(receipts_key).decode(),
        oracle=plan.oracle,
        obstacle=live.obstacle,
    )


def round_view(row: RoundRow, caller: Caller, machine: Machine | None = None) -> RoundView:
    """A round; with the machine as it stands, where it is in memory.

    Clients are told the figures of a round, and not what a judge says of it at length, where others may be named.
    """
    machine = Machine.of_dict(row.machine) if machine is None else machine
    # When collection is over a machine has no deadline any more; the round had one all the same.
    ends = due(replace(machine, status=type(machine.status).OPEN, closed_at=None))
    return RoundView(
        run=row.run,
        number=row.number,
        status=row.status.value,
        spec=SpecView.model_validate(row.spec),
        opened_at=moment(row.opened_at),
        deadline_at=None if ends is None else moment(ends),
        ended_at=None if row.ended_at is None else moment(row.ended_at),
        target=machine.rules.target,
        quorum=machine.rules.quorum,
        invited=None if machine.selected is None else len(machine.selected),
        selected=None if machine.selected is None or caller.kind != "client" else caller.name in machine.selected,
        accepted=row.accepted,
        rejected=row.rejected,
        model_hash=row.spec["model_hash"],
        next_model_hash=row.next_model_hash,
        reason=row.reason,
        summary=_told(row.summary, caller),
    )


def update_view(update: UpdateRow, verdict: VerdictRow | None, opened_at: float) -> UpdateView:
    """What became of an update."""
    shared = {
        "run": update.run,
        "round": update.round,
        "client_id": update.client,
        "received_at": moment(opened_at + update.received_at),
        "payload_sha256": update.payload_sha256,
    }
    if verdict is None:
        status = "received" if update.accepted else "rejected"
        return UpdateView(**shared, status=status, reason=update.reason)  # type: ignore[arg-type] # checked as it is read
    return UpdateView(
        **shared,  # type: ignore[arg-type] # checked as it is read
        status="judged" if update.accepted else "rejected",
        verdict=verdict.status,
        weight=verdict.weight,
        score=verdict.score,
        reason=verdict.reason,
        evidence={name: value for name, value in verdict.evidence.items() if math.isfinite(value)},
    )


def upload_view(row: UploadRow, acknowledgement: Acknowledgement | None = None) -> UploadView:
    """An update that arrives in pieces."""
    return UploadView(
        id=row.id,
        offset=row.offset,
        size=row.size,
        expires_at=moment(row.expires_at),
        acknowledgement=acknowledgement,
    )


def event_view(row: EventRow, caller: Caller) -> EventView | None:
    """Something that happened, as far as the caller may know: clients learn nothing of one another."""
    if caller.kind == "client" and row.data.get("client", caller.name) != caller.name:
        return None
    data = _told(row.data, caller)
    return EventView(seq=row.seq, time=moment(row.at), kind=row.kind, run=row.run, round=row.round, data=data)


def client_view(identity: Identity, *, held: bool) -> ClientView:
    """A client that is enrolled."""
    return ClientView(
        client_id=identity.client_id,
        fingerprint=identity.key.fingerprint,
        algorithm=identity.key.algorithm.value,
        standing=identity.standing.value,
        enrolled_at=moment(identity.enrolled_at / 1000),
        hardware_root=bool(identity.attestation.get("hardware_root", False)),
        attestation=dict(identity.attestation),
        quarantined_by_operator=held,
    )


def invitation_view(invitation: Invitation) -> InvitationView:
    """An invitation, by the beginning of its hash, which lets nobody in."""
    return InvitationView(
        id=invitation.hash[:_ID],
        client_id=invitation.client_id,
        uses_left=invitation.uses_left,
        expires_at=moment(invitation.expires_at / 1000),
        replaces=invitation.replaces,
    )


def token_view(token: OperatorToken) -> TokenView:
    """An operator's token, without its secret."""
    return TokenView(
        id=token.id,
        name=token.name,
        scope=token.scope.name.lower(),  # type: ignore[arg-type] # the names of the scopes
        created_at=moment(token.created_at / 1000),
        expires_at=moment(token.expires_at / 1000),
    )


def audit_view(entry: AuditEntry) -> AuditView:
    """A line of the audit log."""
    return AuditView(**{**asdict(entry), "time": moment(entry.time / 1000)})


def _told(data: Mapping[str, Any], caller: Caller) -> dict[str, Any]:
    """Data, or for clients the numbers and words in it."""
    if caller.kind != "client":
        return dict(data)
    return {name: value for name, value in data.items() if value is None or isinstance(value, str | int | float)}
