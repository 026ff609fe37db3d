"""Receipts: what a judge decided about an update, signed, so that it can be shown to others and checked offline."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, ClassVar

from matl.attest.canonical import COUNT, DIGEST, IDENTIFIER, CanonicalText, Grammar, line
from matl.attest.keys import PublicKey, SigningKey
from matl.errors import InvalidValueError, ProtocolError
from matl.records import Status

__all__ = ["LARGEST_RECEIPT", "Receipt", "sign_receipt", "verify_receipt"]

LARGEST_RECEIPT = 8192
"""Bytes of the longest receipt file that is read; ours have less than 1500."""

_PLACES = 9  # after the point; with six before it a float64 still holds the number exactly enough to read it back
_DECIMAL = Grammar(
    words=f"a number from -1000000 to 1000000 with {_PLACES} places",
    pattern=rf"-?(0|[1-9][0-9]{{0,6}})\.[0-9]{{{_PLACES}}}",
    longest=18,
    kind=float,
    encode=f"{{:z.{_PLACES}f}}".format,  # z: a zero has no sign
    decode=float,
)
_STATUS = Grammar(words=f"one of {', '.join(Status)}", pattern="[a-z]+", longest=16, kind=Status, decode=Status)
_FLAG = Grammar(
    words="true or false",
    pattern="true|false",
    longest=5,
    kind=bool,
    encode=lambda value: "true" if value else "false",
    decode=lambda text: text == "true",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Receipt(CanonicalText):
    """What was decided about one update.

    Parameters
    ----------
    run, round, client_id
        Of the update.
    model_hash : str
        SHA-256 of the parameters it started from.
    update_hash : str
        SHA-256 of the payload, or `matl.params.values_hash` of an update that never was bytes.
    status : Status
        The verdict.
    score : float or None
        The validator's, rounded to nine places; ``None`` where there was none.
    weight : float
        Share of its own weight with which it counted, in [0, 1], rounded to nine places.
    policy_hash : str
        Digest of what the judge was built from, `matl.records.Mode.digest`.
    hardware_root : bool
        Whether the signer runs in attested hardware, by its own word: evidence that holds the signer's key proves it.
    signer : str
        Fingerprint of the key that signs.
    timestamp_unix_ms : int
        The signer's clock.

    Examples
    --------
    >>> key = SigningKey.generate()
    >>> receipt = Receipt(
    ...     run="demo", round=3, client_id="alice", model_hash="ab" * 32, update_hash="cd" * 32, status=Status.ACCEPTED,
    ...     score=0.25, weight=1.0, policy_hash="ef" * 32, hardware_root=False, signer=key.public.fingerprint,
    ...     timestamp_unix_ms=1700000000000,
    ... )  # fmt: skip
    >>> verify_receipt(sign_receipt(receipt, key), [key.public]) == receipt
    True
    """

    DOMAIN: ClassVar[str] = "matl-receipt/1"

    run: str = line(IDENTIFIER)
    round: int = line(COUNT)
    client_id: str = line(IDENTIFIER)
    model_hash: str = line(DIGEST)
    update_hash: str = line(DIGEST)
    status: Status = line(_STATUS)  # noqa: RUF009 - a field, not a shared value
    score: float | None = line(replace(_DECIMAL, optional=True))
    weight: float = line(_DECIMAL)
    policy_hash: str = line(DIGEST)
    hardware_root: bool = line(_FLAG)
    signer: str = line(DIGEST)
    timestamp_unix_ms: int = line(COUNT)

    def __post_init__(self) -> None:
        for name in ("score", "weight"):
            value = getattr(self, name)
            if isinstance(value, int | float):
                # Rounded by way of the spelling, so that value and spelling always agree.
                object.__setattr__(self, name, float(_DECIMAL.encode(value)))
        CanonicalText.__post_init__(self)
        if not 0 <= self.weight <= 1:
            raise ProtocolError("malformed", f"weight: expected a number from 0 to 1, got {self.weight}")


def sign_receipt(receipt: Receipt, key: SigningKey) -> bytes:
    """The file of a receipt: JSON of its text and the signature on it.

    Raises
    ------
    InvalidValueError
        The receipt names another key as its signer.
    """
    if receipt.signer != key.public.fingerprint:
        raise InvalidValueError(
            f"expected signer={key.public.fingerprint}, the key's fingerprint, got {receipt.signer}"
        )
    text = receipt.to_bytes()
    content = {"receipt": text.decode(), "signature": base64.b64encode(key.sign(text)).decode()}
    return json.dumps(content, indent=1).encode() + b"\n"


def verify_receipt(document: bytes, trusted: Iterable[PublicKey]) -> Receipt:
    """Read a receipt file and check who signed it.

    Parameters
    ----------
    document : bytes
        The file.
    trusted : iterable of PublicKey
        Whose receipts are believed. The fingerprint in a receipt says which of them it is, and no more.

    Raises
    ------
    ProtocolError
        With the reason as ``code``: ``"size"``, ``"malformed"``, ``"signer"`` (none of the trusted) or ``"signature"``.
    """
    text, signature = _content(document)
    receipt = Receipt.parse(text)
    key = next((key for key in trusted if key.fingerprint == receipt.signer), None)
    if key is None:
        raise ProtocolError("signer", f"the receipt is signed by {receipt.signer}, which is none of the trusted keys")
    if not key.verify(signature, text):
        raise ProtocolError("signature", "the receipt was changed or forged: the signature does not belong to it")
    return receipt


def _content(document: bytes) -> tuple[bytes, bytes]:
    """Text and signature of a file."""
    if len(document) > LARGEST_RECEIPT:
        raise ProtocolError("size", f"a receipt has at most {LARGEST_RECEIPT} bytes, got {len(document)}")
    try:
        content = json.loads(document, object_pairs_hook=_unique)
        if not isinstance(content, dict) or content.keys() != {"receipt", "signature"}:
            raise ValueError("expected an object of 'receipt' and 'signature'")
        text, signature = content["receipt"].encode(), base64.b64decode(content["signature"], validate=True)
    except (ValueError, TypeError, AttributeError, RecursionError) as error:
        raise ProtocolError("malformed", f"the receipt cannot be read: {error!s:.200}") from error
    return text, signature


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    if len(dict(pairs)) != len(pairs):
        raise ValueError("a name stands twice")
    return dict(pairs)
