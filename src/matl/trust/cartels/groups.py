"""Groups in a ledger and how suspicious each is: four components, each calibrated to a tail probability."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from matl import validate
from matl.errors import MissingExtraError
from matl.trust.cartels.ledger import Ledger

__all__ = ["WEIGHTS", "Group", "find_groups"]

WEIGHTS = {"vouching": 0.4, "timing": 0.3, "stake": 0.2, "geography": 0.1}
"""What each component adds to the risk of a group whose vouching is beyond doubt."""

SMALLEST = 3
"""Members of the smallest group that is looked for."""

_EDGE = 1.0  # vouches beyond expectation, both ways together, from which two members are linked
_RESOLUTION = 0.5  # of Louvain; at 1 it cuts a graph that is nothing but one clique in pieces
_VOUCHING_MARGIN = 0.1  # how much more often than others honest members of one kind may vouch for each other
_TIMING_MARGIN = 0.3  # correlation of times that honest members of one region may share
_COMMON_ROUNDS = 8  # fewer rounds of two members say nothing about their times
_DRAWS = 1999  # random groups that a group is compared with
_FULL = 3.0  # a tail probability of one in 10^3 counts in full
_TINY = 1e-12


@dataclass(frozen=True, slots=True)
class Group:
    """A group of members that vouch for each other.

    Parameters
    ----------
    members : tuple of str
        Sorted ids.
    risk : float
        In [0, 1]; see `find_groups`.
    tails : mapping of str to float
        Tail probability of each component that had an opinion, after correction for the number of groups.
    reason : str
        What was seen, in words and numbers.
    """

    members: tuple[str, ...]
    risk: float
    tails: Mapping[str, float]
    reason: str


def find_groups(
    ledger: Ledger,
    *,
    regions: Mapping[str, str] | None = None,
    stakes: Mapping[str, float] | None = None,
    seed: int = 0,
) -> tuple[Group, ...]:
    """Groups that vouch for each other beyond chance, the most suspicious first.

    Candidates are the densest parts of the Louvain communities of the graph of vouches beyond expectation in even
    rounds. Each component compares a candidate with its null model:

    - *vouching*: contested votes within the group in odd rounds, against the other judges of the same units;
    - *timing*: mean rank correlation of the members' times over rounds, against random groups of the same size;
    - *stake*: share of all stake, against random groups;
    - *geography*: share of pairs in one region, against random groups.

    A tail probability p, multiplied by the number of candidates, becomes a score ``min(1, -log10(p) / 3)``, and
    ``risk = vouching * (0.4 + 0.3 timing + 0.2 stake + 0.1 geography)``: to be alike is no offence by itself.

    Parameters
    ----------
    ledger : Ledger
        A period's votes and times.
    regions : mapping of str to str, optional
        Where members are, as the host knows it.
    stakes : mapping of str to float, optional
        What members have at stake, as the host knows it, >= 0.
    seed : int
        Of Louvain's order and the random groups.

    Raises
    ------
    MissingExtraError
        networkx is not installed.

    References
    ----------
    Blondel et al., "Fast unfolding of communities in large networks", J. Stat. Mech. 2008. Charikar, "Greedy
    approximation algorithms for finding dense components in a graph", APPROX 2000. Hoeffding, "On the distribution of
    the number of successes in independent trials", Ann. Math. Stat. 1956.
    """
    validate.non_negative(**{f"stakes[{name!r}]": value for name, value in (stakes or {}).items()})
    candidates = _candidates(ledger, seed)
    rng = np.random.default_rng(seed)
    found = [_assess(ledger, group, len(candidates), regions, stakes, rng) for group in candidates]
    return tuple(sorted(found, key=lambda group: (-group.risk, group.members)))


def _candidates(ledger: Ledger, seed: int) -> list[NDArray[np.intp]]:
    """Rows of each group that vouches for itself in even rounds."""
    networkx = _networkx()
    beyond = ledger.vouched[0] - ledger.expected[0]
    weights = np.triu(beyond + beyond.T, 1)
    graph = networkx.Graph()
    graph.add_nodes_from(range(len(weights)))
    linked = np.argwhere(weights > _EDGE).tolist()
    graph.add_weighted_edges_from((one, other, float(weights[one, other])) for one, other in linked)
    if not linked:
        return []
    communities = networkx.community.louvain_communities(graph, seed=seed, resolution=_RESOLUTION)
    densest = [_densest(sorted(community), beyond) for community in communities]
    return [np.array(group) for group in sorted(densest) if group]


def _densest(community: list[int], beyond: NDArray[np.float64]) -> list[int]:
    """The part with the most vouching beyond expectation per member, of those that greedy peeling passes through."""
    best, most = list[int](), 0.0
    while len(community) >= SMALLEST:
        within = beyond[np.ix_(community, community)]
        density = float(within.sum()) / len(community)
        if density > most:
            best, most = community, density
        ties = np.minimum(within.sum(axis=0), within.sum(axis=1))  # to vouch and to be vouched for
        weakest = int(ties.argmin())
        community = community[:weakest] + community[weakest + 1 :]
    return best


def _assess(
    ledger: Ledger,
    group: NDArray[np.intp],
    candidates: int,
    regions: Mapping[str, str] | None,
    stakes: Mapping[str, float] | None,
    rng: np.random.Generator,
) -> Group:
    members = [ledger.ids[row] for row in group]
    opinions = {
        "vouching": _vouching(ledger, group),
        "timing": _timing(ledger, group, rng),
        "stake": _stake(ledger.ids, members, stakes, rng),
        "geography": _geography(ledger.ids, members, regions, rng),
    }
    known = {name: opinion for name, opinion in opinions.items() if opinion is not None}
    tails = {name: min(1.0, candidates * opinion[0]) for name, opinion in known.items()}
    scores = {name: min(1.0, max(0.0, -math.log10(max(tail, _TINY)) / _FULL)) for name, tail in tails.items()}
    beside = sum(weight * scores.get(name, 0.0) for name, weight in WEIGHTS.items() if name != "vouching")
    risk = scores.get("vouching", 0.0) * (WEIGHTS["vouching"] + beside)
    return Group(tuple(members), risk, tails, "; ".join(words for _, words in known.values()))


_Opinion = tuple[float, str] | None  # tail probability and words


def _vouching(ledger: Ledger, group: NDArray[np.intp]) -> _Opinion:
    within = np.ix_(group, group)
    of, count, expected = (
        float(table[1][within].sum()) for table in (ledger.contested, ledger.vouched, ledger.expected)
    )
    if of == 0:
        return None
    words = (
        f"vouched for {100 * count / of:.0f} % of {of:.0f} units of each other that most judges rejected, where other "
        f"judges did for {100 * expected / of:.0f} %"
    )
    return _binomial_tail(round(count), round(of), expected / of + _VOUCHING_MARGIN), words


def _timing(ledger: Ledger, group: NDArray[np.intp], rng: np.random.Generator) -> _Opinion:
    ranks, present = _ranks(ledger.times), (~np.isnan(ledger.times)).astype(float)
    products, common = ranks.T @ ranks, present.T @ present
    if _pairs(common, group[None])[0] < _COMMON_ROUNDS * len(group) * (len(group) - 1):
        return None
    drawn = _random_groups(len(ledger.ids), len(group), rng)
    null = _pairs(products, drawn) / np.maximum(_pairs(common, drawn), 1.0)
    seen = float((_pairs(products, group[None]) / _pairs(common, group[None]))[0])
    words = f"times correlate by {seen:.2f} (95 % of random groups stay under {np.quantile(null, 0.95):.2f})"
    return _tail(null, seen - _TIMING_MARGIN), words


def _stake(
    ids: Sequence[str], members: Sequence[str], stakes: Mapping[str, float] | None, rng: np.random.Generator
) -> _Opinion:
    names, rows = _known(ids, members, stakes)
    if stakes is None or rows is None:
        return None
    shares = np.array([stakes[name] for name in names]) / (math.fsum(stakes[name] for name in names) or 1.0)
    null = shares[_random_groups(len(names), len(rows), rng)].sum(axis=1)
    seen = float(shares[rows].sum())
    words = f"hold {100 * seen:.0f} % of the stake (95 % of random groups: under {100 * np.quantile(null, 0.95):.0f} %)"
    return _tail(null, seen), words


def _geography(
    ids: Sequence[str], members: Sequence[str], regions: Mapping[str, str] | None, rng: np.random.Generator
) -> _Opinion:
    names, rows = _known(ids, members, regions)
    if regions is None or rows is None:
        return None
    _, region = np.unique([regions[name] for name in names], return_inverse=True)
    same = (region[:, None] == region).astype(float)
    np.fill_diagonal(same, 0.0)
    pairs = len(rows) * (len(rows) - 1)
    null = _pairs(same, _random_groups(len(names), len(rows), rng)) / pairs
    seen = float(_pairs(same, rows[None])[0] / pairs)
    words = f"{100 * seen:.0f} % of its pairs are in one region (random groups: {100 * null.mean():.0f} %)"
    return _tail(null, seen), words


def _known(
    ids: Sequence[str], members: Sequence[str], facts: Mapping[str, Any] | None
) -> tuple[list[str], NDArray[np.intp] | None]:
    """Names that facts are known of, and the members' rows among them; ``None`` unless all members are."""
    names = [name for name in ids if facts is not None and name in facts]
    where = {name: row for row, name in enumerate(names)}
    if any(name not in where for name in members):
        return names, None
    return names, np.array([where[name] for name in members])


