"""Calibration: what honest clients look like this round, learned from simulated ones.

A threshold on an update's figures cannot be fixed in advance: it depends on the model, the round, the label skew and
how much a client holds. So the validator simulates honest clients, *shadows*, with label mixes from one class to all
classes alike and holdings from a few samples to many, runs them through the same measurements, and states a client's
figures in units of the spread of shadows like it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from matl import validate

__all__ = [
    "CONCENTRATIONS",
    "FAR",
    "LEAST_SPREAD",
    "MOST_WORK",
    "SIZES",
    "Expectation",
    "Shadows",
    "circumstances",
    "sizes_for",
    "standardise",
    "tail_probability",
    "typicality",
]

CONCENTRATIONS = (0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0, 50.0)
"""Dirichlet concentrations of the shadows' label mixes, in turn: from a single class to no skew at all."""

SIZES = (8, 24, 80, 250, 800)
"""Samples that shadows hold, in turn. A client that holds few overfits them, and its update looks stranger."""

MOST_WORK = 3
"""Times the median claim beyond which a claim makes no shadow train longer, as it earns no more weight: what is taken
for a client's size cannot be checked, and who is taken to train for long may look strange. At 8, a backdoor by 40 %
that claimed a million samples was caught in 1 and 0 of 12 clients in place of 8 and 4 (development seeds 1 and 2)."""

FAR = 2.0
"""Times the largest claim that the largest holding of the shadows may be before others are chosen."""

LEAST_SPREAD = 0.01
"""Spread below which shadows are taken to differ by this much: a hundredth of a cosine or a norm is no evidence."""

Float64 = NDArray[np.float64]

_MOST_SAY = 3  # claims of which the middle one is some honest client's or between those of two
_TAIL = 0.10  # upper part of the shadows whose mean excess sets the slope of the extrapolated tail
_UPPER = 0.95
_TINY = 1e-9
_REWEIGHTINGS = 12  # of least squares towards least absolute deviations; coefficients are stable to about 1 % by then
_RIDGE = 1e-3
_FLOOR = 0.3  # of the median deviation: below, how much closer a shadow is to its expectation tells nothing of spread


