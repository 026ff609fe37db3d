"""How long a client waits for its noise and for its whole private encoding: quantiles by the wall and by CPU time.

::

    python benchmarks/noise_latency.py            # writes benchmarks/results/noise_latency.{json,md}; some minutes
    python benchmarks/noise_latency.py --quick    # a fiftieth of the samples, and few quantiles

Durations come as a host's metrics would get them: from events, whose histograms are added up. A quantile is shown only
if a hundred durations or more were longer.
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
from common import markdown, write

from matl.codec import BlockLayout
from matl.events import Event
from matl.privacy import _encode
from matl.privacy.certificate import Instance
from matl.privacy.encoder import Encoder
from matl.privacy.table import skellam_table
from matl.privacy.timing import BLOCK_WORDS, Histogram, Stopwatch
from matl.privacy.words import Words

INSTANCE = Instance(
    bits=8,
    table=skellam_table(4).counts,
    resolution=40,
    survivors=64,
    bound=Fraction(137, 1024),
    squared_norm=Fraction(684691, 32768),
    transmissions=30,
    delta=Fraction(1, 100_000),
)
"""The published one with epsilon 8; how long encoding takes does not depend on it."""
FRACTION = 0.375
SIZES = {50_000: 100_000, 1_000_000: 10_000}  # parameters, and how often they are encoded
PARTS = 10_000  # samples of the noise of the largest of them, and of its kernel
SAMPLES = 100_000  # of what takes microseconds
ROUND = 1_000  # encodings that one event tells of
WARM = 50  # encodings that are not counted: they compile, and fill caches
QUANTILES = {"p50": 0.5, "p99": 0.99, "p999": 0.999}


def repeated(call: Callable[[int], Any], samples: int, stopwatch: Stopwatch) -> None:
    """Call so often, and publish after every round."""
    for i in range(samples):
        call(i)
        if (i + 1) % ROUND == 0 or i + 1 == samples:
            stopwatch.publish(i // ROUND)


def merged(events: list[Event], span: str) -> dict[str, tuple[Histogram, int]]:
    """For each clock all durations of a span, and the clock's largest step."""
    told = [event.data for event in events if event.data["span"] == span]
    return {
        clock: (
            sum((Histogram.of_dict(data[clock]) for data in told), Histogram()),
            max(data[clock]["step_ns"] for data in told),
        )
        for clock in ("wall", "cpu")
    }


def rows_of(what: str, found: dict[str, tuple[Histogram, int]]) -> list[dict[str, Any]]:
    """A row for each clock."""
    return [
        {
            "what": what,
            "clock": clock,
            "step_ns": step,
            "mean_ns": histogram.total / len(histogram),
            "intervals_ns": {name: interval(histogram, QUANTILES[name]) for name in histogram.quantiles()},
            **histogram.as_dict(),
        }
        for clock, (histogram, step) in found.items()
    ]


def interval(histogram: Histogram, q: float) -> tuple[float, float]:
    """Where the true quantile is in 95 of 100 cases, by order statistics, if durations are independent."""
    half = 1.96 * math.sqrt(q * (1 - q) / len(histogram))
    return histogram.quantile(max(0.0, q - half)), histogram.quantile(min(1.0, q + half))


def encodings(size: int, samples: int) -> list[dict[str, Any]]:
    """Whole encodings, and one block of noise in each."""
    events: list[Event] = []
    stopwatch = Stopwatch(events.append, run="noise latency")
    quiet = Encoder(INSTANCE, BlockLayout(size, fraction=FRACTION), 1.0)
    encoder, update = replace(quiet, stopwatch=stopwatch), np.random.default_rng(0).standard_normal(size)
    vector = update.astype(np.float32)
    for i in range(WARM):
        quiet.encode(vector, i)
    repeated(lambda i: encoder.encode(vector, i), samples, stopwatch)
    return [
        *rows_of(f"noise of {BLOCK_WORDS} words, in d = {size:,}", merged(events, "noise")),
        *rows_of(f"whole encoding, d = {size:,}", merged(events, "encode")),
    ]


