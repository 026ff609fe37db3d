"""An update on its way: a head that says what comes, and the payload behind it.

A *message* is the length of the head (four bytes, big endian), the head (JSON) and the payload. It is the same behind
every door. A host reads the head, checks who signed it, and lets the payload follow only then.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from matl.errors import ProtocolError
from matl.records import Update

__all__ = ["LARGEST_HEAD", "LENGTH", "Head", "frame", "read_head", "split"]

LENGTH = 4
"""Bytes that hold the length of the head."""
LARGEST_HEAD = 16384
"""Bytes of the longest head; ours have less than 1200, evidence apart."""
_DEEPEST = 4


class Head(BaseModel):
    """What a client says about an update, see `matl.records.Update`."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)

    client_id: Annotated[str, Field(min_length=1, max_length=128)]
    run: Annotated[str, Field(min_length=1, max_length=128)]
    round: Annotated[int, Field(ge=0, lt=2**53)]
    base_version: Annotated[int, Field(ge=0, lt=2**53)]
    model_hash: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    kind: Annotated[str, Field(max_length=32)] = "delta"
    payload_bytes: Annotated[int, Field(ge=1, lt=2**53)]
    payload_sha256: Annotated[str, Field(pattern="^[0-9a-f]{64}$")]
    num_examples: Annotated[int, Field(ge=1, lt=2**53)] | None = None
    nonce: Annotated[str, Field(pattern="^[0-9a-f]{32}$")]
    created_at: Annotated[float, Field(ge=0, lt=2**53 / 1000)]
    evidence: dict[str, Any] = Field(default_factory=dict)
    signature: Annotated[str, Field(max_length=512)] = ""

    @classmethod
    def of(cls, update: Update) -> Head:
        """The head of an update whose payload is bytes."""
        if not isinstance(update.payload, bytes):
            raise ProtocolError("malformed", "expected a payload of bytes; encode the arrays first")
        return cls(
            client_id=update.client_id,
            run=update.run,
            round=update.round,
            base_version=update.base_version,
            model_hash=update.model_hash,
            kind=update.kind,
            payload_bytes=len(update.payload),
            payload_sha256=update.payload_sha256 or "",
            num_examples=update.num_examples,
            nonce=update.nonce,
            created_at=update.created_at,
            evidence=dict(update.evidence),
            signature=base64.b64encode(update.signature).decode(),
        )

    def update(self, payload: bytes = b"", *, received_at: float = 0.0) -> Update:
        """The update, with this payload.

        Raises
        ------
        ProtocolError
            ``"malformed"``: the signature is not base64.
        """
        try:
            signature = base64.b64decode(self.signature, validate=True)
        except (binascii.Error, ValueError) as error:
            raise ProtocolError("malformed", "the signature is not base64 (RFC 4648, section 4)") from error
        return Update(
            client_id=self.client_id,
            run=self.run,
            round=self.round,
            base_version=self.base_version,
            model_hash=self.model_hash,
            payload=payload,
            payload_sha256=self.payload_sha256,
            num_examples=self.num_examples,
            kind=self.kind,
            nonce=self.nonce,
            created_at=self.created_at,
            received_at=received_at,
            signature=signature,
            evidence=self.evidence,
        )

    def to_bytes(self) -> bytes:
        """The head as it is sent."""
        return json.dumps(self.model_dump(mode="json"), separators=(",", ":")).encode()


def frame(update: Update) -> bytes:
    """The message of an update.

    Examples
    --------
    >>> update = Update(
    ...     client_id="alice", run="demo", round=3, base_version=3, model_hash="ab" * 32, payload=b"...",
    ...     payload_sha256="ef" * 32, nonce="01" * 16,
    ... )  # fmt: skip
    >>> head, payload = split(frame(update))
    >>> head.client_id, payload
    ('alice', b'...')

    Raises
    ------
    ProtocolError
        ``"malformed"``: the payload is no bytes; ``"size"``: the head is too long.
    """
    if not isinstance(update.payload, bytes):
        raise ProtocolError("malformed", "expected a payload of bytes; encode the arrays first")
    head = Head.of(update).to_bytes()
    if len(head) > LARGEST_HEAD:
        raise ProtocolError("size", f"expected a head of at most {LARGEST_HEAD} bytes, got {len(head)}: less evidence")
    return len(head).to_bytes(LENGTH, "big") + head + update.payload


def split(message: bytes) -> tuple[Head, bytes]:
    """Head and payload of a message.

    Raises
    ------
    ProtocolError
        ``"size"`` or ``"malformed"``.
    """
    length = int.from_bytes(message[:LENGTH], "big")
    if not 0 < length <= LARGEST_HEAD:
        raise ProtocolError("size", f"expected a head of 1 to {LARGEST_HEAD} bytes, the message says {length}")
    head = read_head(message[LENGTH : LENGTH + length])
    payload = message[LENGTH + length :]
    if len(payload) != head.payload_bytes:
        raise ProtocolError("malformed", f"the head says {head.payload_bytes} bytes of payload, got {len(payload)}")
    return head, payload


def read_head(data: bytes) -> Head:
    """Read a head.

    Raises
    ------
    ProtocolError
        ``"size"`` or ``"malformed"``, naming the first field that is wrong.
    """
    if len(data) > LARGEST_HEAD:
        raise ProtocolError("size", f"expected a head of at most {LARGEST_HEAD} bytes, got {len(data)}")
    try:
        content = json.loads(data, object_pairs_hook=_unique)
        if not _shallow(content, _DEEPEST):
            raise ValueError(f"nested deeper than {_DEEPEST}")
        return Head.model_validate(content)
    except ValidationError as error:
        first = error.errors(include_url=False, include_input=False)[0]
        where = ".".join(str(part) for part in first["loc"]) or "the head"
        raise ProtocolError("malformed", f"{where}: {first['msg']}") from error
    except (ValueError, RecursionError) as error:
        raise ProtocolError("malformed", f"the head is not JSON that can be read: {error!s:.200}") from error


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) != len(pairs):
        raise ValueError("a name stands twice")
    return dict(pairs)


def _shallow(value: Any, depth: int) -> bool:
    if isinstance(value, Mapping):
        return depth > 0 and all(_shallow(item, depth - 1) for item in value.values())
    if isinstance(value, list):
        return depth > 0 and all(_shallow(item, depth - 1) for item in value)
    return True
