"""Robust aggregation rules: time and memory beside ByzFL's, and beside what the machine needs at least.

::

    python benchmarks/aggregators.py            # writes benchmarks/results/aggregators.{json,md}
    python benchmarks/aggregators.py --quick    # small shapes, once: whether it runs

ByzFL (https://byzfl.epfl.ch) takes NumPy arrays and torch tensors; both are timed once, and the faster is the peer. It
takes turns with MATL on the same array. Peak memory is taken in a process of its own for every rule.
"""

from __future__ import annotations

import argparse
import ctypes
import importlib
import importlib.util
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from common import markdown, write
from numpy.typing import NDArray
from threadpoolctl import threadpool_limits

from matl.aggregators import (
    CAF,
    NNM,
    CenteredClipping,
    GeometricMedian,
    Krum,
    Meamed,
    Median,
    MultiKrum,
    TrimmedMean,
)

SHAPES = "20x100000,100x1000000,1000x100000"
QUICK = "20x2000,50x3000"
LARGE = 10**7  # entries from which on a matrix is no longer in the caches, and the targets beside ByzFL hold
PATIENCE = 20  # seconds that a call of ByzFL may take
ONCE = 5.0  # seconds from which on it is measured once
BYTES = 4 * 2**30  # that ByzFL may allocate
SPEED_UP = 1.6
APART = 1e-4  # that the answers may be, as a share of the largest entry; torch sums a million squares to 1e-5 or so
LONG, MOST_TURNS = 2.0, 50  # seconds of turns to aim for where calls are short, and at most so many
MIB = 2**20
REMARKS = f"""MATL's CPU time on one thread, how many times as long ByzFL 0.0.11 takes on the same array, and MATL's
time as a share of the *limit*: a read of the matrix by `np.vecdot`, its `X @ X.T` (*Gram*), a product of an n x n
matrix with it (*mixing*) and MATL's time for the rule alone (*sort*), as far as the rule cannot do without them.
Targets that say *large* hold from {LARGE:,} numbers on. Asked of all rules beside: two threads help {SPEED_UP} times
by the wall clock on large matrices, but for the rules that only read; and beside input and result a call takes at
most 64 MiB and n x n numbers of 8 bytes, measured in a process of its own. *Difference* is the largest one between
the two answers, but for one coordinate in 10,000 where single precision breaks ties at random, as a share of the
largest entry. ByzFL's CAF takes one power iteration from a random start and so has another answer; behind NNM it may
not end, because it keeps measuring by a row that it has already left out. *Out of memory* names what ByzFL would
write out where it was not run."""

Matrix = NDArray[np.float32]
Call = Callable[[Any], Any]


@dataclass(frozen=True)
class Target:
    """At most ``most`` times the time of ``against``: the limit, ByzFL's better variant, or its NumPy variant."""

    against: str
    most: float
    large: bool = False  # on large matrices alone

    def __str__(self) -> str:
        return f"at most {self.most:.2g} x {self.against}" + (" (large)" if self.large else "")


@dataclass(frozen=True)
class Case:
    """A rule for f Byzantine rows on both sides, and what is asked of ours."""

    ours: Callable[[int], Call]
    theirs: Callable[[Any, int], list[Call]]
    limit: tuple[str, ...]
    targets: tuple[Target, ...] = ()
    threads: bool = True  # whether two threads have to help
    same: bool = True  # whether both sides compute the same


def nnm(last: str, *arguments: Any) -> Callable[[Any, int], list[Call]]:
    """ByzFL's NNM before one of its rules."""
    return lambda byzfl, f: [byzfl.NNM(f), *peer(last, *arguments)(byzfl, f)]


def peer(name: str, *arguments: Any) -> Callable[[Any, int], list[Call]]:
    """A rule of ByzFL, which takes f unless it is given other arguments."""
    return lambda byzfl, f: [getattr(byzfl, name)(*(arguments or (f,)))]


def krum(f: int) -> Krum:
    """Krum as ByzFL defines it."""
    return Krum(f, neighbors="n-f-1")


