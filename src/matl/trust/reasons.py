"""Verdicts in words a person can check: what was seen, in numbers, and what honest clients show."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

__all__ = [
    "alien_reason",
    "campaign_reason",
    "collusion_reason",
    "earlier_reason",
    "norm_reason",
    "pair_reason",
    "relabelling_reason",
    "turn_reason",
]


def earlier_reason(channel: str, evidence: float) -> str:
    """A channel whose evidence, in units of its bar, is of earlier rounds: this one's figures are as honest ones are.

    Examples
    --------
    >>> earlier_reason("norm", 1.3)
    'stood out in earlier rounds, not in this one: norm over its recent rounds is at 1.3 times the bar'
    """
    return (
        f"stood out in earlier rounds, not in this one: {channel} over its recent rounds is at {evidence:.1f} times "
        "the bar"
    )


def relabelling_reason(
    gain: tuple[float, float], share: tuple[float, float], amounts: NDArray[np.float64], pairs: NDArray[np.int64]
) -> str:
    """Relabelling gain and share of a client, each with what 95 % of shadows like it stay under, and the amounts (P,)
    by pair (P, 2).

    Examples
    --------
    >>> relabelling_reason((0.45, 0.06), (0.9, 0.12), np.array([0.1, 3.0]), np.array([[0, 1], [4, 9]]))
    'pushes against its own classes: false labels raise the cosine of its best explanation by 0.45 and make up 90 % of
    it, most of all 4 taken for 9 (95 % of simulated honest clients stay under 0.06, and 12 %)'
    """
    worst = pairs[int(np.argmax(amounts))]
    return (
        f"pushes against its own classes: false labels raise the cosine of its best explanation by {gain[0]:.2f} "
        f"and make up {100 * share[0]:.0f} % of it, most of all {worst[0]} taken for {worst[1]} (95 % of simulated "
        f"honest clients stay under {gain[1]:.2f}, and {100 * share[1]:.0f} %)"
    )


def pair_reason(amount: float, usual: float, pair: NDArray[np.int64]) -> str:
    """How much a client trains on one class (true, false) under a false label, and what 95 % of shadows like it stay
    under, both in units of a usual client's whole training.

    Examples
    --------
    >>> pair_reason(0.83, 0.21, np.array([4, 9]))
    'relabels 4 as 9, as much as 83 % of all that a usual client trains (95 % of simulated honest clients like it stay
    under 21 %)'
    """
    return (
        f"relabels {pair[0]} as {pair[1]}, as much as {100 * amount:.0f} % of all that a usual client trains "
        f"(95 % of simulated honest clients like it stay under {100 * usual:.0f} %)"
    )


def alien_reason(alien: float, usual: float) -> str:
    """One minus the cosine to the best explanation, of a client and the level 95 % of shadows stay under.

    Examples
    --------
    >>> alien_reason(0.9, 0.4)
    'looks like no training on these classes: cosine 0.10 to the best explanation (95 % of simulated honest clients
    exceed 0.60)'
    """
    return (
        f"looks like no training on these classes: cosine {1 - alien:.2f} to the best explanation "
        f"(95 % of simulated honest clients exceed {1 - usual:.2f})"
    )


def norm_reason(log_norm: float, usual: float) -> str:
    """Logarithm of the norm, of a client and the level 95 % of shadows stay under.

    Examples
    --------
    >>> norm_reason(math.log(12.0), math.log(1.5))
    'is 8.0 times as long as 95 % of simulated honest updates: norm 12 against 1.5'
    """
    return (
        f"is {math.exp(log_norm - usual):.1f} times as long as 95 % of simulated honest updates: "
        f"norm {math.exp(log_norm):.3g} against {math.exp(usual):.3g}"
    )


def turn_reason(turned: float, usual: float) -> str:
    """One minus the cosine to the client's own past, of a client and of the median shadow.

    Examples
    --------
    >>> turn_reason(1.9, 0.05)
    'turned against its own past: cosine -0.90 to its earlier updates (simulated honest clients keep 0.95)'
    """
    return (
        f"turned against its own past: cosine {1 - turned:.2f} to its earlier updates "
        f"(simulated honest clients keep {1 - usual:.2f})"
    )


def collusion_reason(agreement: float, bar: float) -> str:
    """Mean cosine of the residual with its nearest neighbours, and the bar.

    Examples
    --------
    >>> collusion_reason(1.0, 0.9)
    'moves as one with others: cosine 1.00 to its nearest neighbours beyond what classes explain (bar 0.90)'
    """
    return (
        f"moves as one with others: cosine {agreement:.2f} to its nearest neighbours beyond what classes explain "
        f"(bar {bar:.2f})"
    )


def campaign_reason(shared: float, usual: float) -> str:
    """Cosine of the residual to what the alien others have in common, and the level 95 % of shadows stay under.

    Examples
    --------
    >>> campaign_reason(0.82, 0.17)
    'looks like no training on these classes, and so do others in the same way: cosine 0.82 to what they have in common
    (95 % of simulated honest clients stay under 0.17)'
    """
    return (
        f"looks like no training on these classes, and so do others in the same way: cosine {shared:.2f} to what they "
        f"have in common (95 % of simulated honest clients stay under {usual:.2f})"
    )


def spectral_reason(shared: float, near: float, far: int) -> str:
    """Cosine to what divides the cohort, of a client and of the middle of the near part, and how many are far off.

    Examples
    --------
    >>> spectral_reason(0.79, 0.03, 22)
    'trains what its classes do not explain and simulated honest clients do not know, as 22 in all do: cosine 0.79 to
    what they have in common, where the rest of the cohort has 0.03'
    """
    return (
        f"trains what its classes do not explain and simulated honest clients do not know, as {far} in all do: cosine "
        f"{shared:.2f} to what they have in common, where the rest of the cohort has {near:.2f}"
    )
