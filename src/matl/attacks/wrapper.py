"""An attack that changes how another one is carried out."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
from numpy.typing import NDArray

from matl.attacks.base import Attack, AttackView, Knowledge
from matl.attacks.updates import SignFlip
from matl.params import Float32
from matl.records import Update

__all__ = ["Wrapper"]


@dataclass(frozen=True, slots=True)
class Wrapper(Attack):
    """Another attack, changed in some respect: knows what that one knows and does what it does, when it does.

    Parameters
    ----------
    attack : Attack
        The other attack.
    """

    attack: Attack = field(default_factory=SignFlip)

    @property
    def knowledge(self) -> Knowledge:
        """That of the other attack."""
        return self.attack.knowledge

    def on(self, shape: tuple[int, ...] | None) -> Attack:
        """See `Attack.on`."""
        return replace(self, attack=self.attack.on(shape))

    def at(self, round: int) -> Attack | None:  # noqa: A002 - the field's word
        """In force whenever the other attack is."""
        acting = self.attack.at(round)
        return None if acting is None else replace(self, attack=acting)

    def poison(
        self,
        X: Float32,
        y: NDArray[np.int64],
        num_classes: int,
        rng: np.random.Generator,
    ) -> tuple[Float32, NDArray[np.int64]]:
        """As the other attack."""
        return self.attack.poison(X, y, num_classes, rng)

    def craft(self, view: AttackView, rng: np.random.Generator) -> Float32:
        """As the other attack."""
        return self.attack.craft(view, rng)

    def tamper(self, update: Update, rng: np.random.Generator) -> Update:
        """As the other attack."""
        return self.attack.tamper(update, rng)

    def triggered(self, X: Float32, y: NDArray[np.int64], num_classes: int) -> tuple[Float32, NDArray[np.int64]] | None:
        """As the other attack."""
        return self.attack.triggered(X, y, num_classes)
