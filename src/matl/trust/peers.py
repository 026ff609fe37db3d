"""Peer evidence: what the clients of a cohort say about each other, without any trusted data.

Four channels, each in units of its own bar (1 is where honest behaviour ends):

- *direction*: where a client has pulled the model over its whole history, against where most of its peers pull it;
- *consistency*: whether its updates keep agreeing with its own history;
- *collusion*: whether its history is a near copy of several others once the common direction is taken out;
- *norm*: how long its updates are.

A history is the faded sum of a client's updates, each shortened to the median norm of its round, as a fixed-size
sketch. Averaging over rounds removes the noise of mini-batches; what is left of an honest client is its data, and what
is left of a client that flips signs or labels points the other way. Early rounds weigh most, since updates are longest
there, and that is where honest clients agree best.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from matl.params import Float32
from matl.trust.collusion import closeness, collusion, collusion_bar, likeness
from matl.trust.table import ClientTable, column

__all__ = [
    "BROKEN",
    "CLEAR",
    "COPY_BAR",
    "KAPPA",
    "LEAST_COHORT",
    "LEAST_ROUNDS",
    "NORM_BAR",
    "PULL_BAR",
    "TURN_BAR",
    "Agreement",
    "PeerBook",
    "agreement",
    "collusion_evidence",
    "consistency_evidence",
    "contradicted",
    "direction_evidence",
    "faded_mean",
    "norm_evidence",
    "unit_rows",
]

Float64 = NDArray[np.float64]
Mask = NDArray[np.bool_]

KAPPA = 6.0
"""Median absolute deviations from the median of its reference beyond which a value is called an outlier. The reference
is one-sided (its worst third is cut), which narrows its spread: for normal values 6 stands for 2.4 standard deviations
where nobody attacks and 4.0 where a third does. Chosen on development seeds 0-4."""

PULL_BAR = 0.2
"""Share of the peers' median pull that a client must pull the other way, however alike its peers are, to be accused.
Honest clients whose rare classes nobody else trains come to about 0. Chosen on development seeds 0-4."""

TURN_BAR = 0.5
"""Agreement with one's own history, as a share of the cohort's median, below which a client contradicts itself."""

COPY_BAR = 0.95
"""Mean cosine with its nearest peers, beyond the common direction, above which a history is a copy. Honest clients that
hold one and the same single class reach about 0.9."""

NORM_BAR = 3.0
"""Times the median length that an update may have however alike the cohort's norms are."""

CLEAR = 0.3
"""Cosine beyond which two histories are tied: they clearly agree, or, below its negative, clearly contradict each
other. Under strong label skew half of all honest pairs disagree a little; in early rounds a quarter agree by more than
this, and hardly any disagree by as much. Chosen on development seeds 0-4 and 100-104."""

BROKEN = 0.05
"""Share of ties that may be broken in a split that is believed. Where signs were flipped at random in honest histories
of one to six rounds, every split was right and left at most 0.03 broken; wrong ones, after 30 rounds, left at least
0.2. Same seeds."""

LEAST_COHORT = 4
"""Fewer clients than this have no majority to compare with: no opinion."""

LEAST_ROUNDS = 3
"""Rounds a client must have been seen in before there is an opinion about it."""

MEMORY = 0.95
"""Factor by which a history fades per round: half of it is younger than 14 rounds. Chosen on development seeds 0-4."""

FADE = 0.5
"""The same for agreement with the own history and for norms, which speak at once. Chosen on development seeds 0-4."""

FORGOTTEN = 64
"""Judged rounds after which an absent client that is not under suspicion loses its record."""

_STEPS = 5  # refinements of the reference; it no longer changes after two or three
_TINY = 1e-12


@dataclass(frozen=True, slots=True)
class Agreement:
    """Who agrees with whom.

    Parameters
    ----------
    cosines : float64 array of shape (n,)
        Cosine of each client's history with the mean history of the reference, its own left out.
    reference : bool array of shape (n,)
        The clients that define the common direction.
    centre : float32 array of shape (k,)
        That direction, of length 1 (or 0 if histories cancel).
    """

    cosines: Float64
    reference: Mask
    centre: Float32


def unit_rows(X: NDArray[np.floating]) -> Float64:
    """Rows scaled to length 1, float64; rows of zeros stay zero."""
    wide = np.asarray(X, np.float64)
    return np.asarray(wide / np.maximum(np.linalg.norm(wide, axis=-1, keepdims=True), _TINY))


