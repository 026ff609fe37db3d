"""Bytes that the decoders of `tests.fuzz.targets` take."""

from __future__ import annotations

import hashlib
import json
import types
import typing
from collections.abc import Iterator
from dataclasses import fields
from datetime import UTC, datetime
from enum import Enum
from fractions import Fraction
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel

from matl import state
from matl.attest.canonical import CanonicalText
from matl.attest.challenge import Challenger
from matl.attest.enrolment import EnrolmentRequest, Roster
from matl.attest.keys import SigningKey
from matl.attest.receipts import Receipt, sign_receipt
from matl.attest.replay import ReplayCache
from matl.attest.tokens import Scope, Tokens
from matl.codec import CODECS
from matl.coordinator.rounds.judge import JudgeAnswer, JudgeRequest, MemberVerdict
from matl.coordinator.rounds.machine import Received, Rules, open_round, step
from matl.coordinator.rounds.overrides import Hold, Overrides
from matl.errors import ProtocolError
from matl.oracle.wire import Signed, pack_answer, pack_brief
from matl.privacy.manifest import Manifest
from matl.privacy.secagg import messages as secagg
from matl.protocol.envelope import Head, frame
from matl.protocol.oracle import JudgementText
from matl.protocol.pb import training as pb
from matl.records import RoundSpec, Status, Update
from matl.registry import Registry
from matl.simulation.directory import _CHECKPOINT_VERSION

NOW = datetime(2030, 1, 1, tzinfo=UTC)
KEY = SigningKey.generate()
HASH = "ab" * 32


def update(**changes: Any) -> Update:
    """An update as it is sent."""
    fields_ = {"client_id": "alice", "run": "demo", "round": 3, "base_version": 3, "model_hash": HASH}
    fields_ |= {"payload": b"payload", "payload_sha256": hashlib.sha256(b"payload").hexdigest(), "nonce": "01" * 16}
    return Update(**(fields_ | {"num_examples": 7, "created_at": 1.5, "signature": b"signature"} | changes))


SPEC = RoundSpec(run="demo", round=3, model_hash=HASH, layout_hash=HASH)

# The protocol

HEADS = tuple(
    Head.of(each).to_bytes() for each in (update(), update(num_examples=None, evidence={"format": {"a": [1, "b"]}}))
)
MESSAGES = frame(update()), frame(update(payload=b"x" * 200))


def protobuf(method: Any) -> bytes:
    """A request of a method with all its fields."""
    request = method.request()
    for field in method.request.DESCRIPTOR.fields:
        if field.message_type is not None:
            getattr(request, field.name).SetInParent()
        else:
            setattr(request, field.name, {9: "demo", 12: b"{}", 4: 3, 1: 1.5}[field.type])
    return bytes(request.SerializeToString())


def _stream(*parts: bytes) -> bytes:
    return b"".join(len(part).to_bytes(2, "big") + part for part in parts)


def _streams(part: Any, head: Any) -> tuple[bytes, ...]:
    begun, chunk = part(head=head).SerializeToString(), part(chunk=b"payload").SerializeToString()
    return _stream(begun, chunk), _stream(begun), _stream(begun, begun), _stream(chunk)


STREAMS = _streams(pb.UpdatePart, pb.UpdateHead(run="demo", round=3, json=HEADS[0]))
PHASE_STREAMS = _streams(pb.PhasePart, pb.PhaseHead(run="demo", round=3, phase="mask"))


def document(kind: type[BaseModel]) -> bytes:
    """JSON of a message with all its fields."""
    return json.dumps(_object(kind)).encode()


def _object(kind: type[BaseModel]) -> dict[str, Any]:
    return {name: _value(name, field.annotation) for name, field in kind.model_fields.items()}


_NAMED = {"signature": "AAAA", "key": "AAAA", "evidence": "AAAA", "gradient_chunk_b64": "AAAA", "model_hash": HASH}


