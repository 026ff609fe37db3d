"""What several seeds say together: a mean and how far it can be trusted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

__all__ = ["Interval", "mean_interval", "t_quantile"]


@dataclass(frozen=True, slots=True)
class Interval:
    """A mean over n values with its two-sided 95 % confidence interval, mean ± half_width.

    Parameters
    ----------
    mean : float
        The mean.
    half_width : float or None
        Half the width of Student's t interval; ``None`` for a single value, which has none.
    n : int
        Number of values.
    """

    mean: float
    half_width: float | None
    n: int


def mean_interval(values: Sequence[float]) -> Interval | None:
    """Mean and 95 % confidence interval (Student's t) of independent values; ``None`` without any.

    Examples
    --------
    >>> mean_interval([0.25, 0.5, 0.75])
    Interval(mean=0.5, half_width=0.621..., n=3)
    >>> mean_interval([0.5])
    Interval(mean=0.5, half_width=None, n=1)
    """
    n = len(values)
    if n == 0:
        return None
    mean = math.fsum(values) / n
    if n == 1:
        return Interval(mean, None, 1)
    variance = math.fsum((value - mean) ** 2 for value in values) / (n - 1)
    return Interval(mean, t_quantile(0.975, n - 1) * math.sqrt(variance / n), n)


@cache
def t_quantile(probability: float, freedom: int) -> float:
    """The value below which Student's t with ``freedom`` degrees of freedom lies with a probability in [0.5, 1).

    Examples
    --------
    >>> round(t_quantile(0.975, 4), 4)
    2.7764
    """
    low, high = 0.0, math.pi / 2  # of the angle atan(t / sqrt(freedom)), in which t may be as large as it likes
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if _t_cdf(middle, freedom) < probability else (low, middle)
    return math.tan(low) * math.sqrt(freedom)


def _t_cdf(angle: float, freedom: int) -> float:
    """P(t < tan(angle) * sqrt(freedom)): the finite sums 26.7.3 and 26.7.4 of Abramowitz and Stegun (1964)."""
    sine, cosine = math.sin(angle), math.cos(angle)
    odd = freedom % 2
    term, total = (cosine, 0.0) if odd else (1.0, 0.0)
    for k in range(odd + 1, freedom, 2):
        total += term
        term *= cosine**2 * k / (k + 1)
    two_sided = (angle + sine * total) * 2 / math.pi if odd else sine * total
    return (1 + two_sided) / 2
