"""Attacks adapted to rules that trust what points the right way."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import ClassVar

import numpy as np

from matl import validate
from matl.attacks._vectors import lengths, unit
from matl.attacks.base import ATTACKS, Attack, AttackView, Knowledge
from matl.attacks.data import LabelFlip
from matl.attacks.wrapper import Wrapper
from matl.errors import InvalidValueError
from matl.params import Float32

__all__ = ["AdaptiveFLTrust", "AdaptiveMix"]

_ANGLES = 90  # one per degree


@ATTACKS.register("adaptive_mix")
@dataclass(frozen=True, slots=True)
class AdaptiveMix(Wrapper):
    """Agree with the honest mean up to a given cosine, and pursue another attack with the rest.

    Parameters
    ----------
    attack : Attack
        The other attack.
    cosine : float
        c, in [0, 1): the cosine of every malicious update to the honest mean.

    Notes
    -----
    |v_i| (c m + sqrt(1 - c^2) q) for malicious client i, with v_i the update of the other attack, m the unit honest
    mean, and q the unit vector of the mean of the v less its part along m. What agrees with the mean helps the model;
    with a cosine of .7 and reversed labels the rest outweighs it only after some rounds.
    """

    attack: Attack = field(default_factory=LabelFlip)
    cosine: float = 0.7

    def __post_init__(self) -> None:
        validate.fraction(cosine=self.cosine)
        if not self.cosine < 1:
            raise InvalidValueError(f"expected cosine < 1, got cosine={self.cosine}")

    @property
    def knowledge(self) -> Knowledge:
        """All honest updates, and what the other attack knows."""
        return max(Knowledge.OMNISCIENT, self.attack.knowledge, key=list(Knowledge).index)

    def craft(self, view: AttackView, rng: np.random.Generator) -> Float32:
        """One direction for all, each as long as the other attack makes it."""
        other = self.attack.craft(view, rng)
        mean, aim = unit(view.reference.mean(axis=0)), other.mean(axis=0)
        rest = unit(aim - (aim @ mean) * mean)
        return lengths(other) * (np.float32(self.cosine) * mean + np.float32(math.sqrt(1.0 - self.cosine**2)) * rest)


@ATTACKS.register("adaptive_fltrust")
@dataclass(frozen=True, slots=True)
class AdaptiveFLTrust(Attack):
    """The update that moves FLTrust's aggregate furthest against its direction, while FLTrust still trusts it.

    Notes
    -----
    With r the unit root update and s the sign of FLTrust's aggregate of the honest updates, all send
    cos(a) r + sin(a) q at the length of their honest update, where q is the unit vector of -s less its part along r.
    FLTrust scales updates to one norm and weighs them by their positive cosine to r, here cos(a), so its aggregate of
    the round is known for every a, and the a between 0 and 90 degrees with the smallest <aggregate, s> is taken. The
    paper finds its update by gradient steps; among updates that are all alike this is the optimum of its objective.
    Without an oracle the honest mean stands for the root update.

    References
    ----------
    Cao et al., "FLTrust: Byzantine-robust Federated Learning via Trust Bootstrapping", NDSS 2021.
    """

    knowledge: ClassVar[Knowledge] = Knowledge.WHITE_BOX

    def craft(self, view: AttackView, rng: np.random.Generator) -> Float32:
        """The same direction for every malicious client."""
        root = unit(_root_update(view, rng))
        honest = unit(view.reference)
        trust = np.maximum(honest @ root, 0.0)
        total = trust @ honest
        s = unit(np.sign(total))
        against = unit(np.float32(s @ root) * root - s)
        angles = np.linspace(0.0, math.pi / 2, _ANGLES, endpoint=False)
        weights = len(view.own) * np.cos(angles)
        moved = float(total @ s) + weights * (np.cos(angles) * float(root @ s) + np.sin(angles) * float(against @ s))
        best = angles[np.argmin(moved / (float(trust.sum()) + weights))]
        return lengths(view.own) * (np.float32(np.cos(best)) * root + np.float32(np.sin(best)) * against)


def _root_update(view: AttackView, rng: np.random.Generator) -> Float32:
    """What training on the whole root gives, but for the order of its mini-batches."""
    if view.oracle is None or view.params is None:
        return np.asarray(view.reference.mean(axis=0))
    return view.oracle.root_update(view.params, int(rng.integers(2**32)))
