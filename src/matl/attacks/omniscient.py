"""Attacks that know every honest update of the round and hide among them, or push against their mean."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass
from statistics import NormalDist
from typing import ClassVar, Literal

import numpy as np

from matl import validate
from matl.attacks._vectors import repeated, squared_distances, unit
from matl.attacks.base import ATTACKS, Attack, AttackView, Knowledge
from matl.errors import InvalidValueError
from matl.params import Float32

__all__ = ["Alie", "Ipm", "Lie", "MinMax", "MinSum"]

_PERTURBATIONS = ("std", "unit", "sign")


@ATTACKS.register("alie")
@dataclass(frozen=True, slots=True)
class Alie(Attack):
    """A Little Is Enough: all upload the honest mean, shifted as far as the spread of honest updates hides.

    Notes
    -----
    mean - z std per coordinate over the honest updates, with z the normal quantile of (n - f - s) / (n - f) and
    s = floor(n / 2 + 1) - f the honest clients the adversary needs on its side for a majority; at least 1 of them.
    What hides in the honest spread moves a plain average by less than that spread: it costs averaging little, and most
    where clients differ much. Its targets are rules that trust what is close.

    References
    ----------
    Baruch et al., "A Little Is Enough: Circumventing Defenses For Distributed Learning", NeurIPS 2019.
    """

    knowledge: ClassVar[Knowledge] = Knowledge.OMNISCIENT

    def craft(self, view: AttackView, rng: np.random.Generator) -> Float32:
        """The same shifted mean for every malicious client."""
        if view.honest is None or len(view.honest) < 2:
            return view.own  # no honest spread to hide in
        n, f = view.clients, len(view.own)
        supporters = min(max(n // 2 + 1 - f, 1), n - f - 1)
        z = max(NormalDist().inv_cdf((n - f - supporters) / (n - f)), 0.0)
        return repeated(view.honest.mean(axis=0) - np.float32(z) * view.honest.std(axis=0), f)


@ATTACKS.register("lie")
@dataclass(frozen=True, slots=True)
class Lie(Attack):
    """The louder variant of ALIE that FLANDERS is evaluated with: mean - z sqrt(std), with a probability for z.

    Notes
    -----
    mean - z std^(1/2) per coordinate over the updates of all clients, with s = floor(n / 2 + 1) - f and z =
    Phi((n - f - s) / (n - f)), Phi the normal distribution function where ALIE has its inverse. Standard deviations of
    parameters are far below 1, so their roots are far larger: it does not hide in the honest spread.

    References
    ----------
    Gabrielli et al., "Protecting Federated Learning from Extreme Model Poisoning Attacks via Multidimensional Time
    Series Anomaly Detection", 2023, as in the Flower baseline of the same name.
    """

    knowledge: ClassVar[Knowledge] = Knowledge.OMNISCIENT

    def craft(self, view: AttackView, rng: np.random.Generator) -> Float32:
        """The same shifted mean for every malicious client."""
        everyone = view.own if view.honest is None else np.concatenate([view.honest, view.own])
        n, f = view.clients, len(view.own)
        supporters = n // 2 + 1 - f
        z = NormalDist().cdf((n - f - supporters) / max(n - f, 1))
        return repeated(everyone.mean(axis=0) - np.float32(z) * np.sqrt(everyone.std(axis=0)), f)


@ATTACKS.register("ipm", "foe")
@dataclass(frozen=True, slots=True)
class Ipm(Attack):
    """Inner-product manipulation (fall of empires): all upload the honest mean times -epsilon.

    Parameters
    ----------
    epsilon : float
        Factor, > 0. With a small one, .5, it stays close to the honest updates, and rules that keep what is close stop
        making progress; above (n - f) / f the average of all points backwards; 100 overwhelms it.

    References
    ----------
    Xie et al., "Fall of Empires: Breaking Byzantine-tolerant SGD by Inner Product Manipulation", UAI 2019.
    """

    epsilon: float = 2.0
    knowledge: ClassVar[Knowledge] = Knowledge.OMNISCIENT

    def __post_init__(self) -> None:
        validate.positive(epsilon=self.epsilon)

    def craft(self, view: AttackView, rng: np.random.Generator) -> Float32:
        """The same multiple of the honest mean for every malicious client."""
        return repeated(np.float32(-self.epsilon) * view.reference.mean(axis=0), len(view.own))


@dataclass(frozen=True)
class _ShiftedMean(Attack):
    """The honest mean, shifted in a direction as far as `_gamma` says."""

    perturbation: Literal["std", "unit", "sign"] = "std"
    knowledge: ClassVar[Knowledge] = Knowledge.OMNISCIENT

    def __post_init__(self) -> None:
        if self.perturbation not in _PERTURBATIONS:
            raise InvalidValueError(
                f"expected perturbation to be one of {', '.join(_PERTURBATIONS)}, "
                f"got perturbation={self.perturbation!r}"
            )

    def craft(self, view: AttackView, rng: np.random.Generator) -> Float32:
        """The same shifted mean for every malicious client."""
        mean = view.reference.mean(axis=0)
        p = self._direction(view.reference, mean)
        gamma = self._gamma(view.reference, mean, p) if p.any() else 0.0
        return repeated(mean + np.float32(gamma) * p, len(view.own))

    def _direction(self, U: Float32, mean: Float32) -> Float32:
        against = {"std": U.std(axis=0), "unit": unit(mean), "sign": np.sign(mean)}[self.perturbation]
        return np.asarray(-against, np.float32)

    @abstractmethod
    def _gamma(self, U: Float32, mean: Float32, p: Float32) -> float:
        """How far to go along p (d,), not all zero, from the mean (d,) of the honest updates (h, d)."""


@ATTACKS.register("min_max")
@dataclass(frozen=True)
class MinMax(_ShiftedMean):
    """The honest mean, shifted until its largest distance to an honest update is that between two honest ones.

    Parameters
    ----------
    perturbation : {"std", "unit", "sign"}
        Direction p of the shift, from the honest mean m and standard deviation s: -s, -m / |m|, or -sign(m).

    Notes
    -----
    m + gamma p with the largest gamma for which max_i |m + gamma p - u_i| <= max_ij |u_i - u_j| over the honest updates
    u. Each bound is a quadratic in gamma, so gamma is the smallest of their positive roots; the paper halves its way
    there.

    References
    ----------
    Shejwalkar and Houmansadr, "Manipulating the Byzantine: Optimizing Model Poisoning Attacks and Defenses for
    Federated Learning", NDSS 2021.
    """

    def _gamma(self, U: Float32, mean: Float32, p: Float32) -> float:
        square = float(p @ p)
        away = mean - U
        along = (away @ p).astype(np.float64)
        room = squared_distances(U).max() - np.vecdot(away, away).astype(np.float64)
        return float(((np.sqrt(along**2 + square * np.maximum(room, 0.0)) - along) / square).min())


@ATTACKS.register("min_sum")
@dataclass(frozen=True)
class MinSum(_ShiftedMean):
    """The honest mean, shifted until it is as far from all honest updates together as the most distant of them.

    Parameters
    ----------
    perturbation : {"std", "unit", "sign"}
        Direction p of the shift, from the honest mean m and standard deviation s: -s, -m / |m|, or -sign(m).

    Notes
    -----
    m + gamma p with the largest gamma for which sum_i |m + gamma p - u_i|^2 <= max_i sum_j |u_i - u_j|^2 over the h
    honest updates u: gamma^2 = (right side - sum_i |m - u_i|^2) / (h |p|^2), since the u_i - m sum to zero. Closer to
    the honest than `MinMax`.

    References
    ----------
    Shejwalkar and Houmansadr, "Manipulating the Byzantine: Optimizing Model Poisoning Attacks and Defenses for
    Federated Learning", NDSS 2021.
    """

    def _gamma(self, U: Float32, mean: Float32, p: Float32) -> float:
        room = squared_distances(U).sum(axis=1).max() - float(np.square(mean - U, dtype=np.float64).sum())
        return math.sqrt(max(room, 0.0) / (len(U) * float(p @ p)))
