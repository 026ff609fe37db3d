"""What a private encoder leaks: the laws of its words, the exact epsilon of a vector, and what an attack shows."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

from matl.errors import InvalidValueError
from matl.privacy.certificate import Instance, law

__all__ = ["coordinate_laws", "exact_epsilon", "frequencies", "lower_bound"]

_Words = NDArray[np.unsignedinteger]
_Floats = NDArray[np.float64]

_PIECE = 1 << 16  # numbers that are counted at a time: they stay in the second-level cache
_MAX_GRID = 1 << 24  # points of a distribution of privacy losses
_CAUTION = 4  # thresholds are chosen as if intervals were twice as wide, lest a lucky small count decides
_LEAST_DELTA = 1e-9  # far above what transforms err by


def coordinate_laws(instance: Instance, xs: Sequence[float] | _Floats, shares: int = 1) -> _Floats:
    """Laws of one coordinate x of a sum of noise shares and one rounded number: ``(1 - |x|) W + |x| W(. - sgn x)``.

    Parameters
    ----------
    instance : Instance
        Its table and bits make W.
    xs : sequence of float
        Numbers in [-1, 1].
    shares : int
        How many.

    Returns
    -------
    float64 array of shape (xs, M)
        Probabilities of 0 .. M - 1, each off by a few units of the last place.

    Examples
    --------
    >>> from fractions import Fraction
    >>> coarse = Instance(2, (1, 2, 1), 2, 1, Fraction(1), Fraction(1), 1, Fraction(1, 10))
    >>> coordinate_laws(coarse, [0.0, -0.5])
    array([[0.5  , 0.25 , 0.   , 0.25 ],
           [0.375, 0.125, 0.125, 0.375]])
    """
    noise = law(instance.table, shares, 1 << instance.bits)
    W = np.array([numerator / noise.total for numerator in noise.numerators])
    return np.stack([(1 - abs(x)) * W + abs(x) * np.roll(W, int(np.sign(x))) for x in xs])


def frequencies(samples: Collection[NDArray[Any]], values: int) -> NDArray[np.int64]:
    """How often each of 0 .. values - 1 occurs in each sample, of shape (samples, values)."""
    counts = np.zeros((len(samples), values), np.int64)
    for row, sample in zip(counts, samples, strict=True):
        flat = np.ascontiguousarray(sample).reshape(-1)
        for start in range(0, len(flat), _PIECE):
            row += np.bincount(flat[start : start + _PIECE], minlength=values)
    return counts


# Exactly


def exact_epsilon(instance: Instance, coordinates: int = 16, tolerance: float = 4e-3) -> tuple[float, float]:
    """Bounds of the exact epsilon of a vector with all coordinates ``c / sqrt(m)``, against zeros, at the same delta.

    The distribution of privacy losses of one coordinate is put on a grid, rounded down for the lower and up for the
    upper bound, and convolved for all coordinates and transmissions by Fourier transforms, whose errors (about 1e-12,
    of probabilities that add up to 1) are not accounted for. No true certificate is below the lower bound.

    Parameters
    ----------
    instance : Instance
        The constants.
    coordinates : int
        m.
    tolerance : float
        How far the bounds may be apart, but for a step of the grid.

    Returns
    -------
    (float, float)
        Of the direction with the larger epsilon.

    Raises
    ------
    InvalidValueError
        That takes more than 2^24 points, or delta is below 1e-9: only small instances can be audited.

    References
    ----------
    Sommer, Meiser, Mohammadi, "Privacy Loss Classes: The Central Limit Theorem in Differential Privacy", 2020 version.

    Examples
    --------
    Noise that is 0, 1, 2, 3 with probabilities 6, 4, 2, 4 in 16, and the number 1: if the noise is below 2, the sum is
    more likely without the number, and (10 / 16 - 1 / 10) / (6 / 16) = 1.4.

    >>> from fractions import Fraction
    >>> coarse = Instance(2, (1, 2, 1), 2, 2, Fraction(1), Fraction(1), 1, Fraction(1, 10))
    >>> low, high = exact_epsilon(coarse, coordinates=1)
    >>> low <= math.log(1.4) <= high < low + 0.01
    True
    """
    times, delta = coordinates * instance.transmissions, float(instance.delta)
    if delta < _LEAST_DELTA:
        raise InvalidValueError(f"expected delta >= {_LEAST_DELTA:g} for an exact epsilon, got {delta:g}")
    xs = [0.0, math.sqrt(instance.squared_norm / coordinates)]
    without, given = coordinate_laws(instance, xs, instance.survivors)
    pairs = ((given, without), (without, given))
    low, high = ([_composed(p, q, times, delta, tolerance, up) for p, q in pairs] for up in (False, True))
    return max(low), max(high)


def _composed(p: _Floats, q: _Floats, times: int, delta: float, tolerance: float, up: bool) -> float:
    """A bound of the epsilon at which ``E_p max(0, 1 - exp(epsilon - loss))`` is delta, losses rounded up or down."""
    step, losses = tolerance / times, np.log(p / q)
    places = (np.ceil if up else np.floor)(losses / step).astype(np.int64)
    first = int(places.min())
    one = np.bincount(places - first, weights=p)
    size = (len(one) - 1) * times + 1
    if size > _MAX_GRID:
        raise InvalidValueError(
            f"expected a grid of at most {_MAX_GRID} privacy losses, got {size}; audit fewer coordinates or "
            "transmissions, or allow a larger tolerance"
        )
    length = 1 << (size - 1).bit_length()
    mass = np.fft.irfft(np.fft.rfft(one, length) ** times, length)[:size]
    loss = (np.arange(size) + first * times) * step
    mass, loss = mass[loss >= 0], loss[loss >= 0]
    above, weighed = (np.cumsum(x[::-1])[::-1] for x in (mass, mass * np.exp(-loss)))
    enough = int(np.argmax(above - np.exp(loss) * weighed <= delta))
    return float(loss[enough]) if up else float(loss[enough - 1]) if enough else 0.0


# From below


def lower_bound(absent: _Words, present: _Words, modulus: int, delta: float, level: float) -> float:
    """An epsilon that sums of words have at least, unless something of probability ``level`` has happened.

    On the first half of the samples an attacker learns how often each coordinate takes each value with and without the
    victim's data, adds up logarithms of the ratios, and chooses a threshold for either direction. On the second half
    it counts. It knows nothing of the mechanism.

    Parameters
    ----------
    absent, present : unsigned arrays of shape (n, k)
        Sums without and with the victim's data; rows are independent of each other.
    modulus : int
        M.
    delta : float
        Of (epsilon, delta).
    level : float
        The bound is wrong at most with this probability.

    Returns
    -------
    float
        ``log((p - delta) / p')``, p and p' being Clopper-Pearson bounds of the probabilities of an event with and
        without the data, or without and with them; at least 0.

    References
    ----------
    Clopper, Pearson, "The Use of Confidence or Fiducial Limits Illustrated in the Case of the Binomial", Biometrika
    1934. Jagielski, Ullman, Oprea, "Auditing Differentially Private Machine Learning: How Private is Private SGD?",
    NeurIPS 2020.

    Examples
    --------
    >>> rng = np.random.default_rng(0)
    >>> coins = (rng.random((2, 1 << 16, 1)) < [[[0.1]], [[0.5]]]).astype(np.uint8)  # an epsilon of log 5 = 1.609
    >>> round(lower_bound(*coins, modulus=2, delta=0.0, level=1e-6), 3)
    1.487
    """
    half = len(absent) // 2
    often, seldom = (frequencies(words[:half].T, modulus) + 0.5 for words in (present, absent))
    ratios = np.log(often / seldom)
    given, without = (sum(ratios[j].take(x[:, j]) for j in range(x.shape[1])) for x in (present, absent))
    share = level / 4  # two directions, two probabilities
    return max(0.0, _shown(given, without, delta, share), _shown(-without, -given, delta, share))


def _shown(high: _Floats, low: _Floats, delta: float, level: float) -> float:
    """What ``score >= threshold``, of which ``high`` has more, shows on the second half of the scores."""
    half = len(high) // 2
    thresholds = np.quantile(high[:half], 1 - np.geomspace(max(delta, 1 / half), 0.5, 200))
    best = np.argmax(_epsilons(high[:half], low[:half], thresholds, delta, level**_CAUTION))
    return float(_epsilons(high[half:], low[half:], thresholds[best : best + 1], delta, level)[0])


def _epsilons(high: _Floats, low: _Floats, thresholds: _Floats, delta: float, level: float) -> _Floats:
    n = len(high)
    often, seldom = (n - np.searchsorted(np.sort(scores), thresholds) for scores in (high, low))
    p = np.where(often > 0, special.betaincinv(np.maximum(often, 1), n - often + 1, level), 0.0)
    q = np.where(seldom < n, special.betainccinv(seldom + 1, np.maximum(n - seldom, 1), level), 1.0)
    return np.asarray(np.log(np.maximum(p - delta, np.finfo(np.float64).tiny) / q))
