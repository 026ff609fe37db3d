"""Your own aggregation rule: alone, inside a judge, and by name on the command line."""

# --8<-- [start:rule]
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

import matl
from matl.aggregators import AGGREGATORS, NNM, Result, Rule


@AGGREGATORS.register("cge")
@dataclass(frozen=True)
class Cge(Rule):
    """Mean of the n - f shortest updates (comparative gradient elimination).

    Parameters
    ----------
    f : int or None
        Updates left out; None takes the bound of the round.
    """

    f: int | None = None
    condition: ClassVar[str] = "2f < n"  # the bound, in the words of the error message

    def max_f(self, n):
        return (n - 1) // 2

    def combine(self, X, f, context):
        weights = np.zeros(len(X))
        weights[np.argsort(X.norms(), kind="stable")[: len(X) - f]] = 1 / (len(X) - f)
        return Result(X.combine(weights), unit_weights=weights)


# --8<-- [end:rule]


if __name__ == "__main__":
    # --8<-- [start:call]
    X = np.random.default_rng(0).normal(size=(9, 5)).astype(np.float32)
    X[0] = 1e6
    print(Cge(f=1)(X).round(1))
    print((NNM(f=1) | Cge())(X).round(1))
    # --8<-- [end:call]

    # --8<-- [start:simulate]
    settings = {
        "clients": 20,
        "byzantine": 0.3,
        "rounds": 15,
        "seed": 1,
        "attack": "sign_flip",
    }
    alone = matl.simulate(**settings, mode=matl.Plain(Cge()))
    judged = matl.simulate(**settings, mode=matl.Mode0(aggregator=Cge()))
    print(f"alone {alone.accuracy:.1%}, behind Mode 0 {judged.accuracy:.1%}")
    # --8<-- [end:simulate]
