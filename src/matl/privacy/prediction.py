"""What privacy costs: the mean squared error of a private sum over that of central Gaussian noise, in closed form.

Everything here is float64 arithmetic, for choosing between plans and for telling what they cost. No privacy rests on
it: what is chosen is certified afterwards, in integers, by `matl.privacy.certificate`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, fields
from itertools import pairwise
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from matl.codec.sketch import BlockLayout
from matl.errors import InvalidValueError
from matl.privacy.accounting import WHOLE_ORDERS, Adjacency
from matl.privacy.certificate import ORDERS, order_grid

__all__ = [
    "Costs",
    "Sums",
    "coordinate_rates",
    "gaussian_multiplier",
    "largest_squared_norm",
    "predict",
    "rounded_gaussian",
    "sampled_multiplier",
    "wrapped",
]

Real: TypeAlias = Any
"""A float, or a float64 array of them: formulas here take both."""

_MEAN_OF_NORMAL = math.sqrt(2 / math.pi)
"""E |x| of x from N(0, 1)."""


@dataclass(frozen=True, slots=True)
class Sums:
    """Which sums of sketches a round unmasks.

    Parameters
    ----------
    clients : int
        n: clients whose updates arrive, in all sums together.
    honest : int
        h: honest noise shares that every sum is planned to have.
    layout : BlockLayout
        The sketch: d parameters, m numbers kept of them.
    groups : int
        Sums a round, each over n / groups clients.
    alignment : float
        A = |sum of updates| / (n C), in [0, 1]: 1 if all clients send the same update of norm C.
    """

    clients: int
    honest: int
    layout: BlockLayout
    groups: int = 1
    alignment: float = 1.0

    @property
    def fraction(self) -> float:
        """f: share of the rows of the padded transform that is kept."""
        return self.layout.kept / self.layout.padded

    @property
    def members(self) -> float:
        """Clients of one sum."""
        return self.clients / self.groups

    @property
    def group_alignment(self) -> float:
        """Alignment within one sum: what a mean cosine between clients that gives A overall gives for fewer of them."""
        n, s, square = self.clients, self.members, self.alignment**2
        cosine = max(0.0, (n * square - 1) / (n - 1)) if n > 1 else 1.0
        return math.sqrt((1 + (s - 1) * cosine) / s) if self.groups > 1 else self.alignment


@dataclass(frozen=True, slots=True)
class Costs:
    """The mean squared error of a round's sum of updates, part by part, over that of central Gaussian noise.

    Parameters
    ----------
    noise : float
        The planned shares: 1 would be as good as the Gaussian.
    surplus : float
        Shares beyond those: of clients that were expected to drop out or to be dishonest, and of every further group.
    sketch : float
        What the sketch leaves out.
    rounding : float
        Stochastic rounding of coordinates to whole numbers.
    wrap : float
        Sums beyond M / 2, which come out wrong by M.
    clip : float
        Coordinates beyond the bound B, and sketches shortened to the norm c.
    """

    noise: Real
    surplus: Real = 0.0
    sketch: Real = 0.0
    rounding: Real = 0.0
    wrap: Real = 0.0
    clip: Real = 0.0

    @property
    def total(self) -> Real:
        """All of it."""
        return sum(getattr(self, part.name) for part in fields(self))


def predict(
    sums: Sums, bits: int, variance: Real, squared_norm: Real, bound: Real, multiplier: float, slack: float = 0.0
) -> Costs:
    """The error of the distributed mechanism; arrays of equal shape for many settings at once.

    Coordinates of sketches are taken for Gaussian, which they are where an update is spread over a few hundred
    coordinates of every block. One that lives in a few blocks has larger ones there: it is clipped, and wraps, earlier.

    Parameters
    ----------
    sums : Sums
        What is unmasked.
    bits : int
        b, with M = 2^b.
    variance : float
        mu: of the ``sums.honest`` planned noise shares together.
    squared_norm, bound : float
        c^2 and B of the certificate.
    multiplier : float
        z of the central Gaussian mechanism to compare with, see `gaussian_multiplier`.
    slack : float
        Of `matl.privacy.encoder.Encoder`.

    Examples
    --------
    A hundred clients with 3 bits per parameter, whose updates agree to 60 %, lose 1.4 %:

    >>> sums = Sums(100, 100, BlockLayout(116_970, fraction=0.375), alignment=0.6)
    >>> costs = predict(sums, 8, 256.0, 4.5714**2, 137 / 1024, 3.4950)
    >>> [round(float(cost), 3) for cost in (costs.total, costs.noise, costs.rounding, costs.sketch)]
    [1.014, 1.003, 0.007, 0.004]
    """
    n, m, members = sums.clients, sums.layout.kept, sums.members
    deviation = np.sqrt(squared_norm / m) / (1 + slack)  # of a coordinate of one client, before it is rounded
    aligned = sums.group_alignment
    rounding = members * np.maximum(_MEAN_OF_NORMAL * deviation - deviation**2, 0)
    noise = variance * members / sums.honest
    wrap = wrapped(noise + rounding + (aligned * members * deviation) ** 2, 1 << bits)
    spread = math.sqrt((1 - sums.fraction) / (2 * m))  # of the relative length of a sketch
    too_long = spread**2 * _beyond(slack / spread) / 2 if spread else 0.0
    clip = (sums.alignment * n * deviation) ** 2 * (_beyond(bound / deviation) + too_long)
    unit = (1 + slack) ** 2 / (squared_norm * multiplier**2)
    energy = (sums.alignment * n) ** 2 / (sums.layout.size * multiplier**2)
    return Costs(
        noise=variance * unit,
        surplus=(sums.groups * noise - variance) * unit,
        sketch=(1 / sums.fraction - 1) * energy,
        rounding=sums.groups * rounding * unit,
        wrap=sums.groups * wrap * unit,
        clip=clip * unit,
    )


# Gaussian coordinates


def _beyond(threshold: Real) -> Real:
    """``E (|x| - t)^2`` where |x| > t, of x from N(0, 1)."""
    t = np.minimum(threshold, 35.0)
    tail = _tail(t)
    return np.maximum(2 * ((1 + t * t) * tail - t * np.exp(-t * t / 2) / math.sqrt(2 * math.pi)), 0)


def _tail(x: Real) -> Real:
    """P(N(0, 1) > x)."""
    return 0.5 * np.vectorize(math.erfc, otypes=[float])(np.asarray(x) / math.sqrt(2))


def rounded_gaussian(step: float) -> tuple[float, float]:
    """Stochastic rounding of N(0, 1) to multiples of a step: entropy of a word in bits, and mean squared error.

    Examples
    --------
    >>> [round(figure, 2) for figure in rounded_gaussian(1.0)]
    [2.16, 0.17]
    """
    x = (np.arange(-8_000, 8_000) + 0.5) * 1e-3
    weight = np.exp(-x * x / 2) * 1e-3 / math.sqrt(2 * math.pi)
    below = np.floor(x / step)
    up = x / step - below
    word = (below - below[0]).astype(int)
    law = np.append(np.bincount(word, weight * (1 - up)), 0.0) + np.append(0.0, np.bincount(word, weight * up))
    law = law[law > 0]
    return float(-(law * np.log2(law)).sum()), float((weight * up * (1 - up)).sum() * step * step)


def wrapped(variance: Real, modulus: int) -> Real:
    """What it costs to take a sum modulo M for the number in -M / 2 .. M / 2 - 1, as a mean squared error.

    A number that wraps is off by M, and counts as M^2. If what wraps is mostly noise the error grows by less, but the
    signal comes out too small on average; made right again on average, it has nearly this error.

    Parameters
    ----------
    variance : float
        Of the sum, signal and all; taken for a Skellam variable, whose tails are those of few noise shares.
    modulus : int
        M.
    """
    first, second = (
        _skellam_tail(variance, edge) + _skellam_tail(variance, edge + 1) for edge in (0.5 * modulus, 1.5 * modulus)
    )
    return modulus**2 * (first + 3 * second)


def _skellam_tail(variance: Real, x: float) -> Real:
    """P(X >= x) of a Skellam variable of mean 0, for whole x > 0, by saddle point; right to 1 % where above 1e-12.

    R. Lugannani and S. Rice, "Saddle point approximation for the distribution of the sum of independent random
    variables", Advances in Applied Probability 12(2), 1980; for variables on a lattice as in H. E. Daniels, "Tail
    probability approximations", International Statistical Review 55(1), 1987 (with the correction for continuity).
    """
    s = np.arcsinh(x / variance)
    w = np.sqrt(2 * np.maximum(s * x - variance * (np.cosh(s) - 1), 1e-300))
    u = -np.expm1(-s) * np.sqrt(variance * np.cosh(s))
    return np.clip(_tail(w) + np.exp(-w * w / 2) / math.sqrt(2 * math.pi) * (1 / u - 1 / w), 0, 1)


# Divergences


def coordinate_rates(
    bits: int, variances: Sequence[float] | NDArray[Any], bounds: Iterable[float], orders: NDArray[Any], cells: int = 8
) -> NDArray[Any]:
    """K_a of Skellam noise as `matl.privacy.certificate.bounds` finds it, float64 of shape (V, B, orders).

    Only where 2 < a < 3, and where the noise table is too short for the tails, does the certificate find a little more.

    Parameters
    ----------
    bits : int
        b.
    variances, bounds : sequences of float
        Of all noise of a sum; and B.
    orders : float64 array
        Rényi orders > 1.
    cells : int
        Parts of [0, B].

    Examples
    --------
    Much noise is as good as a Gaussian of its variance, whose rate is a / 2 mu:

    >>> float(coordinate_rates(8, [256.0], [0.125], np.array([4.0]))[0, 0, 0] * 2 * 256 / 4)
    1.0028...
    """
    log_law = _log_skellam(np.asarray(variances, float), 1 << bits)
    law = np.exp(log_law)
    g = np.expm1(np.roll(log_law, 1, axis=1) - log_law)
    at_zero = orders * (orders - 1) / 2 * (law * g * g).sum(axis=1)[:, None]

    def heights(x: float) -> NDArray[Any]:
        """``(phi_p(x) - 1) / x^2`` for p = a and p = 1 - a."""
        log_ratio = np.log1p(x * g)
        powers = np.stack([orders, 1 - orders])
        return np.stack([[(law * np.expm1(p * log_ratio)).sum(axis=1) for p in row] for row in powers]) / (x * x)

    bounds = tuple(float(bound) for bound in bounds)
    grid = sorted({bound * i / cells for bound in bounds for i in range(1, cells + 1)})
    at = {x: np.moveaxis(heights(x), 1, 2) for x in grid}  # (2, V, orders)
    rates = np.empty((len(law), len(bounds), len(orders)))
    for j, bound in enumerate(bounds):
        nodes = [bound * i / cells for i in range(1, cells + 1)]
        rate = np.maximum(at_zero, at[nodes[0]])
        for low, high in pairwise(nodes):
            square = low * low
            rate = np.maximum(rate, np.log1p(square * np.maximum(at[low], at[high])) / square)
        rates[:, j] = rate.max(axis=0) / (orders - 1)
    return rates


def _log_skellam(variances: NDArray[Any], modulus: int) -> NDArray[Any]:
    """Logarithm of the law on Z_M, float64 of shape (V, M), by the recurrence of the Bessel functions downwards."""
    reach = modulus + modulus // 2
    last = reach + int(8 * math.sqrt(variances.max())) + 20
    ratio = np.sqrt(((last + 0.5) / variances) ** 2 + 1) - (last + 0.5) / variances  # of I_{t+1} and I_t
    log_ratios = np.empty((len(variances), reach))
    for t in range(last - 1, -1, -1):
        ratio = 1 / (2 * (t + 1) / variances + ratio)
        if t < reach:
            log_ratios[:, t] = np.log(ratio)
    line = np.concatenate([np.zeros((len(variances), 1)), np.cumsum(log_ratios, axis=1)], axis=1)
    half = np.arange(modulus // 2 + 1)
    circle = np.logaddexp(np.logaddexp(line[:, half], line[:, modulus - half]), line[:, modulus + half])
    whole = np.concatenate([circle, circle[:, -2:0:-1]], axis=1)
    whole -= np.log(np.exp(whole).sum(axis=1, keepdims=True))
    return whole


def largest_squared_norm(
    rates: NDArray[Any], orders: NDArray[Any], epsilon: float, delta: float, rounds: int, adjacency: Adjacency
) -> NDArray[Any]:
    """The largest c^2 with which so many rounds keep an epsilon, of rates whose last axis are the orders; 0 if none.

    Between any two inputs orders count in pairs, a and a - 1, and give a figure at a / 2 (Lemma 6).
    """
    if adjacency is Adjacency.REPLACE_ONE:
        one_less = np.searchsorted(orders, orders - 1)
        paired = np.isclose(orders[one_less], orders - 1) & (orders > 2)
        rates = rates[..., paired] + orders[paired] / (orders[paired] - 1) * rates[..., one_less[paired]]
        orders = orders[paired] / 2
    spent = np.log1p(-1 / orders) - (math.log(delta) + np.log(orders)) / (orders - 1)
    found: NDArray[Any] = np.maximum((epsilon - spent) / (rounds * rates), 0).max(axis=-1)
    return found


def gaussian_multiplier(epsilon: float, delta: float, rounds: int, adjacency: Adjacency = Adjacency.ZERO_OUT) -> float:
    """z, standard deviation of Gaussian noise over the sensitivity, with which so many rounds keep an epsilon.

    It comes from the same Rényi orders and conversion as certificates, so that only the mechanisms differ.

    Raises
    ------
    InvalidValueError
        At this delta none of the orders gives so small an epsilon, whatever the noise.

    Examples
    --------
    >>> round(gaussian_multiplier(8.0, 1e-5, 30), 4)
    3.4926
    """
    orders = np.array([float(a) for a in order_grid(ORDERS)])
    square = float(largest_squared_norm(orders / 2, orders, epsilon, delta, rounds, adjacency))
    if square == 0:
        raise InvalidValueError(
            f"expected an epsilon that Rényi orders up to {orders[-1]:g} can show at delta={delta:g}, "
            f"got epsilon={epsilon:g}; allow a larger epsilon or delta"
        )
    return 1 / math.sqrt(square)


def sampled_multiplier(epsilon: float, delta: float, rounds: int, rate: float, adjacency: Adjacency) -> float:
    """The same where a trusted server draws every client with a secret probability q, independently for every round.

    Examples
    --------
    >>> round(sampled_multiplier(8.0, 1e-5, 30, 0.1, Adjacency.ZERO_OUT), 3)
    0.786
    """
    orders = np.array([float(a) for a in WHOLE_ORDERS])

    def square(z: float) -> float:
        rates = np.array([_sampled_rate(int(a), z, rate) for a in orders])
        return float(largest_squared_norm(rates, orders, epsilon, delta, rounds, adjacency))

    low, high = 2.0**-6, gaussian_multiplier(epsilon, delta, rounds, adjacency)
    for _ in range(40):  # the rate is what one release spends: c^2 >= 1 is to afford it
        middle = math.sqrt(low * high)
        low, high = (low, middle) if square(middle) >= 1 else (middle, high)
    return high


def _sampled_rate(order: int, z: float, rate: float) -> float:
    """``log(sum_k C(a, k) (1 - q)^(a - k) q^k exp((k^2 - k) / 2 z^2)) / (a - 1)`` (Theorem C)."""
    if rate == 1:
        return order / (2 * z * z)
    terms = [
        math.log(math.comb(order, k)) + (order - k) * math.log1p(-rate) + k * math.log(rate) + (k * k - k) / (2 * z * z)
        for k in range(order + 1)
    ]
    return float(np.logaddexp.reduce(terms)) / (order - 1)
