"""Event logs: why a PCR holds what it holds.

The format is the crypto-agile one of the TCG PC Client Platform Firmware Profile Specification (little-endian): a
first record in the old layout, which names the digest algorithms, then one record per event::

    TCG_PCR_EVENT    pcr u32, type u32 = EV_NO_ACTION, digest 20 bytes, size u32, TCG_EfiSpecIDEvent
    TCG_PCR_EVENT2   pcr u32, type u32, count u32, count x (algorithm u16, digest), size u32, event

Replayed, an event turns the value v of its PCR into SHA-256(v || digest); what a PCR should hold follows.
"""

from __future__ import annotations

import hashlib
import struct
from collections.abc import Iterable
from dataclasses import dataclass

from matl.attest._reader import Reader, malformed
from matl.attest._tpm_structures import SHA256
from matl.errors import AttestationError

__all__ = ["EMPTY_PCR", "EVENT_TAG", "Event", "extended", "parse_log", "replay", "write_log"]

EVENT_TAG = 0x00000006
"""EV_EVENT_TAG: a tagged event of an operating system or an application."""

EMPTY_PCR = bytes(32)
"""What PCRs 0 to 15 hold after a reset, PCR 0 of some machines excepted."""

_NO_ACTION = 0x00000003  # told, not extended
_SIGNATURE = b"Spec ID Event03\0"
_DIGEST_BYTES = {0x0004: 20, SHA256: 32, 0x000C: 48, 0x000D: 64, 0x0012: 32}  # SHA-1, -256, -384, -512, SM3
_MOST_EVENTS = 8192
_LARGEST_EVENT = 1 << 17  # a Secure Boot database of revoked programs has some 30 kB


@dataclass(frozen=True, slots=True)
class Event:
    """One measured event.

    Parameters
    ----------
    pcr : int
        The PCR it was extended into.
    kind : int
        Its type, such as `EVENT_TAG`.
    digest : bytes
        The SHA-256 digest that was extended.
    data : bytes
        What the measurer says was measured; trustworthy as far as it is checked against the digest.
    """

    pcr: int
    kind: int
    digest: bytes
    data: bytes


def extended(value: bytes, digest: bytes) -> bytes:
    """What a PCR that holds ``value`` holds after an extension by ``digest``.

    Examples
    --------
    >>> extended(EMPTY_PCR, bytes(32)).hex()[:16]
    'f5a5fd42d16a2030'
    """
    return hashlib.sha256(value + digest).digest()


def replay(events: Iterable[Event]) -> bytes:
    """What a PCR holds after these events, all of that PCR."""
    value = EMPTY_PCR
    for event in events:
        if event.kind != _NO_ACTION:
            value = extended(value, event.digest)
    return value


def write_log(events: Iterable[Event]) -> bytes:
    """A log of events, with SHA-256 alone.

    Examples
    --------
    >>> event = Event(14, EVENT_TAG, bytes(32), b"what happened")
    >>> parse_log(write_log([event]), 1000) == (event,)
    True
    """
    header = _SIGNATURE + struct.pack("<IBBBBIHHB", 0, 0, 2, 0, 2, 1, SHA256, 32, 0)  # for PCs, 2.0, 64 bits, SHA-256
    records = [struct.pack("<II20sI", 0, _NO_ACTION, bytes(20), len(header)), header]
    for event in events:
        records.append(struct.pack("<IIIH32sI", event.pcr, event.kind, 1, SHA256, event.digest, len(event.data)))
        records.append(event.data)
    return b"".join(records)


def parse_log(data: bytes, limit: int) -> tuple[Event, ...]:
    """The events of a log of at most ``limit`` bytes.

    Raises
    ------
    AttestationError
        Code ``"format"``: it is no such log; ``"policy"``: it has no SHA-256 digests.
    """
    if len(data) > limit:
        raise malformed(f"event log: {len(data)} bytes, allowed are {limit}")
    reader = Reader(data, "event log", "little")
    sizes = _header(reader)
    events: list[Event] = []
    while reader.left:
        if len(events) == _MOST_EVENTS:
            raise malformed(f"event log: more than {_MOST_EVENTS} events")
        events.append(_event(reader, sizes))
    return tuple(events)


def _header(reader: Reader) -> dict[int, int]:
    """Bytes of a digest by algorithm, as the first record declares them."""
    pcr, kind = reader.number(4), reader.number(4)
    reader.take(20)
    header = Reader(reader.sized(1024, width=4), "the first record of the event log", "little")
    if (pcr, kind) != (0, _NO_ACTION) or header.take(16) != _SIGNATURE:
        raise malformed("event log: expected a crypto-agile log, which begins with 'Spec ID Event03'")
    header.take(4 + 4)  # platform class, version of the specification, size of a native integer
    count = header.number(4)
    if not 1 <= count <= len(_DIGEST_BYTES):
        raise malformed(f"event log: expected 1 to {len(_DIGEST_BYTES)} digest algorithms, got {count}")
    sizes = {header.number(2): header.number(2) for _ in range(count)}
    header.sized(255, width=1)  # the vendor's
    header.end()
    if wrong := {algorithm: size for algorithm, size in sizes.items() if _DIGEST_BYTES.get(algorithm) != size}:
        raise malformed(f"event log: unknown algorithms, or digests of a wrong size: {wrong}")
    if SHA256 not in sizes:
        raise AttestationError(
            "policy", f"expected an event log with SHA-256 digests, got algorithms {[f'{a:#06x}' for a in sizes]}"
        )
    return sizes


def _event(reader: Reader, sizes: dict[int, int]) -> Event:
    pcr, kind, count = reader.number(4), reader.number(4), reader.number(4)
    if count != len(sizes):
        raise malformed(f"event log: expected {len(sizes)} digests of an event, got {count}")
    digests: dict[int, bytes] = {}
    for _ in range(count):
        algorithm = reader.number(2)
        if algorithm not in sizes or algorithm in digests:
            raise malformed(f"event log: algorithm {algorithm:#06x} was not declared, or stands there twice")
        digests[algorithm] = reader.take(sizes[algorithm])
    return Event(pcr, kind, digests[SHA256], reader.sized(_LARGEST_EVENT, width=4))
