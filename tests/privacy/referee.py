"""A second computation of every certified figure, which shares nothing with `matl.privacy.certificate`.

The law of the noise is convolved one share at a time, in plain integers; everything after it is decimal numbers of 80
digits and follows the definitions: a divergence is a sum over residues of ``W (P / W)^p``, and a power is what
`decimal` makes of it, not a chain of square roots. It rounds either way, far below the twelve digits that are compared.
"""

from __future__ import annotations

import decimal
from decimal import Decimal
from fractions import Fraction


def precision():
    """In which all of this is to be computed."""
    return decimal.localcontext(prec=80, Emin=decimal.MIN_EMIN, Emax=decimal.MAX_EMAX)


def number(x) -> Decimal:
    x = Fraction(x)
    return Decimal(x.numerator) / Decimal(x.denominator)


def law(table, survivors, modulus):
    """Numerators of the law of a sum of shares: one share after another."""
    reach = len(table) // 2
    total = [1] + [0] * (modulus - 1)
    for _ in range(survivors):
        after = [0] * modulus
        for value, count in enumerate(table, -reach):
            for residue, weight in enumerate(total):
                after[(residue + value) % modulus] += weight * count
        total = after
    return total


class Noise:
    """The law of the noise on Z_M, as decimals, and the divergences of a coordinate from it."""

    def __init__(self, weights):
        total = Decimal(sum(weights))
        self.W = [Decimal(weight) / total for weight in weights]

    def moved(self, x):
        """The law of ``SR(x) + noise`` for abs(x) <= 1, of either sign."""
        size, step = abs(number(x)), 1 if x > 0 else -1
        return [(1 - size) * w + size * self.W[(t - step) % len(self.W)] for t, w in enumerate(self.W)]

    def phi(self, p, x):
        """``E_W (P_x / W)^p``."""
        p = number(p)
        return sum(w * (q / w) ** p for w, q in zip(self.W, self.moved(x), strict=True))

    def divergences(self, a, x):
        """Rényi divergence of order a of P_x from W, and of W from P_x."""
        return tuple(self.phi(p, x).ln() / (number(a) - 1) for p in (a, 1 - a))

    def height(self, p, x):
        """h_p(x) of Lemma 3."""
        return (self.phi(p, x) - 1) / number(x) ** 2

    def rate(self, a, bound, cells=1):
        """K_a of Lemma 3, from both divergences, of which Lemma 4 says that one is enough."""
        a = Fraction(a)
        g = [self.W[t - 1] / w - 1 for t, w in enumerate(self.W)]
        at_zero = number(a * (a - 1) / 2) * sum(w * z**2 for w, z in zip(self.W, g, strict=True))
        slope = number(a * (a - 1) * (a - 2) / 6) * sum(w * z**3 for w, z in zip(self.W, g, strict=True))
        nodes = [bound * i / cells for i in range(1, cells + 1)]
        largest = Decimal(0)
        for p in (a, 1 - a):
            if 2 < p < 3:
                heights = [at_zero + max(Decimal(0), slope) * number(x) for x in [0, *nodes]]
            else:
                heights = [at_zero, *(self.height(p, x) for x in nodes)]
            parts = [max(heights[:2])]
            for x, *ends in zip(nodes, heights[1:], heights[2:], strict=False):
                square = number(x) ** 2
                parts.append((1 + square * max(ends)).ln() / square)
            largest = max(largest, *parts)
        return largest / number(a - 1)


def conversion(a, divergence, delta):
    """Epsilon by the formula of Canonne, Kamath and Steinke."""
    a = number(a)
    return divergence + ((a - 1) / a).ln() - (number(delta).ln() + a.ln()) / (a - 1)


class Referee:
    """Epsilon of an instance at single orders."""

    def __init__(self, instance, survivors=None):
        self.instance = instance
        self.noise = Noise(law(instance.table, survivors or instance.survivors, 1 << instance.bits))

    def divergence(self, a):
        one = self.instance
        spent = number(one.squared_norm * one.transmissions)
        return self.noise.rate(a, one.bound, one.cells) * spent

    def zero_out(self, a):
        return conversion(a, self.divergence(a), self.instance.delta)

    def replace_one(self, a):
        """By Hölder's inequality with exponents 2 - 1/a and its conjugate."""
        a = Fraction(a)
        through = number(2 * a / (2 * a - 1)) * self.divergence(2 * a - 1) + self.divergence(2 * a)
        return conversion(a, through, self.instance.delta)

    def replace_one_by_halves(self, a):
        """The same with exponents 2 and 2, the form of Mironov's corollary."""
        a = Fraction(a)
        through = number((a - Fraction(1, 2)) / (a - 1)) * self.divergence(2 * a) + self.divergence(2 * a - 1)
        return conversion(a, through, self.instance.delta)
