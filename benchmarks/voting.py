"""Where reputation-weighted voting holds and where it fails: liars by their number and by how they go about it.

::

    python benchmarks/voting.py      # no data, writes benchmarks/results/voting.{json,md}; under two minutes
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from common import markdown, write
from numpy.typing import NDArray

from matl.campaigns.statistics import mean_interval
from matl.simulation.randomness import stream
from matl.trust.reputation import POWER, Conduct, Reputations, voting_shares
from matl.trust.voting import NONCE_BYTES, Decision, Election, commitment

SEEDS = tuple(range(10, 20))
"""Never used to choose a constant; those are 0-4."""

VALIDATORS, UNITS = 40, 20
POISONED = 0.3  # share of the units that should be rejected
ERROR = 0.03  # an honest validator errs about a unit with this probability, on its own
HARD, HARD_ERROR = 0.2, 0.3  # share of units that are hard, and how often honest validators err about them
BEFORE, AFTER = 60, 40  # rounds before the liars start, and rounds that are counted
SHARES = (0.3, 0.35, 0.45, 0.55)


@dataclass(frozen=True)
class Strategy:
    """How liars go about it, and what they meet."""

    start: str = "sleepers"  # "sleepers" voted honestly before; "newcomers" join then; "equal": so does everybody else
    lies: str = "always"  # or "rarely": one unit in twenty; "hard": about hard units; "never": they stay away
    hard: float = 0.0  # share of hard units
    away: float = 0.02  # an honest validator misses a round with this probability
    power: float = POWER
    decided_only: bool = False  # whether units without a decision are no evidence about validators


STRATEGIES = {
    "join an established committee, always lie": Strategy(start="newcomers"),
    "the same, one member one vote": Strategy(start="newcomers", power=0.0),
    "equal reputations: all are newcomers, always lie": Strategy(start="equal"),
    "sleepers: 60 honest rounds, then always lie": Strategy(),
    "the same, 10 % of honest validators away": Strategy(away=0.1),
    "sleepers that stay away": Strategy(lies="never"),
    "sleepers that lie about one unit in twenty": Strategy(lies="rarely"),
    "sleepers that strike on the hard fifth of units": Strategy(lies="hard", hard=HARD),
}
ABLATED = tuple(STRATEGIES)[2:4] + tuple(STRATEGIES)[-1:]
DECIDED_ONLY = ", evidence from decided units only"


def votes_of_round(
    rng: np.random.Generator, strategy: Strategy, liars: NDArray[np.bool_], active: bool
) -> tuple[NDArray[np.bool_], NDArray[np.bool_], NDArray[np.bool_]]:
    """Which units are clean (U,), what everyone votes (n, U), and who is there (n,)."""
    clean, hard = rng.random(UNITS) >= POISONED, rng.random(UNITS) < strategy.hard
    errs = rng.random((len(liars), UNITS)) < np.where(hard, HARD_ERROR, ERROR)
    there = liars | (rng.random(len(liars)) >= strategy.away)
    rarely = rng.random(UNITS) < 0.05
    if active:
        target = {"always": np.ones(UNITS, bool), "rarely": rarely, "hard": hard, "never": np.zeros(UNITS, bool)}
        errs[liars] = target[strategy.lies]
        there = there & ~(liars & (strategy.lies == "never"))
    return clean, clean ^ errs, there


def elect(
    number: int, names: Sequence[str], shares: NDArray[np.float64], votes: NDArray[np.bool_], there: NDArray[np.bool_]
) -> Election:
    """A closed election of everyone who is there."""
    units = [f"unit-{index}" for index in range(UNITS)]
    election = Election.opened("benchmark", number, units, dict(zip(names, shares.tolist(), strict=True)))
    ballots = {names[row]: dict(zip(units, votes[row].tolist(), strict=True)) for row in np.flatnonzero(there)}
    nonce = bytes(NONCE_BYTES)  # nobody guesses votes here
    for name, ballot in ballots.items():
        election = election.committed(name, commitment("benchmark", number, name, ballot, nonce))
    election = election.advanced()
    for name, ballot in ballots.items():
        election = election.revealed(name, ballot, nonce)
    return election.advanced()


def of_decided(election: Election) -> dict[str, Conduct | None]:
    """Conduct by decided units alone."""
    decided = {tally.unit: tally.decision for tally in election.tallies() if tally.decision is not Decision.UNDECIDED}
    shown: dict[str, Conduct | None] = {}
    for validator in election.weights:
        votes = election.votes.get(validator)
        if votes is None or not decided:
            shown[validator] = None if votes is None else Conduct()
        else:
            right = sum(votes[unit] is (side is Decision.ACCEPTED) for unit, side in decided.items()) / len(decided)
            shown[validator] = Conduct(right, 1.0 - right)
    return shown


def play(case: str, strategy: Strategy, share: float, seed: int) -> dict[str, Any]:
    """One committee's history; what it decided after the liars started."""
    rng = stream(seed, f"voting {case}", round(100 * share))
    everyone = [f"validator-{index:02d}" for index in range(VALIDATORS)]
    lying = np.arange(VALIDATORS) < round(share * VALIDATORS)
    reputations, counted, weights = Reputations.empty(), [], []
    for number in range(0 if strategy.start == "equal" else -BEFORE, AFTER):
        active = number >= 0
        member = np.ones(VALIDATORS, bool) if active or strategy.start == "sleepers" else ~lying
        names, liars = [everyone[row] for row in np.flatnonzero(member)], lying[member]
        shares = voting_shares(reputations.of(names), power=strategy.power)
        clean, votes, there = votes_of_round(rng, strategy, liars, active)
        election = elect(number + BEFORE, names, shares, votes, there)
        reputations = reputations.after(of_decided(election) if strategy.decided_only else election.conduct())
        if active:
            weights.append(float(shares[liars].sum()))
            found = [tally.decision for tally in election.tallies()]
            due = [Decision.ACCEPTED if one else Decision.REJECTED for one in clean]
            undecided = found.count(Decision.UNDECIDED)
            right = sum(one is other for one, other in zip(found, due, strict=True))
            counted.append((UNITS - undecided - right, undecided, right))
    wrong, undecided, right = np.array(counted).T
    return {
        "case": case,
        "share": share,
        "seed": seed,
        **asdict(strategy),
        "first_weight": weights[0],
        "last_weight": weights[-1],
        "wrong": float(wrong.mean() / UNITS),
        "undecided": float(undecided.mean() / UNITS),
        "right": float(right.mean() / UNITS),
        "lost_rounds": int((right < UNITS / 2).sum()),
    }


