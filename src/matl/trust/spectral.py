"""Spectral evidence: a direction that divides the cohort, that classes do not explain, and that shadows do not know.

Clients that hide one and the same trigger in a few of their samples look honest one by one. What they have in common
is a direction in which the cohort falls into two parts.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from matl.trust.view import View

__all__ = ["FULL_COHORT", "OPENS", "RECALL", "REMEMBERS", "SURE", "Division", "divide", "opened"]

OPENS = (2.4, 3.0)
"""How clearly a cohort is divided, times as clearly as shadows are, over about two rounds, times the square root of how
sure it is which part is the far one: up to the first it is no evidence, from the second on it is in full. Without
attack the two have nothing to do with each other, and it stayed below 2.9 (label skew .1, seeds 200-239)."""

SURE = 1.5
"""More sureness than this makes no division clearer: then `OPENS` asks for 2.0 and 2.4 times what shadows show. Where
liars train one class alone it is the honest that divide, by up to 2.8, with a sureness of up to 7 (seeds 204, 210)."""

REMEMBERS = 0.8
"""What is left after a round of what told the parts apart."""

FULL_COHORT = 40
"""Clients below which a division counts less, by the square of their share of this; four times the classes if that is
more. Of 28 the few that share a class make an honest cohort look up to twice as divided as 50 are."""

RECALL = 0.5
"""Part of what was that is left after a round, of how clear the division is and of where in it a client stands."""

_FARTHEST = 2.0  # more makes no difference
_LEAST_BELIEVED = 20  # clients, or twice as many as classes, that have to say what classes look like
# Of the shadows look less alien than who pretends to be the root. So do three tenths of honest clients with label skew
# .1, which is no harm, and none with .5 (development seeds).
_TOO_PURE = 0.15
_MOST_OF_STAND = 0.5  # standard deviations that shadows can tell of which part is the far one; more could be pretended
_MOST_OF_SHARE = 2.0  # that the number of clients can tell of it
_BOUNDS = (0.1, 10.0)  # of what a single round can say
# Of the weight of a class in a cohort that has all classes alike. A trigger bends the mixes of those that set it, and
# in a cohort without skew, where nothing else tells mixes apart, that explains it if this is smaller.
_RIDGE = 0.05
_TINY = 1e-12

Float64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Division:
    """How a cohort of n clients divides.

    Parameters
    ----------
    shared : float64 array of shape (n,)
        Cosine of what the classes leave of each client to what divides all others; the far part has the larger ones.
        NaN for no opinion.
    near, far : float
        Middle of either part.
    strength : float
        How clearly the cohort is divided, in units of the shadows; 1 where there is no opinion.
    counted : bool array of shape (n,)
        Who counts.
    bar : float
        Part of the way from the near middle to the far one where honest behaviour ends.
    sure : float
        How sure it is which part is the far one: 1 is fairly, 0 where there is no opinion.
    leaned : float64 array of shape (n,)
        How far each has leaned to the far parts so far: the sum, faded, of what rounds by themselves told of them times
        where it stood, in standard deviations.
    """

    shared: Float64
    near: float
    far: float
    strength: float
    counted: NDArray[np.bool_]
    bar: float
    sure: float
    leaned: Float64

    @property
    def way(self) -> Float64:
        """How far each client is on the way from the near middle to the far one, (n,), in parts of it.

        0 for those that do not count, or have leaned to near parts so far, and where there is no opinion.
        """
        way = np.nan_to_num(self.shared - self.near) / max(self.far - self.near, _TINY)
        return np.asarray(np.where(self.counted & (self.leaned > 0.0), way, 0.0))

    @property
    def place(self) -> Float64:
        """Where each client stands, (n,), in [0, 2]: 0 is the near middle and 1 where honest behaviour ends."""
        return np.asarray(np.clip(self.way / self.bar, 0.0, _FARTHEST))


def opened(clearness: float, sure: float) -> float:
    """How much of a division counts as evidence, in [0, 1], if it is that clear, and its far part that sure.

    See `OPENS` and `SURE`.

    Examples
    --------
    >>> opened(2.4, 1.0), opened(2.7, 1.0), opened(3.0, 1.0), opened(1.9, 9.0), opened(9.0, 0.0)
    (0.0, 0.5, 1.0, 0.0, 0.0)
    """
    over = (clearness * float(np.sqrt(min(sure, SURE))) - OPENS[0]) / (OPENS[1] - OPENS[0])
    return float(np.clip(round(over, 9), 0.0, 1.0))


def divide(
    clients: View,
    shadows: View,
    weights: Float64,
    stood: Float64,
    leaned: Float64,
    bar: float,
    bound: float,
    known: NDArray[np.bool_] | None = None,
) -> Division:
    """Look for the direction that divides a cohort.

    Parameters
    ----------
    clients, shadows : View
        What is seen of n clients and M shadows.
    weights : float64 array of shape (n,)
        How much each counts; 0 for those that are known to lie in another way, whose lie would be what divides.
    stood : float64 array of shape (n,)
        Where each stood before, as `Division.place`, faded.
    leaned : float64 array of shape (n,)
        `Division.leaned` of the round before, faded; see `REMEMBERS`.
    bar : float
        See `Division`; the least it will be.
    bound : float
        Part of the weight that may be accused in a round; the bar rises until no more is past it.
    known : bool array of shape (n,), optional
        Who is accused of being foreign already, by evidence on each: how clearly the others divide is what counts.

    Notes
    -----
    With directions u_i and ``m_i``, the label mix (`matl.trust.attribution`) at length 1 and its length, class
    directions ``D`` are fitted to the cohort by weighted ridge regression ``u_i = m_i D``, in which a client counts
    ``max(1 - stood_i, 0)`` times: those on the far side do not say what classes look like. Residuals are normalised,
    ``r_i = (u_i - m_i D) / |...|``; their first principal axis is what divides, and
    ``shared_i = cos(r_i, sum_{j != i} w_j a_j r_j)``, with a the positions on it, is what a client has in common with
    the others. The best split of these numbers into two gives the parts.

    *Strength* is ``mean(t^2) (sum t^2)^2 / (n sum t^4)`` with t the same cosines of a fit that counts all alike: how
    much, times how many have a part in it; divided by that of the shadows, times the square of how much of
    `FULL_COHORT` counts, and kept within [0.1, 10]. Those that are known are left out of it: a cohort that only they
    divide needs no more accusations, and where few lie loudly the honest can be the smaller half of what is left.

    Which part is the far one: the correlation of where clients stand with how alien they look (its rank; those that
    look less alien than 15 % of the shadows come last, or liars that know the root could have honest clients look so),
    plus how far from their mean the shadows with flat mixes stand, in standard deviations and at most half of one,
    plus how much the part lacks of half, times the variance between the parts over that within them. To this is added
    the same of earlier rounds, faded, as far as clients stand as they stood then: ``mean(leaned * position)``. Who was
    accused has no say in it, or liars could take turns in being accused, and have the sides change. The size of the
    sum is `Division.sure`. Whoever has leaned to the near parts so far is not accused yet, wherever it stands: when
    liars leave, the honest that come to stand where they stood are not taken for them.

    If more than ``bound`` of the weight would be accused, the bar rises. There is no opinion if fewer than 20 clients,
    or than two for each class, can be believed, or are not known.

    After the spectral signatures of Tran, Li and Madry, "Spectral Signatures in Backdoor Attacks", NeurIPS 2018, which
    look for poisoned samples among those of a class. Cost O(k^2 (n + k) + M^3) for sketches of k numbers.
    """
    n, classes = clients.attribution.mix.shape
    believed = weights * np.maximum(1.0 - stood, 0.0)
    counted = weights > 0
    nothing = Division(np.full(n, np.nan), 0.0, 0.0, 1.0, counted, bar, 0.0, leaned)
    fresh = weights if known is None else np.where(known, 0.0, weights)
    if min((believed > 0).sum(), (fresh > 0).sum()) < max(_LEAST_BELIEVED, 2 * classes):
        return nothing
    full = min(counted.sum() / max(FULL_COHORT, 4 * classes), 1.0)
    ours, usual = _strength(clients, fresh), _strength(shadows, np.ones(len(shadows.directions)))
    taught = _taught(clients, believed)
    axis, shared = _divided(_left(clients, taught), weights)
    near, far, _ = _parts(shared[counted], weights[counted])
    stand = float(np.median((_left(shadows, taught) @ axis)[_flattest(shadows.attribution.mix)]))
    alien = _odd(clients.attribution.alien, shadows.attribution.alien)
    evidence = _side(shared[counted], alien[counted], weights[counted], stand)
    toward = np.where(counted, _standardised(shared, weights), 0.0)
    side = evidence + float(np.average(leaned * toward, weights=weights))
    if side < 0:
        shared, near, far = -shared, -far, -near
    leaned = leaned + evidence * toward
    strength = float(np.clip(full**2 * ours / max(usual, _TINY), *_BOUNDS))
    found = Division(shared, near, far, strength, counted, bar, abs(side), leaned)
    return replace(found, bar=_raised(bar, found.way, weights, bound))


def _side(shared: Float64, alien: Float64, weights: Float64, stand: float) -> float:
    """Whether the upper part is the far one, and how surely: positive for yes.

    It is the one with clients that look alien, on which the shadows do not stand, and the smaller one, the more so the
    further apart the parts are for their widths.
    """
    toward = _standardised(shared, weights)
    look = float(np.average(toward * _standardised(_ranks(alien, weights), weights), weights=weights))
    near, far, share = _parts(toward, weights)
    within = float(np.average(np.minimum((toward - near) ** 2, (toward - far) ** 2), weights=weights))
    apart = max(1.0 - within, 0.0) / (within + _TINY)
    middle, spread = _moments(shared, weights)
    away = float(np.clip((middle - stand) / spread, -_MOST_OF_STAND, _MOST_OF_STAND))
    return look + away + float(np.clip((0.5 - share) * apart, -_MOST_OF_SHARE, _MOST_OF_SHARE))


def _odd(alien: Float64, shadows: Float64) -> Float64:
    """How alien clients look, those that look too little so the most."""
    return np.asarray(np.where(alien < np.quantile(shadows, _TOO_PURE), np.inf, alien))


def _moments(values: Float64, weights: Float64) -> tuple[float, float]:
    """Mean and standard deviation."""
    mean = np.average(values, weights=weights)
    return float(mean), float(np.sqrt(np.average((values - mean) ** 2, weights=weights))) + _TINY


def _standardised(values: Float64, weights: Float64) -> Float64:
    mean, deviation = _moments(values, weights)
    return np.asarray((values - mean) / deviation)


def _ranks(values: Float64, weights: Float64) -> Float64:
    """How much weight is below each value, and half of that at it."""
    order = np.argsort(values, kind="stable")
    below = np.concatenate([[0.0], np.cumsum(weights[order])])
    low, high = (np.searchsorted(values[order], values, side=side) for side in ("left", "right"))
    return np.asarray((below[low] + below[high]) / 2)


def _raised(bar: float, way: Float64, weights: Float64, most: float) -> float:
    """The bar, or the least above it that no more than that part of the weight is past."""
    order = np.argsort(-way, kind="stable")
    too_many = np.cumsum(weights[order]) > most * weights.sum()
    if not too_many.any():
        return bar
    return max(bar, float(way[order[int(np.argmax(too_many))]]) * (1.0 + _TINY))


def _about(view: View) -> Float64:
    """Label mixes at length 1, as directions are, and their lengths, (n, K + 1).

    Who holds one class goes further in it than half of who holds two.
    """
    mix = view.attribution.mix
    length = np.linalg.norm(mix, axis=1, keepdims=True)
    return np.hstack([mix / (length + _TINY), length])


def _taught(view: View, weights: Float64) -> Float64:
    """What each class teaches, (K, k), as those see it who count."""
    about = _about(view)
    weighted = about * weights[:, None]
    classes = about.shape[1] - 1
    gram = weighted.T @ about + _RIDGE * weights.sum() / classes * np.eye(classes + 1)
    return np.asarray(np.linalg.solve(gram, weighted.T @ view.directions.astype(np.float64)))


def _left(view: View, taught: Float64) -> Float64:
    """What classes do not explain of each, (n, k), rows normalised."""
    left = view.directions - _about(view) @ taught
    return np.asarray(left / (np.linalg.norm(left, axis=1, keepdims=True) + _TINY))


def _flattest(mix: Float64) -> NDArray[np.bool_]:
    """The half of the shadows whose mixes are flattest, (M,)."""
    skew = np.square(mix).sum(axis=1)
    return np.asarray(skew <= np.median(skew))


def _divided(rows: Float64, weights: Float64) -> tuple[Float64, Float64]:
    """First principal axis (k,) of weighted rows (n, k), and the cosine (n,) of each row to it without that row."""
    weighted = np.sqrt(weights)[:, None] * rows
    if len(rows) < rows.shape[1]:
        axis = weighted.T @ np.linalg.eigh(weighted @ weighted.T)[1][:, -1]
    else:
        axis = np.linalg.eigh(weighted.T @ weighted)[1][:, -1]
    axis = axis / (np.linalg.norm(axis) + _TINY)
    each = (weights * (rows @ axis))[:, None] * rows
    rest = each.sum(axis=0) - each
    return axis, np.asarray((rows * rest).sum(axis=1) / (np.linalg.norm(rest, axis=1) + _TINY))


def _strength(view: View, weights: Float64) -> float:
    """How much those that count share, times the part of them that has a part in it; all say what classes look like."""
    shared = _divided(_left(view, _taught(view, weights)), weights)[1]
    square = weights * shared**2
    return float(square.sum() ** 3 / (weights.sum() ** 2 * (weights * shared**4).sum() + _TINY))


def _parts(values: Float64, weights: Float64) -> tuple[float, float, float]:
    """The best split of a line: the mean of the lower part, that of the upper, and the upper part's share of weight."""
    order = np.argsort(values, kind="stable")
    mass, sums = np.cumsum(weights[order]), np.cumsum((values * weights)[order])
    lower, upper = sums[:-1] / mass[:-1], (sums[-1] - sums[:-1]) / np.maximum(mass[-1] - mass[:-1], _TINY)
    at = int(np.argmax(mass[:-1] * (mass[-1] - mass[:-1]) * (upper - lower) ** 2))
    return float(lower[at]), float(upper[at]), float(1.0 - mass[at] / mass[-1])
