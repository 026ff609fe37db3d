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

__all__ = ["WAYS", "Option", "Way", "trade"]


@dataclass(frozen=True, slots=True)
class Way:
    """A way to let the judge see.

    Parameters
    ----------
    visibility : Visibility
        What it sees.
    mechanism : Kind
        Who adds the noise.
    seen, judged_by : str
        What is seen of the clients, and which judges the epsilon covers.
    judged : bool
        Whether a rule that compares clients, to bear malicious ones, is among those.
    """

    visibility: Visibility
    mechanism: Kind
    seen: str
    judged_by: str
    judged: bool

    def __str__(self) -> str:
        return f"{self.visibility}, local" if self.mechanism is Kind.LOCAL else self.visibility.value


_OF_CLIPPED = "the mean of clipped updates, or weights by a client's own and public data"
WAYS = (
    Way(
        Visibility.CLEAR,
        Kind.CENTRAL,
        "the server sees every update, and adds the noise",
        f"{_OF_CLIPPED}; a rule that compares clients has no epsilon",
        judged=False,
    ),
    Way(
        Visibility.SEALED,
        Kind.CENTRAL,
        "an attested oracle sees every update, nobody else any (planning only: none here adds noise)",
        f"{_OF_CLIPPED}, likewise",
        judged=False,
    ),
    Way(
        Visibility.CLEAR,
        Kind.LOCAL,
        "the server sees every update, with all of the noise in each",
        "Mode 0 and every rule, all of them covered",
        judged=True,
    ),
    Way(
        Visibility.GROUPED,
        Kind.DISTRIBUTED,
        "the server sees the sum of every group",
        "every rule over group sums, all of them covered; no verdict on a client",
        judged=True,
    ),
    Way(
        Visibility.SUMMED,
        Kind.DISTRIBUTED,
        "the server sees one sum",
        "nothing; clipping bounds what an attested encoder can do",
        judged=False,
    ),
)
"""From what shows most to what shows least."""


@dataclass(frozen=True, slots=True)
class Option:
    """One way to let the judge see, and what comes of it.

    Parameters
    ----------
    way : Way
        Who sees what.
    group_size, groups : int
        Fewest members of a unit that is judged, and units; n and 1 for one sum.
    malicious : int
        Most malicious clients that a rule over the units bears, but with a probability of 1/1000 in a round; 0 where a
        rule that compares clients has no epsilon, or nothing to compare.
    noise_factor : float
        sqrt(units that have noise each), by which noise is larger than in one sum.
    plan : Draft or None
        The predicted cost with as many drop-outs and dishonest clients as demanded.
    refused : str
        Why there is no plan.
    """

    way: Way
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
    """Every way, with groups of 2, 4, 8, ..., at the same epsilon, drop-out and dishonest clients.

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
    >>> [(str(option.way), option.group_size, option.malicious) for option in options]
    [('clear', 1, 0), ('sealed', 1, 0), ('clear, local', 1, 31), ('grouped', 2, 15), ('grouped', 4, 7),
     ('grouped', 8, 3), ('grouped', 16, 1), ('summed', 64, 0)]
    """
    distrusted = min(demand.count("corrupt") + demand.count("malicious"), demand.asked)
    demand = replace(demand, corrupt=distrusted, malicious=0)
    return tuple(_option(demand, way, size) for way in WAYS for size in _sizes(way, demand.asked))


def _sizes(way: Way, clients: int) -> Iterator[int]:
    if way.visibility is not Visibility.GROUPED:
        yield clients if way.visibility is Visibility.SUMMED else 1
        return
    size = 2
    while 3 * size <= clients:  # of two groups, one is half
        yield size
        size *= 2


def _option(demand: Demand, way: Way, size: int) -> Option:
    n, groups = demand.asked, count_groups(demand.asked, size)
    option = Option(
        way=way,
        group_size=size,
        groups=groups,
        malicious=largest_malicious(n, size) if way.judged else 0,
        noise_factor=1.0 if way.mechanism is Kind.CENTRAL else math.sqrt(groups),
    )
    grouped = size if way.visibility is Visibility.GROUPED else None
    try:
        made = draft(replace(demand, visibility=way.visibility, mechanism=way.mechanism, group_size=grouped))
    except InvalidValueError as error:
        return replace(option, refused=str(error))
    return replace(option, plan=made)
