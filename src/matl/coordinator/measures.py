"""What a coordinator counts and times of itself, for those who watch it."""

from __future__ import annotations

import functools
import time
from collections import Counter, deque
from collections.abc import Callable, Coroutine
from typing import Any, Concatenate, ParamSpec, Protocol, TypeVar

from matl.errors import ServiceError
from matl.protocol.problems import Code

__all__ = ["Measures", "measured"]

_LATEST = 1000  # times of an operation that quantiles are of


class Measures:
    """Counters, and how long operations took.

    Examples
    --------
    >>> measures = Measures()
    >>> for milliseconds in range(1, 101):
    ...     measures.observe("submit", milliseconds / 1000)
    >>> measures.latencies_ms["submit"]
    {'count': 100.0, 'p50': 51.0, 'p99': 100.0, 'max': 100.0}
    """

    def __init__(self) -> None:
        self.counters: Counter[str] = Counter()
        self._began = time.monotonic()
        self._times: dict[str, deque[float]] = {}
        self._counts: Counter[str] = Counter()
        self._longest: dict[str, float] = {}

    @property
    def uptime(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self._began

    def observe(self, operation: str, seconds: float) -> None:
        """Remember how long something took."""
        self._times.setdefault(operation, deque(maxlen=_LATEST)).append(seconds)
        self._counts[operation] += 1
        self._longest[operation] = max(seconds, self._longest.get(operation, 0.0))

    @property
    def latencies_ms(self) -> dict[str, dict[str, float]]:
        """By operation: how often, the longest, and quantiles of the last thousand times, in milliseconds."""
        told = {}
        for name, times in sorted(self._times.items()):
            ordered = sorted(times)
            told[name] = {
                "count": float(self._counts[name]),
                "p50": 1000 * ordered[len(ordered) // 2],
                "p99": 1000 * ordered[min(len(ordered) - 1, len(ordered) * 99 // 100)],
                "max": 1000 * self._longest[name],
            }
        return told


class _Measuring(Protocol):
    measures: Measures

    async def confirm(self) -> None:
        """Refuse if what is remembered holds no more."""


S = TypeVar("S", bound=_Measuring)
P = ParamSpec("P")
R = TypeVar("R")
_Method = Callable[Concatenate[S, P], Coroutine[Any, Any, R]]


def measured(method: _Method[S, P, R]) -> _Method[S, P, R]:
    """Count and time what a method does, by its name; what it refused is counted by code too.

    Who is told that a request is wrong does not ask again. So that is said only while what is remembered holds.
    """
    name: str = getattr(method, "__name__", "")

    @functools.wraps(method)
    async def run(self: S, /, *args: P.args, **kwargs: P.kwargs) -> R:
        began = time.monotonic()
        try:
            result = await method(self, *args, **kwargs)
        except ServiceError as error:
            self.measures.counters[f"{name}.{error.code}"] += 1
            if error.code != Code.BUSY:
                await self.confirm()
            raise
        self.measures.counters[f"{name}.ok"] += 1
        self.measures.observe(name, time.monotonic() - began)
        return result

    return run
