"""Level evidence: how an update's figures compare with those of simulated honest clients, over its recent rounds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from matl import validate
from matl.trust.attribution import Attribution
from matl.trust.calibration import Expectation, standardise
from matl.trust.norm import log_norms
from matl.trust.sequential import matched_rounds, smooth

__all__ = [
    "DRIFT_COHORT",
    "DRIFT_QUANTILE",
    "FIGURES",
    "LEAST_SCORE",
    "LEVELS",
    "MEMORIES",
    "LevelBars",
    "Levels",
    "drift",
    "figures",
    "heard",
    "judge_levels",
    "round_scores",
]

FIGURES = ("gain", "share", "pair", "alien", "log_norm")
"""What is measured of an update, in this order."""

LEVELS = ("relabelling", "pair", "alien", "norm")
"""The channels made of them, in this order."""

MEMORIES = (0.5, 0.85)
"""Two speeds: the fast one sees a change of mind within two rounds, the slow one what shows only on average."""

PAIR_OFFSET = 0.02
"""Part of a usual client's training below which it makes no difference how little of it is relabelled."""

DRIFT_QUANTILE = 0.3
"""Quantile of the witnesses' scores that is held to be honest: with 45 % liars, all of them loud and none of them found
yet, it is the honest 55 % quantile, so that liars can lift the drift to about the honest median and no further, unless
more honest clients than liars are under suspicion and no witnesses."""

LEAST_SCORE = -1.0
"""What a short update can say in a client's favour, in units of the shadows' spread. The logarithm of its norm has no
limit of its own, and one all-zero update would outweigh any number of enormous ones."""

DRIFT_COHORT = 10
"""Clients below which a quantile of theirs says nothing."""

_LEAST_WITNESSES = DRIFT_COHORT // 2  # in a cohort of that many; most of ten are honest

_FIRST_LOOK = 1.5  # one round alone is weak evidence: it has to be this much stronger
_FAST = 1.25  # and a memory of two rounds is weaker than one of six

Float64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class LevelBars:
    """Where honest behaviour ends, in units of the shadows' spread (0 is their median, 1 their 95 % quantile).

    Chosen on development seeds 0-4. After 30 rounds without attack none of 200 clients was in quarantine on MNIST (two
    seeds at label skew .5, two at .1), and 7 of 500 on digits, where a client holds 27 samples and `Levels.over` raises
    the bars. A stealth backdoor shows in *alien* alone, and below its bar where many teach it a little
    (`matl.trust.campaign`).

    Parameters
    ----------
    relabelling, pair, alien, norm : float
        All > 0.
    """

    relabelling: float = 2.0
    pair: float = 2.0
    alien: float = 1.6
    norm: float = 2.5

    def __post_init__(self) -> None:
        validate.positive(relabelling=self.relabelling, pair=self.pair, alien=self.alien, norm=self.norm)


@dataclass(frozen=True, slots=True)
class Levels:
    """Level evidence about n clients, with that of M shadows over the same rounds as each client.

    Parameters
    ----------
    evidence : float64 array of shape (n, L)
        Each channel in units of its bar, at the speed that speaks loudest; NaN for no opinion.
    joint : float64 array of shape (n,)
        The channels together, in units of their bars, at the speed that speaks loudest.
    shadows, flipped : float64 arrays of shape (n, M)
        Joint evidence of each shadow, and of each shadow had it sent its update backwards, over the rounds of client i.
    """

    evidence: Float64
    joint: Float64
    shadows: Float64
    flipped: Float64

    def over(self, factor: Float64) -> Levels:
        """The same against bars that are ``factor``, (n,), times as high for each client."""
        each = factor[:, None]
        return Levels(self.evidence / each, self.joint / factor, self.shadows / each, self.flipped / each)


def figures(attribution: Attribution, usual_work: float) -> Float64:
    """The figures of one round, float64 of shape (n, F).

    Parameters
    ----------
    attribution : Attribution
        Of n updates.
    usual_work : float
        How much training shadows do, in the attribution's unit. The most relabelled pair is counted as a part of it,
        or of what the client itself does where that is more: a long update is the norm's business.
    """
    most = attribution.relabelled.max(axis=1) / np.maximum(attribution.work, usual_work)
    return np.stack(
        [
            attribution.gain,
            attribution.share,
            np.log(most + PAIR_OFFSET),
            attribution.alien,
            log_norms(attribution.norms),
        ],
        axis=1,
    )


def round_scores(measured: Float64, about: Float64, expected: Expectation) -> Float64:
    """What one round says on each channel, (n, L), from figures (n, F) and what is expected in these circumstances.

    *Relabelling* is the sum of two figures, gain and share, each in units of the spread of shadows like the client.
    Gain says how much mislabelled training is needed, share how little honest training is; either alone has honest
    outliers, and they are not the same clients. *Pair*, *alien* and *norm* are one figure each.
    """
    gain, share, pair, alien, log_norm = expected.standardise(measured, about).T
    return np.stack([gain + share, pair, alien, np.maximum(log_norm, LEAST_SCORE)], axis=1)


