"""Attacks in which many clients speak with one voice."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from matl import validate
from matl.attacks._vectors import jittered, lengths, repeated, unit
from matl.attacks.base import ATTACKS, Attack, AttackView, Knowledge
from matl.attacks.wrapper import Wrapper
from matl.params import Float32

__all__ = ["Collusion", "Mimic", "Sybil"]


@ATTACKS.register("collusion")
@dataclass(frozen=True, slots=True)
class Collusion(Attack):
    """Push in one shared direction, against what the malicious clients learn together, each with some jitter.

    Parameters
    ----------
    jitter : float
        j, the length of each client's own part in lengths of the shared one.

    Notes
    -----
    |u_i| unit(s + j z_i) for malicious client i, with u_i its honest update, s the unit vector of minus the mean of all
    the u, and z_i Gaussian noise of expected norm 1. Their pairwise cosine is 1 / (1 + j^2).

    References
    ----------
    Fung et al., "The Limitations of Federated Learning in Sybil Settings", RAID 2020.
    """

    jitter: float = 0.3

    def __post_init__(self) -> None:
        validate.non_negative(jitter=self.jitter)

    def craft(self, view: AttackView, rng: np.random.Generator) -> Float32:
        """One update per client, as long as its honest one."""
        shared = repeated(-unit(view.own.mean(axis=0)), len(view.own))
        return lengths(view.own) * unit(jittered(shared, self.jitter, rng))


@ATTACKS.register("sybil")
@dataclass(frozen=True, slots=True)
class Sybil(Wrapper):
    """Many ids, one mind: all send the same malicious update, with a little noise so that no two are equal.

    Parameters
    ----------
    attack : Attack
        What the first of them sends; the others send clones.
    noise : float
        Length of each clone's noise in lengths of the update.

    References
    ----------
    Fung et al., "The Limitations of Federated Learning in Sybil Settings", RAID 2020.
    """

    noise: float = 0.05

    def __post_init__(self) -> None:
        validate.non_negative(noise=self.noise)

    def craft(self, view: AttackView, rng: np.random.Generator) -> Float32:
        """Clones of the first update."""
        first = self.attack.craft(view, rng)[0]
        return jittered(repeated(first, len(view.own)), self.noise, rng)


@ATTACKS.register("mimic")
@dataclass(frozen=True, slots=True)
class Mimic(Attack):
    """All send a copy of one honest update: the one that stands out most along the honest updates' main difference.

    Notes
    -----
    The copied client is argmax_i |<z, u_i - m>|, with m the mean of the honest updates u and z their first principal
    direction. The paper estimates z once, in a warm-up; here it is that of each round. Every update sent is honest:
    nothing is wrong with it but how often it counts, so what it does to plain averaging is to over-represent one
    client's data. It hurts where clients differ much.

    References
    ----------
    Karimireddy et al., "Byzantine-Robust Learning on Heterogeneous Datasets via Bucketing", ICLR 2022.
    """

    knowledge: ClassVar[Knowledge] = Knowledge.OMNISCIENT

    def craft(self, view: AttackView, rng: np.random.Generator) -> Float32:
        """The same honest update for every malicious client."""
        U = view.reference
        centred = (U - U.mean(axis=0)).astype(np.float64)
        # The Gram matrix has the projections on the principal directions as its eigenvectors.
        projections = np.linalg.eigh(centred @ centred.T)[1][:, -1]
        return repeated(U[np.argmax(np.abs(projections))], len(view.own))
