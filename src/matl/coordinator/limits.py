"""How much a coordinator takes: of one sender in a while, of all at once, and of what it bears at most."""

from __future__ import annotations

import ipaddress
import math
import time
from collections import OrderedDict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields

from matl import validate
from matl.protocol.addresses import address_of
from matl.protocol.problems import Code, refusal

__all__ = ["InFlight", "Limits", "Rate", "RateLimiter", "neighbourhood"]

_SENDERS = 16_384
_SOONEST_TURN, _LONGEST_TURN = 1.0, 60.0  # seconds
_LATEST = 0.1  # how much the latest counts in a running mean


@dataclass(frozen=True, slots=True)
class Rate:
    """So many at once, and so many a second in the long run.

    Parameters
    ----------
    per_second : float
        > 0.
    burst : int
        At least 1.
    """

    per_second: float
    burst: int

    def __post_init__(self) -> None:
        validate.positive(per_second=self.per_second)
        validate.whole(1, burst=self.burst)


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """What a coordinator bears.

    Parameters
    ----------
    address : Rate
        Requests from one address that name nobody, or whose credentials are not good.
    sender : Rate
        Requests of one client or operator.
    refused : Rate
        Updates of one client that were its own and had to be refused, or came too slowly: they cost as much work, or
        as much room, as good ones.
    submissions, submission_bytes : int
        Updates, and bytes of them, that may be arriving at the same time. Of one in pieces a piece counts.
    submissions_of_client : int
        Those of one client, of a quarter of the bytes together; one alone may be larger.
    uploads : int
        Updates in pieces that a client may have begun and not finished.
    upload_seconds : float
        How long one may take, and how long one message is waited for, however fast it comes; see
        `matl.coordinator.incoming.in_time`.
    watchers, watchers_of_one : int
        Readers that may wait for rounds and events at the same time; and those of one client or operator.
    message : int
        Bytes of the largest payload of an update, whatever the model.
    validated : int
        Updates that are judged in one call without counting.
    """

    address: Rate = Rate(100, 1000)
    sender: Rate = Rate(50, 200)
    refused: Rate = Rate(0.2, 20)
    submissions: int = 64
    submission_bytes: int = 1 << 30
    submissions_of_client: int = 2
    uploads: int = 4
    upload_seconds: float = 3600.0
    watchers: int = 4096
    watchers_of_one: int = 64
    message: int = 1 << 30
    validated: int = 64

    def __post_init__(self) -> None:
        validate.positive(upload_seconds=self.upload_seconds)
        for one in fields(self):
            if one.type == "int":
                validate.whole(1, **{one.name: getattr(self, one.name)})


class RateLimiter:
    """A bucket of tokens for every sender: each thing that is let through takes one, and they come back with time.

    Many may send from one address. Of those who are refused each is told to come back when there is a token for it.

    Parameters
    ----------
    rate : Rate
        Size of a bucket, and how fast it fills.
    what : str
        What is counted, for the message.
    senders : int
        How many are remembered: the one not seen for longest is forgotten first, and then begins anew.

    Examples
    --------
    >>> limiter = RateLimiter(Rate(per_second=1, burst=2), "requests")
    >>> limiter.take("alice", now=0.0), limiter.take("alice", now=0.0)
    (None, None)
    >>> limiter.take("alice", now=0.5)
    Traceback (most recent call last):
        ...
    matl.errors.ServiceError: too many requests of alice: at most 2 at once and 1 a second; try again in 0.5 s
    """

    def __init__(self, rate: Rate, what: str, senders: int = _SENDERS) -> None:
        self._rate, self._what, self._senders = rate, what, senders
        # Tokens left, at this time; and the last turn that was given away.
        self._buckets: OrderedDict[str, tuple[float, float, float]] = OrderedDict()

    def check(self, sender: str, *, now: float) -> None:
        """Refuse if the bucket is empty, and take nothing out.

        Parameters
        ----------
        sender : str
            Whose bucket.
        now : float
            Seconds, by a clock that never runs backwards.

        Raises
        ------
        ServiceError
            ``"rate"``, with the time after which there is a token for whoever sent it.
        """
        left, turn = self._left(sender, now)
        if left < 1:
            each = 1 / self._rate.per_second
            turn = min(max(turn + each, now + (1 - left) * each), now + max(_LONGEST_TURN, each))
            wait = turn - now
            self._buckets[sender] = (left, now, turn)
            raise refusal(
                Code.RATE,
                f"too many {self._what} of {sender}: at most {self._rate.burst} at once and "
                f"{self._rate.per_second:g} a second; try again in {math.ceil(10 * wait) / 10:g} s",
                retry_after=wait,
            )

    def take(self, sender: str, *, now: float) -> None:
        """The same, and take one out."""
        self.check(sender, now=now)
        self.charge(sender, now=now)

    def charge(self, sender: str, *, now: float) -> None:
        """Take one out, even if there is none."""
        left, turn = self._left(sender, now)
        self._buckets[sender] = (max(left - 1, 0.0), now, turn)
        self._buckets.move_to_end(sender)
        if len(self._buckets) > self._senders:
            self._buckets.popitem(last=False)

    def _left(self, sender: str, now: float) -> tuple[float, float]:
        left, then, turn = self._buckets.get(sender, (float(self._rate.burst), now, -math.inf))
        return min(self._rate.burst, left + (now - then) * self._rate.per_second), turn