def multi_krum(f: int) -> MultiKrum:
    """Multi-Krum as ByzFL defines it."""
    return MultiKrum(f, neighbors="n-f-1")


def geometric_median(f: int) -> GeometricMedian:
    """The geometric median as ByzFL defines it."""
    return GeometricMedian(nu=0.1, iterations=3, tolerance=0.0)


GRAM = ("Gram",)
MIXED_SORT = ("Gram", "mixing", "sort")
NEAR_GRAM = (Target("limit", 1.2),)
FIFTH = (Target("ByzFL", 0.2, large=True),)
CASES = {
    "Krum": Case(krum, peer("Krum"), GRAM, NEAR_GRAM),
    "MultiKrum": Case(multi_krum, peer("MultiKrum"), GRAM, NEAR_GRAM),
    "CAF": Case(CAF, peer("CAF"), GRAM, NEAR_GRAM, same=False),
    "GeometricMedian": Case(
        geometric_median,
        peer("GeometricMedian", 0.1, 3),
        ("read",),
        (Target("ByzFL", 1 / 3.5, large=True),),
        threads=False,
    ),
    "CenteredClipping": Case(
        lambda f: CenteredClipping(radius=100.0),
        peer("CenteredClipping", None, 1, 100.0),
        ("read",),
        FIFTH,
        threads=False,
    ),
    "Median": Case(lambda f: Median(), lambda byzfl, f: [byzfl.Median()], ("read",), FIFTH),
    "TrimmedMean": Case(
        TrimmedMean,
        peer("TrMean"),
        ("read",),
        (Target("ByzFL numpy", 0.7, large=True), Target("ByzFL", 1.0)),
    ),
    "Meamed": Case(Meamed, peer("Meamed"), ("read",), FIFTH),
    "NNM": Case(lambda f: NNM(f).mix, peer("NNM"), ("Gram", "mixing")),
    "NNM, Krum": Case(lambda f: NNM(f) | krum(f), nnm("Krum"), GRAM, NEAR_GRAM),
    "NNM, MultiKrum": Case(lambda f: NNM(f) | multi_krum(f), nnm("MultiKrum"), GRAM, NEAR_GRAM),
    "NNM, CAF": Case(lambda f: NNM(f) | CAF(f), nnm("CAF"), GRAM, NEAR_GRAM, same=False),
    "NNM, GeometricMedian": Case(
        lambda f: NNM(f) | geometric_median(f), nnm("GeometricMedian", 0.1, 3), GRAM, NEAR_GRAM
    ),
    "NNM, TrimmedMean": Case(lambda f: NNM(f) | TrimmedMean(f), nnm("TrMean"), MIXED_SORT, (Target("limit", 1.0),)),
    "NNM, Median": Case(
        lambda f: NNM(f) | Median(),
        lambda byzfl, f: [byzfl.NNM(f), byzfl.Median()],
        MIXED_SORT,
        (Target("limit", 1.0),),
    ),
}


def updates(n: int, d: int) -> Matrix:
    """Normal rows of different lengths, so that no two rows come close to a tie."""
    rng = np.random.default_rng(0)
    lengths = rng.permutation(np.linspace(0.5, 1.5, n, dtype=np.float32))
    X = rng.standard_normal((n, d), dtype=np.float32)
    X *= lengths[:, None]
    return X


def floors(name: str, X: Matrix, f: int) -> dict[str, Callable[[], Any]]:
    """What a rule cannot do without, on one thread: a read of all numbers, all inner products, ..."""
    n = len(X)
    if "mixing" not in CASES[name].limit:
        return {"read": lambda: np.vecdot(X, X), "Gram": lambda: X @ X.T}
    mixing = np.full((n, n), 1 / n, np.float32)
    out = None if name == "NNM" else np.zeros_like(X)  # the mixtures are what NNM alone returns
    alone = CASES[name.removeprefix("NNM, ")].ours(f)
    return {
        "Gram": lambda: X @ X.T,
        "mixing": lambda: np.matmul(mixing, X, out=out),
        "sort": lambda: alone(X),
    }


