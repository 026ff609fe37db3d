"""What messages look like: shown in the documents, sent by tests of them."""

from __future__ import annotations

import base64
from typing import Any

__all__ = ["EXAMPLES"]

_TIME = "2030-01-01T12:00:00Z"
_HASH = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08"
_OTHER = "60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752"
_DIGEST = "fd61a03af4f77d870fc21e05e7e80678095c92d808cfb3b5c279ee04c74aca13"
_KEY = base64.b64encode(bytes.fromhex("302a300506032b6570032100") + bytes(range(32))).decode()
_SIGNATURE = base64.b64encode(bytes(range(64))).decode()
_CHALLENGE = "1c" * 56
_RUN = {
    "id": "demo",
    "status": "running",
    "rounds": 20,
    "round": 3,
    "visibility": "clear",
    "mode": "mode1",
    "model_hash": _HASH,
    "layout": [
        {"name": "weight", "shape": [10, 64], "dtype": "float32", "role": "trainable"},
        {"name": "bias", "shape": [10], "dtype": "float32", "role": "trainable"},
    ],
    "config_digest": _DIGEST,
    "created_at": _TIME,
    "receipts_key": _KEY,
    "oracle": None,
    "obstacle": "",
}
_SPEC = {
    "run": "demo",
    "round": 3,
    "model_hash": _HASH,
    "layout_hash": _OTHER,
    "kind": "delta",
    "visibility": "clear",
    "codec": "safetensors",
    "max_norm": 1000.0,
    "max_examples": 1000000,
    "clip": None,
    "public_seed": 0,
    "groups": 1,
    "phases": ["collect"],
    "deadline": 60.0,
    "max_staleness": 0,
    "recipe": {"epochs": 1, "learning_rate": 0.1},
    "config_digest": _DIGEST,
}
_ROUND = {
    "run": "demo",
    "number": 3,
    "status": "open",
    "spec": _SPEC,
    "opened_at": _TIME,
    "deadline_at": "2030-01-01T12:01:00Z",
    "ended_at": None,
    "target": 20,
    "quorum": 10,
    "invited": 26,
    "selected": True,
    "accepted": 7,
    "rejected": 1,
    "model_hash": _HASH,
    "next_model_hash": None,
    "reason": "",
    "summary": {},
}
_ACKNOWLEDGEMENT = {
    "run": "demo",
    "round": 3,
    "client_id": "alice",
    "payload_sha256": _OTHER,
    "duplicate": False,
}
_UPDATE = {
    "run": "demo",
    "round": 3,
    "client_id": "alice",
    "status": "judged",
    "received_at": _TIME,
    "payload_sha256": _OTHER,
    "verdict": "accepted",
    "weight": 1.0,
    "score": 0.25,
    "reason": "",
    "evidence": {"pogq": 0.25},
}
_EVENT = {
    "seq": 12,
    "time": _TIME,
    "kind": "round_committed",
    "run": "demo",
    "round": 3,
    "data": {"accepted": 18, "quarantined": 2},
}
_TOKEN = {"id": "t-1", "name": "ops", "scope": "operator", "created_at": _TIME, "expires_at": "2030-04-01T12:00:00Z"}
_SESSION = {"token": "matl_cl_alice.1893502800." + "0" * 43, "expires_at": "2030-01-01T13:00:00Z"}