def table(rows: Sequence[dict[str, Any]]) -> str:
    """A line per case and share of liars."""
    lines = []
    for case, share in dict.fromkeys((row["case"], row["share"]) for row in rows):
        picked = [row for row in rows if (row["case"], row["share"]) == (case, share)]
        first, last, lost = (
            statistics.fmean(row[key] for row in picked) for key in ("first_weight", "last_weight", "lost_rounds")
        )
        figures = [_interval([row[key] for row in picked]) for key in ("wrong", "undecided", "right")]
        lines.append([case, f"{share:.0%}", f"{first:.0%} to {last:.0%}", *figures, f"{lost:.1f}"])
    return markdown(["liars", "of members", "their weight", "wrong", "undecided", "right", "rounds lost"], lines)


def _interval(values: Sequence[float]) -> str:
    found = mean_interval(values)
    if found is None or found.half_width is None:
        return f"{statistics.fmean(values):.1%}"
    return f"{found.mean:.1%} ± {100 * found.half_width:.1f}"


def main() -> None:
    """Run all, print the table, write it with the raw rows beside it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=SEEDS)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "voting")
    given = parser.parse_args()
    rows, started = [], time.perf_counter()
    cases = {case: (strategy, SHARES) for case, strategy in STRATEGIES.items()}
    for case in ABLATED:
        changed = Strategy(**{**asdict(STRATEGIES[case]), "decided_only": True})
        cases[case + DECIDED_ONLY] = (changed, SHARES[1:])
    for case, (strategy, shares) in cases.items():
        for share in shares:
            rows += [play(case, strategy, share, seed) for seed in given.seeds]
        print(case, file=sys.stderr, flush=True)
    remarks = (
        f"{VALIDATORS} validators, {UNITS} units a round, {POISONED:.0%} of them to be rejected; honest validators err "
        f"in {ERROR:.0%} ({HARD_ERROR:.0%} on hard units) and miss 2 % of rounds; {AFTER} rounds from the first "
        "lie on. Percentages of units, mean ± 95 % interval over seeds; a round is lost if less than half of its units "
        f"are decided right. Seeds {given.seeds[0]}-{given.seeds[-1]}."
    )
    print(write(given.out, table(rows), remarks, rows, time.perf_counter() - started))


if __name__ == "__main__":
    main()
