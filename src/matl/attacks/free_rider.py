"""Clients that take the model and give nothing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np

from matl import validate
from matl.attacks._vectors import repeated
from matl.attacks.base import ATTACKS, Attack, AttackView, Knowledge
from matl.errors import InvalidValueError
from matl.params import Float32

__all__ = ["FreeRider"]


@ATTACKS.register("free_rider")
@dataclass(frozen=True, slots=True)
class FreeRider(Attack):
    """Do no work: upload zeros, or the last change of the global model once more.

    Parameters
    ----------
    send : {"replay", "zeros"}
        What is uploaded; a replay is zeros in the first round.
    noise : float
        Length of the noise added to it, in lengths of the last change of the global model.

    Notes
    -----
    It does not want to harm: zeros slow averaging down by the share of the free riders, a replay works like momentum
    and may even help. It is to be named because it is paid for nothing.

    References
    ----------
    Fraboni et al., "Free-rider Attacks on Model Aggregation in Federated Learning", AISTATS 2021.
    """

    send: Literal["replay", "zeros"] = "replay"
    noise: float = 0.05
    knowledge: ClassVar[Knowledge] = Knowledge.DATA

    def __post_init__(self) -> None:
        if self.send not in ("replay", "zeros"):
            raise InvalidValueError(f"expected send to be replay or zeros, got send={self.send!r}")
        validate.non_negative(noise=self.noise)

    def craft(self, view: AttackView, rng: np.random.Generator) -> Float32:
        """What took no training."""
        m, d = view.own.shape
        if view.previous is None:
            return np.zeros((m, d), np.float32)
        scale = self.noise * np.linalg.norm(view.previous) / np.sqrt(d)
        noise = np.float32(scale) * rng.standard_normal((m, d), dtype=np.float32)
        return noise if self.send == "zeros" else repeated(view.previous, m) + noise
