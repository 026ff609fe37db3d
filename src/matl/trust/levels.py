"""Level evidence: how an update's figures compare with those of simulated honest clients, over its recent rounds."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from matl import validate
from matl.trust.attribution import Attribution
from matl.trust.calibration import standardise
from matl.trust.norm import log_norms
from matl.trust.sequential import matched_rounds, smooth

__all__ = ["FIGURES", "LEVELS", "MEMORIES", "LevelBars", "Levels", "figures", "judge_levels"]

FIGURES = ("gain", "share", "alien", "log_norm")
"""What is remembered of an update, in this order."""

LEVELS = ("relabelling", "alien", "norm")
"""The channels made of them, in this order."""

MEMORIES = (0.5, 0.85)
"""Two speeds: the fast one sees a change of mind within two rounds, the slow one what shows only on average."""

_FIRST_LOOK = 1.5  # one round alone is weak evidence: it has to be this much stronger
_UPPER = 0.95


@dataclass(frozen=True, slots=True)
class LevelBars:
    """Where honest behaviour ends, in units of the shadows' spread (0 is their median, 1 their 95 % quantile).

    Chosen on development seeds 0-4, where no honest client at label skew .5 exceeded 3.3, 1.7 and 2.3 in any round.

    Parameters
    ----------
    relabelling, alien, norm : float
        All > 0.
    """

    relabelling: float = 3.5
    alien: float = 2.5
    norm: float = 3.5

    def __post_init__(self) -> None:
        validate.positive(relabelling=self.relabelling, alien=self.alien, norm=self.norm)


@dataclass(frozen=True, slots=True)
class Levels:
    """Level evidence about n clients, with that of M shadows over the same rounds as each client.

    Parameters
    ----------
    evidence : float64 array of shape (n, L)
        Each channel in units of its bar, at the speed that speaks loudest.
    joint : float64 array of shape (n,)
        The channels together, in units of their bars, at the speed that speaks loudest.
    shadows, flipped : float64 arrays of shape (n, M)
        Joint evidence of each shadow, and of each shadow had it sent its update backwards, over the rounds of client i.
    figures, usual : float64 arrays of shape (n, F)
        The client's figures at that speed, and what 95 % of the shadows stay under.
    """

    evidence: NDArray[np.float64]
    joint: NDArray[np.float64]
    shadows: NDArray[np.float64]
    flipped: NDArray[np.float64]
    figures: NDArray[np.float64]
    usual: NDArray[np.float64]


def figures(attribution: Attribution) -> NDArray[np.float64]:
    """The figures of one round, float64 of shape (n, F)."""
    return np.stack([attribution.gain, attribution.share, attribution.alien, log_norms(attribution.norms)], axis=1)


def judge_levels(
    clients: NDArray[np.float64], shadows: NDArray[np.float64], flipped: NDArray[np.float64], bars: LevelBars
) -> Levels:
    """Compare clients with shadows over each client's own rounds and at both speeds.

    Parameters
    ----------
    clients : array of shape (n, W, F)
        Windows of figures, the newest round last; NaN where absent.
    shadows, flipped : arrays of shape (M, W, F)
        Windows of the shadows and of their updates sent backwards; they are never absent.
    bars : LevelBars
        Where honest behaviour ends.

    Notes
    -----
    *Relabelling* is the sum of two figures, gain and share, each in units of the shadows' spread, and then once more in
    units of the spread of the sum. Gain says how much mislabelled training is needed, share how little honest training
    is; either alone has honest outliers, and they are not the same clients. *Alien* and *norm* are one figure each.
    The three count together as the root of the sum of their squares, positive parts only: where classes are few and
    overlap, a lie stands out a little in several channels and past the bar in none.
    Cost O(p M W F) for p different patterns of absence.
    """
    n = len(clients)
    result = Levels(
        evidence=np.full((n, len(LEVELS)), -np.inf),
        joint=np.full(n, -np.inf),
        shadows=np.full((n, len(shadows)), -np.inf),
        flipped=np.full((n, len(flipped)), -np.inf),
        figures=np.empty(clients.shape[::2]),
        usual=np.empty(clients.shape[::2]),
    )
    for rows, present in matched_rounds(clients):
        divisor = _FIRST_LOOK if present.sum() == 1 else 1.0
        loudest = np.full(len(rows), -np.inf)
        for memory in MEMORIES:
            mine, theirs, against = (smooth(window, present, memory) for window in (clients[rows], shadows, flipped))
            evidence = _channels(mine, theirs, bars) / divisor
            joint = _joint(evidence)
            result.evidence[rows] = np.maximum(result.evidence[rows], evidence)
            result.joint[rows] = np.maximum(result.joint[rows], joint)
            for reference, figures_of in ((result.shadows, theirs), (result.flipped, against)):
                shown = _joint(_channels(figures_of, theirs, bars) / divisor)
                reference[rows] = np.maximum(reference[rows], shown)
            louder = joint > loudest
            loudest = np.maximum(loudest, joint)
            result.figures[rows[louder]] = mine[louder]
            result.usual[rows[louder]] = np.quantile(theirs, _UPPER, axis=0)
    return result


def _channels(values: NDArray[np.float64], shadows: NDArray[np.float64], bars: LevelBars) -> NDArray[np.float64]:
    """Evidence (n, L) of figures (n, F), in units of the bars."""
    z, z_shadows = standardise(values, shadows), standardise(shadows, shadows)
    relabelling = standardise(z[:, 0] + z[:, 1], z_shadows[:, 0] + z_shadows[:, 1])
    return np.stack([relabelling / bars.relabelling, z[:, 2] / bars.alien, z[:, 3] / bars.norm], axis=1)


def _joint(evidence: NDArray[np.float64]) -> NDArray[np.float64]:
    """Evidence (n, L) of all channels as one number per row; where all are negative, the largest of them."""
    together = np.sqrt((np.maximum(evidence, 0.0) ** 2).sum(axis=1))
    return np.asarray(np.where(together > 0.0, together, evidence.max(axis=1)))
