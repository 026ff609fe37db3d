"""A simulated round's verdicts as rows by client, and what is told of it."""

from __future__ import annotations

from dataclasses import asdict

from matl.events import Event, EventSink
from matl.records import Cohort, Rejection, RoundSpec, Status
from matl.simulation.scoring import RoundRecord, VerdictRow
from matl.workloads import Accepted, Outcome, changes

__all__ = ["publish", "verdict_rows"]


def verdict_rows(
    outcome: Outcome,
    cohort: Cohort | None,
    accepted: list[Accepted],
    rejections: list[Rejection],
    before: dict[str, str],
) -> tuple[VerdictRow, ...]:
    """A row per participant by client id, judged or rejected; a failed round counts and releases nobody."""
    if outcome.judgement is not None and cohort is not None:
        members = {unit.id: unit.members for unit in cohort.units}
        rows = [
            VerdictRow(member, v.status, v.weight, v.reason, v.evidence)
            for v in outcome.judgement.verdicts
            for member in members[v.unit]
        ]
    else:
        reason = f"round failed: {outcome.failure}"
        clients = [item.update.client_id for item in accepted]
        kept = {client: Status.QUARANTINED for client in clients if before.get(client) == Status.QUARANTINED}
        rows = [VerdictRow(client, kept.get(client, Status.ACCEPTED), 0.0, reason, {}) for client in clients]
    rows += [VerdictRow(r.client_id, Status.REJECTED, 0.0, r.reason, {}) for r in rejections]
    return tuple(sorted(rows, key=lambda row: row.client))


def publish(
    sink: EventSink, spec: RoundSpec, rows: tuple[VerdictRow, ...], before: dict[str, str], record: RoundRecord
) -> None:
    """Tell of a round: what changed for whom, and its figures."""
    for event in changes(spec.run, spec.round, ((row.client, row.status, row.reason) for row in rows), before):
        sink(event)
    if record.failure:
        sink(Event("round_failed", spec.run, spec.round, {"reason": record.failure}))
    sink(Event("round_committed", spec.run, spec.round, asdict(record)))
