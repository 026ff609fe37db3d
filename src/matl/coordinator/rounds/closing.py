"""The end of a round: what is written down about its updates, and what is thought of their clients from then on."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import astuple, dataclass, replace
from typing import Any, Self

from matl.attest.keys import SigningKey
from matl.attest.receipts import Receipt, sign_receipt
from matl.coordinator.rounds.judge import JudgeAnswer, MemberVerdict
from matl.coordinator.storage.rows import UpdateRow, VerdictRow
from matl.errors import StateError
from matl.events import Event
from matl.protocol.envelope import Head, read_head
from matl.records import Status
from matl.state import State, pack, unpack
from matl.workloads import changes

__all__ = ["HELD", "Memory", "Standing", "decide", "happened", "receipt", "signed", "summary"]

_VERSION = 1
HELD = "quarantined_by_operator"
"""Code of the rejection of a client that an operator put into quarantine."""
_FARTHEST = 1e6  # a receipt has no room for a larger score


@dataclass(frozen=True, slots=True)
class Standing:
    """What was last decided about a client, and since which round its status is that."""

    status: Status
    since_round: int
    weight: float
    score: float | None
    reason: str


@dataclass(frozen=True, slots=True)
class Memory:
    """All that a run carries from round to round.

    Parameters
    ----------
    workload : State
        Of the workload.
    standings : mapping of str to Standing
        Of every client that took part.
    """

    workload: State
    standings: Mapping[str, Standing]

    def to_bytes(self, run: str) -> bytes:
        """As a blob, which no other run has."""
        standings = {client: list(astuple(standing)) for client, standing in self.standings.items()}
        return pack({"version": _VERSION, "run": run, "workload": self.workload, "standings": _plain(standings)})

    @classmethod
    def of_bytes(cls, data: bytes, run: str) -> Self:
        """What `to_bytes` wrote.

        Raises
        ------
        StateError
            It is something else.
        """
        state = unpack(data)
        try:
            if (state["version"], state["run"]) != (_VERSION, run):
                raise ValueError(f"version {state['version']} of run {state['run']!r}")
            standings = {
                client: Standing(Status(status), int(since), float(weight), score, reason)
                for client, (status, since, weight, score, reason) in state["standings"].items()
            }
            return cls(state["workload"], standings)
        except (KeyError, TypeError, ValueError) as error:
            raise StateError(f"the state of run {run!r} cannot be read: {error!r}") from error

    def after(self, workload: State, rows: Sequence[VerdictRow]) -> Memory:
        """What is carried on from a round."""
        standings = dict(self.standings)
        for row in rows:
            before = standings.get(row.client)
            since = before.since_round if before is not None and before.status is row.status else row.round
            standings[row.client] = Standing(row.status, since, row.weight, row.score, row.reason)
        return Memory(workload, standings)


def decide(
    answer: JudgeAnswer,
    accepted: Sequence[UpdateRow],
    refused: Sequence[UpdateRow],
    *,
    excluded: Collection[str],
    standings: Mapping[str, Standing],
) -> list[VerdictRow]:
    """One verdict for each client of whom an update is known, by id; without receipts.

    A round that failed releases nobody from quarantine, and puts nobody there.
    """
    judged = {verdict.client: verdict for verdict in answer.verdicts}
    for rejection in answer.rejections:
        judged[rejection.client_id] = MemberVerdict(
            client=rejection.client_id, status=Status.REJECTED, weight=0.0, reason=rejection.reason
        )
    rows = []
    for update in accepted:
        verdict = judged.get(update.client)
        if update.client in excluded:
            reason = "an operator put the client into quarantine before the round closed"
            verdict = MemberVerdict(client=update.client, status=Status.REJECTED, weight=0.0, reason=reason)
        elif verdict is None:
            before = standings.get(update.client)
            held = before is not None and before.status is Status.QUARANTINED and answer.failure
            reason = f"round failed: {answer.failure}" if answer.failure else "its group had too few updates for a sum"
            status = Status.QUARANTINED if held else Status.ACCEPTED
            verdict = MemberVerdict(client=update.client, status=status, weight=0.0, reason=reason)
        rows.append(_row(update, verdict))
    there = {row.client for row in rows}
    for update in refused:
        if update.client not in there:
            verdict = MemberVerdict(client=update.client, status=Status.REJECTED, weight=0.0, reason=update.reason)
            rows.append(_row(update, verdict))
    return sorted(rows, key=lambda row: row.client)


def signed(
    rows: Sequence[VerdictRow],
    updates: Sequence[UpdateRow],
    *,
    given: Mapping[str, bytes] | None,
    key: SigningKey,
    policy: str,
    at: float,
) -> list[VerdictRow]:
    """The verdicts with a receipt each: those that were given, or else the coordinator's own."""
    known = {update.client: update for update in updates}
    receipts = dict(given or {})
    for row in rows:
        if row.client not in receipts:
            receipts[row.client] = receipt(row, read_head(known[row.client].head), key=key, policy=policy, at=at)
    return [replace(row, receipt=receipts[row.client]) for row in rows]


def receipt(row: VerdictRow, head: Head, *, key: SigningKey, policy: str, at: float) -> bytes:
    """A receipt for a verdict, of the round in which the update was judged."""
    score = None if row.score is None else max(-_FARTHEST, min(_FARTHEST, row.score))
    text = Receipt(
        run=row.run,
        round=row.round,
        client_id=row.client,
        model_hash=head.model_hash,
        update_hash=head.payload_sha256,
        status=row.status,
        score=score,
        weight=row.weight,
        policy_hash=policy,
        hardware_root=False,
        signer=key.public.fingerprint,
        timestamp_unix_ms=round(at * 1000),
    )
    return sign_receipt(text, key)


def summary(rows: Sequence[VerdictRow], accepted: Sequence[UpdateRow], answer: JudgeAnswer) -> dict[str, Any]:
    """The figures of a round, by the names that simulations give them."""
    counts = {status.value: sum(row.status is status for row in rows) for status in Status}
    sizes = [update.payload_bytes for update in accepted]
    return {**counts, "payload_bytes": sum(sizes) / len(sizes) if sizes else 0.0, **answer.figures}


def happened(rows: Sequence[VerdictRow], told: Collection[str], standings: Mapping[str, Standing]) -> Iterator[Event]:
    """Events of the verdicts of a round but for those of clients whose rejection was told when it was made."""
    before = {client: standing.status.value for client, standing in standings.items()}
    for row in rows:
        if row.client not in told:
            yield from changes(row.run, row.round, [(row.client, row.status, row.reason)], before)


def _row(update: UpdateRow, verdict: MemberVerdict) -> VerdictRow:
    return VerdictRow(
        run=update.run,
        round=update.round,
        client=update.client,
        status=verdict.status,
        weight=verdict.weight,
        reason=verdict.reason,
        evidence=dict(verdict.evidence),
        score=verdict.score,
    )


def _plain(standings: dict[str, list[Any]]) -> dict[str, list[Any]]:
    return {client: [str(status), *rest] for client, (status, *rest) in standings.items()}