def clocked(call: Callable[[], Any]) -> tuple[Any, float, float]:
    """The result, the seconds of CPU time and of the wall clock."""
    cpu, wall = time.process_time(), time.perf_counter()
    result = call()
    return result, time.process_time() - cpu, time.perf_counter() - wall


@cache
def byzfl_rules() -> Any:
    """ByzFL's rules without the rest of the package, which needs all that its training needs."""
    spec = importlib.util.find_spec("byzfl")
    if spec is None:
        sys.exit("benchmarks/aggregators.py compares with ByzFL, which is not installed; get it with `make venv-all`")
    sys.modules["byzfl"] = importlib.util.module_from_spec(spec)
    return importlib.import_module("byzfl.aggregators")


@contextmanager
def within(seconds: int) -> Iterator[None]:
    """Raise TimeoutError after so many seconds, or when the compiled code that then runs is done."""

    def stop(*_: object) -> None:
        raise TimeoutError(f"not done after {seconds} s")

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


class Peer:
    """One of ByzFL's variants of a rule, on a matrix that it is willing to take.

    Parameters
    ----------
    name : str
        Of the case.
    X : float32 array of shape (n, d), or a torch tensor of the same
        ByzFL computes in NumPy or torch accordingly.
    """

    def __init__(self, name: str, X: Any) -> None:
        self.name, self.X, self.f = name, X, len(X) // 5
        self.answer: Any = None
        self.refusal: str | None = None
        self.seconds = float("inf")  # of the first call

    def __call__(self) -> Any:
        """ByzFL's answer, from new rules: one of them keeps a state."""
        result = self.X
        for rule in CASES[self.name].theirs(byzfl_rules(), self.f):
            result = rule(result)
        return result

    def attempt(self, patience: int) -> None:
        """Call it once, for so many seconds at most, unless it needs too much memory; remember what came of it."""
        n, d = self.X.shape
        copies = 4 * n * (n - self.f) * d  # NNM writes the neighbours of every row out before it averages them
        if self.name.startswith("NNM") and copies > BYTES:
            self.refusal = f"out of memory ({copies / 2**30:.0f} GiB)"
            return
        try:
            with within(patience):
                self.answer, self.seconds, _ = clocked(self)
        except (RuntimeError, TimeoutError) as error:  # torch's quantile stops at 16 million numbers
            self.refusal = str(error)
        self.answer = None if self.answer is None else np.asarray(self.answer)


def measure(
    name: str, X: Matrix, turns: int, threads: Sequence[int], *, patience: int, seconds: float
) -> dict[str, Any]:
    """One rule on one matrix: ByzFL, MATL and the limit in turns, medians in milliseconds.

    ``turns`` is the least number of turns; more are taken to fill the seconds. ``patience`` as in `Peer.attempt`.
    """
    import torch

    torch.set_num_threads(1)
    case, f = CASES[name], len(X) // 5
    rule = case.ours(f)
    limits = {part: call for part, call in floors(name, X, f).items() if part in case.limit}
    peers = {"numpy": Peer(name, X), "torch": Peer(name, torch.from_numpy(X))}
    with threadpool_limits(1):
        for side in peers.values():
            side.attempt(patience)
        best = min(peers, key=lambda side: peers[side].seconds)
        theirs, answer = peers[best].answer, rule(X)  # ours is also the warm-up
        apart = None if theirs is None else difference(answer, theirs)

        def timed(call: Callable[[], Any]) -> tuple[float, float]:
            np.vecdot(X, X)  # all find the same in the caches
            return clocked(call)[1:]

        first = sum(timed(call)[1] for call in limits.values()) + timed(lambda: rule(X))[1]
        first += peers[best].seconds if theirs is not None else 0.0
        times: dict[str, list[float]] = {"ours": [], "wall": [], "ByzFL": [], "limit": [], "speed-up": []}
        for _ in range(max(turns, min(MOST_TURNS, int(seconds / first)))):
            if peers[best].seconds < ONCE:
                times["ByzFL"].append(timed(peers[best])[0])
            cpu, wall = timed(lambda: rule(X))
            times["ours"].append(cpu)
            times["wall"].append(wall)
            times["limit"].append(sum(timed(call)[0] for call in limits.values()))
            for count in threads[1:]:
                with threadpool_limits(count):
                    times["speed-up"].append(wall / timed(lambda: rule(X))[1])
    own = times["ours"]
    byzfl = times["ByzFL"] or [peers[best].seconds]
    return {
        "rule": name,
        "n": len(X),
        "d": X.shape[1],
        "f": f,
        "ours_ms": milliseconds(own),
        "ours_wall_ms": milliseconds(times["wall"]),
        "byzfl_ms": milliseconds(byzfl) if theirs is not None else None,
        "byzfl_variant": best if theirs is not None else None,
        "byzfl_first_call_ms": {
            side: milliseconds([tried.seconds]) if tried.refusal is None else tried.refusal
            for side, tried in peers.items()
        },
        "limit_ms": milliseconds(times["limit"]),
        "share_of_byzfl": None if theirs is None else statistics.median(own) / statistics.median(byzfl),
        "share_of_limit": statistics.median(a / b for a, b in zip(own, times["limit"], strict=True)),
        "speed_up": statistics.median(times["speed-up"]) if times["speed-up"] else None,
        "difference": apart,
        "extra_mib": peak(name, *X.shape),
    }


