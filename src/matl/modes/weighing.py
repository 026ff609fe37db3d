"""What Mode 1 makes of its findings: how much each client counts, and in which words it is told why."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from numpy.typing import NDArray

from matl.aggregators import Rows
from matl.params import Float32
from matl.records import Cohort, Judgement, Status, Verdict
from matl.trust.balance import balanced
from matl.trust.collusion import foremost
from matl.trust.findings import SUSPECT, Findings
from matl.trust.sequential import Bank
from matl.trust.view import Simulated

__all__ = ["LONGEST", "weighed"]

LONGEST = 1.5
"""Times the median norm of the kept to which updates are shortened; at 1, label skew .1 cost 1.4 points with nobody
attacking."""

_OUTWEIGHED = 0.5  # part of its share below which a verdict says that balance took the rest
_TINY = 1e-12


def weighed(
    cohort: Cohort,
    simulated: Simulated,
    findings: Findings,
    told: Mapping[str, NDArray[np.float64]],
    suspicion: NDArray[np.float64],
    reasons: Sequence[str],
    bank: Bank,
) -> Judgement:
    """Believe, halve or leave out each of n updates, and sum them up.

    Parameters
    ----------
    cohort : Cohort
        Whom it is about.
    simulated : Simulated
        The round's shadows and directions.
    findings : Findings
        What was found.
    told : mapping of str to float64 array of shape (n,)
        What the verdicts say besides, by channel.
    suspicion : float64 array of shape (n,)
        Balance of each, after this round.
    reasons : sequence of str
        Why each was accused last.
    bank : Bank
        How long a quarantine lasts.
    """
    clients, n = findings.clients.attribution, len(suspicion)
    quarantined = suspicion > 0
    suspected = ~quarantined & (findings.strongest > SUSPECT)
    # Who are as one count as one, but whoever they copy is not to lose by it.
    alike = findings.agreement.alike
    like = np.where(foremost(alike, findings.copied, findings.turned), 0, alike[:, ~quarantined].sum(axis=1))
    trust = np.where(quarantined, 0.0, np.where(suspected, 0.5, 1.0) / (1 + like))
    weights = trust * cohort.weights
    walked = clients.norms[~quarantined & (clients.norms > 0)]  # or those who send nothing would stop everybody
    limit = LONGEST * float(np.median(walked)) if len(walked) else 0.0
    clipped = clients.norms > limit
    scale = np.where(clipped, limit / np.where(clipped, clients.norms, 1.0), 1.0)
    # With nobody left to believe the model stays where it is.
    share, outweighed = np.zeros(n), np.ones(n)
    if weights.sum() > 0:
        usual_mix = simulated.shadows.attribution.mix.mean(axis=0)
        given = weights / weights.sum()
        share = _balanced(given, clients.clean * scale[:, None], usual_mix, simulated.atoms.reach)
        outweighed = np.divide(np.minimum(share, given), given, out=outweighed, where=given > 0)
    channels = {
        **findings.channels,
        "joint": findings.levels.joint,
        "strongest": findings.strongest,
        **told,
        "share": share,
    }
    verdicts = tuple(
        Verdict(
            unit,
            float(trust[i] * outweighed[i]),
            _status(bool(quarantined[i]), bool(suspected[i] or like[i]), bool(clipped[i])),
            {name: float(values[i]) for name, values in channels.items() if not np.isnan(values[i])},
            _words(
                float(findings.strongest[i]),
                bank.rounds_left(float(suspicion[i])),
                reasons[i],
                int(like[i]),
                (float(clients.norms[i]), limit),
                float(outweighed[i]),
            ),
        )
        for i, unit in enumerate(cohort.ids)
    )
    diagnostics = {
        "quarantined": int(quarantined.sum()),
        "suspected": int((suspected | (~quarantined & (like > 0))).sum()),
        "clip_norm": limit,
    }
    return Judgement(Rows(cohort.X).combine(share * scale), verdicts, diagnostics)


def _words(strongest: float, rounds: int, last: str, like: int, norm: tuple[float, float], outweighed: float) -> str:
    """The reason of a verdict; empty where the update counted as it came."""
    if strongest > 1.0:
        return last
    if rounds > 0:
        return f"in quarantine for {rounds} more rounds of good conduct: it {last}"
    if strongest > SUSPECT:
        return f"at {100 * strongest:.0f} % of the bar: it {last}"
    if like > 0:
        return f"counts once together with {like} other{'s' if like > 1 else ''} that moved as one with it"
    if outweighed < _OUTWEIGHED:
        return f"counts with {100 * outweighed:.0f} % of its share: what it teaches is taught too much together"
    return f"shortened from norm {norm[0]:.3g} to {norm[1]:.3g}" if norm[0] > norm[1] else ""


def _balanced(
    shares: NDArray[np.float64],
    taught: NDArray[np.float64],
    usual_mix: NDArray[np.float64],
    reach: Float32,
) -> NDArray[np.float64]:
    """Shares (n,) of the clients that are kept, changed where together they teach some class too much.

    ``taught`` (n, K) is amounts of training, ``reach`` (K,) how far each class moves the model per amount.
    """
    kept = shares > 0
    amount = float(shares @ taught.sum(axis=1))
    if amount > _TINY:
        shares = shares.copy()
        shares[kept] = balanced(shares[kept], taught[kept] * reach / amount, usual_mix * reach)
    return shares


def _status(quarantined: bool, suspected: bool, clipped: bool) -> Status:
    if quarantined:
        return Status.QUARANTINED
    if suspected:
        return Status.SUSPECTED
    return Status.CLIPPED if clipped else Status.ACCEPTED