def drift(scores: Float64, witnesses: NDArray[np.bool_] | None = None) -> Float64:
    """How much stranger than simulated clients most real ones look this round, per channel, (L,); never below 0.

    The model comes to fit what clients hold, and never the root: later in training, and the more they train, honest
    clients look stranger than shadows. What most of the cohort shows is no evidence against anyone.

    Parameters
    ----------
    scores : array of shape (n, L)
        `round_scores` of the clients of a round.
    witnesses : bool array of shape (n,), optional
        Whose scores say what is usual: all, if not given, or if they are fewer than half of `DRIFT_COHORT`. Liars that
        are known as such do not belong to them: on a channel where what they do does not show they are the quietest of
        all, and would have everybody else accused of what honest clients share.

    Examples
    --------
    >>> honest, loud, quiet = np.linspace(0.6, 1.6, 11), np.full(9, 50.0), np.full(9, -50.0)
    >>> drift(np.concatenate([honest, loud])[:, None]).round(2)
    array([1.17])
    >>> (
    ...     drift(np.concatenate([honest, quiet])[:, None]),
    ...     drift(np.concatenate([honest, quiet])[:, None], np.arange(20) < 11),
    ... )
    (array([0.]), array([0.9]))
    """
    if len(scores) < DRIFT_COHORT:
        return np.zeros(scores.shape[1])
    if witnesses is not None and witnesses.sum() >= _LEAST_WITNESSES:
        scores = scores[witnesses]
    return np.asarray(np.maximum(np.quantile(scores, DRIFT_QUANTILE, axis=0), 0.0))


def heard(cohort: int) -> NDArray[np.bool_]:
    """Which levels have an opinion in a cohort of so many clients, (L,): not *alien* where no `drift` can be told.

    Of the four it is the one that drifts most: without a drift taken off, it accused 43 of 48 honest clients, in
    cohorts of 2, 5 and 9 with 300 digits each, within 25 rounds (development seeds 0-2). With this, none.

    Examples
    --------
    >>> heard(10).tolist(), heard(9).tolist()
    ([True, True, True, True], [True, True, False, True])
    """
    return np.array([name != "alien" or cohort >= DRIFT_COHORT for name in LEVELS])


def judge_levels(
    clients: Float64, shadows: Float64, flipped: Float64, bars: LevelBars, told: NDArray[np.bool_] | None = None
) -> Levels:
    """Compare clients with shadows over each client's own rounds and at both speeds.

    Parameters
    ----------
    clients : array of shape (n, W, L)
        Windows of `round_scores`, the newest round last; NaN where absent.
    shadows, flipped : arrays of shape (M, W, L)
        Windows of the shadows and of their updates sent backwards; they are never absent.
    bars : LevelBars
        Where honest behaviour ends.
    told : bool array of shape (L,), optional
        Which channels have an opinion, see `heard`; all if not given.

    Notes
    -----
    The channels also count together as the root of the sum of their squares, positive parts only: where classes are
    few and overlap, a lie stands out a little in several channels and past the bar in none.
    Cost O(p M W L) for p different patterns of absence.
    """
    n = len(clients)
    told = np.ones(len(LEVELS), np.bool_) if told is None else told
    result = Levels(
        evidence=np.tile(np.where(told, -np.inf, np.nan), (n, 1)),
        joint=np.full(n, -np.inf),
        shadows=np.full((n, len(shadows)), -np.inf),
        flipped=np.full((n, len(flipped)), -np.inf),
    )
    scale = np.array([bars.relabelling, bars.pair, bars.alien, bars.norm])
    for rows, present in matched_rounds(clients):
        for memory in MEMORIES:
            units = scale * (_FIRST_LOOK if present.sum() == 1 else _FAST if memory == MEMORIES[0] else 1.0)
            mine, theirs, against = (smooth(window, present, memory) for window in (clients[rows], shadows, flipped))
            evidence = standardise(mine, theirs) / units
            result.evidence[rows] = np.maximum(result.evidence[rows], evidence)
            result.joint[rows] = np.maximum(result.joint[rows], _joint(evidence[:, told]))
            for reference, scores in ((result.shadows, theirs), (result.flipped, against)):
                shown = _joint((standardise(scores, theirs) / units)[:, told])
                reference[rows] = np.maximum(reference[rows], shown)
    return result


def _joint(evidence: Float64) -> Float64:
    """Evidence (n, L) of all channels as one number per row; where all are negative, the largest of them."""
    together = np.sqrt((np.maximum(evidence, 0.0) ** 2).sum(axis=1))
    return np.asarray(np.where(together > 0.0, together, evidence.max(axis=1)))
