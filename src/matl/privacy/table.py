"""Tables of noise: the law of a client's share as whole numbers, so that what is drawn is exactly what is certified."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from numpy.typing import NDArray

from matl import validate
from matl.errors import InvalidValueError
from matl.privacy.certificate import RESOLUTION

__all__ = ["MAX_VARIANCE", "NoiseTable", "skellam_table"]

MAX_VARIANCE = 1 << 10
"""Of one share: its table takes a second, and has about 450 entries."""

_FINEST = 128  # bits of a table; what clients draw from has `RESOLUTION`, the others are for comparison


@dataclass(frozen=True, slots=True)
class NoiseTable:
    """A symmetric law on the integers -t .. t, in units of 2^-resolution.

    Parameters
    ----------
    counts : tuple of int
        Probabilities of -t .. t in those units, both ends above 0.
    resolution : int
        R: the counts add up to 2^R.

    Raises
    ------
    InvalidValueError
        They do not, or the law is not symmetric.

    Examples
    --------
    >>> table = NoiseTable((2, 12, 2), resolution=4)
    >>> table.reach, table.variance
    (1, Fraction(1, 4))

    Sixteen words of 40 bits that differ in the first four:

    >>> words = np.arange(16, dtype=np.uint64) << np.uint64(36)
    >>> np.searchsorted(table.thresholds, words, side="right") - table.reach
    array([-1, -1,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  0,  1,  1])
    """

    counts: tuple[int, ...]
    resolution: int

    def __post_init__(self) -> None:
        validate.whole(1, resolution=self.resolution)
        if len(self.counts) % 2 == 0 or self.counts != self.counts[::-1]:
            raise InvalidValueError(
                f"expected a symmetric table on -t .. t, got {len(self.counts)} counts that are none"
            )
        if self.resolution > _FINEST or min(self.counts) < 0 or sum(self.counts) != 1 << self.resolution:
            raise InvalidValueError(
                f"expected counts >= 0 with the sum 2^{self.resolution}, at most 2^{_FINEST}, got the sum "
                f"{sum(self.counts)}"
            )
        if len(self.counts) > 1 and not self.counts[0]:
            raise InvalidValueError("expected a table whose ends are above 0, got zeros there; leave them out")

    @property
    def reach(self) -> int:
        """t, the largest value."""
        return len(self.counts) // 2

    @property
    def variance(self) -> Fraction:
        """Variance of one share."""
        squares = sum(value * value * count for value, count in enumerate(self.counts, -self.reach))
        return Fraction(squares, 1 << self.resolution)

    @property
    def thresholds(self) -> NDArray[np.uint64]:
        """Prefix sums T, uint64 of shape (2t,), in units of 2^-40: a word u of 40 bits draws ``#{i: T_i <= u} - t``.

        If the word is uniform, what is drawn has exactly the law of the table.

        Raises
        ------
        InvalidValueError
            The resolution is more than clients draw from.
        """
        if self.resolution > RESOLUTION:
            raise InvalidValueError(
                f"expected a resolution of at most {RESOLUTION} bits to draw from, got {self.resolution}; "
                "the others round the coordinate"
            )
        sums = np.cumsum(np.array(self.counts[:-1], np.uint64), dtype=np.uint64)
        return np.left_shift(sums, np.uint64(RESOLUTION - self.resolution))


def skellam_table(variance: Fraction | int | str, resolution: int = RESOLUTION) -> NoiseTable:
    """The Skellam law of a variance, rounded down to multiples of 2^-resolution; 0 gets what is left.

    A Skellam variable is the difference of two Poisson variables of mean ``variance / 2``. The counts are
    ``floor(2^R e^-v I_t(v))`` for t > 0, decided with integers: the same on every machine. The certificate takes any
    table; this one is close to the Gaussian, and so is a sum of however few shares that have the same variance in all.

    Parameters
    ----------
    variance : Fraction, int or str
        Of one share, in (0, `MAX_VARIANCE`]; text such as ``"3/128"``.
    resolution : int
        R, up to 128 bits; clients draw from tables of up to 40.

    Raises
    ------
    InvalidValueError
        One of them is out of range.

    Examples
    --------
    >>> skellam_table(1, resolution=10)
    NoiseTable(counts=(1, 8, 51, 212, 480, 212, 51, 8, 1), resolution=10)
    """
    v = Fraction(variance)
    validate.whole(1, resolution=resolution)
    if not 0 < v <= MAX_VARIANCE or resolution > _FINEST:
        raise InvalidValueError(
            f"expected 0 < variance <= {MAX_VARIANCE} and resolution <= {_FINEST}, got variance={v} and "
            f"resolution={resolution}"
        )
    bits, tail = resolution + 64, None
    while tail is None:
        tail, bits = _tail(v, resolution, bits), 2 * bits
    middle = (1 << resolution) - 2 * sum(tail)
    return NoiseTable((*reversed(tail), middle, *tail), resolution)


def _tail(v: Fraction, resolution: int, bits: int) -> list[int] | None:
    """``floor(2^R e^-v I_t(v))`` for t = 1, 2, ... while above 0; None if these bits leave one of them undecided."""
    exp = _series(Fraction(1), lambda j: v / j, bits)
    first, tail = Fraction(1), []
    for t in itertools.count(1):
        first *= v / (2 * t)  # (v / 2)^t / t!

        def ratio(j: int, t: int = t) -> Fraction:
            return v * v / (4 * j * (j + t))

        bessel = _series(first, ratio, bits)
        low, high = (bessel[0] << resolution) // exp[1], (bessel[1] << resolution) // exp[0]
        if low != high:
            return None
        if not low:
            break
        tail.append(low)
    return tail


def _series(first: Fraction, ratio: Callable[[int], Fraction], bits: int) -> tuple[int, int]:
    """Lower and upper bound, in units of 2^-bits, of a sum of positive terms whose ratios fall to 0."""
    low = (first.numerator << bits) // first.denominator
    high, sums, j = low + 1, [low, low + 1], 1
    while low or 2 * ratio(j) > 1:
        step = ratio(j)
        low, high = low * step.numerator // step.denominator, -(-high * step.numerator // step.denominator)
        sums, j = [sums[0] + low, sums[1] + high], j + 1
    return sums[0], sums[1] + high  # from here on every term is at most half of the one before
