"""What the judge may see, and what it costs: robustness against privacy, in numbers."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

from matl.errors import InvalidValueError
from matl.privacy.demand import Demand, Kind
from matl.privacy.groups import count_groups, largest_malicious
from matl.privacy.planner import Draft, draft
from matl.records import Visibility

__all__ = ["JUDGED_BY", "SEEN", "Option", "trade"]

SEEN = {
    Visibility.CLEAR: "the server sees every update",
    Visibility.SEALED: "an attested oracle sees every update, nobody else any",
    Visibility.GROUPED: "the server sees the sum of every group",
    Visibility.SUMMED: "the server sees one sum",
}
JUDGED_BY = {
    Visibility.CLEAR: "every mode and rule, though the proof covers none that compares clients",
    Visibility.SEALED: "every mode and rule, likewise",
    Visibility.GROUPED: "every rule over group sums, all of them covered; no verdict on a client",
    Visibility.SUMMED: "nothing; clipping bounds what an attested encoder can do",
}


@dataclass(frozen=True, slots=True)
class Option:
    """One way to let the judge see, and what comes of it.

    Parameters
    ----------
    visibility : Visibility
        The way.
    group_size, groups : int
        Fewest members of a unit that is judged, and units; n and 1 for one sum.
    malicious : int
        Most malicious clients that a rule over the units bears, but with a probability of 1/1000 in a round.
    noise_factor : float
        sqrt(units that have noise each), by which noise is larger than in one sum.
    plan : Draft or None
        The predicted cost with as many drop-outs and dishonest clients as demanded.
    refused : str
        Why there is no plan.
    """

    visibility: Visibility
    group_size: int
    groups: int
    malicious: int
    noise_factor: float
    plan: Draft | None = None
    refused: str = ""

    @property
    def error(self) -> float | None:
        """Root mean squared error of the sum over that of central noise."""
        return None if self.plan is None else math.sqrt(self.plan.mse_ratio)

    @property
    def signal_to_noise(self) -> float | None:
        """See `Draft.signal_to_noise`."""
        return None if self.plan is None else self.plan.signal_to_noise

    @property
    def worth(self) -> float | None:
        """To how many clients the same error would have come with central noise: n / sqrt(error over that)."""
        return None if self.plan is None else self.plan.demand.asked / math.sqrt(self.plan.mse_ratio)


def trade(demand: Demand) -> tuple[Option, ...]:
    """Every visibility, with groups of 2, 4, 8, ..., at the same epsilon, drop-out and dishonest clients.

    Parameters
    ----------
    demand : Demand
        Its malicious clients count as corrupt here: how many of them each way would bear is one of the results.

    Returns
    -------
    tuple of Option
        From what shows most to what shows least.

    Examples
    --------
    >>> options = trade(Demand(clients=64, params=10**5, rounds=30, epsilon=8.0, delta=1e-5))
    >>> [(option.visibility.value, option.group_size, option.malicious) for option in options]
    [('clear', 1, 31), ('sealed', 1, 31), ('grouped', 2, 15), ('grouped', 4, 7), ('grouped', 8, 3), ('grouped', 16, 1),
     ('summed', 64, 0)]
    """
    distrusted = min(demand.count("corrupt") + demand.count("malicious"), demand.asked)
    demand = replace(demand, corrupt=distrusted, malicious=0, mechanism=Kind.AUTO)
    return tuple(_option(demand, visibility, size) for visibility, size in _ways(demand.asked))


def _ways(clients: int) -> Iterator[tuple[Visibility, int]]:
    yield from ((visibility, 1) for visibility in (Visibility.CLEAR, Visibility.SEALED))
    size = 2
    while 3 * size <= clients:  # of two groups, one is half
        yield Visibility.GROUPED, size
        size *= 2
    yield Visibility.SUMMED, clients


def _option(demand: Demand, visibility: Visibility, size: int) -> Option:
    n, grouped = demand.asked, visibility is Visibility.GROUPED
    central = visibility in (Visibility.CLEAR, Visibility.SEALED)
    groups = count_groups(n, size)
    option = Option(
        visibility=visibility,
        group_size=size,
        groups=groups,
        malicious=0 if visibility is Visibility.SUMMED else largest_malicious(n, size),
        noise_factor=1.0 if central else math.sqrt(groups),
    )
    try:
        made = draft(replace(demand, visibility=visibility, group_size=size if grouped else None))
    except InvalidValueError as error:
        return replace(option, refused=str(error))
    return replace(option, plan=made)
