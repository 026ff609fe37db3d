"""What changed for clients from one round to the next, in words for those who watch."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from matl.events import Event
from matl.records import Status

__all__ = ["changes"]


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
