"""Who is invited to a round: some of the clients that may send, by lot."""

from __future__ import annotations

import hmac
import time
from collections.abc import Callable, Mapping

__all__ = ["Heard", "draw"]

_LATELY = 600.0  # seconds; a client that waits for a round asks several times a minute, one that trains may not


class Heard:
    """Which clients were heard of lately. It is of this process alone, and after a restart nobody was.

    Parameters
    ----------
    steady : callable
        Seconds that pass evenly.

    Examples
    --------
    >>> now = [0.0]
    >>> heard = Heard(lambda: now[0])
    >>> heard.note("ann")
    >>> now[0] = 599.0
    >>> heard.lately("ann"), heard.lately("bob")
    (True, False)
    >>> now[0] = 601.0
    >>> heard.lately("ann"), heard.lately("ann", deadline=600.0)
    (False, True)
    """

    def __init__(self, steady: Callable[[], float] = time.monotonic) -> None:
        self._steady = steady
        self._at: dict[str, float] = {}

    def note(self, client: str) -> None:
        """A client that is enrolled asked something."""
        self._at[client] = self._steady()

    def lately(self, client: str, deadline: float | None = None) -> bool:
        """Whether a client asked something within the last ten minutes, or within two rounds of ``deadline`` seconds.

        One that trains for a whole round asks nothing meanwhile, and is not to be passed over for being slow.
        """
        at = self._at.get(client)
        return at is not None and self._steady() - at <= max(_LATELY, 2 * (deadline or 0.0))


def draw(
    present: Mapping[str, bool], count: int | None, key: bytes, *, run: str, seed: int, number: int
) -> tuple[str, ...] | None:
    """The clients that are invited to a round; ``None`` for everybody, those too that come while it is open.

    Each client has a lot that follows from the run, its seed, the round and the host's key: whoever chooses its own
    name cannot choose one that is drawn often. Those that were heard of lately come before all others, so that a round
    does not wait for clients that left.

    Parameters
    ----------
    present : mapping of str to bool
        Clients that may send, and whether each was heard of lately.
    count : int or None
        How many are invited; ``None``, or as many as there are, for everybody.
    key : bytes
        Known to the host alone.
    run, seed, number : str, int, int
        Whose round it is, the seed of the run's settings, and which round.

    Examples
    --------
    >>> clients = dict.fromkeys(["ann", "bob", "cid", "dan"], True)
    >>> drawn = draw(clients, 2, b"secret", run="demo", seed=0, number=5)
    >>> drawn == draw(dict(reversed(clients.items())), 2, b"secret", run="demo", seed=0, number=5), len(drawn)
    (True, 2)
    >>> draw(clients, 4, b"secret", run="demo", seed=0, number=5)
    >>> draw({**clients, "ann": False, "bob": False}, 2, b"secret", run="demo", seed=0, number=5)
    ('cid', 'dan')
    """
    if count is None or len(present) <= count:
        return None
    lots = hmac.digest(key, f"{run}\n{seed}\n{number}".encode(), "sha256")

    def place(client: str) -> tuple[bool, bytes]:
        return not present[client], hmac.digest(lots, client.encode(), "sha256")

    return tuple(sorted(sorted(present, key=place)[:count]))
