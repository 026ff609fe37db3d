"""Put the tables of finished attack matrices where the documentation shows them, with the targets they are held to.

::

    matl matrix main --jobs 2 --out runs/main
    matl matrix white_box --jobs 2 --out runs/white_box
    python benchmarks/publish_matrix.py runs/main runs/white_box

Copies ``cells.csv`` and ``summary.md`` of each to ``benchmarks/results/matrix/NAME``, with the worst cases in a file of
their own. To ``main`` belong the targets, and ``white_box`` where it is there too. An unfinished matrix, or one that
ran with uncommitted changes, is refused.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
from collections.abc import Iterator, Sequence
from pathlib import Path

from common import markdown

from matl.campaigns.matrix.design import NOBODY
from matl.campaigns.matrix.files import summarise_matrix
from matl.campaigns.matrix.results import Against, Results
from matl.campaigns.matrix.tables import attack_words
from matl.campaigns.statistics import Interval, mean_interval
from matl.files import make_directory, write_atomic

OUT = Path(__file__).parent / "results" / "matrix"
QUIET: Against = (NOBODY, 0.0)
MOST = 0.45  # what Mode 1 declares to bear
RIVALS = ("fedavg", "krum", "multi_krum", "nnm", "fltrust")
# By the row of the matrix and the mode: the share of the malicious clients that has to be in quarantine in the end.
DETECTION: list[tuple[str, str, float, float]] = [
    *(("mode1", "sign_flip", fraction, share) for fraction, share in ((0.2, 0.95), (0.33, 0.9), (0.4, 0.85))),
    *(("mode0", "sign_flip", fraction, share) for fraction, share in ((0.2, 0.95), (0.33, 0.9))),
    *(("mode1", "sign_flip", MOST, 0.85), ("mode1", "gaussian_noise", MOST, 0.9)),
    *(("mode1", f"model_poisoning:against={rule}", MOST, 0.8) for rule in ("krum", "trimmed_mean")),
    *(("mode1", "sleeper", MOST, 0.7), ("mode1", "collusion", MOST, 0.85)),
    *((mode, "gaussian_noise", 0.2, 0.9) for mode in ("mode0", "mode1")),
    *(
        (mode, f"model_poisoning:against={rule}", 0.2, 0.8)
        for mode in ("mode0", "mode1")
        for rule in ("krum", "trimmed_mean")
    ),
    *((mode, "sleeper", 0.2, 0.7) for mode in ("mode0", "mode1")),
    *((mode, "collusion", 0.2, 0.85) for mode in ("mode0", "mode1")),
]
# Gap to the ceiling in points at 44 % malicious clients of an earlier prototype on two seeds, on other splits.
PROTOTYPE: dict[str, dict[float, float]] = {
    NOBODY: {0.5: -0.2, 0.1: -0.3},
    "sign_flip": {0.5: -0.1, 0.1: -0.6},
    "scaling": {0.5: -0.1, 0.1: -0.6},
    "label_flip:flip=shift": {0.5: -0.1, 0.1: -0.6},
    "gaussian_noise": {0.5: -0.1, 0.1: -0.6},
    "alie": {0.5: -0.1, 0.1: -0.6},
    "ipm:epsilon=2": {0.5: -0.1, 0.1: -0.6},
    "min_max": {0.5: -0.1, 0.1: -0.6},
    "targeted_flip": {0.5: -0.2, 0.1: -0.9},
    "sleeper": {0.5: -0.3, 0.1: -0.5},
    "adaptive_mix": {0.5: -0.1, 0.1: -0.7},
    "class_only": {0.5: -0.2, 0.1: -0.5},
    "cone": {0.5: -7.2, 0.1: -12.7},
}

Line = list[str]


def quiet(results: Results, alpha: float) -> Iterator[Line]:
    """What Mode 1 does where nobody attacks."""
    fpr = list(results.values(alpha, QUIET, "mode1", "fpr").values())
    allowed = 0.02 if alpha >= 0.5 else 0.05
    pooled, worst = statistics.fmean(fpr), max(fpr)
    yield line(f"accused, nobody attacks, alpha {alpha:g}", f"≤ {allowed:.0%}", f"{pooled:.1%}", pooled <= allowed)
    yield line(f"the same, worst seed, alpha {alpha:g}", "≤ 10%", f"{worst:.1%}", worst <= 0.1)
    behind = mean_interval(results.differences(alpha, (QUIET, "mode1"), (QUIET, "fedavg")))
    assert behind is not None
    yield line(
        f"accuracy less FedAvg's, nobody attacks, alpha {alpha:g}", "≥ \u22120.5", points(behind), behind.mean >= -0.005
    )
    mine, theirs = (results.values(alpha, QUIET, rule, "worst_class_accuracy") for rule in ("mode1", "fedavg"))
    less = mean_interval([mine[seed] - theirs[seed] for seed in mine])
    assert less is not None
    yield line(
        f"worst class less FedAvg's, nobody attacks, alpha {alpha:g}", "≥ \u22122", points(less), less.mean >= -0.02
    )


def detection(results: Results, alpha: float) -> Iterator[Line]:
    """Who is in quarantine after the last round."""
    for mode, attack, fraction, wanted in DETECTION:
        found = results.mean(alpha, (attack, fraction), mode, "tpr")
        if found is not None:
            words = f"{mode} catches {attack_words((attack, fraction))}, alpha {alpha:g}"
            yield line(words, f"> {wanted:.0%}", percent(found), found.mean > wanted)


def stealth(main: Results, white: Results, alpha: float) -> Iterator[Line]:
    """The attacks that hide: a backdoor, and false label mixes inside the honest cone."""
    success = main.mean(alpha, ("backdoor", MOST), "mode1", "attack_success_rate")
    if success is not None:
        yield line(
            f"success of the stealth backdoor, 45 %, alpha {alpha:g}", "≤ 20%", percent(success), success.mean <= 0.2
        )
    for attack in ("cone", "white_box", "white_box_blend"):
        gap = mean_interval(white.gaps(alpha, (attack, MOST), "mode1"))
        if gap is not None:
            yield line(
                f"{attack.replace('_', ' ')}, gap to the ceiling, 45 %, alpha {alpha:g}",
                "≥ \u22123" if attack == "cone" else "≥ \u22122",
                points(gap),
                gap.mean >= (-0.03 if attack == "cone" else -0.02),
            )


def worst(main: Results, white: Results, alpha: float) -> Iterator[Line]:
    """The lowest mean accuracy over both suites, and what other rules have there at their lowest."""

    def lowest(rule: str) -> tuple[Results, Against]:
        found = [(w, results) for results in (main, white) if (w := results.worst(alpha, rule)) is not None]
        case, results = min(found, key=lambda pair: pair[0].accuracy.mean)
        return results, case.against

    own, against = lowest("mode1")
    mine = own.values(alpha, against, "mode1", "accuracy")
    for rule in (rule for rule in RIVALS if main.worst(alpha, rule) is not None):
        other, where = lowest(rule)
        theirs = other.values(alpha, where, rule, "accuracy")
        ahead = mean_interval([mine[seed] - theirs[seed] for seed in mine if seed in theirs])
        assert ahead is not None
        words = f"worst case ({attack_words(against)}) ahead of {rule}'s ({attack_words(where)}), alpha {alpha:g}"
        yield line(words, "≥ 10", points(ahead), ahead.mean >= 0.1)


def ceiling(main: Results, alpha: float) -> Iterator[Line]:
    """The rows in which Mode 1 is more than two points below the honest clients alone."""
    gaps = {row: mean_interval(main.gaps(alpha, row, "mode1")) for row in main.ran(alpha, "mode1")}
    below = [(row, gap) for row, gap in gaps.items() if gap is not None and gap.mean < -0.02]
    told = "; ".join(f"{attack_words(row)}: {points(gap)}" for row, gap in below) or "none"
    yield line(f"attacks that cost mode1 more than 2 points, of {len(gaps)}, alpha {alpha:g}", "none", told, not below)


def prototype(main: Results, white: Results, alpha: float) -> Iterator[Line]:
    """Ours beside the prototype's, row by row."""
    for attack, theirs in ((attack, by_alpha[alpha]) for attack, by_alpha in PROTOTYPE.items()):
        against = (attack, MOST if attack != NOBODY else 0.0)
        results = white if attack == "cone" else main
        gap = mean_interval(
            results.gaps(alpha, against, "mode1")
            if attack != NOBODY
            else results.differences(alpha, (QUIET, "mode1"), (QUIET, "fedavg"))
        )
        if gap is not None:
            upper = gap.mean + (gap.half_width or 0.0)
            name = f"{attack_words(against)}, alpha {alpha:g}"
            yield line(name, f"{theirs:+.1f}".replace("-", "\u2212"), points(gap), 100 * upper >= theirs)


