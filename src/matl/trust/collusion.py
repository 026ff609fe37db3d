"""Collusion evidence: clients that agree with each other in what their classes do not explain."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from matl.params import Float32

__all__ = ["closeness", "collusion", "collusion_bar"]

NEARER = 0.25
"""Share of the usual distance between clients below which two are taken for one. Chosen on development seeds 0-4."""

_TINY = 1e-12
_TINY_DISTANCE = 1e-6  # a copy is infinitely close; this keeps its evidence a number
_MIN_COHORT = 5  # with fewer, a client's nearest neighbours are nearly all the others
_MIN_NEIGHBOURS = 3  # the smallest group that is looked for
_SHARE = 0.08  # neighbours as a share of the cohort


def collusion(residuals: Float32) -> NDArray[np.float64] | None:
    """Mean cosine of each client's residual with those of its nearest neighbours.

    Parameters
    ----------
    residuals : float32 array of shape (n, k)
        Sketches of the part of each normalised update that clean training does not explain.

    Returns
    -------
    float64 array of shape (n,), or None
        Mean of the ``max(3, 0.08 n)`` largest cosines, in [-1, 1]; 1 for copies. ``None``, no opinion, for n < 5.

    Notes
    -----
    Honest clients agree in the classes they share, which the attribution has already taken out; the rest is their own
    noise. Cost O(n^2 k).
    """
    n = len(residuals)
    if n < _MIN_COHORT:
        return None
    unit = residuals / (np.linalg.norm(residuals, axis=1, keepdims=True) + _TINY)
    cosines = (unit @ unit.T).astype(np.float64)
    np.fill_diagonal(cosines, -np.inf)
    neighbours = min(max(_MIN_NEIGHBOURS, math.ceil(_SHARE * n)), n - 1)
    nearest = np.partition(cosines, n - neighbours, axis=1)[:, n - neighbours :]
    return np.asarray(nearest.mean(axis=1))


def collusion_bar(bar: float, usual: float) -> float:
    """The bar on the mean cosine, raised where those who do not collude are alike anyway.

    Parameters
    ----------
    bar : float
        The bar where they are not, a cosine below 1.
    usual : float
        Agreement that those who do not collude reach.

    Returns
    -------
    float
        At most `NEARER` of the usual distance ``1 - usual`` away from a copy, and at most ``1 - bar``: with few
        classes, or once all that is left is what everybody has in common, honest clients come close to each other,
        but not that close.

    Examples
    --------
    >>> collusion_bar(0.9, 0.5), round(collusion_bar(0.9, 0.96), 3)
    (0.9, 0.99)
    """
    return max(bar, 1.0 - NEARER * (1.0 - usual))


def closeness(agreement: NDArray[np.float64], bar: float) -> NDArray[np.float64]:
    """Evidence ``(1 - bar) / (1 - agreement)`` in units of the bar: 2 is half the distance to a copy it allows."""
    return np.asarray((1.0 - bar) / np.maximum(1.0 - agreement, _TINY_DISTANCE))