@dataclass(frozen=True, slots=True)
class Shadows:
    """Who the simulated clients are.

    Parameters
    ----------
    mixes : float64 array of shape (M, K)
        Label distribution of each; rows sum to 1.
    sizes : int64 array of shape (M,)
        Samples that each holds.
    """

    mixes: Float64
    sizes: NDArray[np.int64]

    @classmethod
    def draw(cls, num_classes: int, count: int, seed: int, sizes: Sequence[int] = SIZES) -> Shadows:
        """``count`` clients of ``num_classes`` classes: every concentration with every size, then again.

        Examples
        --------
        >>> shadows = Shadows.draw(10, 120, seed=0)
        >>> shadows.mixes.shape, shadows.sizes[[0, 8, 16]].tolist()
        ((120, 10), [8, 24, 80])
        """
        validate.at_least(2, num_classes=num_classes, count=count)
        rng = np.random.default_rng(seed)
        turn = [CONCENTRATIONS[j % len(CONCENTRATIONS)] for j in range(count)]
        mixes = np.stack([rng.dirichlet(np.full(num_classes, concentration)) for concentration in turn])
        held = np.array([sizes[j // len(CONCENTRATIONS) % len(sizes)] for j in range(count)], np.int64)
        return cls(mixes, held)


def sizes_for(claims: Float64, steps: Callable[[int], int], present: Sequence[int] = ()) -> tuple[int, ...]:
    """How much shadows should hold for a federation whose clients claim to hold so much, shape (n,).

    `SIZES`, unless clients that hold more also train longer; then as many sizes, up to the largest claim, or to
    `MOST_WORK` times the median one (of two, the smaller). The present ones stay while they reach that far, and no
    further than `FAR` times as far, so that rounds can be compared; but neither a first cohort of few clients nor one
    enormous claim decides for good. Two clients change nothing: there is no telling whose claim is odd.

    Examples
    --------
    >>> claims = np.array([200.0, 500.0, 1000.0, 3000.0])
    >>> sizes_for(claims, lambda samples: 10), sizes_for(claims, lambda samples: samples // 32)
    ((8, 24, 80, 250, 800), (8, 30, 110, 405, 1500))
    >>> sizes_for(claims / 1.5, lambda samples: samples // 32, (8, 30, 110, 405, 1500))
    (8, 30, 110, 405, 1500)
    """
    largest = int(min(claims.max(), MOST_WORK * np.quantile(claims, 0.5, method="lower")))
    if present and (len(claims) < _MOST_SAY or present[-1] / FAR <= largest <= present[-1]):
        return tuple(present)
    if steps(max(largest, SIZES[-1])) == steps(SIZES[0]):
        return SIZES
    smallest = min(SIZES[0], largest)
    return tuple(np.geomspace(smallest, largest, len(SIZES)).round().astype(int).tolist())


def circumstances(
    sizes: NDArray[np.floating] | NDArray[np.integer],
    mixes: Float64,
    steps: Float64 | None = None,
    shown: Sequence[int] = SIZES,
) -> Float64:
    """What figures are expected to depend on, shape (n, 3) or (n, 4).

    A constant, log of samples held, label concentration, and log of local steps where those differ.

    Parameters
    ----------
    sizes : array of shape (n,)
        Samples that each client says it holds. Who understates is judged more gently, and counts less for it.
    mixes : array of shape (n, K)
        Estimated label mixes; rows sum to 1, or to 0 where nothing is known.
    steps : float64 array of shape (n,), optional
        Local steps of each; ``None`` where all take as many.
    shown : sequence of int
        What shadows hold. Beyond the least and the most of it nothing is known, and figures are those of its ends.
    """
    held = np.log(np.clip(np.asarray(sizes, np.float64), shown[0], shown[-1]))
    about = [np.ones(len(held)), held, np.square(mixes).sum(axis=1)]
    if steps is not None:
        about.append(np.log(steps))
    return np.stack(about, axis=1)


@dataclass(frozen=True, slots=True)
class Expectation:
    """What shadows lead to expect of an honest client in given circumstances, for F figures.

    Parameters
    ----------
    middle : array of shape (C, F)
        Coefficients of the expected figure, for C circumstances.
    spread : array of shape (C, F)
        Coefficients of the logarithm of its spread.
    """

    middle: Float64
    spread: Float64

    @classmethod
    def of(cls, figures: Float64, about: Float64) -> Expectation:
        """Learn it from shadows.

        Parameters
        ----------
        figures : array of shape (M, F)
            What shadows show.
        about : array of shape (M, C)
            Their `circumstances`.

        Notes
        -----
        The figure is regressed on the circumstances by least absolute deviations, the logarithm of the absolute
        deviations by least squares; the spread is scaled so that 95 % of the shadows stay under 1. Cost O(M F).
        """
        fits = [_least_absolute(about, column) for column in figures.T]
        middle = np.stack(fits, axis=1)
        deviation = figures - about @ middle
        typical = np.median(np.abs(deviation), axis=0)
        size = np.log(np.abs(deviation) + _FLOOR * typical + _TINY)
        spread = np.linalg.lstsq(about, size, rcond=None)[0]
        upper = np.quantile(deviation / np.exp(about @ spread), _UPPER, axis=0)
        spread[0] += np.log(np.maximum(upper, _TINY))
        return cls(middle, np.asarray(spread, np.float64))

    def standardise(self, figures: Float64, about: Float64) -> Float64:
        """Figures (n, F) of clients in circumstances (n, C), in units of the spread of shadows like them.

        0 is the middle of those, 1 the level that 95 % of them stay under.
        """
        return np.asarray((figures - about @ self.middle) / self._spread(about))

    def usual(self, about: Float64) -> Float64:
        """The level (n, F) that 95 % of shadows in these circumstances stay under."""
        return np.asarray(about @ self.middle + self._spread(about))

    def _spread(self, about: Float64) -> Float64:
        return np.asarray(np.maximum(np.exp(about @ self.spread), LEAST_SPREAD))


def _least_absolute(about: Float64, figure: Float64) -> Float64:
    """Coefficients (C,) that minimise the sum of absolute deviations, by reweighted least squares."""
    ridge = _RIDGE * len(figure) * np.diag([0.0] + [1.0] * (about.shape[1] - 1))
    weights = np.ones(len(figure))
    fit: Float64 = np.zeros(about.shape[1])
    for _ in range(_REWEIGHTINGS):
        weighted = about * weights[:, None]
        fit = np.asarray(np.linalg.solve(about.T @ weighted + ridge, weighted.T @ figure), np.float64)
        deviation = np.abs(figure - about @ fit)
        weights = 1.0 / np.maximum(deviation, 0.2 * np.median(deviation) + _TINY)
        weights /= weights.mean()
    return fit


def standardise(values: NDArray[np.float64], shadows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Values in units of the shadows' upper spread: 0 is their median, 1 their 95 % quantile.

    Parameters
    ----------
    values : array of shape (n, ...)
        Figures of clients.
    shadows : array of shape (M, ...)
        The same figures of shadows.

    Returns
    -------
    array of shape (n, ...)
        ``(value - median) / max(q95 - median, LEAST_SPREAD)``. Only the upper side is used, because large is what is
        suspicious.
    """
    middle = np.median(shadows, axis=0)
    spread = np.quantile(shadows, _UPPER, axis=0) - middle
    return np.asarray((values - middle) / np.maximum(spread, LEAST_SPREAD))


def tail_probability(values: NDArray[np.float64], shadows: NDArray[np.float64]) -> NDArray[np.float64]:
    """Probability that a shadow shows at least this much evidence, in [0, 1].

    Parameters
    ----------
    values : array of shape (n,)
        Evidence of clients.
    shadows : array of shape (M,)
        Evidence of shadows.

    Returns
    -------
    array of shape (n,)
        The empirical tail up to the shadows' 90 % quantile, and beyond it an exponential tail with the same mean
        excess, so that it tells one client in a thousand from one in a million with a hundred shadows.

    Examples
    --------
    >>> tail_probability(np.array([-1.0, 50.0, 200.0]), np.arange(100.0)).round(4)
    array([1. , 0.5, 0. ])
    """
    ordered = np.sort(shadows)
    reached = (len(ordered) - np.searchsorted(ordered, values, side="left")) / len(ordered)
    edge = float(np.quantile(ordered, 1.0 - _TAIL))
    excess = float(np.mean(ordered[ordered >= edge] - edge)) + _TINY
    beyond = _TAIL * np.exp(-np.maximum(values - edge, 0.0) / excess)
    return np.asarray(np.where(values > edge, beyond, reached))


def typicality(values: Float64, shadows: Float64) -> Float64:
    """How ordinary a figure is among simulated honest clients, whichever way it would be odd, in [0, 1].

    Parameters
    ----------
    values : array of shape (n,)
        Figures of clients; NaN for no opinion.
    shadows : array of shape (M,)
        The same figure of shadows.

    Returns
    -------
    array of shape (n,)
        Two-sided tail probability: twice the smaller of the two `tail_probability`, at most 1. As far as shadows stand
        for honest clients it is spread evenly over [0, 1] for those; towards 0 a figure is too large or too small to be
        honest. NaN stays NaN.

    Examples
    --------
    >>> typicality(np.array([-60.0, 5.0, 50.0, 160.0]), np.arange(100.0)).round(4)
    array([0.    , 0.0807, 1.    , 0.    ])
    """
    smaller = np.minimum(tail_probability(values, shadows), tail_probability(-values, -shadows))
    return np.asarray(np.where(np.isnan(values), np.nan, np.minimum(2.0 * smaller, 1.0)))
