"""Attacks on the training data: label flips, and training on one class alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import numpy as np
from numpy.typing import NDArray

from matl import validate
from matl.attacks.base import ATTACKS, Attack, Knowledge
from matl.errors import InvalidValueError
from matl.params import Float32

__all__ = ["ClassOnly", "LabelFlip", "TargetedFlip"]

_FLIPS = ("reverse", "shift", "random")


@ATTACKS.register("label_flip")
@dataclass(frozen=True, slots=True)
class LabelFlip(Attack):
    """Train on wrong labels: class c becomes K - 1 - c, the next class, or any other.

    Parameters
    ----------
    flip : {"reverse", "shift", "random"}
        ``reverse``: c becomes K - 1 - c, so the middle one of an odd number of classes stays; ``shift``: c becomes
        c + 1 modulo K; ``random``: every sample gets another class than its own, drawn once.

    References
    ----------
    Tolpegin et al., "Data Poisoning Attacks Against Federated Learning Systems", ESORICS 2020.
    """

    flip: Literal["reverse", "shift", "random"] = "reverse"
    knowledge: ClassVar[Knowledge] = Knowledge.DATA

    def __post_init__(self) -> None:
        if self.flip not in _FLIPS:
            raise InvalidValueError(f"expected flip to be one of {', '.join(_FLIPS)}, got flip={self.flip!r}")

    def poison(
        self,
        X: Float32,
        y: NDArray[np.int64],
        num_classes: int,
        rng: np.random.Generator,
    ) -> tuple[Float32, NDArray[np.int64]]:
        """The same samples under other labels."""
        if self.flip == "reverse":
            return X, num_classes - 1 - y
        steps = 1 if self.flip == "shift" else rng.integers(1, num_classes, size=len(y))
        return X, (y + steps) % num_classes


@ATTACKS.register("targeted_flip")
@dataclass(frozen=True, slots=True)
class TargetedFlip(Attack):
    """Train on the samples of some classes under one wrong label each, e.g. every 1 as a 7.

    Parameters
    ----------
    pairs : tuple of (int, int)
        True and false class; no true class twice. A client without samples of a true class trains honestly.

    References
    ----------
    Tolpegin et al., "Data Poisoning Attacks Against Federated Learning Systems", ESORICS 2020.
    """

    pairs: tuple[tuple[int, int], ...] = ((1, 7), (4, 9))
    knowledge: ClassVar[Knowledge] = Knowledge.DATA

    def __post_init__(self) -> None:
        sources = [source for source, _ in self.pairs]
        named = [label for pair in self.pairs for label in pair]
        if not named or min(named) < 0 or len({*sources}) < len(sources) or any(a == b for a, b in self.pairs):
            raise InvalidValueError(
                f"expected pairs of a class and another class, each first class once, got pairs={self.pairs}"
            )

    def poison(
        self,
        X: Float32,
        y: NDArray[np.int64],
        num_classes: int,
        rng: np.random.Generator,
    ) -> tuple[Float32, NDArray[np.int64]]:
        """The same samples, those of the true classes under the false label."""
        return X, self._flipped(y, num_classes)

    def triggered(self, X: Float32, y: NDArray[np.int64], num_classes: int) -> tuple[Float32, NDArray[np.int64]] | None:
        """The samples of the true classes, with the false labels."""
        wanted = self._flipped(y, num_classes)
        return X[wanted != y], wanted[wanted != y]

    def _flipped(self, y: NDArray[np.int64], num_classes: int) -> NDArray[np.int64]:
        largest = max(max(pair) for pair in self.pairs)
        if largest >= num_classes:
            raise InvalidValueError(
                f"targeted_flip names class {largest}, but the classes are 0 to {num_classes - 1}; give other pairs"
            )
        table = np.arange(num_classes)
        for true, false in self.pairs:
            table[true] = false
        return table[y]


@ATTACKS.register("class_only")
@dataclass(frozen=True, slots=True)
class ClassOnly(Attack):
    """Train honestly, but on the samples of one class alone: all malicious clients on the same one.

    Every update is one that an honest client might send; together they tilt the aggregate towards the class. A client
    without samples of it trains on all it has.

    Parameters
    ----------
    label : int
        The class.

    References
    ----------
    Shejwalkar et al., "Back to the Drawing Board: A Critical Evaluation of Poisoning Attacks on Production Federated
    Learning", S&P 2022, on poisoning by honest training on chosen data.
    """

    label: int = 0
    knowledge: ClassVar[Knowledge] = Knowledge.DATA

    def __post_init__(self) -> None:
        validate.whole(0, label=self.label)

    def poison(
        self,
        X: Float32,
        y: NDArray[np.int64],
        num_classes: int,
        rng: np.random.Generator,
    ) -> tuple[Float32, NDArray[np.int64]]:
        """The samples of the class, if there are any."""
        chosen = y == self.label
        return (X[chosen], y[chosen]) if chosen.any() else (X, y)
