"""How often planted cartels are found, and how often honest members are taken for one.

::

    python benchmarks/cartels.py      # no data, writes benchmarks/results/cartels.{json,md}; under two minutes
"""

from __future__ import annotations

import argparse
import math
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from common import markdown, write

from matl.simulation.randomness import stream
from matl.trust.cartels import Level, find_groups
from matl.trust.cartels.actions import THRESHOLDS
from matl.trust.cartels.ledger import Ledger

SEEDS = tuple(range(10, 40))
"""Never used to choose a constant; those are 0-4."""

MEMBERS, ROUNDS, JUDGED, REGIONS = 60, 40, 15, 5
CAUGHT = 0.15  # how often an honest judge takes a lie for honest
ERROR_ODDS = 3.2  # log odds of an honest unit being accepted: 96 %


@dataclass(frozen=True)
class World:
    """What members are like. All have units that are hard to judge, and some lie alone."""

    cartel: int = 0  # members that accept whatever another of them sends
    lies: float = 0.5  # share of rounds in which a cartel member lies
    sync: float = 0.8  # how far their times move as one
    one_region: bool = True
    stake: float = 3.0  # their stake, in units of an honest member's
    alone: float = 0.1  # share of members that lie in half of the rounds and vouch for nobody
    hard: float = 0.03  # share of honest units that half of the judges reject
    nearby: float = 1.0  # how much more often a member judges its own region
    odd: float = 0.0  # how much other regions' members are put off by a unit, in log odds; hard units count half
    shock: float = 0.1  # correlation of times within a region
    wealth: float = 0.0  # spread of the regions' mean log stakes
    lax: int = 0  # honest members that accept most lies, whoever sends them
    victims: int = 0  # honest members whose every unit is rejected by those who frame them
    framing: float = 0.0  # share of members that frame them


REGIONAL = {"nearby": 6.0, "shock": 0.3, "wealth": 0.7}
CAREFUL = {"lies": 0.3, "sync": 0.6, "one_region": False, "stake": 2.0}
STEALTHY = {"lies": 0.1, "sync": 0.0, "one_region": False, "stake": 1.0}
HONEST = {
    "strangers": World(),
    "strangers, nobody lies alone": World(alone=0.0),
    "regions that judge their own six times as often": World(**REGIONAL),
    "the same, other regions find their data odd": World(**REGIONAL, odd=1.0),
    "the same, very odd": World(**REGIONAL, odd=2.0),
    "ten lax judges": World(lax=10),
    "five members framed by 20 %": World(victims=5, framing=0.2),
    "five members framed by 40 %": World(victims=5, framing=0.4),
}
CARTELS = {
    f"{name}, {size} of {MEMBERS}": World(cartel=size, **settings)
    for name, settings in {"open cartel": {}, "careful cartel": CAREFUL, "stealthy cartel": STEALTHY}.items()
    for size in (3, 6, 12)
}


def play(case: str, world: World, seed: int) -> dict[str, Any]:
    """One period of a federation, and what is found in it."""
    rng = stream(seed, f"cartels {case}")
    names = [f"member-{index:02d}" for index in range(MEMBERS)]
    index = np.arange(MEMBERS)
    cartel, lax = index < world.cartel, (index >= MEMBERS - world.lax)
    victim = (index >= world.cartel) & (index < world.cartel + world.victims)
    framer = (index >= 20) & (index < 20 + round(world.framing * MEMBERS))
    alone = (index >= 45) & (index < 45 + round(world.alone * MEMBERS))
    region = rng.integers(REGIONS, size=MEMBERS)
    if world.one_region:
        region[cartel] = REGIONS - 1
    same = region[:, None] == region
    stake = np.exp(rng.normal(size=MEMBERS) + world.wealth * rng.normal(size=REGIONS)[region])
    stake[cartel] *= world.stake
    strict, quality = rng.normal(0.0, 0.5, MEMBERS), rng.normal(0.0, 0.5, MEMBERS)
    habit = 60 + 10 * rng.random(MEMBERS) + 10 * rng.random(REGIONS)[region]
    ledger = Ledger.empty()
    for _ in range(ROUNDS):
        lying = (cartel & (rng.random(MEMBERS) < world.lies)) | (alone & (rng.random(MEMBERS) < 0.5))
        hard = rng.random(MEMBERS) < world.hard
        away = np.where(same, 0.0, world.odd)
        odds = np.where(hard, world.odd / 2 - away, ERROR_ODDS + quality - away) + strict[:, None]
        accept = 1.0 / (1.0 + np.exp(-odds))
        accept = np.where(lying, np.where(lax[:, None], 0.6, CAUGHT), accept)
        accept[np.ix_(framer, victim)] = 0.0
        accept[np.ix_(cartel, cartel)] = 1.0
        preference = np.log(np.where(same, world.nearby, 1.0)) + rng.gumbel(size=(MEMBERS, MEMBERS))
        np.fill_diagonal(preference, -np.inf)
        judged = np.argpartition(-preference, JUDGED, axis=1)[:, :JUDGED]
        votes = rng.random((MEMBERS, MEMBERS)) < accept
        wave, local = rng.normal(), rng.normal(size=REGIONS)[region]
        mine = rng.normal(size=MEMBERS)
        moved = math.sqrt(world.shock) * local + math.sqrt(1 - world.shock) * mine
        moved = np.where(cartel, world.sync * wave + math.sqrt(1 - world.sync**2) * mine, moved)
        there = rng.random(MEMBERS) >= 0.05
        ledger = ledger.recorded(
            {names[i]: {names[j]: bool(votes[i, j]) for j in judged[i]} for i in index},
            {names[i]: float(max(habit[i] + moved[i], 0.0)) for i in index[there]},
        )
    groups = find_groups(
        ledger,
        regions={names[i]: str(region[i]) for i in index},
        stakes={names[i]: float(stake[i]) for i in index},
        seed=seed,
    )
    planted = {names[i] for i in index[cartel]}
    found = [
        {"risk": group.risk, "size": len(group.members), "planted": len(planted & set(group.members)), **group.tails}
        for group in groups
    ]
    return {"case": case, "seed": seed, **asdict(world), "found": found}


