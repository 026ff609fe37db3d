"""Campaign evidence: clients that train something foreign, and the same thing.

A hidden trigger that many clients teach a little stands out in none of them. But what clean training does not explain
of an honest client is its own noise, and of these clients it is one and the same direction.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from matl.params import Float32
from matl.trust.calibration import standardise
from matl.trust.levels import DRIFT_COHORT, drift

__all__ = ["MOST_COMPANY", "Campaign", "campaign"]

MOST_COMPANY = 3.0
"""Company, in units of its bar, beyond which more makes no difference: whose alien evidence is below a third is never
accused for what others do. Chosen on development seeds 0-4 and 100-111, where 2 let more liars pass."""

_UPPER = 0.95
_TINY = 1e-12

Float64 = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Campaign:
    """What n clients have in common with those that look alien.

    Parameters
    ----------
    shared : float64 array of shape (n,)
        Cosine of each client's residual to that of all others together, the more alien the more weight; NaN for no
        opinion.
    usual : float
        The level that 95 % of shadows stay under.
    evidence : float64 array of shape (n,)
        Alien evidence and company as one, in units of the bar; NaN for no opinion.
    """

    shared: Float64
    usual: float
    evidence: Float64


def campaign(
    residuals: Float32,
    shadows: Float32,
    alien: Float64,
    alike: NDArray[np.bool_],
    copied: NDArray[np.bool_],
    bar: float,
    witnesses: NDArray[np.bool_] | None = None,
) -> Campaign:
    """Compare what is left of each client with what is left of the others that look alien.

    Parameters
    ----------
    residuals, shadows : float32 arrays of shapes (n, k) and (M, k)
        Sketches of what clean training does not explain, of clients and of shadows.
    alien : float64 array of shape (n,)
        Alien evidence, in units of its bar.
    alike : bool array of shape (n, n)
        Which clients move as one; together they weigh as one.
    copied : bool array of shape (n,)
        Who is copied by those that it moves as one with; there is no evidence against them.
    bar : float
        Company, in spreads of the shadows, with which a client is at the bar that is at that of *alien*.
    witnesses : bool array of shape (n,), optional
        Whose company says how much is usual; all if not given (`matl.trust.levels.drift`).

    Notes
    -----
    With residuals r_i and weights ``w_i = min(max(alien_i, 0), 1) / (1 + number alike)``, by which nobody sets the
    direction alone, ``t_i = cos(r_i, sum_{j != i} w_j r_j)`` is what client i shares with the others. Its *company* is
    ``c_i = (t_i - median) / (q95 - median) - drift``, with median and 95 % quantile of ``cos(r, sum_j w_j r_j)`` over
    shadows, and the drift of the cohort (`matl.trust.levels.drift`). The evidence is
    ``sqrt(max(alien_i, 0) min(max(c_i, 0) / bar, MOST_COMPANY))``: it takes both, as an honest client has friends that
    hold the same classes, and may have copies that it never asked for. There is no opinion in cohorts of fewer than
    `matl.trust.levels.DRIFT_COHORT`. Cost O((n + M) k).

    Examples
    --------
    Thirty clients of pure noise; what twelve of them do besides makes them look half as alien as the bar.

    >>> rng = np.random.default_rng(0)
    >>> clients, shadows = rng.normal(size=(30, 512)).astype(np.float32), rng.normal(size=(99, 512)).astype(np.float32)
    >>> clients[:12] += rng.normal(size=512).astype(np.float32)
    >>> alien, nobody = np.where(np.arange(30) < 12, 0.5, 0.2), np.zeros(30, bool)
    >>> found = campaign(clients, shadows, alien, np.zeros((30, 30), bool), nobody, bar=3.0)
    >>> (found.evidence > 1.0).nonzero()[0].tolist()
    [0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11]
    """
    if len(residuals) < DRIFT_COHORT:
        unknown = np.full(len(residuals), np.nan)
        return Campaign(unknown, np.nan, unknown)
    own = np.maximum(alien, 0.0)
    weights = np.minimum(own, 1.0) / (1 + alike.sum(axis=1))
    each = residuals * weights[:, None]
    together = each.sum(axis=0)
    shared, usual = _cosine(residuals, together - each), _cosine(shadows, together)
    scores = standardise(shared, usual)
    company = np.maximum(scores - drift(scores[:, None], witnesses)[0], 0.0) / bar
    evidence = np.sqrt(own * np.minimum(company, MOST_COMPANY))
    return Campaign(shared, float(np.quantile(usual, _UPPER)), np.where(copied, 0.0, evidence))


def _cosine(rows: Float32, targets: Float64) -> Float64:
    """Cosine of each row with its target, or with the only one; 0 where either is 0."""
    lengths = np.linalg.norm(rows, axis=1) * np.linalg.norm(targets, axis=-1)
    return np.asarray((rows * targets).sum(axis=1) / (lengths + _TINY), np.float64)
