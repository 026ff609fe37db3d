"""Shamir's secret sharing over a prime field: any ``threshold`` shares give the secret, fewer say nothing about it.

The field is that of the integers mod 2^256 - 189, the largest prime of 256 bits. Holders get the values of a random
polynomial at 1, -1, 2, -2, ... in turn: the even and the odd part of a polynomial at x give its values at both x and
-x, which halves the work, and points stay so small that no product needs reducing before the end.

Python's integers do not run in constant time. Whoever can time this process to the nanosecond is outside the model.

Reference: A. Shamir, "How to share a secret", Communications of the ACM 22(11), 1979.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Mapping
from functools import lru_cache
from operator import mul

from matl import validate
from matl.errors import InvalidValueError

__all__ = ["PRIME", "combine", "split"]

PRIME = 2**256 - 189
"""The field's size."""


def split(secret: int, holders: int, threshold: int) -> list[int]:
    """Share a secret among holders, with coefficients from the operating system.

    Parameters
    ----------
    secret : int
        In [0, `PRIME`).
    holders : int
        Number of shares.
    threshold : int
        Shares that are needed, in [1, ``holders``].

    Returns
    -------
    list of int
        Share of each holder, in [0, `PRIME`).

    Examples
    --------
    >>> shares = split(42, holders=5, threshold=3)
    >>> combine({0: shares[0], 3: shares[3], 4: shares[4]})
    42
    """
    validate.whole(1, threshold=threshold)
    validate.whole(threshold, holders=holders)
    if not 0 <= secret < PRIME:
        raise InvalidValueError("expected a secret in [0, 2^256 - 189), got one outside; a secret is never printed")
    coefficients = [secret, *(secrets.randbelow(PRIME) for _ in range(threshold - 1))]
    even, odd = coefficients[::2][::-1], coefficients[1::2][::-1]
    shares = []
    for x in range(1, holders // 2 + holders % 2 + 1):
        same, other = _polynomial(even, x * x), x * _polynomial(odd, x * x)
        shares += [(same + other) % PRIME, (same - other) % PRIME]
    return shares[:holders]


def combine(shares: Mapping[int, int]) -> int:
    """The secret that some shares belong to.

    Parameters
    ----------
    shares : mapping of int to int
        By holder, as many as the threshold was or more. Fewer, or wrong ones, give a number that says nothing: check
        what is returned against a commitment.

    Raises
    ------
    InvalidValueError
        There are none.
    """
    validate.at_least(1, shares=len(shares))
    weights = _weights(tuple(shares))
    total: int = sum(map(mul, weights, shares.values()))
    return total % PRIME


def _polynomial(coefficients: list[int], x: int) -> int:
    """Horner's rule, highest coefficient first."""
    total = 0
    for coefficient in coefficients:
        total = total * x + coefficient
    return total


@lru_cache(maxsize=256)
def _weights(holders: tuple[int, ...]) -> tuple[int, ...]:
    """Lagrange's weights at 0: the product over the others of x_j / (x_j - x_i), with a single inversion."""
    points = [holder // 2 + 1 if holder % 2 == 0 else -(holder // 2 + 1) for holder in holders]
    numerator = math.prod(points)
    denominators = [x * math.prod([other - x for other in points if other != x]) % PRIME for x in points]
    before = [1]
    for denominator in denominators:
        before.append(before[-1] * denominator % PRIME)
    inverse, weights = pow(before.pop(), -1, PRIME) * numerator % PRIME, []
    for denominator, product in zip(reversed(denominators), reversed(before), strict=True):
        weights.append(product * inverse % PRIME)
        inverse = inverse * denominator % PRIME
    return tuple(reversed(weights))
