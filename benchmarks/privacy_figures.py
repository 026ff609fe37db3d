"""The four figures of docs/privacy/utility.md, as pictures and as numbers.

::

    python benchmarks/privacy_figures.py  # writes docs/assets/privacy/*.svg, benchmarks/results/privacy_figures.*

All randomness has a seed, so that the same code draws the same pictures; about a minute.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import math
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from common import markdown, write
from numpy.typing import NDArray
from privacy_pictures import draw
from privacy_tables import BUDGETS, SETTINGS, SURVIVORS, gaussian_epsilon, instance
from scipy.stats import skellam

from matl.codec import BlockLayout, HadamardSketch, derive_seed
from matl.files import make_directory, write_atomic
from matl.privacy.certificate import FRACTION_BITS, UNIT, Instance, certify, fewer_survivors
from matl.privacy.choice import Choice, Target, certified, choose, costs_of, vector_bytes
from matl.privacy.encoder import Encoder
from matl.privacy.manifest import choose_squared_norm
from matl.privacy.mechanism import Distributed
from matl.privacy.prediction import Sums, wrapped
from matl.privacy.words import Words

Reals = NDArray[np.float64]
Rows = Iterator[dict[str, Any]]

ROOT = Path(__file__).parents[1]
SIZE, ALIGNMENT = 1_000_000, 0.6
TARGET = Target(Fraction(8), Fraction(1, 100_000), 30)


def _published(bits: int) -> tuple[Fraction, Fraction]:
    """Variance and bound of the published instance with words of so many bits."""
    return next((mu, bound) for b, mu, bound in SETTINGS if b == bits)


# Figure 1: is the error what was predicted?


class Setting(NamedTuple):
    """A federation whose error is simulated."""

    bits: int
    clients: int = 100
    honest: int = 100
    fraction: float = 0.375
    alignment: float = 0.6
    groups: int = 1
    updates: str = "spread"
    size: int = 20_000


SIMULATED = (
    *(Setting(bits) for bits in (3, 4, 5, 6, 8)),
    *(Setting(bits, alignment=1.0) for bits in (3, 4, 6, 8)),
    *(Setting(bits, clients=400, honest=400, alignment=0.1) for bits in (4, 6, 8)),
    *(Setting(bits, honest=70) for bits in (3, 8)),
    *(Setting(bits, updates="heavy-tailed") for bits in (3, 4, 6, 8)),
    Setting(8, fraction=0.125),
    Setting(6, fraction=1.0, alignment=0.3),
    Setting(8, clients=250, honest=250, updates="heavy-tailed"),
    Setting(8, clients=60, honest=9, groups=5, alignment=0.8),
    Setting(5, clients=60, honest=16, groups=3, alignment=0.8),
)
WORDS = 300_000  # that are summed in a setting: the error is then known to 0.3 %


def predicted_and_simulated(settings: tuple[Setting, ...], words: int) -> Rows:
    """What the planner predicts, and what the encoder does; constants are the planner's."""
    z = TARGET.multiplier
    for number, setting in enumerate(settings):
        sums = Sums(setting.clients, setting.honest, BlockLayout(setting.size), setting.groups, setting.alignment)
        choice = choose(TARGET, sums, 32.0, bits=setting.bits, fraction=setting.fraction)
        updates = _updates(setting)
        total = updates.sum(axis=0, dtype=np.float64)
        rounds = math.ceil(words / choice.sums.layout.kept)
        seeds = [derive_seed(number, round_) for round_ in range(rounds)]
        errors = [_error(choice, updates, total, seed) / (setting.size * z * z) for seed in seeds]
        true = replace(choice.sums, alignment=float(np.linalg.norm(total)) / setting.clients)
        costs = costs_of(choice.instance, true, z)
        face_value, gain = wrapped_sums(choice.instance, true, z)
        yield {
            "figure": "prediction",
            **setting._asdict(),
            "rounds": rounds,
            "predicted": float(costs.total),
            "simulated": float(np.mean(errors)),
            "standard_error": float(np.std(errors, ddof=1)) / math.sqrt(rounds),
            "wrap": float(costs.wrap),
            "wrap_at_face_value": face_value,
            "gain": gain,
        }


