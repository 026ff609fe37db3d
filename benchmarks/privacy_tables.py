"""The figures of the privacy documents: certified constants, missing survivors, replace-one, and coarse tables.

::

    python benchmarks/privacy_tables.py      # writes benchmarks/results/privacy_tables.{json,md}; a minute
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

from common import markdown, write

from matl.privacy.accounting import gaussian_curve
from matl.privacy.certificate import UNIT, Instance, bounds, certify, epsilon, fewer_survivors, law, order_grid
from matl.privacy.manifest import choose_squared_norm
from matl.privacy.table import skellam_table

TRANSMISSIONS, DELTA, SURVIVORS = 30, Fraction(1, 100_000), 64
BUDGETS = (8, 4, 2)
WHOLE = {"orders": ((1, 64),), "cells": 1}

SETTINGS = (  # bits, variance of the sum mu, bound B
    (3, Fraction(3, 2), Fraction(1, 64)),
    (4, Fraction(6), Fraction(1, 32)),
    (6, Fraction(144, 5), Fraction(1, 16)),
    (6, Fraction(60), Fraction(1, 8)),
    (8, Fraction(256), Fraction(137, 1024)),
    (8, Fraction(809), Fraction(1, 4)),
)
CERTIFIED = {3: Fraction(54583, 524288), 8: Fraction(684691, 32768)}  # squared norms of the two published instances
COARSE = (  # bits, mu, survivors, bound
    (8, Fraction(256), 64, Fraction(1, 4)),
    (6, Fraction(48), 64, Fraction(1, 8)),
    (4, Fraction(6), 600, Fraction(1, 8)),
    (3, Fraction(3, 2), 600, Fraction(1, 8)),
)
RESOLUTIONS = (64, 40, 32, 24, 16)


def instance(bits: int, mu: Fraction, bound: Fraction, squared_norm: Fraction = Fraction(1)) -> Instance:
    """The constants of a setting."""
    table = skellam_table(mu / SURVIVORS)
    return Instance(bits, table.counts, table.resolution, SURVIVORS, bound, squared_norm, TRANSMISSIONS, DELTA)


def gaussian_multiplier(budget: int) -> float:
    """The least z of Gaussian noise for an epsilon, by the same orders and the same conversion."""
    unit = gaussian_curve(Fraction(1)).times(TRANSMISSIONS)  # a T / 2
    rooms = {a: budget - Fraction(epsilon(a, 0, DELTA), UNIT) for a, _ in unit.points}
    return math.sqrt(min(value / rooms[a] for a, value in unit.points if rooms[a] > 0))


def gaussian_epsilon(multiplier: float) -> float:
    """Exact epsilon of Gaussian noise (Balle and Wang, 2018), which the noise approaches; no proof covers it."""
    mu = math.sqrt(TRANSMISSIONS) / multiplier

    def delta(budget: float) -> float:
        tail, far = ((budget / mu - mu / 2) / math.sqrt(2), (budget / mu + mu / 2) / math.sqrt(2))
        return (math.erfc(tail) - math.exp(budget) * math.erfc(far)) / 2

    low, high = 0.0, 50.0
    while high - low > 1e-9:
        middle = (low + high) / 2
        low, high = (middle, high) if delta(middle) > DELTA else (low, middle)
    return high


def constants() -> Iterator[dict[str, Any]]:
    """Table A: the largest norm that a client may have, and how the noise compares with a Gaussian's."""
    for bits, mu, bound in SETTINGS:
        for budget in BUDGETS:
            chosen = choose_squared_norm(instance(bits, mu, bound), budget)
            whole = choose_squared_norm(replace(instance(bits, mu, bound), **WHOLE), budget)
            norm, found = math.sqrt(chosen.squared_norm), certify(chosen)
            yield {
                "table": "constants",
                "bits": bits,
                "mu": float(mu),
                "bound": str(bound),
                "budget": budget,
                "squared_norm": str(chosen.squared_norm),
                "norm": norm,
                "norm_at_whole_orders": math.sqrt(whole.squared_norm),
                "over_gaussian": math.sqrt(mu) / norm / gaussian_multiplier(budget),
                "gaussian_epsilon": gaussian_epsilon(math.sqrt(mu) / norm),
                "epsilon": str(found.zero_out),
                "order": str(found.zero_out.order),
                "replace_one": str(found.replace_one),
            }


def published() -> Iterator[dict[str, Any]]:
    """The two published instances, at whole orders with the end-point bound and at the default orders and cells."""
    for bits, squared_norm in CERTIFIED.items():
        mu, bound = next((mu, bound) for b, mu, bound in SETTINGS if b == bits)
        for name, how in (("whole orders, end points", WHOLE), ("default orders, 8 cells", {})):
            found = certify(replace(instance(bits, mu, bound, squared_norm), **how))
            yield {
                "table": "published",
                "bits": bits,
                "mu": float(mu),
                "squared_norm": str(squared_norm),
                "how": name,
                "epsilon": str(found.zero_out),
                "order": str(found.zero_out.order),
                "replace_one": str(found.replace_one),
                "replace_one_order": str(found.replace_one.order),
            }


