"""Records of a coordinator for its tests."""

from __future__ import annotations

import hashlib
from typing import Any

from matl.coordinator.storage.rows import (
    EventRow,
    PhaseRow,
    RoundRow,
    RoundStatus,
    RunRow,
    RunStatus,
    UpdateRow,
    UploadRow,
    VerdictRow,
)
from matl.coordinator.storage.store import Store
from matl.records import Status


def sha(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()


def run_row(**changes: Any) -> RunRow:
    values = {"id": "run", "status": RunStatus.RUNNING, "settings": {"mode": {"name": "mode1"}},
              "config_digest": sha("c"), "created_at": 1_700_000_000.123456, "rounds": 3, "state": sha("state 0"),
              "model_hash": sha("model 0")}  # fmt: skip
    return RunRow(**{**values, **changes})


def round_row(**changes: Any) -> RoundRow:
    values = {"run": "run", "number": 0, "status": RoundStatus.OPEN, "spec": {"round": 0, "clip": None},
              "machine": {"phase": 0}, "opened_at": 1_700_000_001.5}  # fmt: skip
    return RoundRow(**{**values, **changes})


def update_row(client: str = "alice", **changes: Any) -> UpdateRow:
    values = {"run": "run", "round": 0, "client": client, "accepted": True, "base_version": 0,
              "payload_sha256": sha(client), "payload_bytes": 1234, "num_examples": 60, "nonce": "01" * 16,
              "created_ms": 1_700_000_002_000, "received_at": 0.1, "head": b'{"client_id":"\xff\x00"}'}  # fmt: skip
    return UpdateRow(**{**values, **changes})


def verdict_row(client: str = "alice", **changes: Any) -> VerdictRow:
    values = {"run": "run", "round": 0, "client": client, "status": Status.QUARANTINED, "weight": 0.1 + 0.2,
              "reason": "it harms", "evidence": {"pogq": -1.5}, "score": 1 / 3,
              "receipt": b"\x00\xffreceipt"}  # fmt: skip
    return VerdictRow(**{**values, **changes})


def event_row(kind: str = "told", **changes: Any) -> EventRow:
    return EventRow(**{"at": 1_700_000_003.25, "kind": kind, "run": "run", "round": 0, "data": {}, **changes})


def upload_row(**changes: Any) -> UploadRow:
    values = {"id": "u1", "run": "run", "round": 0, "client": "alice", "head": b"head", "size": 100, "offset": 0,
              "began_at": 10.0, "expires_at": 70.0}  # fmt: skip
    return UploadRow(**{**values, **changes})


def phase_row(client: str = "alice", **changes: Any) -> PhaseRow:
    values = {"run": "run", "round": 0, "phase": "advertise", "client": client, "seq": 0, "sha256": sha("said"),
              "size": 4, "key": bytes(32), "content": b"said"}  # fmt: skip
    return PhaseRow(**{**values, **changes})


async def open_store(url: str) -> Store:
    """A store with a run whose first round is open."""
    store = await Store.open(url)
    await store.create_run(run_row(), [event_row("run_started")], models={sha("model 0"): (sha("blob 0"), 40)})
    await store.open_round(round_row(), [event_row("round_opened")])
    return store
