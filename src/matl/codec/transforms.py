"""What happens to a vector before it is rounded: nothing, a rotation or sketch, or all but its largest entries go."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from typing import ClassVar

import numpy as np

from matl import validate
from matl.codec.parts import TRANSFORMS, Transform
from matl.codec.sketch import BlockLayout, HadamardSketch
from matl.params import Float32

__all__ = ["Hadamard", "Identity", "TopK"]


@TRANSFORMS.register("identity", "none")
@dataclass(frozen=True, slots=True)
class Identity(Transform):
    """The vector as it is."""

    linear: ClassVar[bool] = True

    def forward(self, x: Float32, seed: int) -> Float32:
        """See `Transform.forward`."""
        return x

    def backward(self, values: Float32, size: int, seed: int) -> Float32:
        """See `Transform.backward`."""
        return values


@TRANSFORMS.register("hadamard")
@dataclass(frozen=True, slots=True)
class Hadamard(Transform):
    """Randomised Hadamard transform by blocks, of which a random subset of rows is kept.

    It spreads large entries over their block, so that all numbers are about as large and a coarse grid fits them all.
    With ``fraction`` < 1 it is a sketch: unbiased, with a mean squared error of (1/f - 1) |x|^2.

    Parameters
    ----------
    block : int
        As `BlockLayout.block`.
    fraction : float
        As `BlockLayout.fraction`.

    Notes
    -----
    See `HadamardSketch`. The last two sketches that were drawn are kept for the next vector of the round.
    """

    linear: ClassVar[bool] = True

    block: int = 4096
    fraction: float = 1.0

    def __post_init__(self) -> None:
        BlockLayout(1, self.block, self.fraction)  # the checks are there

    @property
    def contracts(self) -> bool:
        """See `Transform.contracts`: a sketch of less than half of the rows is, on average, farther away than zero."""
        return self.fraction == 1.0

    def length(self, size: int) -> int:
        """See `Transform.length`."""
        return BlockLayout(size, self.block, self.fraction).kept

    def forward(self, x: Float32, seed: int) -> Float32:
        """See `Transform.forward`."""
        return _sketch(x.size, self.block, self.fraction, seed).forward(x)

    def backward(self, values: Float32, size: int, seed: int) -> Float32:
        """See `Transform.backward`."""
        return _sketch(size, self.block, self.fraction, seed).backward(values)


@lru_cache(maxsize=2)
def _sketch(size: int, block: int, fraction: float, seed: int) -> HadamardSketch:
    return HadamardSketch.draw(BlockLayout(size, block, fraction), seed)


@TRANSFORMS.register("topk")
@dataclass(frozen=True, slots=True)
class TopK(Transform):
    """Zero in place of all but the k = ceil(fraction d) entries of largest magnitude.

    Zeros are sent like any other word, and cost next to nothing: an entropy coder spends on the positions of k entries
    exactly what they tell, d H(k/d) bits. It is biased; feed the error back (`Codec.feedback`).

    Parameters
    ----------
    fraction : float
        Share of the entries that are kept, in (0, 1].

    Notes
    -----
    Where several entries tie for the last place, those that come first are kept.

    References
    ----------
    Stich, Cordonnier, Jaggi, "Sparsified SGD with Memory", NeurIPS 2018.
    """

    fraction: float = 0.01

    def __post_init__(self) -> None:
        validate.positive(fraction=self.fraction)
        validate.fraction(fraction=self.fraction)

    def forward(self, x: Float32, seed: int) -> Float32:
        """See `Transform.forward`."""
        k = math.ceil(self.fraction * x.size)
        magnitudes = np.abs(x)
        bound = np.partition(magnitudes, x.size - k)[x.size - k]
        kept = magnitudes > bound
        ties = np.flatnonzero(magnitudes == bound)[: k - int(kept.sum())]
        kept[ties] = True
        return np.where(kept, x, np.float32(0))

    def backward(self, values: Float32, size: int, seed: int) -> Float32:
        """See `Transform.backward`."""
        return values
