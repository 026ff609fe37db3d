"""What operators decided about clients, beside what judges do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from matl.errors import StateError

__all__ = ["Hold", "Overrides"]

_VERSION = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class Hold:
    """A client that an operator put into quarantine.

    Parameters
    ----------
    client : str
        Who.
    run : str or None
        In which run; ``None`` for all of them.
    reason : str
        Why, in the operator's words.
    actor : str
        Who decided it.
    at : int
        When, Unix milliseconds.
    """

    client: str
    run: str | None
    reason: str
    actor: str
    at: int


@dataclass(frozen=True, slots=True)
class Overrides:
    """All holds. Its methods return what follows and change nothing; the host keeps its `state`.

    Examples
    --------
    >>> held = Overrides().hold(Hold(client="mallory", run=None, reason="key stolen", actor="carol", at=0))
    >>> held.of("mallory", "demo").reason, held.of("alice", "demo"), held.of("mallory")
    ('key stolen', None, Hold(client='mallory', run=None, reason='key stolen', actor='carol', at=0))
    >>> held.release("mallory", None) == Overrides()
    True
    """

    holds: tuple[Hold, ...] = ()

    def of(self, client: str, run: str | None = None) -> Hold | None:
        """The hold on a client in a run, or any at all if no run is named."""
        theirs = (one for one in self.holds if one.client == client)
        return next((one for one in theirs if run is None or one.run in (None, run)), None)

    def exactly(self, client: str, run: str | None) -> Hold | None:
        """The hold on a client for this run alone, or for all of them."""
        return next((one for one in self.holds if (one.client, one.run) == (client, run)), None)

    def hold(self, hold: Hold) -> Overrides:
        """With one more, or one in another's place."""
        return Overrides((*self.release(hold.client, hold.run).holds, hold))

    def release(self, client: str, run: str | None) -> Overrides:
        """Without the hold on a client for this run alone, or for all of them."""
        return Overrides(tuple(one for one in self.holds if (one.client, one.run) != (client, run)))

    def state(self) -> dict[str, Any]:
        """All of it as plain data."""
        return {"version": _VERSION, "holds": [asdict(one) for one in self.holds]}

    @classmethod
    def of_state(cls, state: Mapping[str, Any]) -> Overrides:
        """What `state` returned.

        Raises
        ------
        StateError
            It cannot be read.
        """
        try:
            if state["version"] != _VERSION:
                raise ValueError(f"version {state['version']}, this library reads {_VERSION}")
            return cls(tuple(Hold(**row) for row in state["holds"]))
        except (KeyError, TypeError, ValueError) as error:
            raise StateError(f"the operators' decisions cannot be read: {error!r}") from error
