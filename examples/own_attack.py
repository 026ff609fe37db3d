"""Your own attack, in a simulation and by name on the command line."""

# --8<-- [start:attack]
from dataclasses import dataclass

import numpy as np

import matl
from matl.attacks import ATTACKS, Attack


@ATTACKS.register("stubborn")
@dataclass(frozen=True)
class Stubborn(Attack):
    """Upload one and the same random direction for ever, as long as an honest update.

    Parameters
    ----------
    factor : float
        Length, in lengths of the honest update.
    """

    factor: float = 1.0

    def craft(self, view, rng):
        direction = np.random.default_rng(7).normal(size=view.own.shape[1])
        lengths = np.linalg.norm(view.own, axis=1, keepdims=True)
        return (self.factor * lengths * direction / np.linalg.norm(direction)).astype(np.float32)


# --8<-- [end:attack]


if __name__ == "__main__":
    # --8<-- [start:run]
    for mode in ("plain", "mode0"):
        result = matl.simulate(
            clients=20,
            byzantine=0.3,
            rounds=15,
            seed=1,
            attack=Stubborn(factor=2.0),
            mode=mode,
        )
        print(f"{mode}: accuracy {result.accuracy:.1%}, caught {result.tpr}")
    # --8<-- [end:run]