def _updates(setting: Setting) -> NDArray[np.float32]:
    """Vectors of norm 1 with about this alignment; the heavy-tailed have a kurtosis in the hundreds."""
    rng, size, n = np.random.default_rng(0), setting.size, setting.clients

    def drawn() -> Reals:
        v = rng.standard_normal(size)
        if setting.updates != "spread":
            v = rng.standard_t(2.2, size) * np.exp(v)
        return v / np.linalg.norm(v)

    common, cosine = drawn(), max(0.0, (n * setting.alignment**2 - 1) / (n - 1))
    found = np.stack([math.sqrt(cosine) * common + math.sqrt(1 - cosine) * drawn() for _ in range(n)])
    return (found / np.linalg.norm(found, axis=1, keepdims=True)).astype(np.float32)


def _error(choice: Choice, updates: NDArray[np.float32], total: Reals, seed: int) -> float:
    """Squared error of one round's decoded sum, all groups together."""
    mechanism = Distributed(Encoder(choice.instance, choice.sums.layout, 1.0))

    def sent(i: int) -> NDArray[Any]:
        return mechanism.encode(updates[i], seed, words=Words(hashlib.sha256(f"{seed} {i}".encode()).digest()))

    groups = np.array_split(np.arange(len(updates)), choice.sums.groups)
    decoded = (mechanism.decode_sum(mechanism.total(sent(i) for i in group), seed) for group in groups)
    return float(np.square(sum(decoded) - total).sum())


