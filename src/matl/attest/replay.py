"""Freshness and replay: a signed text counts once, whatever the clock does."""

from __future__ import annotations

import threading
from typing import Any

from matl import validate
from matl.errors import StateError

__all__ = ["ReplayCache"]

_VERSION = 1


class ReplayCache:
    """Remembers which nonces of which client were used, as long as their texts would pass for fresh.

    A text is fresh if it was created at most ``max_age_ms`` ago and at most ``max_ahead_ms`` from now by the host's
    clock. Only texts whose signature was verified are remembered, so that nobody but a client can fill its own part.

    Parameters
    ----------
    max_age_ms : int
        How long a text is fresh; sending the payload has to fit in.
    max_ahead_ms : int
        How far a client's clock may be ahead.
    per_client : int
        Most nonces that are remembered of a client. One that sends more within the window makes the older of its own
        texts count as expired, and nobody else's.

    Notes
    -----
    Guarantee: no (client, nonce, time of creation) is admitted twice, for any sequence of calls and times, those of a
    clock that jumps or runs backwards included, and across `state` and `restore`. Proof: a nonce that was admitted is
    either remembered, and refused as a replay, or was forgotten. Whenever one is forgotten the client's *floor* is
    raised to at least its time of creation; a floor never falls; what was created at or below the floor is refused.

    The floor is raised to times of creation alone and not to the clock, so that a clock that was a year ahead for a
    moment does not leave a year in which nobody may send. Memory is ``per_client`` nonces for every client that ever
    sent, and only those who are enrolled do.

    A host that keeps the state elsewhere has to write it together with what it accepts: an update whose nonce was lost
    in a crash was not acknowledged, and its retry has to pass. One transaction writes the (client, nonce, created) that
    was admitted, writes the client's `floor`, and deletes what was created at or below it.

    Examples
    --------
    >>> cache = ReplayCache(max_age_ms=1000)
    >>> cache.admit("alice", "n1", 5000, now=5100), cache.admit("alice", "n1", 5000, now=5200)
    ('', 'replay')
    >>> cache.admit("alice", "n0", 4000, now=5200), cache.admit("bob", "n1", 90_000, now=5200)
    ('expired', 'future')
    """

    def __init__(self, *, max_age_ms: int = 600_000, max_ahead_ms: int = 60_000, per_client: int = 256) -> None:
        validate.whole(1, max_age_ms=max_age_ms, per_client=per_client)
        validate.whole(0, max_ahead_ms=max_ahead_ms)
        self.max_age_ms, self.max_ahead_ms, self.per_client = max_age_ms, max_ahead_ms, per_client
        self._seen: dict[str, dict[str, int]] = {}
        self._floors: dict[str, int] = {}
        self._lock = threading.Lock()

    def refusal(self, client: str, nonce: str, created: int, *, now: int) -> str:
        """Why a text would not be admitted: ``"expired"``, ``"future"``, ``"replay"``, or nothing; it changes nothing.

        Parameters
        ----------
        client, nonce : str
            Of the text.
        created : int
            When the text says that it was made, Unix milliseconds.
        now : int
            The host's clock.
        """
        if nonce in self._seen.get(client, ()):
            return "replay"
        if created < now - self.max_age_ms or created <= self.floor(client):
            return "expired"
        return "future" if created > now + self.max_ahead_ms else ""

    def admit(self, client: str, nonce: str, created: int, *, now: int) -> str:
        """The same, and from now on the nonce counts as used if there was no reason; in one step for all threads."""
        with self._lock:
            reason = self.refusal(client, nonce, created, now=now)
            if not reason:
                seen = self._seen.setdefault(client, {})
                seen[nonce] = created
                self._forget(client, seen, now)
            return reason

    def floor(self, client: str) -> int:
        """What a client created then or before is refused, remembered or not; -1 if there is no such time."""
        return self._floors.get(client, -1)

    def state(self) -> dict[str, Any]:
        """All that is remembered, as plain data."""
        with self._lock:
            seen = {client: dict(nonces) for client, nonces in self._seen.items()}
            return {"version": _VERSION, "seen": seen, "floors": dict(self._floors)}

    def restore(self, state: dict[str, Any]) -> None:
        """Take over what another cache remembered, beside what this one does.

        Raises
        ------
        StateError
            It is not what `state` returns.
        """
        try:
            if state["version"] != _VERSION:
                raise ValueError(f"version {state['version']}, this library reads {_VERSION}")
            seen = {str(client): _times(nonces) for client, nonces in state["seen"].items()}
            floors = _times(state["floors"])
        except (KeyError, TypeError, ValueError, OverflowError, AttributeError) as error:
            raise StateError(f"the replay cache cannot be read: {error!r}") from error
        with self._lock:
            for client, nonces in seen.items():
                self._seen.setdefault(client, {}).update(nonces)
            for client, floor in floors.items():
                self._floors[client] = max(floor, self.floor(client))

    def _forget(self, client: str, seen: dict[str, int], now: int) -> None:
        """Drop what is not fresh any more, and the oldest where there are too many."""
        by_age = sorted(seen, key=seen.__getitem__)
        surplus = len(by_age) - self.per_client
        for rank, nonce in enumerate(by_age):
            if rank >= surplus and seen[nonce] >= now - self.max_age_ms:
                break
            self._floors[client] = max(seen.pop(nonce), self.floor(client))


def _times(values: dict[str, Any]) -> dict[str, int]:
    return {str(key): int(value) for key, value in values.items()}