def contradicted(histories: Float64, most: int) -> Mask:
    """Clients on the smaller side of a cohort that clearly contradicts itself.

    Parameters
    ----------
    histories : float64 array of shape (n, k)
        Rows of length 1.
    most : int
        Clients that may be malicious: a split that names more is not between honest clients and liars.

    Returns
    -------
    bool array of shape (n,)
        Nobody where there is no clear split, no smaller side, or too large a one.

    Notes
    -----
    Two clients are tied if the cosine of their histories is above `CLEAR` in magnitude. In every group that ties
    connect, sides are handed on along the strongest ties (a maximum spanning tree): the same side where the cosine is
    positive, the other where it is negative. The smaller side of each group is named; of two equal ones neither is. A
    tie is broken if its cosine does not have the sign that the sides say. A signed graph whose ties two sides explain
    is balanced; here it may miss that by `BROKEN`.

    Clients that hold much of the same class agree clearly, and chains of them join the classes. Whoever flips signs
    contradicts just those that it should agree with, which among many classes no honest data do while the model is
    young. With two classes honest clients may split in two as well, mostly in halves, which is why ``most`` is
    asked for; and to be on the smaller side is no evidence, but who is has no say in what others are measured by.
    Later, once the model pulls clients with different classes against each other, no split explains the ties, and
    nobody is named. Cost O(n^2 k).

    References
    ----------
    Harary, "On the notion of balance of a signed graph", Michigan Mathematical Journal 1953.

    Examples
    --------
    Two classes that have little in common, and a liar in each:

    >>> ones, twos = np.array([1.0, -0.1]), np.array([-0.1, 1.0])
    >>> contradicted(unit_rows(np.array([ones, ones, ones, -ones, twos, twos, twos, -twos])), most=2)
    array([False, False, False,  True, False, False, False,  True])
    """
    cosines = histories @ histories.T
    np.fill_diagonal(cosines, 0.0)
    side, group = _sides(cosines)
    clear = np.abs(cosines) > CLEAR
    broken = (clear & (np.sign(cosines) != np.outer(side, side))).sum()
    smaller = np.asarray(side * np.bincount(group, side)[group] < 0)
    believed = broken <= BROKEN * clear.sum() and smaller.sum() <= most
    return smaller if believed else np.zeros_like(smaller)


def _sides(cosines: Float64) -> tuple[Float64, NDArray[np.intp]]:
    """Side, 1 or -1, of each client among those it is tied to, and the number of its group; both (n,)."""
    n = len(cosines)
    side, group = np.ones(n), np.zeros(n, dtype=np.intp)
    # Prim: the strongest tie between those that have a side and each that has none yet (-1: has one), and to whom.
    strongest, partner = np.zeros(n), np.zeros(n, dtype=np.intp)
    groups = -1
    for _ in range(n):
        i = int(np.argmax(strongest))
        if strongest[i] > CLEAR:
            side[i] = side[partner[i]] * np.sign(cosines[i, partner[i]])
        else:
            groups += 1
        group[i] = groups
        strongest[i] = -1.0
        nearer = (strongest >= 0.0) & (np.abs(cosines[i]) > strongest)
        strongest[nearer], partner[nearer] = np.abs(cosines[i, nearer]), i
    return side, group


def agreement(histories: Float64, candidates: Mask, ranking: Float64, size: int) -> Agreement:
    """Find the ``size`` candidates that agree best, and everyone's cosine with them.

    Parameters
    ----------
    histories : float64 array of shape (n, k)
        Rows of length 1.
    candidates : bool array of shape (n,)
        Who may belong to the reference.
    ranking : float64 array of shape (n,)
        Cosines of the round before, NaN for clients without one: those start behind all others.
    size : int
        Clients in the reference: the cohort less the declared number of malicious ones.

    Notes
    -----
    Starts from the highest ranked, or without any ranking from the clients whose histories lie within a right angle of
    the most others. A vote counts one however exactly two clients agree: an average of cosines would be won by a
    minority of copies. Then the reference and the cosines with its mean are computed in turn. Cost O(n^2 k).
    Nothing here exceeds a breakdown point of 1/2, and a third is what is claimed: a majority of attackers *is* the
    common direction.

    Examples
    --------
    >>> histories = unit_rows(np.array([[3.0, 1.0], [3.0, -1.0], [2.0, 0.0], [-2.0, 0.1]]))
    >>> found = agreement(histories, np.full(4, True), np.full(4, np.nan), size=3)
    >>> found.reference
    array([ True,  True,  True, False])
    >>> found.cosines.round(1)
    array([ 0.9,  0.9,  1. , -1. ])
    """
    n = len(histories)
    votes = (np.sign(histories @ histories.T).sum(axis=1) - 1.0) / max(n - 1, 1)
    score = np.where(np.isnan(ranking), votes - (0.0 if np.isnan(ranking).all() else 2.0), ranking)
    count = max(min(size, int(candidates.sum())), 1)
    reference = np.zeros(n, dtype=np.bool_)
    cosines, total = score, np.zeros(histories.shape[1])
    for _ in range(_STEPS):
        best = np.argsort(np.where(candidates, -score, np.inf), kind="stable")[:count]
        reference = np.zeros(n, dtype=np.bool_)
        reference[best] = True
        total = histories[best].sum(axis=0)
        others = unit_rows(total[None, :] - np.where(reference[:, None], histories, 0.0))
        cosines = score = np.einsum("ij,ij->i", histories, others)
    return Agreement(cosines, reference, unit_rows(total).astype(np.float32))