def difference(a: Matrix, b: Matrix) -> float:
    """The largest but for one coordinate in ten thousand, where single precision breaks ties at random; relative."""
    return float(np.quantile(np.abs(a - b), 0.9999, method="lower") / np.abs(b).max())


def milliseconds(seconds: Sequence[float]) -> float:
    """Their median."""
    return round(statistics.median(seconds) * 1e3, 2)


def peak(name: str, n: int, d: int) -> float | None:
    """MiB that a call needs at its largest beside its input and result, in a fresh process; ``None`` off Linux."""
    if not Path("/proc/self/clear_refs").exists():
        return None
    command = [sys.executable, __file__, "--peak", name, str(n), str(d)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=600)
    return float(done.stdout)


def own_peak(name: str, n: int, d: int) -> float:
    """The same of this process, after a call on fewer columns has compiled and imported what there is."""
    rule, X = CASES[name].ours(n // 5), updates(n, d)

    def resident(field: str) -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(field))

    with threadpool_limits(1):
        rule(np.ascontiguousarray(X[:, : 10**4]))
        ctypes.CDLL(None).malloc_trim(0)  # what that call freed is not ours to use unseen
        Path("/proc/self/clear_refs").write_text("5")  # the high-water mark starts anew
        before = resident("VmRSS")
        result = rule(X)
        return max(0.0, (resident("VmHWM") - before - result.nbytes) / MIB)


def misses(row: dict[str, Any]) -> list[str]:
    """What a row falls short of."""
    case, n, large = CASES[row["rule"]], row["n"], row["n"] * row["d"] >= LARGE
    numpy = row["byzfl_ms"] if row["byzfl_variant"] == "numpy" else row["byzfl_first_call_ms"]["numpy"]
    shares = {
        "limit": row["share_of_limit"],
        "ByzFL": row["share_of_byzfl"],
        "ByzFL numpy": row["ours_ms"] / numpy if isinstance(numpy, float) else None,
    }
    short = [
        f"{share:.2f} x {target.against}"
        for target in case.targets
        if (large or not target.large) and (share := shares[target.against]) is not None and share > target.most
    ]
    if case.threads and large and row["speed_up"] is not None and row["speed_up"] < SPEED_UP:
        short.append(f"threads {row['speed_up']:.2f} x")
    if case.same and row["difference"] is not None and row["difference"] > APART:
        short.append(f"answers {row['difference']:.0e} apart")
    if row["extra_mib"] is not None and row["extra_mib"] > 64 + 8 * n * n / MIB:
        short.append(f"{row['extra_mib']:.0f} MiB")
    return short


def shape(row: dict[str, Any]) -> str:
    """Of its matrix."""
    return f"{row['n']} x {row['d']:,}"


