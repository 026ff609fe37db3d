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
    shadows : float64 array of shape (n, M)
        Strongest evidence of each shadow, over the rounds of client i.
    figures, usual : float64 arrays of shape (n, F)
        The client's figures at that speed, and what 95 % of the shadows stay under.
    """

    evidence: NDArray[np.float64]
    shadows: NDArray[np.float64]
    figures: NDArray[np.float64]
    usual: NDArray[np.float64]


def figures(attribution: Attribution) -> NDArray[np.float64]:
    """The figures of one round, float64 of shape (n, F)."""
    return np.stack([attribution.gain, attribution.share, attribution.alien, log_norms(attribution.norms)], axis=1)


def judge_levels(clients: NDArray[np.float64], shadows: NDArray[np.float64], bars: LevelBars) -> Levels:
    """Compare clients with shadows over each client's own rounds and at both speeds.

    Parameters
    ----------
    clients : array of shape (n, W, F)
        Windows of figures, the newest round last; NaN where absent.
    shadows : array of shape (M, W, F)
        The shadows' windows; they are never absent.
    bars : LevelBars
        Where honest behaviour ends.

    Notes
    -----
    *Relabelling* is the sum of two figures, gain and share, each in units of the shadows' spread, and then once more in
    units of the spread of the sum. Gain says how much mislabelled training is needed, share how little honest training
    is; either alone has honest outliers, and they are not the same clients. *Alien* and *norm* are one figure each.
    Cost O(p M W F) for p different patterns of absence.
    """
    n = len(clients)
    result = Levels(
        np.empty((n, len(LEVELS))),
        np.empty((n, len(shadows))),
        np.empty(clients.shape[::2]),
        np.empty(clients.shape[::2]),
    )
    for rows, present in matched_rounds(clients):
        divisor = _FIRST_LOOK if present.sum() == 1 else 1.0
        loudest = np.full(len(rows), -np.inf)
        result.evidence[rows] = result.shadows[rows] = -np.inf
        for memory in MEMORIES:
            mine, theirs = smooth(clients[rows], present, memory), smooth(shadows, present, memory)
            evidence = _channels(mine, theirs, bars) / divisor
            reference = _channels(theirs, theirs, bars).max(axis=1) / divisor
            result.evidence[rows] = np.maximum(result.evidence[rows], evidence)
            result.shadows[rows] = np.maximum(result.shadows[rows], reference)
            louder = evidence.max(axis=1) > loudest
            loudest = np.maximum(loudest, evidence.max(axis=1))
            result.figures[rows[louder]] = mine[louder]
            result.usual[rows[louder]] = np.quantile(theirs, _UPPER, axis=0)
    return result


def _channels(values: NDArray[np.float64], shadows: NDArray[np.float64], bars: LevelBars) -> NDArray[np.float64]:
    """Evidence (n, L) of figures (n, F), in units of the bars."""
    z, z_shadows = standardise(values, shadows), standardise(shadows, shadows)
    relabelling = standardise(z[:, 0] + z[:, 1], z_shadows[:, 0] + z_shadows[:, 1])
    return np.stack([relabelling / bars.relabelling, z[:, 2] / bars.alien, z[:, 3] / bars.norm], axis=1)
