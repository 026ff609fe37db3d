"""Attacks that rehearse: they know the judge and send the worst that it lets pass."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from matl import validate
from matl.attacks._rehearsals import Rehearsals
from matl.attacks._vectors import lengths, unit
from matl.attacks.adaptive import AdaptiveFLTrust
from matl.attacks.base import ATTACKS, Attack, AttackView, Knowledge
from matl.attacks.cone import Cone
from matl.attacks.directed import ModelPoisoning
from matl.attacks.omniscient import Ipm, MinMax
from matl.attacks.updates import SignFlip
from matl.attacks.wrapper import Wrapper
from matl.errors import InvalidValueError
from matl.params import Float32

__all__ = ["WhiteBox", "WhiteBoxBlend"]

_STRENGTHS = (1.0, 0.7, 0.5, 0.35, 0.2, 0.1)
_FIRST_SPREAD, _WIDER, _NARROWER = 0.3, 1.5, 0.7
_REPERTOIRE = (
    SignFlip(),
    Ipm(epsilon=1.0),
    MinMax(),
    ModelPoisoning(against="trimmed_mean"),
    AdaptiveFLTrust(),
    Cone(),
)


@ATTACKS.register("white_box_blend")
@dataclass(frozen=True, slots=True)
class WhiteBoxBlend(Wrapper):
    """Blend the honest update with another attack, as much of it as the judge lets pass in a rehearsal.

    Parameters
    ----------
    attack : Attack
        The other attack; it has to change updates, not data alone.

    Notes
    -----
    (1 - b) u + b v, with u the honest update, v the other attack's, and b the largest of 1, .7, .5, .35, .2, .1 with
    which the judge in force, in its present state, would quarantine or reject no more malicious clients than if all
    sent u; 0 if there is none. Nine tenths of it are sent, since the judge will have another seed, and clients that
    would be caught in any case send u. Up to 7 rehearsals a round.
    """

    def __post_init__(self) -> None:
        if self.attack.knowledge is Knowledge.DATA:
            raise InvalidValueError(
                f"white_box_blend needs an attack on updates, got {type(self.attack).__name__}, which changes data "
                "alone; use e.g. sign_flip"
            )

    @property
    def knowledge(self) -> Knowledge:
        """Everything."""
        return Knowledge.WHITE_BOX

    def craft(self, view: AttackView, rng: np.random.Generator) -> Float32:
        """The strongest blend that passes."""
        if view.rehearse is None:
            return view.own
        rehearsals = Rehearsals(view, view.rehearse, 1 + len(_STRENGTHS))
        aim = self.attack.craft(view, rng)
        blends = (np.float32(1 - b) * view.own + np.float32(b) * aim for b in _STRENGTHS)
        return next((rehearsals.cautious(rows) for rows in blends if rehearsals.passes(rows)), view.own)


@ATTACKS.register("white_box")
@dataclass(frozen=True, slots=True)
class WhiteBox(Attack):
    """Search for the combination of known attacks that does most damage without anybody being caught.

    Parameters
    ----------
    rehearsals : int
        Budget of rehearsals a round, >= 2.

    Notes
    -----
    u + sum_k a_k (v_k - u), with u the honest updates and v_k those of an attack: sign flip, inner product, min-max,
    model poisoning, adaptive FLTrust, the cone attack, and labels reversed on root data. After a rehearsal of honest
    behaviour each is tried alone, a_k = 1, and the rest of the budget goes to a (1 + 1) evolution strategy from the
    best one or from honesty: a plus Gaussian steps, wider by half after a success, narrower by .7 after a failure.
    Success is an aggregate that points further against the honest mean, with no more malicious clients quarantined or
    rejected than honest behaviour would have. What is sent is nine tenths of the way there, as in `WhiteBoxBlend`. It
    bounds the damage from below only: a better search may find worse.
    """

    rehearsals: int = 12
    knowledge: ClassVar[Knowledge] = Knowledge.WHITE_BOX

    def __post_init__(self) -> None:
        validate.whole(2, rehearsals=self.rehearsals)

    def craft(self, view: AttackView, rng: np.random.Generator) -> Float32:
        """The worst that was found."""
        if view.rehearse is None:
            return view.own
        rehearsals = Rehearsals(view, view.rehearse, self.rehearsals)
        known = [attack.craft(view, rng) for attack in _REPERTOIRE] + [_relabelled(view)]

        def rows(a: NDArray[np.float64]) -> Float32:
            total = np.float32(1.0 - a.sum()) * view.own
            for share, updates in zip(a.astype(np.float32), known, strict=True):
                total += share * updates
            return total

        best = np.zeros(len(known))
        for alone in np.eye(len(known))[: rehearsals.left]:
            if rehearsals.improves(rows(alone)):
                best = alone
        spread = _FIRST_SPREAD
        while rehearsals.left:
            tried = best + spread * rng.standard_normal(len(best))
            better = rehearsals.improves(rows(tried))
            best = tried if better else best
            spread *= _WIDER if better else _NARROWER
        return rehearsals.cautious(rehearsals.best)


def _relabelled(view: AttackView) -> Float32:
    """Training on root data under reversed labels, as long as the honest updates."""
    if view.oracle is None or view.params is None:
        return view.own
    atoms = view.oracle.atoms(view.params, view.round % 2)
    true, false = atoms.pairs.T
    return lengths(view.own) * unit(atoms.poison[true + false == view.oracle.num_classes - 1].sum(axis=0))
