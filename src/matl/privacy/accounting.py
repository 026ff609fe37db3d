"""Accounting: Rényi divergences of what was released, added up, and the epsilon they come to.

A `RdpCurve` holds upper bounds, as exact fractions, at some orders; to add curves is to compose releases, adaptively or
not (Lemma 5). Every figure is rounded up.
"""

from __future__ import annotations

import decimal
import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from fractions import Fraction
from typing import Any

from matl import validate
from matl.errors import InvalidValueError
from matl.privacy import certificate
from matl.privacy.certificate import ORDERS, UNIT, Instance, order_grid

__all__ = [
    "WHOLE_ORDERS",
    "Adjacency",
    "Guarantee",
    "RdpCurve",
    "certified_curve",
    "gaussian_curve",
    "releases_left",
    "sampled_gaussian_curve",
]

WHOLE_ORDERS = order_grid([(1, 64)])
_ALL_ORDERS = order_grid(ORDERS)
_STEP = 1 << 64  # divergences are rounded up to multiples of 2^-64, so that curves stay short on disk
_DIGITS, _SMALLEST = 60, -99_999  # of decimal numbers: significant digits, and the least exponent


class Adjacency(StrEnum):
    """What is compared: a client's data with what stands in its place. In both cases it takes part."""

    ZERO_OUT = "zero_out"  # with zeros, or with the client's absence where absence cannot be seen
    REPLACE_ONE = "replace_one"  # with any other data


@dataclass(frozen=True, slots=True)
class Guarantee:
    """(epsilon, delta)-differential privacy of one client.

    Parameters
    ----------
    epsilon, delta : float
        Epsilon is rounded up.
    adjacency : Adjacency
        What is compared.
    order : Fraction
        The Rényi order that gave it.
    """

    epsilon: float
    delta: float
    adjacency: Adjacency
    order: Fraction


