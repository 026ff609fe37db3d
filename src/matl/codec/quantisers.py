"""From float32 numbers to words of few bits.

Numbers are rounded chunk by chunk. A chunk of 4096 words has one float32 scale beside it, .008 bits per word.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from matl import validate
from matl.codec.parts import QUANTISERS, Quantiser, Words, word_type
from matl.errors import InvalidValueError
from matl.params import Float32

__all__ = ["FixedStep", "Float", "LloydMax", "MaxScaled", "RmsScaled"]

_NO_SCALES = np.empty(0, np.float32)
_GRID_BITS = (2, 3, 4, 5, 6, 7, 8, 16)
_LARGEST_CHUNK = 1 << 30
_LARGEST_STEP = 1024
_LEAST, _MOST = float(np.finfo(np.float32).tiny), float(np.finfo(np.float32).max)


@QUANTISERS.register("float")
@dataclass(frozen=True, slots=True)
class Float(Quantiser):
    """float32 as it is."""

    contracts: ClassVar[bool] = True
    bits: ClassVar[int] = 32

    def scales(self, count: int) -> int:
        """See `Quantiser.scales`."""
        return 0

    def quantise(self, values: Float32, key: int) -> tuple[Words, Float32]:
        """See `Quantiser.quantise`."""
        return values, _NO_SCALES

    def restore(self, words: Words, scales: Float32) -> Float32:
        """See `Quantiser.restore`."""
        return words.astype(np.float32, copy=False)


class _Grid(Quantiser):
    """Words are multiples of a step, one step per chunk; a subclass says how large the steps are."""

    @property
    def chunk(self) -> int:
        """Numbers that share a step."""
        raise NotImplementedError(f"{type(self).__name__} does not say its chunk")

    def scales(self, count: int) -> int:
        """See `Quantiser.scales`."""
        return -(-count // self.chunk)

    def steps(self, values: Float32) -> Float32:
        """One step per chunk, which are also the scales that are sent."""
        raise NotImplementedError(f"{type(self).__name__} does not implement steps")

    def quantise(self, values: Float32, key: int) -> tuple[Words, Float32]:
        """See `Quantiser.quantise`."""
        from matl.codec import _rounding

        steps, words, limit = self.steps(values), np.empty(values.size, word_type(self.bits)), _limit(self.bits)
        if self.draws:
            _rounding.round_up_or_down(values, steps, self.chunk, limit, np.uint64(key), words)
        else:
            _rounding.round_to_nearest(values, steps, self.chunk, limit, words)
        return words, steps

    def restore(self, words: Words, scales: Float32) -> Float32:
        """See `Quantiser.restore`."""
        from matl.codec import _rounding

        values = np.empty(words.size, np.float32)
        _rounding.times(words, scales, self.chunk, values)
        return values


@QUANTISERS.register("max")
@dataclass(frozen=True, slots=True)
class MaxScaled(_Grid):
    """A grid on which the largest magnitude of a chunk is the last word: step = max |v| / (2^(bits - 1) - 1).

    Parameters
    ----------
    bits : int
        2 to 8, or 16.
    stochastic : bool
        Round up or down at random, unbiased, instead of to the nearest.
    chunk : int
        Numbers that share a step.

    Examples
    --------
    >>> MaxScaled().quantise(np.array([0.0, 0.3, -1.27], np.float32), key=0)
    (array([   0,   30, -127], dtype=int8), array([0.01], dtype=float32))
    """

    bits: int = 8
    stochastic: bool = False
    chunk: int = 4096

    def __post_init__(self) -> None:
        _check(self.bits, _GRID_BITS, self.chunk)

    @property
    def draws(self) -> bool:
        """See `Quantiser.draws`."""
        return self.stochastic

    @property
    def contracts(self) -> bool:
        """See `Quantiser.contracts`: the nearest point is no farther than zero, which is on the grid."""
        return not self.stochastic

    def steps(self, values: Float32) -> Float32:
        """See `_Grid.steps`."""
        from matl.codec import _rounding

        largest = np.empty(self.scales(values.size), np.int32)
        _rounding.largest(values.view(np.int32), self.chunk, largest)
        return largest.view(np.float32) / np.float32(_limit(self.bits))


@QUANTISERS.register("rms")
@dataclass(frozen=True, slots=True)
class RmsScaled(_Grid):
    """Unbiased stochastic rounding to a grid as coarse as the numbers are large: step = ``step`` x root mean square.

    Meant for rotated vectors, whose numbers are nearly Gaussian, and for an entropy coder: then steps of 1, 2 and 4
    root mean squares cost 2.16, 1.42 and .92 bits per word, with a mean squared error of .17, .66 and 2.19 times the
    mean square. No word is ever cut off, because no number exceeds sqrt(chunk) root mean squares.

    Parameters
    ----------
    step : float
        Step in root mean squares, from sqrt(chunk) / 127 to 1024.
    chunk : int
        Numbers that share a step.
    """

    draws: ClassVar[bool] = True
    bits: ClassVar[int] = 8

    step: float = 1.0
    chunk: int = 4096

    def __post_init__(self) -> None:
        _check(self.bits, _GRID_BITS, self.chunk)
        least = math.sqrt(self.chunk) / _limit(self.bits)
        if not least <= self.step <= _LARGEST_STEP:
            raise InvalidValueError(f"expected {least:.3g} <= step <= {_LARGEST_STEP}, got step={self.step}")

    def steps(self, values: Float32) -> Float32:
        """See `_Grid.steps`."""
        return _root_mean_squares(values, self.chunk) * np.float32(self.step)


@QUANTISERS.register("fixed")
@dataclass(frozen=True, slots=True)
class FixedStep(_Grid):
    """Unbiased stochastic rounding to one public grid, so that words of several senders can be added, or masked.

    Parameters
    ----------
    step : float
        The step, within the normal range of float32.
    bits : int
        2 to 8, or 16. Numbers beyond the last word, (2^(bits - 1) - 1) steps, are cut off there.
    """

    sums: ClassVar[bool] = True
    draws: ClassVar[bool] = True
    chunk: ClassVar[int] = _LARGEST_CHUNK

    step: float
    bits: int = 8

    def __post_init__(self) -> None:
        if not _LEAST <= self.step <= _MOST:
            raise InvalidValueError(f"expected {_LEAST:.3g} <= step <= {_MOST:.3g}, got step={self.step}")
        _check(self.bits, _GRID_BITS, self.chunk)

    def scales(self, count: int) -> int:
        """See `Quantiser.scales`: the step is public."""
        return 0

    def steps(self, values: Float32) -> Float32:
        """See `_Grid.steps`."""
        return np.full(-(-values.size // self.chunk), self.step, np.float32)

    def quantise(self, values: Float32, key: int) -> tuple[Words, Float32]:
        """See `Quantiser.quantise`."""
        return _Grid.quantise(self, values, key)[0], _NO_SCALES

    def restore(self, words: Words, scales: Float32) -> Float32:
        """See `Quantiser.restore`; sums of words have a sum of numbers."""
        return _Grid.restore(self, words, self.steps(words))


# Optimal for N(0, 1). Max, "Quantizing for minimum distortion", IRE Transactions on Information Theory, 1960.
_CENTROIDS: dict[int, tuple[float, ...]] = {
    1: (0.7978846,),
    2: (0.4527800, 1.5104176),
    3: (0.2450943, 0.7560052, 1.3439093, 2.1519457),
    4: (0.1283950, 0.3880482, 0.6567591, 0.9423405, 1.2562312, 1.6180464, 2.0690172, 2.7325896),
}


@QUANTISERS.register("lloyd_max")
@dataclass(frozen=True, slots=True)
class LloydMax(Quantiser):
    """The grid with the least squared error for Gaussian numbers, rescaled so that no length is lost.

    With q the nearest grid points to the chunk v over its root mean square, S q is sent, S = |v|^2 / <v, q>. After a
    uniformly random rotation that is unbiased; after `Hadamard` nearly so, unless a block has only a few entries that
    are not zero. Clients who use different seeds have independent errors; with one seed for all, rounding errors of
    similar vectors are similar and do not average out.

    Parameters
    ----------
    bits : int
        1 to 4. The mean squared error is .57, .13, .036 and .0096 times the mean square.
    chunk : int
        Numbers that share a scale.

    References
    ----------
    Vargaftik et al., "DRIVE: One-bit Distributed Mean Estimation", NeurIPS 2021; Vargaftik et al., "EDEN:
    Communication-Efficient and Robust Distributed Mean Estimation for Federated Learning", ICML 2022.
    """

    bits: int = 1
    chunk: int = 4096

    def __post_init__(self) -> None:
        _check(self.bits, tuple(_CENTROIDS), self.chunk)

    def scales(self, count: int) -> int:
        """See `Quantiser.scales`."""
        return -(-count // self.chunk)

    def quantise(self, values: Float32, key: int) -> tuple[Words, Float32]:
        """See `Quantiser.quantise`."""
        from matl.codec import _rounding

        rms = _root_mean_squares(values, self.chunk)
        words, scales = np.empty(values.size, np.int8), np.empty_like(rms)
        _rounding.round_to_table(values, rms, self.chunk, self._table(), words, scales)
        return words, scales

    def restore(self, words: Words, scales: Float32) -> Float32:
        """See `Quantiser.restore`."""
        from matl.codec import _rounding

        values = np.empty(words.size, np.float32)
        _rounding.from_table(words, scales, self.chunk, self._table(), values)
        return values

    def _table(self) -> Float32:
        positive = _CENTROIDS[self.bits]
        return np.array([-value for value in reversed(positive)] + list(positive), np.float32)


def _limit(bits: int) -> int:
    """The last word; the grid is symmetric, so the lowest word of two's complement is not used."""
    return (1 << (bits - 1)) - 1


def _check(bits: int, allowed: tuple[int, ...], chunk: int) -> None:
    validate.whole(1, bits=bits, chunk=chunk)
    if bits not in allowed:
        raise InvalidValueError(f"expected bits to be one of {', '.join(map(str, allowed))}, got bits={bits}")
    if chunk > _LARGEST_CHUNK:
        raise InvalidValueError(f"expected chunk <= {_LARGEST_CHUNK}, got chunk={chunk}")


def _root_mean_squares(values: Float32, chunk: int) -> Float32:
    from matl.codec import _rounding

    squares = np.empty(-(-values.size // chunk))
    _rounding.add_squares(values, chunk, squares)
    sizes = np.full(squares.size, chunk)
    sizes[-1] = values.size - (squares.size - 1) * chunk
    rms: Float32 = np.sqrt(squares / sizes).astype(np.float32)
    return rms
