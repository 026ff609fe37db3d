"""Small and private: bits, error and speed of the private encoder beside what else could be done, in one run.

::

    make bench-codec                    # writes benchmarks/results/codec.{json,md}; about ten minutes
    python benchmarks/codec.py --sizes 1000000 --clients 100 --repeats 5

Everybody encodes the same updates: random vectors of norm 1 that agree to ``--alignment``. Errors are those of the
decoded sum, over what continuous Gaussian noise of the same (epsilon, delta) on the sum would cost (central DP).
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import zstandard
from common import markdown, write
from numpy.typing import NDArray

from matl.codec import CODECS, BlockLayout, Codec, FixedWidth, HadamardSketch
from matl.privacy.choice import Target, certified, choose, costs_of
from matl.privacy.encoder import Encoder
from matl.privacy.prediction import Sums
from matl.screening import encode_payload

EPSILON, DELTA, ROUNDS = 8, Fraction(1, 100_000), 30
SEED = 7
BUDGET = 3.05  # bits per parameter: 10.5 times less than float32
KEPT = BUDGET / 8  # of the rows
WIDE = (16, 17, 18, 19, 20, 21)  # bits of the L2 mechanisms to try
SAFE = 4.5  # standard deviations of the sum that stay clear of M / 2
CONDITION = math.exp(-0.5)  # how often conditional rounding may have to try again; Kairouz et al., 2021
Updates = Callable[[int], NDArray[np.float32]]


@dataclass
class Way:
    """A way to send an update: what comes out, how it is undone for a sum, and what it is known to cost.

    Parameters
    ----------
    name : str
        What it is.
    encode : callable
        From an update to what is summed.
    total : callable
        From what all sent to the decoded sum.
    wire : callable
        Bytes of one update as it is sent.
    predicted : float or None
        Mean squared error over that of central DP.
    """

    name: str
    encode: Callable[[NDArray[np.float32]], Any]
    total: Callable[[Iterator[Any]], NDArray[Any]]
    wire: Callable[[Any], int]
    predicted: float | None = None


def updates_of(size: int, clients: int, alignment: float) -> Updates:
    """Vectors of norm 1 whose mean has about the norm ``alignment``; made when they are asked for."""
    rng = np.random.default_rng(SEED)
    common = rng.normal(size=size).astype(np.float32)
    common /= np.linalg.norm(common)

    def update(i: int) -> NDArray[np.float32]:
        own = np.random.default_rng([SEED, i]).standard_normal(size, dtype=np.float32)
        own /= np.linalg.norm(own)
        mixed = np.float32(alignment) * common + np.float32(math.sqrt(1 - alignment**2)) * own
        return mixed / np.linalg.norm(mixed)

    del clients
    return update


def added(parts: Iterator[NDArray[Any]]) -> NDArray[np.float64]:
    """A plain sum."""
    return sum((part.astype(np.float64) for part in parts), np.zeros(()))


def ours(size: int, clients: int, alignment: float, bits: int, survivors: int) -> Way:
    """The certified encoder, with the constants that the planner chooses within the budget."""
    target = Target(Fraction(EPSILON), DELTA, ROUNDS)
    sums = Sums(clients, survivors, BlockLayout(size), alignment=alignment)
    choice = choose(target, sums, BUDGET, bits=bits)
    instance, _ = certified(choice, target)
    encoder = Encoder(instance, choice.sums.layout, 1.0)

    def total(parts: Iterator[NDArray[Any]]) -> NDArray[Any]:
        summed = np.zeros(encoder.layout.kept, encoder.dtype)
        for part in parts:
            summed += part
        return encoder.decode_sum(summed, SEED)

    def wire(words: NDArray[Any]) -> int:
        if bits == 8:
            return len(encode_payload({"words": words})[0])
        return len(FixedWidth().pack(words.view(np.int8), bits)) + 8

    name = f"ours, b = {bits}" + (f", n_min = {survivors / clients:g} n" if survivors < clients else "")
    return Way(
        name,
        lambda update: encoder.encode(update, SEED),
        total,
        wire,
        float(costs_of(instance, choice.sums, target.multiplier).total),
    )


def gaussian(deviation: float) -> Way:
    """Continuous Gaussian noise on float32, a share for every client."""
    rng = np.random.default_rng(1)

    def encode(update: NDArray[np.float32]) -> NDArray[np.float32]:
        return update + np.float32(deviation) * rng.standard_normal(update.size, dtype=np.float32)

    return Way("Gaussian, float32", encode, added, lambda words: words.nbytes, 1.0)


def literal(deviation: float) -> Way:
    """The recipe as it is often told, at its best: add noise, round to int8, compress. Nothing of it can be masked."""
    rng = np.random.default_rng(2)

    def encode(update: NDArray[np.float32]) -> tuple[NDArray[np.int8], float, bytes]:
        noisy = update + np.float32(deviation) * rng.standard_normal(update.size, dtype=np.float32)
        step = float(np.abs(noisy).max()) / 127
        words = np.rint(noisy / np.float32(step)).astype(np.int8)
        return words, step, zstandard.ZstdCompressor(level=3).compress(words.tobytes())

    def total(parts: Iterator[tuple[NDArray[np.int8], float, bytes]]) -> NDArray[Any]:
        return added(words * step for words, step, _ in parts)

    return Way("noise + int8 + zstd", encode, total, lambda sent: len(sent[2]) + 4, 1.0)


def skellam_l2(size: int, clients: int, alignment: float, multiplier: float, budget: float | None) -> Way:
    """Skellam or distributed discrete Gaussian noise with L2 accounting, at its best width.

    On a sketch that keeps as much as ours, or, with a budget, on one that takes so many bits.

    Its sensitivity is that of Kairouz, Liu and Steinke (2021) after conditional rounding; taken for Gaussian noise of
    the same variance, which is to its favour. The bits that do best are shown.
    """

    def cost(bits: int) -> tuple[float, float, float, int, float]:
        fraction = KEPT if budget is None else budget / bits
        m = BlockLayout(size, fraction=fraction).kept
        energy = (1 / fraction - 1) * (alignment * clients) ** 2 / (size * multiplier**2)
        low, high = 1.0, 2.0**24
        for _ in range(60):  # the longest c whose sum stays clear of wrapping
            c = math.sqrt(low * high)
            sensitive = c * c + m / 4 + math.sqrt(2 * math.log(1 / CONDITION)) * (c + math.sqrt(m) / 2)
            variance = multiplier**2 * sensitive
            spread = math.sqrt(variance + clients / 4 + (alignment * clients * c) ** 2 / m)
            low, high = (c, high) if SAFE * spread < 2 ** (bits - 1) else (low, c)
        return (variance + clients / 6) / (c * multiplier) ** 2 + energy, c, variance, bits, fraction

    ratio, c, variance, bits, fraction = min(cost(bits) for bits in WIDE)
    layout = BlockLayout(size, fraction=fraction)
    m = layout.kept
    rng = np.random.default_rng(3)
    sketch = HadamardSketch.draw(layout, SEED)
    scale = c / math.sqrt(fraction)

    def encode(update: NDArray[np.float32]) -> NDArray[np.int64]:
        x = sketch.forward(update) * np.float64(scale)
        rounded = np.floor(x + rng.random(m)).astype(np.int64)
        share = variance / clients / 2
        return (rounded + rng.poisson(share, m) - rng.poisson(share, m)) & ((1 << bits) - 1)

    def total(parts: Iterator[NDArray[np.int64]]) -> NDArray[Any]:
        summed = sum(parts, np.zeros(m, np.int64)) & ((1 << bits) - 1)
        lifted = np.where(summed >= 1 << (bits - 1), summed - (1 << bits), summed)
        return sketch.backward((lifted / scale).astype(np.float32))

    name = f"Skellam, L2 accounting, b = {bits}, {'same sketch' if budget is None else 'same bits'}"
    return Way(name, encode, total, lambda _: math.ceil(bits * m / 8), ratio)


def plain(spec: dict[str, Any], size: int, name: str) -> Way:
    """A codec without privacy."""
    codec: Codec = CODECS.create(spec)
    rng = np.random.default_rng(4)

    def encode(update: NDArray[np.float32]) -> bytes:
        return codec.encode(update, seed=int(rng.integers(2**63)), rng=rng)[0]

    return Way(name, encode, lambda parts: added(codec.decode(part, size=size) for part in parts), len)


def cpu(call: Callable[[], Any], repeats: int) -> float:
    """Median CPU time of this thread, ms."""
    call()
    times = []
    for _ in range(repeats):
        started = time.thread_time()
        call()
        times.append(time.thread_time() - started)
    return 1e3 * statistics.median(times)


def measure(
    way: Way, update: Updates, size: int, clients: int, unit: float, repeats: int, copy: float
) -> dict[str, Any]:
    """A row: bits, predicted and simulated error, and times of one client and of decoding a sum."""
    truth = np.zeros(size)
    sent = []

    def parts() -> Iterator[Any]:
        for i in range(clients):
            one = update(i)
            truth[:] += one
            part = way.encode(one)
            if not i:
                sent.append(part)
            yield part

    decoded = way.total(parts())
    first = update(0)
    return {
        "way": way.name,
        "size": size,
        "clients": clients,
        "bits": 8 * way.wire(sent[0]) / size,
        "predicted": way.predicted,
        "simulated": float(((decoded - truth) ** 2).sum()) / unit,
        "encode_ms": cpu(lambda: way.encode(first), repeats),
        "decode_ms": cpu(lambda: way.total(iter(sent)), repeats),
        "memcpy_ms": copy,
    }


def table(rows: list[dict[str, Any]]) -> str:
    """A line for every way, size and number of clients."""
    head = ["d", "n", "what", "bits", "smaller", "MSE, predicted", "simulated", "encode", "decode", "encode / memcpy"]
    lines = [
        [
            f"{row['size']:.0e}".replace("e+0", "e"),
            f"{row['clients']}",
            row["way"],
            f"{row['bits']:.2f}",
            f"{32 / row['bits']:.1f}x",
            "-" if row["predicted"] is None else f"{row['predicted']:.3f}",
            f"{row['simulated']:.3f}",
            f"{row['encode_ms']:.1f} ms",
            f"{row['decode_ms']:.1f} ms",
            f"{row['encode_ms'] / row['memcpy_ms']:.0f}",
        ]
        for row in rows
    ]
    return markdown(head, lines)


def main() -> None:
    """Run all, print the table, write it with the raw rows beside it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", type=int, nargs="+", default=(1_000_000, 10_000_000))
    parser.add_argument("--clients", type=int, nargs="+", default=(100, 1000))
    parser.add_argument("--alignment", type=float, default=0.6)
    parser.add_argument("--repeats", type=int, default=11)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "codec")
    given = parser.parse_args()
    z, rows, started = Target(Fraction(EPSILON), DELTA, ROUNDS).multiplier, [], time.perf_counter()
    for size in given.sizes:
        vector, room = np.ones(size, np.float32), np.empty(size, np.float32)
        copy = cpu(lambda vector=vector, room=room: np.copyto(room, vector), given.repeats)
        for clients in given.clients if size == min(given.sizes) else given.clients[:1]:
            update, deviation = updates_of(size, clients, given.alignment), z / math.sqrt(clients)
            private = [ours(size, clients, given.alignment, bits, clients) for bits in (8, 3)]
            private.append(ours(size, clients, given.alignment, 8, math.ceil(0.7 * clients)))
            ways = [*private, *(skellam_l2(size, clients, given.alignment, z, budget) for budget in (None, BUDGET))]
            if clients == min(given.clients):
                ways += [literal(deviation), gaussian(deviation)]
                ways += [plain({"name": "eden", "bits": 1}, size, "EDEN, no privacy")]
                ways += [plain({"name": "rotated", "step": 1.0}, size, "rotation, no privacy")]
            for way in ways:
                rows.append(measure(way, update, size, clients, size * z * z, given.repeats, copy))
                print(table(rows[-1:]).rsplit("\n", 1)[-1], file=sys.stderr, flush=True)
    remarks = (
        f"epsilon {EPSILON} (zero-out), delta 1e-5, {ROUNDS} rounds, clip 1, alignment {given.alignment:g}. *MSE*: of "
        "the decoded sum over that of continuous Gaussian noise on the sum. *Bits*: on the wire per parameter, all "
        "overhead but keys of secure aggregation. Medians of CPU time on one thread; decoding is that of a sum."
    )
    print(write(given.out, table(rows), remarks, rows, time.perf_counter() - started))


if __name__ == "__main__":
    main()