@dataclass(frozen=True, slots=True)
class RdpCurve:
    """Upper bounds of the Rényi divergence between neighbours, both ways round, at some orders.

    Parameters
    ----------
    points : tuple of (Fraction, Fraction)
        Orders > 1, ascending, and divergences >= 0.
    adjacency : Adjacency
        What is compared.

    Examples
    --------
    >>> release = gaussian_curve(Fraction(7, 2))
    >>> release.times(30).guarantee(Fraction(1, 100_000))
    Guarantee(epsilon=7.979754..., delta=1e-05, adjacency=<Adjacency.ZERO_OUT: 'zero_out'>, order=Fraction(31, 8))
    >>> round(release.times(30).replaced().guarantee(Fraction(1, 100_000)).epsilon, 3)
    18.796
    """

    points: tuple[tuple[Fraction, Fraction], ...]
    adjacency: Adjacency = Adjacency.ZERO_OUT

    def __post_init__(self) -> None:
        orders = [order for order, _ in self.points]
        if not orders or orders[0] <= 1 or sorted(set(orders)) != orders:
            raise InvalidValueError(f"expected ascending orders > 1, got {[str(order) for order in orders[:8]]}")
        if min(divergence for _, divergence in self.points) < 0:
            raise InvalidValueError("expected divergences >= 0, got a negative one")

    @classmethod
    def of(cls, bounds: Mapping[Fraction, Fraction], adjacency: Adjacency = Adjacency.ZERO_OUT) -> RdpCurve:
        """A curve through bounds, rounded up to multiples of 2^-64."""
        rounded = {order: Fraction(math.ceil(value * _STEP), _STEP) for order, value in bounds.items()}
        return cls(tuple(sorted(rounded.items())), adjacency)

    def __add__(self, other: RdpCurve) -> RdpCurve:
        """Both releases, at the orders that the curves share.

        Raises
        ------
        InvalidValueError
            They share none, or compare different things.
        """
        if self.adjacency is not other.adjacency:
            raise InvalidValueError(f"expected curves of one adjacency, got {self.adjacency} and {other.adjacency}")
        theirs = dict(other.points)
        shared = tuple((order, value + theirs[order]) for order, value in self.points if order in theirs)
        if not shared:
            raise InvalidValueError("expected curves that share an order, got none; compute both at whole orders")
        return RdpCurve(shared, self.adjacency)

    def times(self, count: int) -> RdpCurve:
        """So many releases of the same kind, 0 or more."""
        validate.whole(0, count=count)
        return RdpCurve(tuple((order, value * count) for order, value in self.points), self.adjacency)

    def guarantee(self, delta: Fraction) -> Guarantee:
        """The smallest epsilon that an order gives for a delta in (0, 1) (Lemma 7)."""
        _check_delta(delta)
        figure = certificate.tightest({order: math.ceil(value * UNIT) for order, value in self.points}, delta)
        return Guarantee(_float_up(Fraction(figure.units, UNIT)), float(delta), self.adjacency, figure.order)

    def replaced(self) -> RdpCurve:
        """The curve between any two inputs, from one between an input and zeros (Lemma 6).

        It has half of every order that is 1 above another.

        Raises
        ------
        InvalidValueError
            No two orders differ by 1, or the curve is between any two inputs already.
        """
        if self.adjacency is not Adjacency.ZERO_OUT:
            raise InvalidValueError(f"expected a curve of {Adjacency.ZERO_OUT}, got one of {self.adjacency}")
        at = dict(self.points)
        bounds = {a / 2: a / (a - 1) * at[a - 1] + value for a, value in self.points if a - 1 in at}
        return RdpCurve(tuple(bounds.items()), Adjacency.REPLACE_ONE)

    def as_dict(self) -> dict[str, Any]:
        """Plain data, exact: divergences as text that counts 2^-64."""
        return {
            "adjacency": self.adjacency.value,
            "points": {str(order): f"{math.ceil(value * _STEP):x}" for order, value in self.points},
        }

    @classmethod
    def of_dict(cls, data: Mapping[str, Any]) -> RdpCurve:
        """Read what `as_dict` gave.

        Raises
        ------
        InvalidValueError
            It is something else.
        """
        try:
            points = {Fraction(order): Fraction(int(units, 16), _STEP) for order, units in data["points"].items()}
            return cls.of(points, Adjacency(data["adjacency"]))
        except (KeyError, TypeError, AttributeError, ValueError, ZeroDivisionError) as error:
            raise InvalidValueError(f"this is no Rényi curve: {error!r}") from error


def certified_curve(instance: Instance) -> RdpCurve:
    """One transmission under secure aggregation (the main theorem): ``c^2 K_a`` at the orders of the instance.

    Raises
    ------
    InvalidValueError
        The constants prove nothing.
    """
    try:
        curve = certificate.certify(instance).curve
    except certificate.CertificateError as error:
        raise InvalidValueError(f"these constants prove nothing: {error}") from error
    return RdpCurve.of({order: Fraction(value, UNIT * instance.transmissions) for order, value in curve.items()})


def gaussian_curve(multiplier: Fraction, orders: Iterable[Fraction] = _ALL_ORDERS) -> RdpCurve:
    """Discrete Gaussian noise on a vector of integers (Theorem C (i)): ``a / (2 z^2)`` at every order a.

    It is the curve of central noise on a sum to which each client adds a vector of norm at most Delta, and that of
    local noise on one client's vector, if the noise has the parameter sigma = z Delta in every coordinate.

    Parameters
    ----------
    multiplier : Fraction
        z > 0. A float is taken for what it is, digit by digit.
    orders : iterable of Fraction
        Orders > 1.
    """
    z = _multiplier(multiplier)
    return RdpCurve.of({a: a / (2 * z * z) for a in orders})


