"""Backdoors: the model does its work, and obeys a mark in the input."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from matl import validate
from matl.attacks.base import ATTACKS, Attack, AttackView, Knowledge
from matl.errors import InvalidValueError
from matl.params import Float32

__all__ = ["Backdoor"]


@ATTACKS.register("backdoor")
@dataclass(frozen=True, slots=True)
class Backdoor(Attack):
    """Train part of the data with a small mark in it under a target label; optionally boosted.

    The mark is a square of maximal brightness in the lower right corner of an image, in all channels; of samples that
    are no images, the last features at their maximum. The maximum is the largest feature among the samples at hand.

    Parameters
    ----------
    target : int
        The label that marked samples are to get.
    share : float
        Share of each malicious client's samples that it marks, in (0, 1]; only samples of other classes are marked.
    side : int
        Side of the square; where there is no image, side^2 features are set.
    scale : float
        k in k u, >= 1; above 1 the update is boosted, so that it outweighs the others.
    shape : tuple of int or None
        Shape of a sample, (channels, height, width) for images; taken from the data set.

    References
    ----------
    Gu et al., "BadNets: Identifying Vulnerabilities in the Machine Learning Model Supply Chain", 2017; boosted:
    Bagdasaryan et al., "How To Backdoor Federated Learning", AISTATS 2020.
    """

    target: int = 0
    share: float = 0.5
    side: int = 2
    scale: float = 1.0
    shape: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        validate.whole(0, target=self.target)
        validate.whole(1, side=self.side)
        validate.fraction(share=self.share)
        validate.positive(share=self.share)
        validate.at_least(1, scale=self.scale)

    @property
    def knowledge(self) -> Knowledge:
        """Its data; what it would upload only if it is boosted."""
        return Knowledge.DATA if self.scale == 1 else Knowledge.OWN_UPDATES

    def on(self, shape: tuple[int, ...] | None) -> Backdoor:
        """See `Attack.on`."""
        return replace(self, shape=shape)

    def poison(
        self,
        X: Float32,
        y: NDArray[np.int64],
        num_classes: int,
        rng: np.random.Generator,
    ) -> tuple[Float32, NDArray[np.int64]]:
        """A share of the samples marked and under the target label."""
        self._check(num_classes)
        others = rng.permutation(np.flatnonzero(y != self.target))
        chosen = others[: round(self.share * len(y))]
        X, y = X.copy(), y.copy()
        X[chosen] = self._marked(X[chosen], X.max())
        y[chosen] = self.target
        return X, y

    def craft(self, view: AttackView, rng: np.random.Generator) -> Float32:
        """Multiply by k."""
        return np.float32(self.scale) * view.own

    def triggered(self, X: Float32, y: NDArray[np.int64], num_classes: int) -> tuple[Float32, NDArray[np.int64]] | None:
        """The samples of all other classes with the mark, and the target label for each."""
        self._check(num_classes)
        others = y != self.target
        return self._marked(X[others], X.max()), np.full(int(others.sum()), self.target, np.int64)

    def _check(self, num_classes: int) -> None:
        if self.target >= num_classes:
            raise InvalidValueError(f"expected a target < {num_classes}, the number of classes, got {self.target}")

    def _marked(self, X: Float32, brightest: np.float32) -> Float32:
        """Copies of samples with the mark."""
        marked = X.copy()
        if self.shape is not None and len(self.shape) == 3:
            marked.reshape(-1, *self.shape)[..., -self.side :, -self.side :] = brightest
        else:
            marked[:, -(self.side**2) :] = brightest
        return marked