def survivors() -> Iterator[dict[str, Any]]:
    """Table B: epsilon when fewer honest clients survive than was planned."""
    for bits, mu, bound in (SETTINGS[0], SETTINGS[4]):
        planned = choose_squared_norm(instance(bits, mu, bound), 8)
        for count, figure in {SURVIVORS: certify(planned).zero_out, **fewer_survivors(planned)}.items():
            yield {
                "table": "survivors",
                "bits": bits,
                "mu": float(mu),
                "survivors": count,
                "epsilon": str(figure),
                "order": str(figure.order) if figure else None,
            }


def replaced() -> Iterator[dict[str, Any]]:
    """Table C: what a zero-out epsilon is between any two inputs."""
    bits, mu, bound = SETTINGS[4]
    for budget in (*BUDGETS, 1):
        found = certify(choose_squared_norm(instance(bits, mu, bound), budget))
        yield {
            "table": "replace_one",
            "bits": bits,
            "mu": float(mu),
            "budget": budget,
            "epsilon": str(found.replace_one),
            "order": str(found.replace_one.order),
        }


def coarse() -> Iterator[dict[str, Any]]:
    """Table D: by how much a table of R bits is worse than one of 128, the worst of the orders 2 to 16."""
    orders = order_grid([(1, 16)])
    for bits, mu, count, bound in COARSE:

        def rates(resolution: int, bits=bits, mu=mu, count=count, bound=bound) -> dict[Fraction, int]:
            return bounds(law(skellam_table(mu / count, resolution).counts, count, 1 << bits), bound, orders)

        best = rates(128)
        for resolution in RESOLUTIONS:
            worst = max(Fraction(rate, best[a]) - 1 for a, rate in rates(resolution).items())
            yield {
                "table": "coarse",
                "bits": bits,
                "mu": float(mu),
                "survivors": count,
                "bound": str(bound),
                "resolution": resolution,
                "increase": float(worst),
            }


def tables(rows: list[dict[str, Any]]) -> str:
    """All tables as Markdown."""

    def of(name: str) -> list[dict[str, Any]]:
        return [row for row in rows if row["table"] == name]

    wide = {(row["bits"], row["mu"], row["bound"]): {} for row in of("constants")}
    for row in of("constants"):
        wide[row["bits"], row["mu"], row["bound"]][row["budget"]] = row
    a = []
    for (bits, mu, bound), cells in wide.items():
        norms = [f"{cells[budget]['norm']:.4f}" for budget in BUDGETS]
        ratios = " / ".join(f"{cells[budget]['over_gaussian']:.4f}" for budget in BUDGETS)
        exact = " / ".join(f"{cells[budget]['gaussian_epsilon']:.2f}" for budget in BUDGETS)
        a.append([str(bits), f"{mu:g}", bound, *norms, ratios, exact])
    both = [("epsilon", "order"), ("replace_one", "replace_one_order")]
    p = [
        [str(row["bits"]), row["squared_norm"], row["how"], *(f"{row[name]} ({row[order]})" for name, order in both)]
        for row in of("published")
    ]
    b = [[str(row["bits"]), str(row["survivors"]), f"{row['epsilon']} ({row['order']})"] for row in of("survivors")]
    c = [[str(row["budget"]), f"{row['epsilon']} ({row['order']})"] for row in of("replace_one")]
    loss: dict[tuple[str, ...], dict[int, float]] = {}
    for row in of("coarse"):
        key = str(row["bits"]), f"{row['mu']:g}", str(row["survivors"]), row["bound"]
        loss.setdefault(key, {})[row["resolution"]] = row["increase"]
    d = [[*key, *(f"{found[R]:.1e}" for R in RESOLUTIONS)] for key, found in loss.items()]
    parts = {
        "Two published instances (in brackets the Rényi order)": markdown(
            ("bits", "c^2", "how", "epsilon, zero-out", "epsilon, replace-one"), p
        ),
        "A. The largest norm c for epsilon 8 / 4 / 2, and the noise's standard deviation over a Gaussian's": markdown(
            ("bits", "mu", "B", *(f"c, epsilon {e}" for e in BUDGETS), "over Gaussian", "epsilon of its limit"), a
        ),
        "B. Epsilon if fewer honest clients survive than the 64 planned": markdown(("bits", "survivors", "epsilon"), b),
        "C. Replace-one epsilon, 8 bits": markdown(("zero-out", "replace-one"), c),
        "D. Relative increase of K_a by a table of R bits": markdown(
            ("bits", "mu", "survivors", "B", *(f"R = {R}" for R in RESOLUTIONS)), d
        ),
    }
    return "\n\n".join(f"**{title}**\n\n{table}" for title, table in parts.items())


def main() -> int:
    """Write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "privacy_tables")
    options = parser.parse_args()
    began = time.perf_counter()
    rows = [row for part in (published, constants, survivors, replaced, coarse) for row in part()]
    remarks = (
        f"T = {TRANSMISSIONS} transmissions, delta = {DELTA}, {SURVIVORS} survivors, Skellam tables of 40 bits, unless "
        "a column says otherwise. Orders: multiples of 1/16 up to 8, of 1/4 up to 16, whole ones up to 64; 8 cells; "
        "unless a row says otherwise. D: end points, against a table of 128 bits, the worst of the orders 2 to 16. "
        "Every epsilon is an upper bound but that of the limit, the exact one of a Gaussian of the same variance."
    )
    print(write(options.out, tables(rows), remarks, rows, time.perf_counter() - began))
    return 0


if __name__ == "__main__":
    sys.exit(main())
