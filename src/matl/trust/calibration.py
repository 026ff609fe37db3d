"""Calibration: what honest clients look like this round, learned from simulated ones.

A threshold on an update's figures cannot be fixed in advance: it depends on the model, the round and the label skew. So
the validator simulates honest clients, *shadows*, with label mixes from nearly one class to all classes alike, runs
them through the same measurements, and states a client's figures in units of their spread.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from matl import validate

__all__ = ["CONCENTRATIONS", "LEAST_SPREAD", "shadow_mixes", "standardise", "tail_probability"]

CONCENTRATIONS = (0.05, 0.1, 0.2, 0.5, 1.0, 5.0, 50.0, 50.0)
"""Dirichlet concentrations of the shadows' label mixes, in turn. A quarter is nearly without skew, since clients that
are all alike would otherwise sit in the shadows' tail. Chosen on development seeds 0-4."""

LEAST_SPREAD = 0.01
"""Spread below which shadows are taken to differ by this much: a hundredth of a cosine or a norm is no evidence."""

_TAIL = 0.10  # upper part of the shadows whose mean excess sets the slope of the extrapolated tail
_UPPER = 0.95
_TINY = 1e-9


def shadow_mixes(num_classes: int, count: int, seed: int) -> NDArray[np.float64]:
    """Label mixes of simulated clients, float64 of shape (count, num_classes); rows sum to 1.

    Examples
    --------
    >>> shadow_mixes(10, 100, seed=0).sum(axis=1).round(6).min()
    np.float64(1.0)
    """
    validate.at_least(2, num_classes=num_classes, count=count)
    rng = np.random.default_rng(seed)
    turn = [CONCENTRATIONS[j % len(CONCENTRATIONS)] for j in range(count)]
    return np.stack([rng.dirichlet(np.full(num_classes, concentration)) for concentration in turn])


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