EXAMPLES: dict[str, Any] = {
    "Problem": {
        "code": "busy",
        "message": "64 updates of 52428800 bytes are arriving, and no more than 64 of 1073741824 may; try again in 1 s",
        "reason": "busy",
        "retry_after": 1.0,
    },
    "Health": {"status": "ok", "version": "0.1.0", "protocol": 1, "time": _TIME},
    "ChallengeView": {"challenge": _CHALLENGE},
    "EnrolRequest": {
        "client_id": "alice",
        "key": _KEY,
        "token": "matl_inv_" + "0" * 43,
        "challenge": _CHALLENGE,
        "signature": _SIGNATURE,
    },
    "SessionView": _SESSION,
    "Enrolled": {"client_id": "alice", "fingerprint": _DIGEST, "session": _SESSION},
    "SessionRequest": {"client_id": "alice", "challenge": _CHALLENGE, "signature": _SIGNATURE},
    "SpecView": _SPEC,
    "RunView": _RUN,
    "RoundView": _ROUND,
    "ParticipantsView": {"clients": {"alice": _KEY}},
    "RoundPage": {"rounds": [_ROUND]},
    "Acknowledgement": _ACKNOWLEDGEMENT,
    "Head": {
        "client_id": "alice",
        "run": "demo",
        "round": 3,
        "base_version": 3,
        "model_hash": _HASH,
        "kind": "delta",
        "payload_bytes": 2688,
        "payload_sha256": _OTHER,
        "num_examples": 120,
        "nonce": "0123456789abcdef" * 2,
        "created_at": 1893499200.25,
        "signature": _SIGNATURE,
    },
    "UploadView": {
        "id": "u" * 32,
        "offset": 1048576,
        "size": 41943040,
        "expires_at": "2030-01-01T13:00:00Z",
        "acknowledgement": None,
    },
    "UpdateView": _UPDATE,
    "StandingView": {
        "client_id": "mallory",
        "status": "quarantined",
        "since_round": 2,
        "weight": 0.0,
        "score": -0.4,
        "reason": "its update undoes what the others do",
        "by_operator": False,
    },
    "TrustHistory": {"client_id": "alice", "verdicts": [_UPDATE]},
    "ReputationView": {"client_id": "alice", "reputation": 0.93, "rounds": 3},
    "ValidateAnswer": {"receipts": [{"receipt": "matl-receipt/1\nrun=demo\n", "signature": _SIGNATURE}]},
    "EventView": _EVENT,
    "EventPage": {"events": [_EVENT], "next": 12},
    "RunExport": {"run": _RUN, "rounds": [_ROUND], "verdicts": [_UPDATE]},
    "Metrics": {
        "uptime_seconds": 3600.0,
        "counters": {"updates_accepted": 60},
        "latencies_ms": {"submit": {"count": 60, "p50": 4.1, "p99": 12.9, "max": 20.3}},
        "broken_runs": {},
    },
    "AttestationRequest": {"format": "tpm", "challenge": _CHALLENGE, "evidence": "AQIDBA=="},
    "AttestationView": {"format": "tpm", "hardware_root": False, "measurement": _OTHER},
    "GradientRequest": {
        "round": 3,
        "node_id": "phone-7",
        "model_hash": _HASH,
        "gradient_chunk_b64": "aGk=",
        "timestamp_unix_ms": 1893499200250,
        "signature": _SIGNATURE,
        "run": "demo",
    },
    "GradientCheck": {"verified": True, "reason": "", "chunk_sha256": _OTHER},
    "StartRequest": {"id": "second", "settings": {"rounds": 20}},
    "InviteRequest": {"client_id": None, "uses": 10, "lifetime_hours": 24.0, "replaces": False},
    "Invited": {"token": "matl_inv_" + "0" * 43, "expires_at": "2030-01-02T12:00:00Z"},
    "InvitationView": {
        "id": _OTHER[:16],
        "client_id": None,
        "uses_left": 9,
        "expires_at": "2030-01-02T12:00:00Z",
        "replaces": False,
    },
    "ClientView": {
        "client_id": "alice",
        "fingerprint": _DIGEST,
        "algorithm": "ed25519",
        "standing": "active",
        "enrolled_at": _TIME,
        "hardware_root": False,
        "attestation": {},
        "quarantined_by_operator": False,
    },
    "ActionRequest": {"reason": "asked for by its owner"},
    "AuditPage": {
        "entries": [
            {
                "index": 7,
                "time": _TIME,
                "actor": "ops",
                "action": "quarantine",
                "subject": "mallory",
                "details": {"run": "demo", "reason": "asked for by its owner"},
            }
        ],
        "records": 8,
        "chain": _DIGEST,
    },
    "TokenRequest": {"name": "ops", "scope": "operator", "lifetime_days": 90.0},
    "TokenView": _TOKEN,
    "OperatorTokenView": {**_TOKEN, "secret": "matl_op_" + "0" * 43},
}
"""By the name of the model; strings that look like tokens open nothing."""
