"""Every aggregation rule alone, without a judge, under no attack and five.

::

    python benchmarks/aggregation_rules.py      # writes benchmarks/results/aggregation_rules.{json,md}
"""

from __future__ import annotations

import statistics
import sys
import time
from pathlib import Path
from typing import Any

from common import markdown, run, write

SEEDS = (10, 11, 12)  # never used to choose a constant
CLIENTS, MALICIOUS = 20, 0.3  # 6 of 20: enough to ruin the mean, and as many as most rules bear

ATTACKS = {
    "no attack": "none",
    "sign flip": "sign_flip",
    "label flip": "label_flip",
    "ALIE": "alie",
    "noise": "gaussian_noise",
    "scaling": "scaling",
}


def behind(*names: str) -> Any:
    """The specification of a chain of pre-aggregators and a rule."""
    spec: Any = names[-1]
    for name in reversed(names[:-1]):
        spec = {"name": name, "rule": spec}
    return spec


RULES: dict[str, Any] = {
    "Mean": "mean",
    "ClippedMean": "clipped_mean",
    "Median": "median",
    "TrimmedMean": "trimmed_mean",
    "Meamed": "meamed",
    "Krum": "krum",
    "MultiKrum": "multi_krum",
    "Bulyan(f=4)": {"name": "bulyan", "f": 4},
    "GeometricMedian": "geometric_median",
    "CenteredClipping": {"name": "centered_clipping", "radius": 1.0},
    "CAF": "caf",
    "MinimumDiameterAveraging": "mda",
    "SMEA": "smea",
    "SignGuard": "signguard",
    "DnC": "dnc",
    "FLAME": "flame",
    "FoolsGold": "foolsgold",
    "FLTrust": "fltrust",
    "RawPoGQ": "raw_pogq",
    "NNM | Mean": behind("nnm", "mean"),
    "NNM | Median": behind("nnm", "median"),
    "NNM | TrimmedMean": behind("nnm", "trimmed_mean"),
    "NNM | GeometricMedian": behind("nnm", "geometric_median"),
    "NNM | CAF": behind("nnm", "caf"),
    "ARC | NNM | TrimmedMean": behind("arc", "nnm", "trimmed_mean"),
    "Bucketing | TrimmedMean(f=4)": {"name": "bucketing", "rule": {"name": "trimmed_mean", "f": 4}},
    "StaticClipping | TrimmedMean": behind("static_clipping", "trimmed_mean"),
}


def table(rows: list[dict[str, Any]]) -> str:
    """A line per rule: mean accuracy per attack, and the worst of them."""
    lines = []
    for rule in RULES:
        means = [
            statistics.fmean(row["accuracy"] for row in rows if (row["rule"], row["case"]) == (rule, attack))
            for attack in ATTACKS
        ]
        shown = rule.replace("|", "&#124;")  # which a table would take for the end of a cell
        lines.append([f"<code>{shown}</code>", *(f"{mean:.1%}" for mean in means), f"{min(means):.1%}"])
    return markdown(["rule", *ATTACKS, "worst"], lines)


def main() -> None:
    """Run all, print the table, write it with the raw rows beside it."""
    started, rows = time.perf_counter(), []
    for name, rule in RULES.items():
        for attack, spec in ATTACKS.items():
            settings = {"clients": CLIENTS, "byzantine": MALICIOUS, "attack": spec, "mode": "plain", "aggregator": rule}
            rows += [run(attack, name, seed, ceiling=False, **settings) for seed in SEEDS]
        shown = [f"{statistics.fmean(row['accuracy'] for row in rows[-len(SEEDS) * len(ATTACKS) :]):.1%}"]
        print(f"{name}: mean over attacks {shown[0]}", file=sys.stderr, flush=True)
    remarks = (
        f"Mean accuracy over seeds {', '.join(map(str, SEEDS))}; digits, {CLIENTS} clients, alpha 0.5, 30 rounds; "
        f"{round(CLIENTS * MALICIOUS)} clients attack, and rules are told so, but for Bulyan and ten buckets, which "
        "bear 4. CenteredClipping and StaticClipping have a radius in the range of honest updates (1 and 2), FLTrust "
        "and RawPoGQ the judge's root data."
    )
    out = Path(__file__).parent / "results" / "aggregation_rules"
    print(write(out, table(rows), remarks, rows, time.perf_counter() - started))


if __name__ == "__main__":
    main()