def _value(name: str, kind: Any) -> Any:
    """A value that a field takes."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is typing.Annotated:
        return _value(name, arguments[0])
    if origin is Literal:
        return arguments[0]
    if origin in (types.UnionType, typing.Union):
        return _value(name, next(each for each in arguments if each is not type(None)))
    if origin in (list, tuple):
        return [_value(name, arguments[0])]
    if origin is dict:
        return {"a": _value(name, arguments[1])}
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return _object(kind)
    if isinstance(kind, type) and issubclass(kind, Enum):
        return next(iter(kind)).value
    return {str: _NAMED.get(name, "a"), int: 3, float: 0.5, bool: True, datetime: NOW.isoformat(), Any: [1]}[kind]


# State and codecs

STATES = (
    state.pack({"round": 3, "w": np.arange(6, dtype=np.float32).reshape(2, 3), "names": np.array(["a", "bc"])}),
    state.pack({"a": {"b": [1, -2.5, None, True, b"bytes", "text"]}, "empty": np.zeros((0, 3), np.int64)}),
)
VECTOR = np.array([1.0, 0.0, -2.0], np.float32)


def coded(registry: Registry[Any]) -> dict[str, bytes]:
    """A vector by every codec that has a name."""
    options: dict[str, dict[str, Any]] = {"grid": {"step": 0.5}}
    rng = np.random.default_rng(3)
    return {
        name: registry.create(name, **options.get(name, {})).encode(VECTOR, seed=7, rng=rng)[0]
        for name in registry
        if name not in ("composed", "grid")
    }


CODED = tuple(coded(CODECS).values())

# Texts


def texts(kind: type[Any]) -> Iterator[type[CanonicalText]]:
    """All kinds of texts that the library has."""
    for each in kind.__subclasses__():
        if each.__module__.startswith("matl."):
            yield each
        yield from texts(each)


_SPELLED = (
    "", "a", "3", HASH, "1.000000000", "accepted", "true", "int8", "delta", "01" * 16, "aGk=", "ab" * 56, "ab" * 64,
    "AAAA" * 11, "ab" * 44,
)  # fmt: skip


def text(kind: type[CanonicalText]) -> bytes:
    """A text of this kind."""
    lines = [kind.DOMAIN] if kind.DOMAIN else []
    for field in fields(kind):
        lines.append(f"{field.metadata['key'] or field.name}={_spelled(field.metadata['grammar'])}")
    return "\n".join(lines).encode()


def _spelled(grammar: Any) -> str:
    for each in _SPELLED[::-1]:
        try:
            grammar.read("", each)
        except ProtocolError:
            continue
        return each
    raise AssertionError(grammar)


RECEIPT = sign_receipt(
    Receipt(
        run="demo", round=3, client_id="alice", model_hash=HASH, update_hash=HASH, status=Status.ACCEPTED, score=0.25,
        weight=1.0, policy_hash=HASH, hardware_root=False, signer=KEY.public.fingerprint, timestamp_unix_ms=1,
    ),
    KEY,
)  # fmt: skip

# Files


def chained(lines: list[bytes]) -> bytes:
    """A journal of these records."""
    chain, content = b"0" * 64, b""
    for each in lines:
        chain = hashlib.sha256(chain + b" " + each).hexdigest().encode()
        content += chain + b" " + each + b"\n"
    return content


def head_of(journal: bytes) -> bytes:
    """The head that lies beside a journal."""
    lines = journal.split(b"\n")[:-1]
    return json.dumps({"records": len(lines), "chain": lines[-1][:64].decode()}).encode()


AUDIT_LINE = b'{"action":"revoke","actor":"carol","details":{"reason":"noise"},"subject":"bob","time":3}'
AUDIT_LOG = b'{"kind":"matl audit log"}\n' + AUDIT_LINE + b'\n{"torn":3}'


def _manifest() -> bytes:
    from tests.privacy.test_certificate import TINY

    return Manifest(TINY, block=64, kept=24, clip_norm=Fraction(1)).document()


MANIFEST = _manifest()
MANIFEST_BODY = json.dumps(json.loads(MANIFEST)["manifest"]).encode()


def _checkpoint() -> bytes:
    content = STATES[0]
    return state.pack(
        {"version": _CHECKPOINT_VERSION, "content": content, "sha256": hashlib.sha256(content).hexdigest()}
    )


CHECKPOINT = _checkpoint()

# What a coordinator keeps


def _rosters() -> tuple[bytes, ...]:
    roster, token = Roster().invite(now=NOW, uses=2)
    challenger = Challenger(bytes(32))
    request = EnrolmentRequest.signed("alice", KEY, token, challenger.issue(now=NOW))
    enrolled, _ = roster.enrol(request, challenger, now=NOW)
    return state.pack(enrolled.state()), state.pack(roster.state()), state.pack(Roster().state())


ROSTERS = _rosters()
_tokens, _secret = Tokens().issue("carol", Scope.OPERATOR, now=NOW)
TOKENS = state.pack(_tokens.state()), state.pack(Tokens().state())
SECRET = _secret.encode()
CHALLENGE = Challenger(bytes(32)).issue(now=NOW).encode()


def _replay() -> bytes:
    cache = ReplayCache()
    assert not cache.admit("alice", "01" * 16, 3, now=3)
    return state.pack(cache.state())


REPLAY = _replay()
_machine = open_round(Rules(target=2, quorum=1, deadline=60), at=1000.0, selected=("alice", "bob"))
MACHINE = state.pack(step(_machine, Received("alice", HASH, 1001.0))[0].to_dict())
OVERRIDES = state.pack(Overrides((Hold(client="bob", run=None, reason="why", actor="carol", at=3),)).state())

# The oracle

BRIEF = pack_brief(
    JudgeRequest(
        spec=SPEC, state={"round": 3}, seed=7, heads=(update(payload=b""),), payload=lambda _: b"", silent=("bob",)
    )
)
ANSWER = pack_answer(
    JudgeAnswer(
        state={"round": 4},
        verdicts=(MemberVerdict(client="alice", status=Status.ACCEPTED, weight=1.0, evidence={"pogq": 0.5}),),
        receipts={"alice": b"receipt"},
    )
)
SIGNED = Signed(
    text=JudgementText.parse(text(JudgementText)), signature=b"s", format="software", evidence=b"e", answer=ANSWER
).to_bytes()
SECAGG = {
    type(each).__name__: each.to_bytes()
    for each in (
        secagg.Advertisement("alice", bytes(32), bytes(32), bytes(64)),
        secagg.Roster((b"one", b"two")),
        secagg.SealedShares(bytes(160), bytes(64), bytes(32)),
        secagg.Delivery((0, 2), bytes(160)),
        secagg.MaskedInput(bytes(12), bytes(32), (1,)),
        secagg.Survivors((0, 2), bytes(32)),
        secagg.Consistency(bytes(64)),
        secagg.Certificate((0, 2), bytes(128)),
        secagg.Revealed((0, 2), bytes(64)),
    )
}