def sampled_gaussian_curve(rate: Fraction, multiplier: Fraction, orders: Iterable[Fraction] = WHOLE_ORDERS) -> RdpCurve:
    """The same after independent Poisson sampling of the clients (Theorem C (ii)), at whole orders.

    The server has to be trusted with who was sampled, sampling has to be independent for every client and round, and
    the sum must not be divided by the size of the sample. Fixed-size cohorts are not covered.

    Parameters
    ----------
    rate : Fraction
        Probability q, in [0, 1], that a client is in the sample.
    multiplier : Fraction
        z > 0, as in `gaussian_curve`.
    orders : iterable of Fraction
        Whole orders >= 2.

    Examples
    --------
    >>> release = sampled_gaussian_curve(Fraction(1, 10), Fraction(1))
    >>> release.times(300).guarantee(Fraction(1, 100_000)).epsilon
    14.31538...
    """
    q, z = Fraction(rate), _multiplier(multiplier)
    if not 0 <= q <= 1:
        raise InvalidValueError(f"expected a sampling rate in [0, 1], got {rate}")
    whole = [Fraction(a) for a in orders]
    if not all(a.denominator == 1 for a in whole):
        raise InvalidValueError("expected whole orders, got others; the sampled mechanism is analysed at no others")
    return RdpCurve.of({a: _sampled(q, z, int(a)) for a in whole})


def releases_left(release: RdpCurve, epsilon: Fraction, delta: Fraction, spent: RdpCurve | None = None) -> int:
    """How many more such releases keep a client within an epsilon.

    Parameters
    ----------
    release : RdpCurve
        One release.
    epsilon, delta : Fraction
        The budget, for the adjacency of the curves.
    spent : RdpCurve, optional
        What was released already.

    Returns
    -------
    int
        0 or more; 0 too if the budget is exceeded already.

    Raises
    ------
    InvalidValueError
        The release costs nothing at some order, so that any number would do; or the curves do not fit.

    Examples
    --------
    >>> delta, release = Fraction(1, 100_000), gaussian_curve(Fraction(7, 2))
    >>> releases_left(release, Fraction(8), delta), releases_left(release, Fraction(8), delta, spent=release.times(12))
    (30, 18)
    """
    _check_delta(delta)
    before = dict((release.times(0) if spent is None else release.times(0) + spent).points)
    left = 0
    for order, cost in release.points:
        if order not in before:
            continue
        if cost == 0:
            raise InvalidValueError(f"expected a release that costs something at every order, got 0 at order {order}")
        room = Fraction(epsilon) - Fraction(certificate.epsilon(order, 0, delta), UNIT) - before[order]
        left = max(left, math.floor(room / cost))
    return left


def _check_delta(delta: Fraction) -> None:
    if not 0 < delta < 1:
        raise InvalidValueError(f"expected 0 < delta < 1, got delta={delta}")


def _multiplier(multiplier: Fraction) -> Fraction:
    z = Fraction(multiplier)
    if not z > 0:
        raise InvalidValueError(f"expected a noise multiplier > 0, got {multiplier}")
    return z


def _float_up(value: Fraction) -> float:
    nearest = float(value)
    return nearest if Fraction(nearest) >= value else math.nextafter(nearest, math.inf)


def _sampled(q: Fraction, z: Fraction, order: int) -> Fraction:
    """``log(sum_k C(a, k) (1 - q)^(a - k) q^k exp((k^2 - k) / 2 z^2)) / (a - 1)``, rounded up in every step."""
    up = decimal.Context(_DIGITS, decimal.ROUND_CEILING, Emin=_SMALLEST, Emax=decimal.MAX_EMAX)

    def number(x: Fraction) -> decimal.Decimal:
        return up.divide(decimal.Decimal(x.numerator), decimal.Decimal(x.denominator))

    total = decimal.Decimal(0)
    for k in range(order + 1):
        share = number(math.comb(order, k) * (1 - q) ** (order - k) * q**k)
        # `exp` and `ln` round to the nearest number whatever the context says; the next one is above the truth.
        growth = up.next_plus(up.exp(number(Fraction(k * k - k) / (2 * z * z))))
        total = up.add(total, up.multiply(share, growth))
    return Fraction(up.next_plus(up.ln(total))) / (order - 1)