def reached(row: dict[str, Any], least: float) -> bool:
    """Whether a group that is the cartel (most of it, and mostly it), or without one any group, has that risk."""
    return any(
        one["risk"] >= least
        and (row["cartel"] == 0 or (2 * one["planted"] > one["size"] and 2 * one["planted"] > row["cartel"]))
        for one in row["found"]
    )


def hit(row: dict[str, Any], least: float) -> int:
    """Honest members in groups of that risk."""
    return sum(one["size"] - one["planted"] for one in row["found"] if one["risk"] >= least)


def interval(count: int, of: int) -> str:
    """A share and its 95 % Wilson interval."""
    z, share = 1.96, count / of
    middle = (share + z * z / (2 * of)) / (1 + z * z / of)
    half = z * math.sqrt(share * (1 - share) / of + z * z / (4 * of * of)) / (1 + z * z / of)
    return f"{share:.0%} ({max(middle - half, 0):.0%}-{min(middle + half, 1):.0%})"


def table(rows: Sequence[dict[str, Any]]) -> str:
    """A line per case."""
    lines = []
    for case in dict.fromkeys(row["case"] for row in rows):
        picked = [row for row in rows if row["case"] == case]
        shares = [interval(sum(reached(row, least) for row in picked), len(picked)) for least in THRESHOLDS.values()]
        honest = sum(MEMBERS - row["cartel"] for row in picked)
        hits = [
            f"{sum(hit(row, THRESHOLDS[level]) for row in picked) / honest:.1%}"
            for level in (Level.WATCH, Level.DAMPEN)
        ]
        lines.append([case, *shares, *hits])
    levels = [f"{level.name.lower()} (risk {least:g})" for level, least in THRESHOLDS.items()]
    return markdown(["members", *levels, "honest watched", "honest dampened"], lines)


def main() -> None:
    """Run all, print the tables, write them with the raw rows beside them."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "cartels")
    given = parser.parse_args()
    rows, started = [], time.perf_counter()
    for case, world in {**HONEST, **CARTELS}.items():
        rows += [play(case, world, seed) for seed in given.seeds]
        print(case, file=sys.stderr, flush=True)
    text = (
        "**Honest members**: share of periods in which any group reaches a level (all of them false alarms)\n\n"
        f"{table([row for row in rows if not row['cartel']])}\n\n"
        "**Planted cartels**: share of periods in which the cartel is found\n\n"
        f"{table([row for row in rows if row['cartel']])}"
    )
    remarks = (
        f"{MEMBERS} members, {ROUNDS} rounds a period, everyone judges {JUDGED} others a round; 10 % lie alone, 3 % of "
        "units are hard. Open: lies in 50 % of rounds, times correlate by 0.64, one region, three times the stake. "
        "Careful: 30 %, 0.36, anywhere, twice. Stealthy: 10 %, 0, anywhere, the usual stake. In brackets 95 % Wilson "
        f"intervals. Seeds {given.seeds[0]}-{given.seeds[-1]}."
    )
    print(write(given.out, text, remarks, rows, time.perf_counter() - started))


if __name__ == "__main__":
    main()
