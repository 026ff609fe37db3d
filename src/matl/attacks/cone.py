"""Attacks from inside the cone of honest training: nothing but clean directions, in a harmful mix."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from matl import validate
from matl.attacks._rehearsals import Rehearsals
from matl.attacks._vectors import cone_mix, lengths, unit
from matl.attacks.base import ATTACKS, Attack, AttackView, Knowledge
from matl.params import Float32

__all__ = ["Cone"]

_CAMPS = 2  # as many as a judge that balances mixes can be made to weigh against each other
_SPREAD = 0.5  # of the logarithms of a mix from one attempt to the next
_REVIVED = 0.05  # part of the average added to every class, so that none stays out for good


@ATTACKS.register("cone")
@dataclass(frozen=True, slots=True)
class Cone(Attack):
    """Replace what clean training explains of the own update by the clean training that opposes the honest mean.

    Parameters
    ----------
    rehearsals : int
        0: the mix below. From 2 on, that many rehearsals a round in search of a more harmful one that gets by.

    Notes
    -----
    u - P(u) + |P(u)| r for each malicious client, with u its honest update, P the projection on the cone of the class
    gradients on root data, and r the unit vector of P(-mean of the honest updates). No judge that asks how well clean
    training explains an update can tell it from an honest one; what is false is the mix of classes alone.

    With rehearsals it is adapted to judges that balance the mixes they see. The clients form two camps, each with a mix
    and a length of its own. The first attempt gives one of them the mix above, and the other, at a quarter of the
    length, the classes that this leaves out: estimated mixes balance then, amounts do not. Further attempts change both
    camps' mixes at random; whatever does most harm and gets nobody caught is sent, but for a
    tenth of the way.
    """

    rehearsals: int = 0
    knowledge: ClassVar[Knowledge] = Knowledge.WHITE_BOX

    def __post_init__(self) -> None:
        if self.rehearsals:
            validate.whole(2, rehearsals=self.rehearsals)

    def craft(self, view: AttackView, rng: np.random.Generator) -> Float32:
        """One update per client, each explained by clean training as well as its honest one."""
        if view.oracle is None or view.params is None:
            return view.own
        # The fold that Mode 1 takes its own directions from in this round.
        directions = unit(view.oracle.atoms(view.params, view.round % 2).honest)
        against = cone_mix(-view.reference.mean(axis=0, keepdims=True), directions)[0]
        if not against.any():
            return view.own  # no clean training opposes the honest mean
        clean = (cone_mix(view.own, directions) @ directions).astype(np.float32)
        rest, clean_lengths = view.own - clean, lengths(clean)
        camp = np.arange(len(view.own)) % _CAMPS

        def rows(mixes: NDArray[np.float64]) -> Float32:
            return rest + clean_lengths * (mixes.astype(np.float32) @ directions)[camp]

        against /= np.linalg.norm(against @ directions)
        alone = np.tile(against, (_CAMPS, 1))
        if not self.rehearsals or view.rehearse is None:
            return rows(alone)
        rehearsals = Rehearsals(view, view.rehearse, self.rehearsals)
        best = np.stack([against, (against.max() - against) / 4.0])
        rehearsals.passes(rows(best))
        if rehearsals.left and rehearsals.improves(rows(alone)):
            best = alone
        while rehearsals.left:
            tried = best + _REVIVED * best.mean(axis=1, keepdims=True)
            tried *= np.exp(_SPREAD * rng.standard_normal(tried.shape))
            if rehearsals.improves(rows(tried)):
                best = tried
        return rehearsals.cautious(rehearsals.best)