def line(name: str, target: str, measured: str, met: bool) -> Line:
    """A row of a table of targets."""
    return [name, target, measured, "yes" if met else "**no**"]


def points(interval: Interval) -> str:
    """Points with their confidence interval."""
    half = "" if interval.half_width is None else f" ± {100 * interval.half_width:.1f}"
    return f"{100 * interval.mean:+.1f}{half}".replace("-", "\u2212")


def percent(interval: Interval) -> str:
    """Per cent with their confidence interval."""
    half = "" if interval.half_width is None else f" ± {100 * interval.half_width:.1f}"
    return f"{100 * interval.mean:.1f}{half} %"


def targets(main: Results, white_box: Results | None) -> str:
    """Both tables of targets; without the white-box suite, those that need none."""
    alphas, white = main.matrix.alphas, white_box or main
    so_far = "" if white_box else " White-box attacks are not among them yet: they are a matrix of their own."
    held = [
        *(row for alpha in alphas for row in quiet(main, alpha)),
        *(row for alpha in alphas for row in detection(main, alpha)),
        *(row for alpha in alphas for row in stealth(main, white, alpha)),
        *(row for alpha in alphas for row in ceiling(main, alpha)),
        *(row for alpha in alphas for row in worst(main, white, alpha)),
    ]
    beside = [row for alpha in alphas for row in prototype(main, white, alpha)]
    reached = sum(row[-1] == "yes" for row in held)
    return "\n\n".join(
        [
            f"**{reached} of {len(held)} targets are reached.**{so_far}",
            markdown(["what", "target", "measured", "reached"], held),
            "### Beside the prototype",
            "Gap to the ceiling in points, where nobody attacks to FedAvg.",
            markdown(["attack", "prototype", "Mode 1", "not worse"], beside) + "\n",
        ]
    )