def direction_evidence(found: Agreement) -> tuple[Float64, float]:
    """How far each client pulls against its peers, in units of the bar; and the bar as a cosine.

    The bar lies `KAPPA` deviations below the median of the reference, and at least `PULL_BAR` of that median below 0: a
    client that only pulls *elsewhere* has unusual data, one that pulls *back* is accused. No opinion (all 0) if
    the reference itself does not agree, that is if its median cosine is not above 0.
    """
    agreed = found.cosines[found.reference]
    middle = float(np.median(agreed))
    spread = float(np.median(np.abs(agreed - middle)))
    bar = min(-PULL_BAR * middle, middle - KAPPA * spread)
    if middle <= _TINY:
        return np.zeros(len(found.cosines)), 0.0
    return np.asarray((middle - found.cosines) / (middle - bar)), bar


def consistency_evidence(agreeing: Float64) -> tuple[Float64, float]:
    """How far each client contradicts its own history, in units of the bar; and the bar as a cosine.

    Parameters
    ----------
    agreeing : float64 array of shape (n,)
        Faded mean cosine of a client's updates with its own history; NaN for clients without one.

    Notes
    -----
    The bar is `TURN_BAR` of the cohort's median, or `KAPPA` deviations below it where clients differ more than that:
    once a model has converged, updates are noise, and noise agrees with nobody's history. Independent noise has cosine
    0 and a client that turns its coat a negative one, while the data of an honest client do not change. No opinion (0)
    where there is no history, and for anyone if the median is not above 0.
    """
    known = ~np.isnan(agreeing)
    middle = float(np.median(agreeing[known])) if known.any() else 0.0
    if middle <= _TINY:
        return np.zeros(len(agreeing)), 0.0
    spread = float(np.median(np.abs(agreeing[known] - middle)))
    bar = min(TURN_BAR * middle, middle - KAPPA * spread)
    return np.where(known, (middle - agreeing) / (middle - bar), 0.0), bar


def collusion_evidence(histories: Float64, centre: Float32) -> tuple[Float64, Float64, float]:
    """How much each client's history copies others, in units of the bar; the cosines it comes from; and the bar.

    The common direction is projected out first, because honest clients share it. The bar is `COPY_BAR`, and higher
    where the median client is close to others anyway (`matl.trust.collusion.collusion_bar`). Independent jitter on top
    of a shared update fades from a history like any other noise. No opinion (0) for fewer than 5 clients.
    """
    residuals = histories - np.outer(histories @ centre, centre)
    cosines = likeness(unit_rows(residuals).astype(np.float32))
    if cosines is None:
        return np.zeros(len(histories)), np.zeros(len(histories)), COPY_BAR
    agreement = collusion(cosines)
    bar = collusion_bar(COPY_BAR, float(np.median(agreement)))
    return closeness(agreement, bar), agreement, bar


def norm_evidence(log_ratios: Float64) -> tuple[Float64, float]:
    """How much longer than the median each client's updates are, in units of the bar; and the bar as a ratio.

    Parameters
    ----------
    log_ratios : float64 array of shape (n,)
        Faded mean of the logarithm of a client's norm over the median norm of its round; NaN for no opinion.

    Notes
    -----
    The bar is `NORM_BAR` times the median, or `KAPPA` deviations where honest norms differ more than that. One-sided:
    a short update does no harm.
    """
    known = ~np.isnan(log_ratios)
    if not known.any():
        return np.zeros(len(log_ratios)), NORM_BAR
    middle = float(np.median(log_ratios[known]))
    spread = float(np.median(np.abs(log_ratios[known] - middle)))
    bar = max(float(np.log(NORM_BAR)), KAPPA * spread)
    return np.where(known, (log_ratios - middle) / bar, 0.0), float(np.exp(bar))


