"""Diversity evidence (TCDM, the temporal/community diversity metric): the company that a client keeps.

*Community*: honest clients share classes and differ in their samples, so each is somewhat like its nearest neighbours.
Copies are too much like theirs, noise is like nobody. *Temporal*: honest clients arrive when their own machines are
done; identities steered by one mind tend to arrive together.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from matl.errors import InvalidValueError
from matl.params import Float32
from matl.trust.calibration import typicality
from matl.trust.peers import unit_rows

__all__ = ["LEAST_COHORT", "LEAST_ROUNDS", "NEIGHBOURS", "Diversity", "diversity", "synchrony"]

NEIGHBOURS = 5
"""Nearest neighbours a client is compared with. The figure changes little between 4 and 8 (development seeds 0-2)."""

LEAST_COHORT = 5
"""Fewer clients than this with a history keep no company: no opinion."""

LEAST_ROUNDS = 4
"""Rounds a client must have arrived in before there is an opinion about when it arrives."""

_TINY = 1e-12

Float64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Diversity:
    """TCDM of n clients; each float64 array is of shape (n,), NaN for no opinion.

    Parameters
    ----------
    community : array
        One minus the mean cosine with the nearest neighbours: 0 for copies, about 1 for noise.
    temporal : array
        One minus the mean synchrony with the same neighbours: 0 for clients that are early and late together.
    typical : array
        Both, calibrated, in [0, 1]: near 0 for a client that is too much like others, like nobody, or too often in step
        with those it is like.
    """

    community: Float64
    temporal: Float64
    typical: Float64


def diversity(histories: Float32, guests: Float32, arrivals: Float64) -> Diversity | None:
    """TCDM of a cohort, calibrated on simulated honest clients that take a place in it.

    Parameters
    ----------
    histories : float32 array of shape (n, k)
        Sketched residuals of the clients (what clean training does not explain of their normalised updates), faded over
        rounds. A row of zeros is a client without a history: no opinion, and nobody's neighbour.
    guests : float32 array of shape (M, k)
        The same of simulated honest clients.
    arrivals : array of shape (n, W)
        Seconds after the round opened at which the clients arrived in recent rounds; NaN where absent.

    Returns
    -------
    Diversity or None
        ``None``, no opinion, with fewer than 5 histories.

    Notes
    -----
    Diversity by itself rewards noise: independent noise is as diverse as can be. So community is calibrated on both
    sides (`matl.trust.calibration.typicality`), on *guests*: each simulated client takes the place of one member in
    turn and is measured against the others. Shadows among themselves would not do: they are drawn from the same few
    root samples, and are more alike than clients with samples of their own. So this evidence depends on peers: a cohort
    that changes, changes what is typical in it.

    Synchrony is compared with that of the same client with everybody else, see `synchrony`; whoever wants to can delay
    what it sends. Of two opinions the smaller p counts, as ``1 - (1 - p)^2`` (Sidak). Cost O((n + M) n k).
    """
    known = np.flatnonzero(histories.any(axis=1))
    n = len(known)
    if n < LEAST_COHORT:
        return None
    count = min(NEIGHBOURS, n - 1)
    units = unit_rows(histories[known])
    cosines = units @ units.T
    np.fill_diagonal(cosines, -np.inf)
    nearest = np.argsort(-cosines, axis=1, kind="stable")[:, :count]
    likeness = np.take_along_axis(cosines, nearest, axis=1).mean(axis=1)
    community_p = typicality(likeness, _likeness_of_guests(unit_rows(guests) @ units.T, count))

    together, temporal_p = _synchrony_with(nearest, arrivals[known])
    smaller = np.fmin(community_p, temporal_p)
    typical = np.where(np.isnan(temporal_p), community_p, 1.0 - (1.0 - smaller) ** 2)
    found = np.full((3, len(histories)), np.nan)
    found[:, known] = 1.0 - likeness, 1.0 - together, typical
    return Diversity(*found)


def synchrony(arrivals: Float64) -> Float64:
    """How far each pair of clients is early and late together, in [-1, 1], shape (n, n); 0 on the diagonal.

    Parameters
    ----------
    arrivals : array of shape (n, W)
        Seconds after the round opened; NaN where absent.

    Notes
    -----
    Correlation, over the rounds that both came to, of the rank of the arrival among those of its round less the
    client's own mean rank: that one machine is always slow and another always fast says nothing. 0 for pairs that never
    met and for clients that always arrive at the same rank. Cost O(n^2 W).

    Examples
    --------
    >>> arrivals = np.array([[1.0, 9.0, 2.0, 8.0], [1.1, 9.1, 2.1, 8.1], [5.0, 3.0, 6.0, 4.0]])
    >>> synchrony(arrivals).round(1)
    array([[ 0.,  1., -1.],
           [ 1.,  0., -1.],
           [-1., -1.,  0.]])
    """
    if arrivals.ndim != 2:
        raise InvalidValueError(f"expected arrivals of shape (n, W), got shape {arrivals.shape}; one row per client")
    deviation, present = _deviations(arrivals), (~np.isnan(arrivals)).astype(np.float64)
    squares = deviation**2 @ present.T
    scale = np.sqrt(squares * squares.T)
    together = np.where(scale > _TINY, deviation @ deviation.T / np.maximum(scale, _TINY), 0.0)
    np.fill_diagonal(together, 0.0)
    return together


def _likeness_of_guests(cosines: Float64, count: int) -> Float64:
    """Mean likeness (M,) of guests to their nearest, from cosines (M, n), averaged over whose place a guest takes.

    One of n members is out. With probability count / n it is one of the nearest, and the next one moves up.
    """
    n = cosines.shape[1]
    ordered = -np.partition(-cosines, count - 1, axis=1)
    following = ordered[:, count:].max(axis=1)
    return np.asarray(ordered[:, :count].mean(axis=1) * (1.0 - 1.0 / n) + following / n)


def _synchrony_with(nearest: NDArray[np.intp], arrivals: Float64) -> tuple[Float64, Float64]:
    """Mean synchrony of each client with its neighbours (n, count), and the chance of as much; NaN for no opinion.

    Under chance the neighbours are any ``count`` of the n - 1 others; the mean over such a draw is nearly normal
    (Hoeffding, "A Combinatorial Central Limit Theorem", Annals of Mathematical Statistics 1951).
    """
    n, count = nearest.shape
    pairs = synchrony(arrivals)
    together = np.take_along_axis(pairs, nearest, axis=1).mean(axis=1)
    mean = pairs.sum(axis=1) / (n - 1)
    variance = (pairs**2).sum(axis=1) / (n - 1) - mean**2
    spread = np.sqrt(np.maximum(variance, 0.0) / count * (n - 1 - count) / max(n - 2, 1))
    opinion = (~np.isnan(arrivals)).sum(axis=1) >= LEAST_ROUNDS
    opinion &= spread > math.sqrt(_TINY)  # nobody tells apart, or everybody else is a neighbour
    z = (together - mean) / np.where(opinion, spread, 1.0)
    chance = np.array([0.5 * math.erfc(value / math.sqrt(2.0)) for value in z.tolist()])
    return np.where(opinion, together, np.nan), np.where(opinion, chance, np.nan)


def _deviations(arrivals: Float64) -> Float64:
    """Rank of each arrival in its round, from -1/2 to 1/2, less the client's mean rank; 0 where absent."""
    ranks = np.full(arrivals.shape, np.nan)
    for number, column in enumerate(arrivals.T):
        here = ~np.isnan(column)
        _, place, times = np.unique(column[here], return_inverse=True, return_counts=True)
        middle = np.cumsum(times) - (times + 1) / 2.0  # ties share their mean rank
        ranks[here, number] = (middle[place] + 0.5) / max(here.sum(), 1) - 0.5
    came = (~np.isnan(ranks)).sum(axis=1, keepdims=True)
    own = np.nansum(ranks, axis=1, keepdims=True) / np.maximum(came, 1)
    return np.asarray(np.nan_to_num(ranks - own))
