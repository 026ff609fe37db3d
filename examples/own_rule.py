"""Your own aggregation rule: alone, inside a judge, and by name on the command line."""

# --8<-- [start:rule]
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

import matl
from matl.aggregators import AGGREGATORS, Result, Rule


@AGGREGATORS.register("geometric_median")
@dataclass(frozen=True)
class GeometricMedian(Rule):
    """The point with the smallest sum of distances to all updates (Weiszfeld's iteration).

    Parameters
    ----------
    iterations : int
        Steps of the iteration.
    """

    iterations: int = 10
    condition: ClassVar[str] = "2f < n"  # the bound, in the words of the error message

    def max_f(self, n):
        return (n - 1) // 2

    def combine(self, X, f, context):
        updates = X.dense()
        centre = np.median(updates, axis=0)
        for _ in range(self.iterations):
            weights = 1 / np.maximum(np.linalg.norm(updates - centre, axis=1), 1e-6)
            centre = (weights / weights.sum()) @ updates
        return Result(centre.astype(np.float32))


# --8<-- [end:rule]


if __name__ == "__main__":
    # --8<-- [start:call]
    X = np.random.default_rng(0).normal(size=(9, 5)).astype(np.float32)
    X[0] = 1e6
    print(GeometricMedian()(X).round(1))
    # --8<-- [end:call]

    # --8<-- [start:simulate]
    settings = {
        "clients": 20,
        "byzantine": 0.3,
        "rounds": 15,
        "seed": 1,
        "attack": "sign_flip",
    }
    alone = matl.simulate(**settings, mode=matl.Plain(GeometricMedian()))
    judged = matl.simulate(**settings, mode=matl.Mode0(aggregator=GeometricMedian()))
    print(f"alone {alone.accuracy:.1%}, behind Mode 0 {judged.accuracy:.1%}")
    # --8<-- [end:simulate]
