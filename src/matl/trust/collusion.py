"""Collusion evidence: clients that agree with each other in what their classes do not explain."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from matl.params import Float32

__all__ = ["ORIGINAL", "closeness", "collusion", "collusion_bar", "foremost", "likeness", "originals"]

NEARER = 0.25
"""Share of the usual distance between clients below which two are taken for one. Chosen on development seeds 0-4."""

ORIGINAL = 0.5
"""Part of the usual turn of those that it is like, below which a client has turned too little to be a copy. Chosen on
development seeds 0 and 1, where copied clients turned by .03 to .16 and those that copied them by .18 to 1.3."""

_TINY = 1e-12
_ROUNDING = 1e-6  # who repeats itself turns by 0, which a float32 cosine misses by a few 1e-7
_TINY_DISTANCE = 1e-6  # a copy is infinitely close; this keeps its evidence a number
_MIN_COHORT = 5  # with fewer, a client's nearest neighbours are nearly all the others
_MIN_NEIGHBOURS = 3  # the smallest group that is looked for
_SHARE = 0.08  # neighbours as a share of the cohort


def likeness(residuals: Float32) -> NDArray[np.float64] | None:
    """Cosine of each client's residual with each other's.

    Parameters
    ----------
    residuals : float32 array of shape (n, k)
        Sketches of the part of each normalised update that clean training does not explain.

    Returns
    -------
    float64 array of shape (n, n), or None
        In [-1, 1]; 1 for copies, and -inf for a client with itself. ``None``, no opinion, for n < 5.

    Notes
    -----
    Honest clients agree in the classes they share, which the attribution has already taken out; the rest is their own
    noise. Cost O(n^2 k).
    """
    if len(residuals) < _MIN_COHORT:
        return None
    unit = residuals / (np.linalg.norm(residuals, axis=1, keepdims=True) + _TINY)
    cosines = (unit @ unit.T).astype(np.float64)
    np.fill_diagonal(cosines, -np.inf)
    return np.asarray(cosines, np.float64)


def collusion(cosines: NDArray[np.float64]) -> NDArray[np.float64]:
    """Mean cosine of each client with its nearest neighbours.

    Parameters
    ----------
    cosines : float64 array of shape (n, n)
        See `likeness`.

    Returns
    -------
    float64 array of shape (n,)
        Mean of the ``max(3, 0.08 n)`` largest, in [-1, 1]; 1 for copies.
    """
    n = len(cosines)
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


def originals(alike: NDArray[np.bool_], turned: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Who is copied: among those that move as one, whoever goes on as before while the others have turned to it.

    Parameters
    ----------
    alike : bool array of shape (n, n)
        Which clients move as one this round; no client with itself.
    turned : float64 array of shape (n,)
        How far each has turned from its own past (`matl.trust.consistency.turn`); 1 without a past.

    Returns
    -------
    bool array of shape (n,)
        True where the client's own turn is below `ORIGINAL` times the median turn of those that it is like. Where all
        have moved as one for as long as they are known, nobody is: there is no telling then who is copied.

    Examples
    --------
    >>> originals(~np.eye(3, dtype=bool), np.array([0.1, 1.0, 1.2])).tolist()
    [True, False, False]
    """
    turned = np.maximum(turned, _ROUNDING)
    usual = np.array([np.median(turned[others]) if others.any() else 0.0 for others in alike])
    return np.asarray(turned < ORIGINAL * usual)


def foremost(alike: NDArray[np.bool_], copied: NDArray[np.bool_], turned: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Which of those that are copied (n,) turned less than any other copied one that they are like.

    Several that are like each other may all be spared, as one of them may be honest; but only one counts in full, or
    colluders who have been at it for long would be the originals of those who join them.

    Examples
    --------
    >>> turned, copied = np.array([0.1, 0.2, 1.0, 1.1]), np.array([True, True, False, False])
    >>> foremost(~np.eye(4, dtype=bool), copied, turned).tolist()
    [True, False, False, False]
    """
    turned = np.maximum(turned, _ROUNDING)
    rivals = np.where(alike & copied, turned, np.inf).min(axis=1, initial=np.inf)
    return np.asarray(copied & (turned < rivals))
