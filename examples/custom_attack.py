"""Your own white-box attack: it rehearses, and goes as far back as gets nobody caught."""

from dataclasses import dataclass

import numpy as np

import matl
from matl.attacks import ATTACKS, Attack, Knowledge


# --8<-- [start:attack]
@ATTACKS.register("careful_flip")
@dataclass(frozen=True)
class CarefulFlip(Attack):
    """Halve a sign flip until a rehearsal of the judge lets all malicious clients pass."""

    scale: float = 2.0
    knowledge = Knowledge.WHITE_BOX

    def craft(self, view, rng):
        against = -view.honest.mean(axis=0)
        for scale in self.scale * 0.5 ** np.arange(5):
            rows = view.own + np.float32(scale) * (against - view.own)
            if not view.rehearse(rows).caught.any():
                return rows
        return view.own


# --8<-- [end:attack]


if __name__ == "__main__":
    # --8<-- [start:run]
    for attack in ("sign_flip", "careful_flip"):
        result = matl.simulate(attack=attack, clients=20, rounds=6, seed=1)
        print(f"{attack}: accuracy {result.accuracy:.1%}, caught {result.tpr:.0%}")
    # --8<-- [end:run]
