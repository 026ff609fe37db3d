"""When to ask again: full jitter, what the host says about it, and a budget.

The wait before retry k is drawn evenly from [0, min(cap, base 2^k)]
(https://aws.amazon.com/blogs/architecture/exponential-backoff-and-jitter/), after whatever ``Retry-After`` says. A
budget keeps retries below a fifth of all requests in the long run, so that a coordinator in trouble is not held down
by those who wait for it (Site Reliability Engineering, chapter 21).
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import TypeVar

from matl import validate
from matl.errors import ServiceError
from matl.protocol.problems import Code

__all__ = ["Retrying", "passing"]

T = TypeVar("T")
Sleep = Callable[[float], Awaitable[None]]

_PASSING = {Code.RATE.value, Code.BUSY.value}


def passing(error: ServiceError) -> bool:
    """Whether a refusal may be over in a while; all others stay what they are, however often one asks."""
    return error.code in _PASSING


class Retrying:
    """Repeats what may be repeated. All requests of the SDK may: none of them does more when it is done twice.

    Parameters
    ----------
    attempts : int
        Most attempts at one request.
    base, cap : float
        Seconds: the largest wait before the first retry, and before any.
    share : float
        What retries may be of all requests, in the long run.
    burst : int
        How many retries may come at once, before requests have earned any.
    longest : float
        Seconds: a host that asks to wait longer is told about instead of waited for.
    sleep, rng
        Of tests.

    Examples
    --------
    >>> async def flaky(answers=["no", "no", "yes"]):
    ...     if answers.pop(0) == "no":
    ...         raise ServiceError("busy", "come back later")
    ...     return "done"
    >>> async def at_once(seconds):
    ...     pass
    >>> asyncio.run(Retrying(sleep=at_once)(flaky))
    'done'
    """

    def __init__(
        self,
        *,
        attempts: int = 6,
        base: float = 0.25,
        cap: float = 20.0,
        share: float = 0.2,
        burst: int = 10,
        longest: float = 120.0,
        sleep: Sleep = asyncio.sleep,
        rng: random.Random | None = None,
    ) -> None:
        validate.whole(1, attempts=attempts, burst=burst)
        validate.positive(base=base, cap=cap, longest=longest)
        validate.fraction(share=share)
        self._attempts, self._base, self._cap, self._longest = attempts, base, cap, longest
        self._share, self._most, self._left = share, float(burst), float(burst)
        self._sleep, self._rng = sleep, rng or random.Random()  # noqa: S311 - jitter is no secret

    def wait(self, attempt: int, retry_after: float | None = None) -> float:
        """Seconds before the retry that follows attempt ``attempt`` (from 0)."""
        jitter = self._rng.uniform(0.0, min(self._cap, self._base * 2 ** min(attempt, 30)))
        return (retry_after or 0.0) + jitter

    async def pause(self, attempt: int, retry_after: float | None = None) -> None:
        """Wait that long."""
        await self._sleep(self.wait(attempt, retry_after))

    async def __call__(self, request: Callable[[], Awaitable[T]]) -> T:
        """The answer to a request.

        Raises
        ------
        ServiceError
            The last refusal, once it is not worth or not allowed to ask again.
        """
        self._left = min(self._most, self._left + self._share)
        for attempt in range(self._attempts):
            try:
                return await request()
            except ServiceError as error:
                last = attempt == self._attempts - 1
                if not passing(error) or last or self._left < 1 or (error.retry_after or 0.0) > self._longest:
                    raise
                self._left -= 1
                await self.pause(attempt, error.retry_after)
        raise AssertionError("unreachable")