def faster(row: dict[str, Any]) -> str:
    """How many times as long ByzFL takes."""
    return "-" if row["share_of_byzfl"] is None else f"{1 / row['share_of_byzfl']:.1f} x"


def summary(rows: list[dict[str, Any]]) -> str:
    """A line per rule."""
    shapes = list(dict.fromkeys(shape(row) for row in rows))
    lines = []
    for name, case in CASES.items():
        picked = {shape(row): row for row in rows if row["rule"] == name}
        cells = [f"{row['ours_ms']:.4g} ms, {faster(row)}, {row['share_of_limit']:.2f}" for row in picked.values()]
        short = [f"{where}: {', '.join(misses(row))}" for where, row in picked.items() if misses(row)]
        wanted = ", ".join(map(str, case.targets)) or "-"
        lines.append([name, *cells, wanted, "; ".join(["no", *short]) if short else "yes"])
    return markdown(["rule", *shapes, "wanted", "met"], lines)


def details(rows: list[dict[str, Any]]) -> str:
    """A line per rule and matrix."""
    lines = []
    for row in rows:
        theirs = [f"{row['byzfl_ms']:.4g} ms ({row['byzfl_variant']})"] if row["byzfl_ms"] is not None else []
        refusals = {side: text for side, text in row["byzfl_first_call_ms"].items() if isinstance(text, str)}
        same = len(set(refusals.values())) == 1 and not theirs
        why = [next(iter(refusals.values()))] if same else [f"{side}: {text}" for side, text in refusals.items()]
        lines.append(
            [
                row["rule"],
                shape(row),
                f"{row['ours_ms']:.4g}",
                "; ".join(theirs + why),
                faster(row),
                f"{row['limit_ms']:.4g} ({' + '.join(CASES[row['rule']].limit)})",
                f"{row['share_of_limit']:.2f}",
                "-" if row["speed_up"] is None else f"{row['speed_up']:.2f} x",
                "-" if row["extra_mib"] is None else f"{row['extra_mib']:.0f}",
                "-" if row["difference"] is None else f"{row['difference']:.0e}",
            ]
        )
    head = ["rule", "matrix", "MATL, ms", "ByzFL", "ByzFL/MATL", "limit, ms", "MATL/limit", "two threads", "extra MiB"]
    return markdown([*head, "difference"], lines)


def main() -> None:
    """Measure, print and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", default=SHAPES, help="n x d of the matrices (default: %(default)s)")
    parser.add_argument("--rules", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--repeats", type=int, default=3, help="turns at least (default: %(default)s)")
    parser.add_argument("--threads", default="1,2", help="1, or 1 and the number to compare it with")
    parser.add_argument("--quick", action="store_true", help="small shapes, once, written nowhere unless --out says so")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--peak", nargs=3, metavar=("RULE", "N", "D"), help="peak memory of one call in this process")
    given = parser.parse_args()
    if given.peak:
        print(own_peak(given.peak[0], int(given.peak[1]), int(given.peak[2])))
        return
    started, rows = time.perf_counter(), []
    turns = 1 if given.quick else given.repeats
    effort = {"patience": 3, "seconds": 0.0} if given.quick else {"patience": PATIENCE, "seconds": LONG}
    threads = [int(count) for count in given.threads.split(",")]
    for size in (QUICK if given.quick else given.shapes).split(","):
        X = updates(*map(int, size.split("x")))
        for name in given.rules:
            rows.append(measure(name, X, turns, threads, **effort))
            done = rows[-1]
            print(f"{size} {name}: {done['ours_ms']:.4g} ms, {faster(done)}", file=sys.stderr, flush=True)
    text = f"{summary(rows)}\n\n{REMARKS}\n\n{details(rows)}"
    if given.quick and given.out is None:
        print(text)
        return
    out = given.out or Path(__file__).parent / "results" / "aggregators"
    remarks = (
        f"Medians of {turns} turns, or of up to {MOST_TURNS} where they are short; float32, f = n/5, normal rows "
        "scaled by 0.5 to 1.5."
    )
    print(write(out, text, remarks, rows, time.perf_counter() - started))


if __name__ == "__main__":
    main()