def publish(folder: Path) -> Results:
    """Copy the tables of one matrix, if it may be published."""
    summary = summarise_matrix(folder)
    name, origin = folder.resolve().name, summary.origin
    if origin["done"] < origin["cells"] or summary.failures:
        raise SystemExit(
            f"{folder}: {origin['done']} of {origin['cells']} cells, {len(summary.failures)} failed; "
            f"go on with: matl matrix --resume {folder}"
        )
    if any(commit.endswith("*") for commit in origin["commits"]):
        raise SystemExit(f"{folder}: some cells ran with uncommitted changes; run it again from a clean checkout")
    out = make_directory(OUT / name)
    for file in ("cells.csv", "summary.md"):
        shutil.copyfile(folder / file, out / file)
    text = (folder / "summary.md").read_text("utf-8")
    write_atomic(out / "worst.md", text[text.index("### Worst cases") : text.index("### Accuracy")])
    print(f"{name}: {origin['cells']} cells published in {out}")
    return summary.results


def main(argv: Sequence[str] | None = None) -> None:
    """Publish all that are named."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", type=Path, nargs="+")
    found = {folder.resolve().name: publish(folder) for folder in parser.parse_args(argv).folders}
    if "main" in found:
        text = targets(found["main"], found.get("white_box"))
        write_atomic(OUT / "main" / "targets.md", text)
        print(text)


if __name__ == "__main__":
    main()