def parts(size: int, samples: int) -> list[dict[str, Any]]:
    """All noise of one update, and what of it is the compiled loop: rounding and noise for words that are drawn."""
    encoder = Encoder(INSTANCE, BlockLayout(size, fraction=FRACTION), 1.0)
    X = encoder.fixed_point(np.random.default_rng(0).standard_normal(size).astype(np.float32), 0)
    drawn, out, (starts, thresholds) = Words().take(len(X)), np.empty(len(X), encoder.dtype), encoder._search
    least, mask = -(len(INSTANCE.table) // 2), (1 << INSTANCE.bits) - 1

    def kernel(_: int) -> None:
        _encode.round_and_add_noise(X, drawn, starts, thresholds, least, mask, out)

    what = f"{len(X):,} words, d = {size:,}"
    return [
        *small(f"all noise: {what}", lambda _: encoder.randomise(X), samples),
        *small(f"its kernel: {what}", kernel, samples),
    ]


def small(name: str, call: Callable[[int], Any], samples: int) -> list[dict[str, Any]]:
    """Something to compare with."""
    events: list[Event] = []
    stopwatch = Stopwatch(events.append, run="noise latency")

    def span(i: int) -> None:
        with stopwatch.span(name):
            call(i)

    for i in range(WARM):
        call(i)
    repeated(span, samples, stopwatch)
    return rows_of(name, merged(events, name))


def told(nanoseconds: float) -> str:
    """In microseconds, to three digits."""
    value = nanoseconds / 1e3
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def table(rows: list[dict[str, Any]]) -> str:
    """A line for every row."""

    def figure(row: dict[str, Any], name: str) -> str:
        if name not in row["quantiles_ns"]:
            return "-"
        value, (low, high) = row["quantiles_ns"][name], row["intervals_ns"][name]
        if value < 2 * row["step_ns"]:
            return f"< {told(2 * row['step_ns'])}"
        return f"{told(value)} ({told(low)} to {told(high)})"

    head = ["microseconds", "clock", "samples", "mean", *QUANTILES, "longest"]
    lines = [
        [
            row["what"],
            row["clock"],
            f"{row['count']:,}",
            told(row["mean_ns"]),
            *(figure(row, name) for name in QUANTILES),
            told(row["largest_ns"]),
        ]
        for row in rows
    ]
    return markdown(head, lines)


def main() -> None:
    """Measure, print the table, write it with the raw rows beside it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a fiftieth of the samples")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "noise_latency")
    given = parser.parse_args()
    share, started, rng = 50 if given.quick else 1, time.perf_counter(), np.random.default_rng(1)
    rows = small("nothing", lambda _: None, SAMPLES // share)
    rows += small(
        f"NumPy, {BLOCK_WORDS} Gaussian float32",
        lambda _: rng.standard_normal(BLOCK_WORDS, dtype=np.float32),
        SAMPLES // share,
    )
    for size, samples in SIZES.items():
        rows += encodings(size, samples // share)
        print(table(rows[-4:]), file=sys.stderr, flush=True)
    rows += parts(max(SIZES), PARTS // share)
    print(table(rows[-4:]), file=sys.stderr, flush=True)
    steps = {clock: max(row["step_ns"] for row in rows if row["clock"] == clock) for clock in ("wall", "cpu")}
    remarks = (
        f"One thread, b = 8, a sketch of {FRACTION:g} of the rows; caches warm, garbage collection on. *All noise* is "
        "randomness, rounding and noise of an update, *its kernel* the compiled loop over words that are drawn. *cpu* "
        f"is CPU time of the thread. Two readings of a clock were never less than {steps['wall']} ns (wall) and "
        f"{steps['cpu']} ns (cpu) apart, which is a tick or what a reading takes; *nothing* is what readings add to "
        "every duration, and what is below two steps is not told apart from it. In brackets: where the quantile is in "
        "95 of 100 runs, if durations are independent. A quantile is within 1 %, and shown if a hundred durations were "
        "longer."
    )
    print(write(given.out, table(rows), remarks, rows, time.perf_counter() - started))


if __name__ == "__main__":
    main()
