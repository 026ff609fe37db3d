"""An attack in the dress of the root: made of what a validator expects, as far as that does not spoil it."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from matl import validate
from matl.attacks._vectors import cone_mix, unit
from matl.attacks.backdoor import Backdoor
from matl.attacks.base import ATTACKS, Attack, AttackView, Knowledge
from matl.attacks.wrapper import Wrapper
from matl.params import Float32

__all__ = ["Disguise"]


@ATTACKS.register("disguise")
@dataclass(frozen=True, slots=True)
class Disguise(Wrapper):
    """Carry out another attack, each update moved towards what clean training on the root explains of it.

    Parameters
    ----------
    attack : Attack
        The other attack.
    share : float
        s in v + s (P(v) - v), in [0, 1], with v the other attack's update and P(v) the nearest point to it in the cone
        of the class gradients on root data. With 1 only clean training is left.

    Notes
    -----
    Honest clients train on data that the root does not have, and so does whoever hides a trigger in a small part of
    its data. Moved towards the root, the attackers look more like clients of the validator's own making than honest
    ones do, and a judge that asks which part of a divided cohort the root knows can be led to accuse the other.
    """

    attack: Attack = field(default_factory=lambda: Backdoor(share=0.1))
    share: float = 0.3

    def __post_init__(self) -> None:
        validate.fraction(share=self.share)

    @property
    def knowledge(self) -> Knowledge:
        """Everything."""
        return Knowledge.WHITE_BOX

    def craft(self, view: AttackView, rng: np.random.Generator) -> Float32:
        """The other attack's updates, some way towards the root."""
        crafted = self.attack.craft(view, rng)
        if view.oracle is None or view.params is None:
            return crafted
        # The fold that Mode 1 takes its own directions from in this round.
        directions = unit(view.oracle.atoms(view.params, view.round % 2).honest)
        explained = (cone_mix(crafted, directions) @ directions).astype(np.float32)
        return crafted + np.float32(self.share) * (explained - crafted)