def _random_groups(n: int, size: int, rng: np.random.Generator) -> NDArray[np.intp]:
    """Random groups of ``size`` different rows out of ``n``, (draws, size)."""
    return np.asarray(np.argpartition(rng.random((_DRAWS, n)), size - 1, axis=1)[:, :size])


def _pairs(values: NDArray[np.float64], groups: NDArray[np.intp]) -> NDArray[np.float64]:
    """Sum of ``values`` (n, n) over the ordered pairs of different members of each group (g, size)."""
    chosen = np.zeros((len(groups), len(values)))
    np.put_along_axis(chosen, groups, 1.0, axis=1)
    return np.asarray(((chosen @ values) * chosen).sum(axis=1) - chosen @ np.diag(values))


def _tail(null: NDArray[np.float64], seen: float) -> float:
    """Share of a null sample, the value itself among it, that reaches the value."""
    return float((1 + (null >= seen).sum()) / (1 + len(null)))


def _ranks(times: NDArray[np.float64]) -> NDArray[np.float64]:
    """Standardised ranks of each column (R, n) over its own rounds, 0 where absent: its habits are taken out."""
    ranks = np.zeros(times.shape)
    for column in range(times.shape[1]):
        there = ~np.isnan(times[:, column])
        if there.any():
            _, rank = np.unique(times[there, column], return_inverse=True)
            spread = rank.std()
            ranks[there, column] = (rank - rank.mean()) / spread if spread > 0 else 0.0
    return ranks


def _binomial_tail(count: int, of: int, chance: float) -> float:
    """Probability of at least ``count`` successes in ``of`` trials; 1 where that is no more than expected.

    For trials of unequal chances it is no less than the truth, given their mean (Hoeffding 1956).

    Examples
    --------
    >>> round(_binomial_tail(3, 3, 0.5), 9), _binomial_tail(1, 3, 0.5)
    (0.125, 1.0)
    """
    if chance >= 1.0 or count <= of * chance:
        return 1.0
    logarithm = math.lgamma(of + 1) - math.lgamma(count + 1) - math.lgamma(of - count + 1)
    term = math.exp(logarithm + count * math.log(chance) + (of - count) * math.log1p(-chance))
    total, odds = 0.0, chance / (1.0 - chance)
    for number in range(count, of + 1):
        total += term
        term *= odds * (of - number) / (number + 1)
    return min(total, 1.0)


def _networkx() -> Any:
    try:
        import networkx
    except ImportError as error:
        raise MissingExtraError("networkx", extra="sim") from error
    return networkx
