"""Attacks on the own update: sign flip, Gaussian noise, scaling."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from matl import validate
from matl.attacks.base import ATTACKS, Attack, AttackView
from matl.errors import InvalidValueError
from matl.params import Float32

__all__ = ["GaussianNoise", "Scaling", "SignFlip"]


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
