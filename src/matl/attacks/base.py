"""What an adversary is: it may poison data, craft what is uploaded, and tamper with the envelope."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from matl.params import Float32
from matl.records import Update
from matl.registry import Registry

__all__ = ["ATTACKS", "Attack", "AttackView", "Knowledge"]


class Knowledge(StrEnum):
    """Declared threat model: what the adversary sees."""

    DATA = "data"  # its own clients' data only
    OWN_UPDATES = "own updates"  # also what its own clients would upload
    OMNISCIENT = "omniscient"  # also every honest update of the round


@dataclass(frozen=True, slots=True, kw_only=True)
class AttackView:
    """What the adversary sees in one round. One mind steers all malicious clients.

    Parameters
    ----------
    round : int
        Index of the round, from 0.
    own : float32 array of shape (m, d)
        The updates its m participating clients would send if they followed the recipe on their own data.
    honest : float32 array of shape (h, d), or None
        The honest updates of the round, for omniscient adversaries.
    clients : int
        Number n of clients in the round.
    """

    round: int
    own: Float32
    honest: Float32 | None
    clients: int


ATTACKS: Registry[Attack] = Registry("attack")


class Attack:
    """An adversary; the base class attacks nothing.

    A subclass overrides what it needs: `poison` to change its clients' data, `craft` to change their updates, `tamper`
    to change whole messages, `at` to act in some rounds only.

    Examples
    --------
    >>> class Lazy(Attack):
    ...     '''Upload nothing new.'''
    ...
    ...     def craft(self, view, rng):
    ...         return np.zeros_like(view.own)
    >>> view = AttackView(round=0, own=np.ones((2, 3), np.float32), honest=None, clients=5)
    >>> Lazy().craft(view, np.random.default_rng(0)).sum()
    np.float32(0.0)
    """

    registry: ClassVar[Registry[Attack]] = ATTACKS
    knowledge: ClassVar[Knowledge] = Knowledge.OWN_UPDATES

    def at(self, round: int) -> Attack | None:  # noqa: A002 - the field's word; the base always acts
        """The attack in force in a round, or ``None`` for honest behaviour."""
        return self

    def poison(
        self,
        X: Float32,
        y: NDArray[np.int64],
        num_classes: int,
        rng: np.random.Generator,
    ) -> tuple[Float32, NDArray[np.int64]]:
        """Replace one malicious client's training data; ``X`` and ``y`` themselves cannot be written to."""
        return X, y

    def craft(self, view: AttackView, rng: np.random.Generator) -> Float32:
        """Replace the updates (m, d) of all malicious clients of a round."""
        return view.own

    def tamper(self, update: Update, rng: np.random.Generator) -> Update:
        """Replace one malicious client's message."""
        return update
