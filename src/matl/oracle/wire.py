"""What travels between a coordinator and its oracle: plain data in msgpack, hashed as it is.

A request is a *brief* (the round, the seed, the state, the heads of all updates with the hashes of their payloads),
then the payloads in the order of the heads. Its SHA-256 is that of the brief, which stands for everything.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

from pydantic import ValidationError

from matl.coordinator.rounds.judge import JudgeAnswer, JudgeRequest, MemberVerdict
from matl.errors import ProtocolError, StateError
from matl.protocol.messages import SpecView
from matl.protocol.oracle import JudgementText
from matl.records import Rejection, RoundSpec, Status, Update
from matl.state import State, pack, unpack

__all__ = ["LENGTH", "Brief", "Signed", "pack_answer", "pack_brief", "unpack_answer"]

LENGTH = 8
"""Bytes, big endian, that say how long the brief or a payload behind them is."""

_VERSION = 1
_UPDATE = {
    "client_id": str, "run": str, "round": int, "base_version": int, "model_hash": str, "payload_sha256": str,
    "num_examples": int | None, "kind": str, "nonce": str, "created_at": float | int, "received_at": float | int,
    "signature": bytes, "evidence": dict,
}  # fmt: skip


@dataclass(frozen=True, slots=True, kw_only=True)
class Brief:
    """A request as the oracle reads it.

    Parameters
    ----------
    spec : RoundSpec
        The round.
    state : State
        The workload's before it.
    state_digest : str
        SHA-256 of the state, packed.
    seed : int
        Of the judge.
    heads : tuple of Update
        What was accepted, by client id, without payloads.
    silent : tuple of str
        Clients that began the round and of whom nothing came.
    digest : str
        SHA-256 of the request.
    """

    spec: RoundSpec
    state: State
    state_digest: str
    seed: int
    heads: tuple[Update, ...]
    silent: tuple[str, ...]
    digest: str

    @classmethod
    def parse(cls, data: bytes) -> Brief:
        """Read a brief.

        Raises
        ------
        ProtocolError
            ``"malformed"``: it is none, or two updates are of one client.
        """
        try:
            content = unpack(data)
            _has(content, {"version": int, "spec": dict, "state": bytes, "seed": int, "heads": list, "silent": list})
            if content["version"] != _VERSION:
                raise ValueError(f"expected version {_VERSION}, got {content['version']}")
            heads = tuple(_update(item) for item in content["heads"])
            clients = [head.client_id for head in heads]
            if clients != sorted(set(clients)):
                raise ValueError("expected one update per client, in the order of their ids")
            if not all(isinstance(client, str) for client in content["silent"]):
                raise ValueError("expected ids of silent clients")
            return cls(
                spec=SpecView.model_validate(content["spec"]).spec(),
                state=unpack(content["state"]),
                state_digest=hashlib.sha256(content["state"]).hexdigest(),
                seed=content["seed"],
                heads=heads,
                silent=tuple(content["silent"]),
                digest=hashlib.sha256(data).hexdigest(),
            )
        except (StateError, ValidationError, ValueError) as error:
            raise ProtocolError("malformed", f"the brief cannot be read: {error!s:.300}") from error


def pack_brief(request: JudgeRequest) -> bytes:
    """The brief of a request; the same bytes for the same request."""
    heads = [{name: _sent(getattr(head, name)) for name in _UPDATE} for head in request.heads]
    return pack(
        {
            "version": _VERSION,
            "spec": SpecView.of(request.spec).model_dump(mode="json"),
            "state": pack(request.state),
            "seed": request.seed,
            "heads": heads,
            "silent": list(request.silent),
        }
    )


def _sent(value: Any) -> Any:
    return dict(value) if isinstance(value, Mapping) else value


def _update(item: Any) -> Update:
    if not isinstance(item, dict):
        raise ValueError("expected a head to be a mapping")
    _has(item, _UPDATE)
    return Update(payload=b"", **item)


def _has(content: dict[str, Any], kinds: Mapping[str, Any]) -> None:
    if content.keys() != kinds.keys():
        raise ValueError(f"expected the fields {', '.join(kinds)}, got {', '.join(content)}")
    for name, kind in kinds.items():
        if not isinstance(content[name], kind) or isinstance(content[name], bool):
            raise ValueError(f"{name}: got a {type(content[name]).__name__}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Signed:
    """An answer, who signed it, and evidence of what signed it.

    Parameters
    ----------
    text : JudgementText
        What is signed.
    signature : bytes
        Of the key that the evidence vouches for.
    format : str
        Of the evidence.
    evidence : bytes
        It answers the nonce `JudgementText.nonce`: it is about this judgement, whenever it is looked at.
    answer : bytes
        See `pack_answer`.
    """

    FIELDS: ClassVar[Mapping[str, type]] = {
        "text": bytes, "signature": bytes, "format": str, "evidence": bytes, "answer": bytes,
    }  # fmt: skip

    text: JudgementText
    signature: bytes
    format: str
    evidence: bytes
    answer: bytes

    def to_bytes(self) -> bytes:
        """The answer as it is sent and kept."""
        return pack({"text": self.text.to_bytes()} | {key: getattr(self, key) for key in list(self.FIELDS)[1:]})

    @classmethod
    def parse(cls, data: bytes) -> Signed:
        """Read one; nothing in it is checked yet.

        Raises
        ------
        ProtocolError
            ``"malformed"``: it is none.
        """
        try:
            content = unpack(data)
            _has(content, cls.FIELDS)
        except (StateError, ValueError) as error:
            raise ProtocolError("malformed", f"the oracle's answer cannot be read: {error!s:.300}") from error
        return cls(**{**content, "text": JudgementText.parse(content["text"])})


def pack_answer(answer: JudgeAnswer) -> bytes:
    """An answer as bytes."""
    return pack(
        {
            "version": _VERSION,
            "state": pack(answer.state),
            "verdicts": [
                {
                    "client": one.client, "status": one.status.value, "weight": one.weight, "reason": one.reason,
                    "evidence": dict(one.evidence), "score": one.score,
                }
                for one in answer.verdicts
            ],
            "rejections": [[one.client_id, one.code, one.reason] for one in answer.rejections],
            "failure": answer.failure,
            "figures": dict(answer.figures),
            "receipts": dict(answer.receipts or {}),
        }
    )  # fmt: skip


def unpack_answer(data: bytes) -> tuple[JudgeAnswer, str]:
    """The answer, and the SHA-256 of the state after the round, packed.

    Raises
    ------
    ProtocolError
        ``"malformed"``: it is none. What the oracle was proved to be made it, so that is a bug or another version.
    """
    try:
        content = unpack(data)
        if content.get("version") != _VERSION:
            raise ValueError(f"expected version {_VERSION}")
        answer = JudgeAnswer(
            state=unpack(content["state"]),
            verdicts=tuple(MemberVerdict(**{**one, "status": Status(one["status"])}) for one in content["verdicts"]),
            rejections=tuple(Rejection(*one) for one in content["rejections"]),
            failure=content["failure"],
            figures=content["figures"],
            receipts=content["receipts"],
        )
    except (StateError, ValueError, TypeError, KeyError) as error:
        raise ProtocolError("malformed", f"the oracle's answer cannot be read: {error!s:.300}") from error
    return answer, hashlib.sha256(content["state"]).hexdigest()