class InFlight:
    """Bounds how many things, and how many bytes of them, are being done at the same time.

    Who is refused is given a turn: told to come back when, as fast as things get done, it is likely to be let in. If
    all were told the same, all would come back together, and most of the work would be to refuse them again.

    Parameters
    ----------
    count, size : int
        The most. One thing alone is let in, whatever its size.
    what : str
        What they are, for the message.
    clock : callable
        Seconds that pass evenly.

    Examples
    --------
    >>> arriving = InFlight(8, 1000, "updates")
    >>> with arriving.admit(900), arriving.admit(900):
    ...     pass
    Traceback (most recent call last):
        ...
    matl.errors.ServiceError: 1 updates of 900 bytes are arriving, and no more than 8 of 1000 may; try again in 1 s
    """

    def __init__(self, count: int, size: int, what: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._most, self._largest, self._what, self._clock = count, size, what, clock
        self._took = 0.0  # seconds, of one; the latest count most
        self._turn = -math.inf  # the last that was given away
        self.count = self.size = 0

    @contextmanager
    def admit(self, size: int = 0) -> Iterator[None]:
        """Let one in for as long as the block lasts.

        Raises
        ------
        ServiceError
            ``"busy"``: there are too many.
        """
        if self.count and (self.count >= self._most or self.size + size > self._largest):
            wait = self._next_turn()
            raise refusal(
                Code.BUSY,
                f"{self.count} {self._what} of {self.size} bytes are arriving, and no more than {self._most} of "
                f"{self._largest} may; try again in {math.ceil(wait)} s",
                retry_after=wait,
            )
        self.count, self.size, began = self.count + 1, self.size + size, self._clock()
        try:
            yield
        finally:
            self.count, self.size = self.count - 1, self.size - size
            self._took += _LATEST * (self._clock() - began - self._took)

    def _next_turn(self) -> float:
        """Seconds until the turn of whoever is refused now."""
        now = self._clock()
        self._turn = min(max(self._turn, now) + self._took / self.count, now + _LONGEST_TURN)
        return max(_SOONEST_TURN, self._turn - now)


def neighbourhood(address: str) -> str:
    """What one sender has: an address of IPv4, or a network of 2^64 addresses of IPv6.

    Examples
    --------
    >>> neighbourhood("192.0.2.7"), neighbourhood("::ffff:192.0.2.7"), neighbourhood("2001:db8::7"), neighbourhood("x")
    ('192.0.2.7', '192.0.2.7', '2001:db8::/64', 'an unknown address')
    """
    found = address_of(address)
    if found is None:
        return "an unknown address"
    return str(found if found.version == 4 else ipaddress.ip_network((int(found) >> 64 << 64, 64)))
