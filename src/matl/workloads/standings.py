"""What a round says of its clients: what changed for them, in words, and how suspicious they are."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence

from matl.events import Event
from matl.records import Status

__all__ = ["changes", "suspicion"]

_SUMMARY = "strongest"  # evidence in which a judge sums up all others
_LARGEST = 1e6  # for which receipts have a spelling


def changes(
    run: str, number: int, said: Iterable[tuple[str, Status, str]], before: Mapping[str, str]
) -> Iterator[Event]:
    """Events of a round's verdicts: who was rejected, who went into quarantine, and who came out of it.

    Parameters
    ----------
    run, number : str, int
        The round.
    said : iterable of (str, Status, str)
        Of each client that took part, its status now and the reason.
    before : mapping of str to str
        The last status of each client, as far as it had one.

    Examples
    --------
    >>> said = [("ann", Status.QUARANTINED, "relabels 4 as 9"), ("bob", Status.ACCEPTED, "")]
    >>> [(event.kind, event.data["client"]) for event in changes("demo", 3, said, {"bob": "quarantined"})]
    [('client_quarantined', 'ann'), ('client_released', 'bob')]
    """
    for client, status, reason in said:
        held = before.get(client) == Status.QUARANTINED
        if status is Status.REJECTED:
            yield Event("update_rejected", run, number, {"client": client, "reason": reason})
        elif status is Status.QUARANTINED and not held:
            yield Event("client_quarantined", run, number, {"client": client, "reason": reason})
        elif status is not Status.QUARANTINED and held:
            yield Event("client_released", run, number, {"client": client})


def suspicion(evidence: Mapping[str, float], channels: Sequence[str]) -> float | None:
    """How suspicious a judge finds a client, larger is worse: what it sums up its evidence as, or the largest of it.

    Parameters
    ----------
    evidence : mapping of str to float
        Of the verdict.
    channels : sequence of str
        The judge's, `matl.records.Mode.channels`.

    Returns
    -------
    float or None
        At most 1e6; ``None`` where the judge has no opinion, or none that is a number.

    Examples
    --------
    >>> suspicion({"norm": 0.2, "direction": 0.7}, ("direction", "norm")), suspicion({}, ("norm",))
    (0.7, None)
    """
    named = [_SUMMARY] if _SUMMARY in evidence else channels
    found = [float(evidence[name]) for name in named if name in evidence]
    return max((min(value, _LARGEST) for value in found if math.isfinite(value)), default=None)
