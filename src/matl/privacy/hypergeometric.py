"""Tails of drawing without replacement: ratios of whole numbers, neither estimated nor rounded."""

from __future__ import annotations

from fractions import Fraction
from math import comb

__all__ = ["above", "at_most"]


def at_most(population: int, marked: int, drawn: int, chance: Fraction) -> int:
    """The smallest m such that more than m of ``drawn`` are marked with at most this probability.

    Examples
    --------
    >>> at_most(100, 10, 20, Fraction(1, 1000))
    6
    """
    limit, ways = chance * comb(population, drawn), 0
    for count in range(min(marked, drawn), -1, -1):
        ways += comb(marked, count) * comb(population - marked, drawn - count)
        if ways > limit:
            return count
    return 0


def above(population: int, marked: int, drawn: int, most: int) -> Fraction:
    """Probability that more than ``most`` of ``drawn`` are marked, exactly.

    Examples
    --------
    >>> above(4, 2, 2, 1)
    Fraction(1, 6)
    """
    counts = range(most + 1, min(marked, drawn) + 1)
    ways = sum(comb(marked, count) * comb(population - marked, drawn - count) for count in counts)
    return Fraction(ways, comb(population, drawn))
