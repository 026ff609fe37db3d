"""Directed deviation: push the aggregate of a known rule as far as it lets pass against where it would have gone."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import numpy as np

from matl import validate
from matl.attacks._vectors import repeated, squared_distances, unit
from matl.attacks.base import ATTACKS, Attack, AttackView, Knowledge
from matl.errors import InvalidValueError
from matl.params import Float32

__all__ = ["ModelPoisoning"]

_RULES = ("in_force", "krum", "trimmed_mean")
_SMALLEST = 1e-5  # lambda at which the paper gives up
_STRETCH = 2.0  # b of the paper


@ATTACKS.register("model_poisoning")
@dataclass(frozen=True, slots=True)
class ModelPoisoning(Attack):
    """Deviate every parameter from where honest updates would move it, as far as a rule lets pass.

    Parameters
    ----------
    against : {"in_force", "krum", "trimmed_mean"}
        The rule: Krum; trimmed mean and median; or whatever judge is in force, by rehearsal.
    rehearsals : int
        How many deviations are tried against the judge in force, >= 3.

    Notes
    -----
    With s the sign of the honest mean per coordinate, the damage is -<aggregate, s>.

    - *krum*: all send -lambda s, with lambda halved from the paper's upper bound until Krum would choose it.
    - *trimmed_mean*: where s = 1, each draws a value between the smallest honest one and that divided (if positive) or
      multiplied (if not) by 2; where s = -1, beyond the largest likewise.
    - *in_force*: both of these, and -lambda s for lambda = 32, 8, 2, ... lengths of the honest mean; the one with the
      largest damage in a rehearsal is sent. White box.

    References
    ----------
    Fang et al., "Local Model Poisoning Attacks to Byzantine-Robust Federated Learning", USENIX Security 2020.
    """

    against: Literal["in_force", "krum", "trimmed_mean"] = "in_force"
    rehearsals: int = 7

    def __post_init__(self) -> None:
        if self.against not in _RULES:
            raise InvalidValueError(f"expected against to be one of {', '.join(_RULES)}, got against={self.against!r}")
        validate.whole(3, rehearsals=self.rehearsals)

    @property
    def knowledge(self) -> Knowledge:
        """All honest updates; the judge too where it is to find out what that lets pass."""
        return Knowledge.WHITE_BOX if self.against == "in_force" else Knowledge.OMNISCIENT

    def craft(self, view: AttackView, rng: np.random.Generator) -> Float32:
        """The deviation that suits the rule."""
        if self.against == "krum":
            return _against_krum(view)
        trimmed = _against_trimming(view, rng)
        if self.against == "trimmed_mean" or view.rehearse is None:
            return trimmed
        mean = view.reference.mean(axis=0)
        length, direction = np.linalg.norm(mean), unit(np.sign(mean))
        factors = 32.0 * 0.25 ** np.arange(self.rehearsals - 2)
        tried = [trimmed, _against_krum(view)]
        tried += [repeated(-np.float32(factor * length) * direction, len(view.own)) for factor in factors]
        damages = [-float(view.rehearse(rows).aggregate @ direction) for rows in tried]
        return tried[int(np.argmax(damages))]


def _against_krum(view: AttackView) -> Float32:
    U, f = view.reference, len(view.own)
    h, d = U.shape
    s: Float32 = np.sign(U.mean(axis=0))
    between = squared_distances(U)
    norms = np.vecdot(U, U).astype(np.float64)
    along = (U @ s).astype(np.float64)
    neighbors = max(h - 2, 1)
    nearest = np.sort(between, axis=1)[:, 1 : neighbors + 1].sum(axis=1).min()
    bound = math.sqrt(nearest / (max(h - f - 1, 1) * d)) + math.sqrt(norms.max() / d)
    while bound > _SMALLEST:
        away = norms + 2.0 * bound * along + bound**2 * float(s @ s)  # squared distances of -lambda s to the honest
        theirs = np.concatenate([between, np.repeat(away[:, None], f, axis=1)], axis=1)
        mine = np.concatenate([np.zeros(f), np.maximum(away, 0.0)])
        scores = np.sort(theirs, axis=1)[:, 1 : neighbors + 1].sum(axis=1)  # less each one's distance to itself
        if np.sort(mine)[1 : neighbors + 1].sum() < scores.min():
            break
        bound /= 2.0
    return repeated(np.float32(-bound) * s, f)


def _against_trimming(view: AttackView, rng: np.random.Generator) -> Float32:
    U = view.reference
    low, high = U.min(axis=0), U.max(axis=0)
    rising = U.mean(axis=0) > 0
    edge = np.where(rising, low, high)
    # Further out is towards zero for a smallest value above it, and for a largest value below it.
    towards_zero = np.where(rising, low > 0, high < 0)
    far = np.where(towards_zero, edge / _STRETCH, edge * _STRETCH)
    drawn = rng.random(view.own.shape, dtype=np.float32)
    return np.asarray(edge + drawn * (far - edge), dtype=np.float32)
