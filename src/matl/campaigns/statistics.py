"""What several seeds say together: a mean and how far it can be trusted."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache

__all__ = ["Interval", "binomial_interval", "holm", "mean_interval", "t_quantile", "t_test"]


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


def binomial_interval(found: int, total: int) -> tuple[float, float]:
    """Two-sided 95 % confidence interval of a share of which ``found`` of ``total`` were seen.

    Clopper and Pearson's (1934). It holds for independent draws. Where none or all were seen, which Student's t takes
    for certainty, it has a width.

    Parameters
    ----------
    found, total : int
        0 <= ``found`` <= ``total``, ``total`` > 0.

    Examples
    --------
    >>> [round(end, 4) for end in binomial_interval(0, 500)]
    [0.0, 0.0074]
    """
    from scipy.special import betaincinv  # here, since a fifth of a second is much for commands that have no tables

    low = float(betaincinv(found, total - found + 1, 0.025)) if found else 0.0
    high = float(betaincinv(found + 1, total - found, 0.975)) if found < total else 1.0
    return low, high


def t_test(differences: Sequence[float]) -> float | None:
    """Two-sided p-value of Student's t test that paired differences have mean zero; ``None`` for fewer than two.

    Differences that are all the same leave no doubt: 1 if they are zero, otherwise 0.

    Examples
    --------
    >>> round(t_test([0.1, 0.2, 0.3]), 4)
    0.0742
    """
    interval = mean_interval(differences)
    if interval is None or interval.half_width is None:
        return None
    n = interval.n
    error = interval.half_width / t_quantile(0.975, n - 1)
    if error == 0:
        return float(interval.mean == 0)
    angle = math.atan(abs(interval.mean) / error / math.sqrt(n - 1))
    return 2 * (1 - _t_cdf(angle, n - 1))


def holm(p_values: Sequence[float]) -> list[float]:
    """P-values of a family of comparisons, adjusted so that the chance of any false one is kept (Holm, 1979).

    Examples
    --------
    >>> holm([0.01, 0.04, 0.03])
    [0.03, 0.06, 0.06]
    """
    order = sorted(range(len(p_values)), key=p_values.__getitem__)
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * p_values[index]))
        adjusted[index] = largest
    return adjusted


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
