"""Attacks on the uploaded update: sign flip, Gaussian noise, scaling, ALIE."""

from __future__ import annotations

from dataclasses import dataclass
from statistics import NormalDist
from typing import ClassVar

import numpy as np

from matl import validate
from matl.attacks.base import ATTACKS, Attack, AttackView, Knowledge
from matl.errors import InvalidValueError
from matl.params import Float32

__all__ = ["Alie", "GaussianNoise", "Scaling", "SignFlip"]


@ATTACKS.register("sign_flip")
@dataclass(frozen=True, slots=True)
class SignFlip(Attack):
    """Upload the opposite of the honest update.

    Parameters
    ----------
    scale : float
        k in -k u; 1 keeps the norm honest.

    References
    ----------
    Li et al., "RSA: Byzantine-Robust Stochastic Aggregation Methods", AAAI 2019.
    """

    scale: float = 1.0

    def __post_init__(self) -> None:
        validate.positive(scale=self.scale)

    def craft(self, view: AttackView, rng: np.random.Generator) -> Float32:
        """Multiply by -k."""
        return np.float32(-self.scale) * view.own


@ATTACKS.register("gaussian_noise")
@dataclass(frozen=True, slots=True)
class GaussianNoise(Attack):
    """Upload Gaussian noise in place of the update.

    Parameters
    ----------
    scale : float
        Expected norm of the noise in units of the client's honest norm.

    Notes
    -----
    Averaging takes most of the noise out: at a scale of 3 it costs plain averaging no more than clients that send
    nothing. From about 30, the default, the noise itself does the harm. Quiet noise is the harder one to name.

    References
    ----------
    Blanchard et al., "Machine Learning with Adversaries: Byzantine Tolerant Gradient Descent", NeurIPS 2017.
    """

    scale: float = 30.0

    def __post_init__(self) -> None:
        validate.positive(scale=self.scale)

    def craft(self, view: AttackView, rng: np.random.Generator) -> Float32:
        """Noise of expected norm k |u|."""
        noise = rng.standard_normal(view.own.shape, dtype=np.float32)
        norms = np.linalg.norm(view.own, axis=1, keepdims=True)
        noise *= norms * np.float32(self.scale / np.sqrt(view.own.shape[1]))
        return noise


@ATTACKS.register("scaling")
@dataclass(frozen=True, slots=True)
class Scaling(Attack):
    """Upload a multiple of the honest update, as in model replacement.

    Parameters
    ----------
    scale : float
        Factor, > 1.

    References
    ----------
    Bagdasaryan et al., "How To Backdoor Federated Learning", AISTATS 2020.
    """

    scale: float = 10.0

    def __post_init__(self) -> None:
        validate.positive(scale=self.scale)
        if not self.scale > 1:
            raise InvalidValueError(f"expected scale > 1, got scale={self.scale}")

    def craft(self, view: AttackView, rng: np.random.Generator) -> Float32:
        """Multiply by k."""
        return np.float32(self.scale) * view.own


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
        shifted = view.honest.mean(axis=0) - np.float32(z) * view.honest.std(axis=0)
        return np.repeat(shifted[None], f, axis=0)
