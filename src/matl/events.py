"""What hosts tell the outside: small records handed to whoever subscribed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

__all__ = ["Event", "EventSink", "fan_out", "ignore"]


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened in a run.

    Parameters
    ----------
    kind : str
        ``"round_committed"``, ``"client_quarantined"``, ``"client_released"``, ``"update_rejected"``, ...
    run : str
        The run it belongs to.
    round : int
        The round it belongs to, from 0.
    data : mapping
        Plain data; which keys depends on ``kind``.
    """

    kind: str
    run: str
    round: int
    data: Mapping[str, Any] = field(default_factory=dict)


class EventSink(Protocol):
    """Anything that can be called with an event.

    Hosts publish, observers subscribe; nothing in a round waits for, or depends on, what a sink does with an event.

    Examples
    --------
    >>> seen = []
    >>> sink: EventSink = seen.append
    >>> sink(Event("round_committed", run="demo", round=0))
    >>> seen[0].kind
    'round_committed'
    """

    def __call__(self, event: Event, /) -> None:
        """Take one event."""


def ignore(event: Event) -> None:
    """Drop every event."""


def fan_out(*sinks: EventSink) -> EventSink:
    """Several sinks as one.

    Examples
    --------
    >>> seen, counted = [], []
    >>> sink = fan_out(seen.append, lambda event: counted.append(1))
    >>> sink(Event("round_committed", run="demo", round=0))
    >>> len(seen), len(counted)
    (1, 1)
    """

    def sink(event: Event) -> None:
        for one in sinks:
            one(event)

    return sink