@dataclass(frozen=True)
class PeerBook(ClientTable):
    """What Mode 0 remembers of each client.

    Parameters
    ----------
    ids : tuple of str
        Clients in sorted order; row i of every array is ``ids[i]``.
    histories : float32 array of shape (N, k)
        Faded sums of sketched updates.
    seen, last : int64 arrays of shape (N,)
        Rounds with an update, and the last of them (counted in judged rounds).
    agreeing, lengths : float64 arrays of shape (N, 2)
        Faded sums, and their weights, of cosines with the own history and of log norms relative to the median.
    cosines : float64 array of shape (N,)
        Last cosine with the reference; NaN before the first opinion.
    suspicion : float64 array of shape (N,)
        Balance of the `matl.trust.sequential.Bank`.
    reasons : tuple of str
        Why the client was last quarantined; empty if never.
    """

    histories: Float32 = column(0.0)
    seen: NDArray[np.int64] = column(0)
    last: NDArray[np.int64] = column(0)
    agreeing: Float64 = column(0.0)
    lengths: Float64 = column(0.0)
    cosines: Float64 = column(np.nan)
    suspicion: Float64 = column(0.0)
    reasons: tuple[str, ...] = column("")

    @classmethod
    def empty(cls, width: int) -> PeerBook:
        """A book without clients, for sketches of ``width`` numbers."""
        none = np.empty(0, np.int64)
        pairs, values = np.empty((0, 2)), np.empty(0)
        return cls((), np.empty((0, width), np.float32), none, none, pairs, pairs, values, values, ())

    def with_round(
        self, rows: NDArray[np.intp], sketches: Float32, norms: Float64, centre: Float32, number: int
    ) -> PeerBook:
        """The book after a round in which the clients of ``rows`` sent updates.

        Parameters
        ----------
        rows : intp array of shape (n,)
            Who sent.
        sketches : float32 array of shape (n, k)
            Their sketched updates.
        norms : float64 array of shape (n,)
            Norms of the updates. An all-zero update says nothing and leaves the record as it is.
        centre : float32 array of shape (k,)
            The common direction of the round before.
        number : int
            The round, counted in judged rounds.

        Notes
        -----
        The history of a client under suspicion takes up only updates that agree with ``centre``: it can improve its
        record but not rewrite it, or a client that turned would soon agree with its own new past.
        """
        histories, agreeing, lengths = self.histories.copy(), self.agreeing.copy(), self.lengths.copy()
        seen, last = self.seen.copy(), self.last.copy()
        last[rows] = number
        said = norms > 0
        if not said.any():
            return replace(self, last=last)
        middle = float(np.median(norms[said]))
        mine, units, norm = rows[said], unit_rows(sketches[said]), norms[said]
        with_past = seen[mine] > 0
        old = mine[with_past]
        cosines = np.einsum("ij,ij->i", units[with_past], unit_rows(histories[old]))
        agreeing[old] = FADE * agreeing[old] + (1.0 - FADE) * np.stack([cosines, np.ones(len(old))], axis=1)
        # Or one update of next to no length would make up for many that are far too long.
        ratios = np.maximum(np.log(norm / middle), -np.log(NORM_BAR))
        lengths[mine] = FADE * lengths[mine] + (1.0 - FADE) * np.stack([ratios, np.ones(len(mine))], axis=1)
        open_ = (self.suspicion[mine] == 0.0) | (units @ centre > 0.0)
        added = units[open_] * (np.minimum(norm[open_], middle))[:, None]
        histories[mine[open_]] = (MEMORY * histories[mine[open_]] + added).astype(np.float32)
        seen[mine] += 1
        return replace(self, histories=histories, agreeing=agreeing, lengths=lengths, seen=seen, last=last)

    def closed(self, number: int) -> PeerBook:
        """The book at the end of round ``number``, without the forgotten."""
        return self.kept((number - self.last < FORGOTTEN) | (self.suspicion > 0))


def faded_mean(sums: Float64) -> Float64:
    """Means of faded sums and weights, shape (n, 2) to (n,); NaN where nothing was added."""
    weight = sums[:, 1]
    return np.asarray(np.where(weight > 0, sums[:, 0] / np.where(weight > 0, weight, 1.0), np.nan))
