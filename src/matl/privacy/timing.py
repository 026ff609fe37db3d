"""How long private encoding takes: quantiles of many durations in little room, told as events.

A `Stopwatch` is handed to a `matl.privacy.encoder.Encoder`. Without one nothing is measured, and no clock is read.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any

from matl import validate
from matl.errors import InvalidValueError
from matl.events import Event, EventSink

__all__ = ["BLOCK_WORDS", "Histogram", "Stopwatch", "clock_step", "timed"]

BLOCK_WORDS = 4096
"""Words of noise that are timed together, as many as a block of the sketch has rows."""

_ERROR = 0.01
_GROWTH = (1 + _ERROR) / (1 - _ERROR)
_SCALE = 1 / math.log(_GROWTH)
_BUCKETS = 2 + math.ceil(40 * math.log(2) * _SCALE)  # one for 0, and from 1 ns to 2^40 ns, which is 18 minutes
_SHOWN = {"p50": 0.5, "p99": 0.99, "p999": 0.999}
_BEYOND = 100  # durations longer than a quantile, of which fewer would make it one of a few accidents
_STEPS, _PATIENCE = 16, 10**8  # of a clock that are looked at, and for how many nanoseconds


@dataclass(slots=True)
class Histogram:
    """Durations in whole nanoseconds, counted in 1389 buckets, each 2 % wider than the one before.

    Attributes
    ----------
    counts : list of int
        Bucket 0 holds durations of 0; bucket i those above g^(i - 2) and up to g^(i - 1), where g = 1.01 / 0.99; the
        last one all that are longer, too.
    total, largest : int
        Of all durations, exact.

    Notes
    -----
    A quantile is that of a rank, and within 1 % of the duration that has it. Histograms add up to the histogram of all
    durations together, in any order and wherever they were counted.

    References
    ----------
    Masson, Rim, Lee, "DDSketch: A Fast and Fully-Mergeable Quantile Sketch with Relative-Error Guarantees", PVLDB
    12(12), 2019.

    Examples
    --------
    >>> first, second = Histogram(), Histogram()
    >>> for duration in range(5_000):
    ...     first.add(duration)
    ...     second.add(5_000 + duration)
    >>> {name: round(value) for name, value in (first + second).quantiles().items()}
    {'p50': 4965, 'p99': 9801}
    """

    counts: list[int] = field(default_factory=lambda: [0] * _BUCKETS)
    total: int = 0
    largest: int = 0

    def __len__(self) -> int:
        return sum(self.counts)

    def __add__(self, other: Histogram) -> Histogram:
        """All durations of both."""
        counts = [mine + theirs for mine, theirs in zip(self.counts, other.counts, strict=True)]
        return Histogram(counts, self.total + other.total, max(self.largest, other.largest))

    def add(self, duration: int) -> None:
        """Count a duration >= 0."""
        bucket = math.ceil(math.log(duration) * _SCALE) + 1 if duration else 0
        self.counts[min(bucket, _BUCKETS - 1)] += 1
        self.total += duration
        self.largest = max(self.largest, duration)

    def quantile(self, q: float) -> float:
        """The duration of rank ``floor(q (n - 1))`` of n, from 0, within 1 %; NaN if there is none."""
        validate.fraction(q=q)
        rank, seen = math.floor(q * (len(self) - 1)), 0
        for bucket, count in enumerate(self.counts):
            seen += count
            if seen > rank and seen:
                if bucket == _BUCKETS - 1:
                    return float(self.largest)
                return min(2 * _GROWTH ** (bucket - 1) / (_GROWTH + 1), float(self.largest)) if bucket else 0.0
        return math.nan

    def quantiles(self) -> dict[str, float]:
        """Those of p50, p99 and p999 that at least a hundred durations lie beyond."""
        n = len(self)
        return {name: self.quantile(q) for name, q in _SHOWN.items() if (1 - q) * n >= _BEYOND}

    def as_dict(self) -> dict[str, Any]:
        """Plain data: what can be said, and the buckets in use, for whoever adds them up."""
        return {
            "count": len(self),
            "sum_ns": self.total,
            "largest_ns": self.largest,
            "quantiles_ns": self.quantiles(),
            "buckets": {str(bucket): count for bucket, count in enumerate(self.counts) if count},
        }

    @classmethod
    def of_dict(cls, data: Mapping[str, Any]) -> Histogram:
        """Read what `as_dict` gave.

        Raises
        ------
        InvalidValueError
            It is something else.
        """
        found = cls()
        try:
            for bucket, count in data["buckets"].items():
                validate.whole(1, count=count)
                validate.whole(0, bucket=int(bucket))
                found.counts[int(bucket)] = count
            validate.whole(0, sum_ns=data["sum_ns"], largest_ns=data["largest_ns"])
        except (KeyError, TypeError, AttributeError, ValueError, IndexError) as error:
            raise InvalidValueError(f"this is no histogram of durations: {error!r}") from error
        found.total, found.largest = data["sum_ns"], data["largest_ns"]
        return found


class _Span:
    """Times what is done within it, once at a time."""

    __slots__ = ("_began", "cpu", "wall")

    def __init__(self) -> None:
        self.wall, self.cpu = Histogram(), Histogram()

    def added(self, other: _Span) -> _Span:
        """Itself, with what another has timed."""
        self.wall, self.cpu = self.wall + other.wall, self.cpu + other.cpu
        return self

    def shown(self) -> dict[str, Any]:
        """How many durations, and the quantiles of all that can be asked for."""
        clocks = {"wall_ns": self.wall, "cpu_ns": self.cpu}
        asked = _SHOWN if len(self.wall) else {}
        shown = {clock: {name: found.quantile(q) for name, q in asked.items()} for clock, found in clocks.items()}
        return {"count": len(self.wall), **shown}

    def __enter__(self) -> None:
        # The clock of the thread is read by a call of the system, which the wall clock must not see.
        self._began = time.thread_time_ns(), time.perf_counter_ns()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        wall, cpu = time.perf_counter_ns(), time.thread_time_ns()
        if kind is None:
            self.wall.add(wall - self._began[1])
            self.cpu.add(cpu - self._began[0])


class Stopwatch:
    """Times the parts of private encoding in one thread, by the wall and by the CPU time of the thread.

    Parameters
    ----------
    sink : EventSink
        Who is told.
    run : str
        Of the events.

    Notes
    -----
    Spans are ``"encode"``, a whole call of `Encoder.encode`, and ``"noise"``, one block of `BLOCK_WORDS` words in it,
    the next one every time, or all of fewer words: randomness, rounding and noise. `publish` tells an event
    ``"latency"`` of each, with ``span``, and for ``wall`` and ``cpu`` what `Histogram.as_dict` says of the durations
    since the last event, and ``step_ns``. Durations below a step are no more than chance; their mean is still right.
    ``so_far`` has the ``count`` of all since the stopwatch was made, and their p50, p99 and p999 in ``wall_ns`` and
    ``cpu_ns``: of few durations the last two are one of the longest, which the count shows.

    **Cost.** A few microseconds a span. Time that a reading takes is in what it ends: some hundred nanoseconds by the
    wall, and by the CPU, whose clock is a call of the system, up to a thousand. What is sent does not change.

    Examples
    --------
    >>> told = []
    >>> stopwatch = Stopwatch(told.append, run="demo")
    >>> for _ in range(1000):
    ...     with stopwatch.span("noise"):
    ...         pass
    >>> stopwatch.publish(round=3)
    >>> told[0].kind, told[0].round, told[0].data["span"], told[0].data["wall"]["count"]
    ('latency', 3, 'noise', 1000)
    >>> told[0].data["so_far"]["count"], sorted(told[0].data["so_far"]["wall_ns"])
    (1000, ['p50', 'p99', 'p999'])
    """

    def __init__(self, sink: EventSink, run: str = "") -> None:
        self._sink, self._run = sink, run
        self._spans: dict[str, _Span] = {}
        self._so_far: dict[str, _Span] = {}
        self._blocks = 0

    def span(self, name: str) -> AbstractContextManager[None]:
        """Time what is done within, unless it raises. Spans of different names may overlap."""
        if name not in self._spans:
            self._spans[name] = _Span()
        return self._spans[name]

    def block(self, words: int) -> int:
        """Where in so many words the block begins that is to be timed; fewer than make one are timed together."""
        self._blocks += 1
        return self._blocks % max(1, words // BLOCK_WORDS) * BLOCK_WORDS

    def publish(self, round: int) -> None:  # noqa: A002 - the field's word
        """Tell what was timed since the last time, and begin anew."""
        spans, self._spans = self._spans, {}
        steps = {"wall": clock_step(time.perf_counter_ns), "cpu": clock_step(time.thread_time_ns)}
        for name, span in spans.items():
            clocks = {"wall": span.wall, "cpu": span.cpu}
            told = {clock: found.as_dict() | {"step_ns": steps[clock]} for clock, found in clocks.items()}
            so_far = self._so_far.setdefault(name, _Span()).added(span)
            self._sink(Event("latency", self._run, round, {"span": name, **told, "so_far": so_far.shown()}))


def timed(stopwatch: Stopwatch | None, name: str) -> AbstractContextManager[None]:
    """A span, or nothing."""
    return _NOTHING if stopwatch is None else stopwatch.span(name)


_NOTHING = nullcontext()


def clock_step(clock: Callable[[], int]) -> int:
    """The least that a clock of nanoseconds was seen to move on by; 0 if it did not in a tenth of a second.

    It is a tick of the clock, or the time that reading it takes, and either way nothing shorter can be told from it.
    """
    steps: list[int] = []
    began = time.perf_counter_ns()
    while len(steps) < _STEPS and time.perf_counter_ns() - began < _PATIENCE:
        first, second = clock(), clock()
        if second > first:
            steps.append(second - first)
    return min(steps, default=0)