def wrapped_sums(constants: Instance, sums: Sums, multiplier: float) -> tuple[float, float]:
    """By how much sums that wrap raise the error as it comes out, and what they leave of the signal, as a factor.

    From the law of a sum of Skellam noise and of rounding given its signal, which is Gaussian.
    """
    table = constants.table
    squares = sum(value * value * count for value, count in enumerate(table, -(len(table) // 2)))
    deviation = math.sqrt(constants.squared_norm / sums.layout.kept)
    rounding = math.sqrt(2 / math.pi) * deviation - deviation**2
    variance = sums.members * (squares / 2.0**constants.resolution + rounding)
    signal, weight = np.polynomial.hermite_e.hermegauss(40)
    signal, weight = signal * sums.group_alignment * sums.members * deviation, weight / weight.sum()
    signal = np.clip(signal, -0.99 * variance, 0.99 * variance)[:, None]  # beyond are 8 deviations and more
    modulus = 1 << constants.bits
    total = np.arange(-3 * modulus, 3 * modulus)
    lifted = (total + modulus // 2) % modulus - modulus // 2
    chance = skellam.pmf(total, (variance + signal) / 2, (variance - signal) / 2)
    more = weight @ (chance * ((lifted - signal) ** 2 - (total - signal) ** 2)).sum(axis=1)
    gain = 1 + (weight @ (chance * (lifted - total) * signal).sum(axis=1)) / (weight @ signal[:, 0] ** 2)
    return float(more) * sums.groups / (float(constants.squared_norm) * multiplier**2), float(gain)


def signal_left(updates: int) -> Rows:
    """What is left of an update, as a factor, after the bounds of the proof and after sums that wrap."""
    for bits in (8, 6, 5, 3):
        sums = Sums(100, 100, BlockLayout(SIZE), alignment=ALIGNMENT)
        choice = choose(TARGET, sums, 3.2, bits=bits)
        encoder = Encoder(choice.instance, choice.sums.layout, 1.0)
        row: dict[str, Any] = {"figure": "signal", "bits": bits, "bound": str(choice.instance.bound)}
        for name, width in (("spread", SIZE), ("one block", 4096), ("one coordinate", 1)):
            row[name] = float(np.mean([_left(encoder, width, seed) for seed in range(updates)]))
        yield row | {"wraps": wrapped_sums(choice.instance, choice.sums, TARGET.multiplier)[1]}


def _left(encoder: Encoder, width: int, seed: int) -> float:
    """The part along itself of what comes out of the bounds, for an update that is all in its first coordinates."""
    update = np.zeros(encoder.layout.size, np.float32)
    update[:width] = np.random.default_rng(seed).standard_normal(width)
    update /= np.linalg.norm(update)
    x = HadamardSketch.draw(encoder.layout, seed).forward(update).astype(np.float64) * encoder.scale
    return float(encoder.fixed_point(update, seed) @ x / (x @ x)) / (1 << FRACTION_BITS)


# Figure 2: what do bits buy?

RIVAL_BITS = range(8, 26)
WIDEST = 6  # M over the standard deviation of a sum, as our planner has it
CONDITION = math.exp(-0.5)  # how often conditional rounding may have to try again; as Kairouz et al. recommend


def bits_and_error(points: int) -> Rows:
    """The least error within a budget of bits, for our encoder and for the distributed discrete Gaussian."""
    z = TARGET.multiplier
    for clients in (100, 1000):
        for budget in np.geomspace(0.25, 24, points):
            row: dict[str, Any] = {"figure": "bits", "size": SIZE, "clients": clients, "budget": float(budget)}
            if budget <= 8.1:  # more has no use: then all rows go, in the widest words that secure aggregation adds
                choice = choose(TARGET, Sums(clients, clients, BlockLayout(SIZE), alignment=ALIGNMENT), float(budget))
                constants, _ = certified(choice, TARGET)
                sent = vector_bytes(choice.sums.layout.kept, constants.bits)
                row |= {"ours": float(costs_of(constants, choice.sums, z).total), "our_bits": constants.bits}
                row |= {"our_budget": 8 * sent / SIZE}
            row["rival"], row["rival_bits"] = min(
                (_discrete_gaussian(SIZE, clients, ALIGNMENT, z, float(budget), bits), bits) for bits in RIVAL_BITS
            )
            yield row


def _discrete_gaussian(size: int, clients: int, alignment: float, z: float, budget: float, bits: int) -> float:
    """The error of the distributed discrete Gaussian on our sketch, over that of central noise, at its best scale.

    Its sensitivity is that of Kairouz, Liu and Steinke (2021, Theorem 1) after conditional rounding; its noise is taken
    for Gaussian, which is to its favour; sums that wrap count as ours do.
    """
    sums = Sums(clients, clients, BlockLayout(size, fraction=min(1.0, budget / bits)), alignment=alignment)
    m, fraction = sums.layout.kept, sums.fraction
    c = np.geomspace(1, 2.0**24, 600)  # norm of an update in grid steps
    sensitivity = np.minimum(
        (c + math.sqrt(m)) ** 2, c * c + m / 4 + math.sqrt(2 * math.log(1 / CONDITION)) * (c + math.sqrt(m) / 2)
    )
    k = np.arange(1, 50)[:, None]  # E t (1 - t) of the fractional part t of a Gaussian, by its Fourier series
    rounding = clients * (1 / 6 - (np.exp(-2 * (math.pi * k) ** 2 * c * c / m) / (math.pi * k) ** 2).sum(axis=0))
    noise = z * z * sensitivity
    variance = noise + rounding + (alignment * clients * c) ** 2 / m
    total = noise + rounding + wrapped(variance, 1 << bits)
    sketch = (1 / fraction - 1) * (alignment * clients) ** 2 / (size * z * z)
    seldom = 1 << bits >= WIDEST * np.sqrt(variance)  # beyond, most sums wrap, and nothing is said of their error
    return float(np.where(seldom, total / (c * z) ** 2, np.inf).min()) + sketch


def exact_multiplier() -> float:
    """The z of a central Gaussian whose epsilon is computed exactly, instead of by Rényi orders."""
    low, high = 1.0, TARGET.multiplier
    while high - low > 1e-6:
        middle = (low + high) / 2
        low, high = (low, middle) if gaussian_epsilon(middle) <= TARGET.epsilon else (middle, high)
    return high


# Figure 3: how much do the bounds of Lemma 3 give away?

PANELS = ((8, Fraction(4)), (3, Fraction(4)), (3, Fraction(5, 2)))  # bits, order


def end_points(points: int) -> Rows:
    """h, the divergences that it bounds, and what is certified, as multiples of a Gaussian's a / 2 mu."""
    for bits, order in PANELS:
        mu, bound = _published(bits)
        unit = replace(instance(bits, mu, bound), transmissions=1, orders=((2, 5),))
        weights = _law(unit)
        W, g = (np.array([float(x) for x in found]) for found in (weights, np.roll(weights, 1) / weights - 1))
        a, gaussian = float(order), float(order / mu) / 2
        at_zero, slope = _height(W, g, a, 0.0), a * (a - 1) * (a - 2) / 6 * (W @ g**3)
        for x in (Fraction(i, points) for i in range(points + 1)):
            heights = [_height(W, g, p, float(x)) for p in (a, 1 - a)]
            forward, reverse = (np.log1p(float(x * x) * h) / float(x * x) if x else h for h in heights)
            curve = certify(replace(unit, bound=x)).curve if x else {order: at_zero * (a - 1) ** -1 * UNIT}
            found = {
                "h": heights[0] / (a - 1),
                "tangent": (at_zero + slope * float(x)) / (a - 1),
                "forward": forward / (a - 1),
                "reverse": reverse / (a - 1),
                "certified": curve[order] / UNIT,
            }
            row = {"figure": "end_points", "bits": bits, "order": str(order), "bound": float(bound), "x": float(x)}
            yield row | {name: float(rate) / gaussian for name, rate in found.items()}


def _law(constants: Instance) -> NDArray[Any]:
    """The law of all noise of a sum, exact: fractions of shape (M,)."""
    reach = len(constants.table) // 2
    total = np.array([1] + [0] * ((1 << constants.bits) - 1), object)
    for _ in range(constants.survivors):
        total = sum(count * np.roll(total, t) for t, count in enumerate(constants.table, -reach))
    return total * Fraction(1, 1 << constants.resolution * constants.survivors)


def _height(W: Reals, g: Reals, p: float, x: float) -> float:
    """``(E_W (1 + x g)^p - 1) / x^2``; the mean of g, which is 0, is taken out before it is lost."""
    if x == 0:
        return float(p * (p - 1) / 2 * (W @ g**2))
    return float(W @ (np.expm1(p * np.log1p(x * g)) - p * x * g)) / (x * x)


# Figure 4: what do missing clients cost in privacy?


def missing_shares(counts: tuple[int, ...], how: dict[str, Any]) -> Rows:
    """Certified epsilons where fewer honest clients survive than planned, in every round."""
    for bits, budget in ((3, 8), *((8, budget) for budget in BUDGETS)):
        mu, bound = _published(bits)
        planned = choose_squared_norm(replace(instance(bits, mu, bound), **how), budget)
        for survivors, figure in fewer_survivors(planned, counts).items():
            yield {
                "figure": "missing",
                "bits": bits,
                "budget": budget,
                "survivors": survivors,
                "missing": 1 - survivors / SURVIVORS,
                "epsilon": None if figure is None else float(str(figure)),
            }


# All of it


def rows_of(quick: bool) -> Rows:
    """The numbers of all figures; ``quick`` takes a few of each, coarsely."""
    few = (Setting(8, clients=20, honest=20), Setting(3, clients=20, honest=20))
    yield from predicted_and_simulated(few if quick else SIMULATED, 60_000 if quick else WORDS)
    yield from signal_left(1 if quick else 5)
    yield from bits_and_error(4 if quick else 33)
    yield from end_points(8 if quick else 64)
    counts = (64, 32) if quick else tuple(range(SURVIVORS, SURVIVORS // 4 - 1, -4))
    yield from missing_shares(counts, {"orders": ((1, 16),), "cells": 1} if quick else {})
    committed = ROOT / "benchmarks" / "results" / "codec.json"
    for row in json.loads(committed.read_text("utf-8"))["rows"]:  # larger than what is simulated here
        if row["way"].startswith(("ours", "Skellam")):
            yield {"figure": "benchmark", **{key: row[key] for key in ("way", "size", "clients", "bits")}} | {
                key: row[key] for key in ("predicted", "simulated")
            }


def tables(rows: list[dict[str, Any]]) -> str:
    """A table for every figure."""

    def of(figure: str) -> list[dict[str, Any]]:
        return [row for row in rows if row["figure"] == figure]

    one = [
        [
            *(str(row[key]) for key in ("bits", "updates", "clients", "honest", "groups")),
            *(f"{row[key]:g}" for key in ("fraction", "alignment")),
            f"{row['predicted']:.3f}",
            f"{row['simulated']:.3f}±{2 * row['standard_error']:.3f}",
            f"{row['predicted'] - row['wrap'] + row['wrap_at_face_value']:.3f}",
            f"{row['gain']:.3f}",
        ]
        for row in of("prediction")
    ]
    two = [
        [
            str(row["clients"]),
            f"{row['budget']:.2f}",
            f"{row['ours']:.4f} ({row['our_bits']})" if "ours" in row else "",
            f"{row['rival']:.4f} ({row['rival_bits']})",
        ]
        for row in of("bits")[::4]
    ]
    three = []
    for bits, order in PANELS:
        panel = [row for row in of("end_points") if (row["bits"], row["order"]) == (bits, str(order))]
        largest = max(row["forward"] for row in panel)
        last = panel[-1]
        ends = max(panel[0]["h"], last["tangent" if 2 < order < 3 else "h"])
        found = (panel[0]["h"], largest, last["certified"], ends)
        three.append([str(bits), str(order), *(f"{x:.4f}" for x in found)])
    four = {
        survivors: [f"{row['epsilon']:.3f}" for row in of("missing") if row["survivors"] == survivors]
        for survivors in dict.fromkeys(row["survivors"] for row in of("missing"))
    }
    left = [
        [
            str(row["bits"]),
            row["bound"],
            *(f"{row[key]:.3f}" for key in ("wraps", "spread", "one block", "one coordinate")),
        ]
        for row in of("signal")
    ]
    head = (
        "b",
        "updates",
        "n",
        "shares",
        "sums",
        "f",
        "A",
        "predicted",
        "simulated",
        "predicted, wraps at face value",
        "signal",
    )
    parts = {
        "Figure 1. Mean squared error over central noise, d = 20,000": markdown(head, one),
        "What is left of the signal, d = 1e6, n = 100, 3.2 bits, alignment 0.6": markdown(
            ("b", "B", "by wraps", "by bounds: spread", "in one block", "in one coordinate"), left
        ),
        "Figure 2. Least error within a budget, d = 1e6, alignment 0.6 (in brackets bits of a word)": markdown(
            ("n", "bits", "ours", "discrete Gaussian"), two
        ),
        "Figure 3. Divergence over x^2, as a multiple of a Gaussian's": markdown(
            ("b", "order", "at 0", "largest in (0, 1]", "certified, 8 cells", "end points of [0, 1]"), three
        ),
        "Figure 4. Epsilon where so many of 64 honest clients survive": markdown(
            ("survivors", "b = 3, planned 8", *(f"b = 8, planned {budget}" for budget in BUDGETS)),
            [[str(survivors), *found] for survivors, found in four.items()],
        ),
    }
    return "\n\n".join(f"**{title}**\n\n{table}" for title, table in parts.items())


def main() -> int:
    """Compute, draw and write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=ROOT / "benchmarks" / "results" / "privacy_figures")
    parser.add_argument("--pictures", type=Path, default=ROOT / "docs" / "assets" / "privacy")
    parser.add_argument("--quick", action="store_true", help="a few coarse points, to see that everything runs")
    options = parser.parse_args()
    began = time.perf_counter()
    rows = list(rows_of(options.quick))
    make_directory(options.pictures)
    for name, picture in draw(rows).items():
        write_atomic(options.pictures / f"{name}.svg", picture)
    exact = exact_multiplier()
    remarks = (
        "epsilon 8 (zero-out), delta 1e-5, 30 rounds, clip 1, unless a column says otherwise. Errors are those of a "
        "round's decoded sum over that of central Gaussian noise. Figure 1: ± is two standard errors; constants are "
        "the planner's, for alignments of 0.1, 0.3, 0.6, 0.8 and 1. Figures 3 and 4: certified, 64 shares. "
        f"Central noise has z = {TARGET.multiplier:.4f}, from the same orders and conversion as certificates; exact "
        f"accounting of a Gaussian would allow {exact:.4f}, with an error of {(exact / TARGET.multiplier) ** 2:.3f}."
    )
    print(write(options.out, tables(rows), remarks, rows, time.perf_counter() - began))
    return 0


if __name__ == "__main__":
    sys.exit(main())
