"""What random groups hold against: contaminated majorities, missing noise and drop-outs, with exact probabilities.

Groups are drawn uniformly (`matl.privacy.secagg.draw_groups`) after the adversary has chosen its clients. Probabilities
are ratios of whole numbers, and so neither estimated nor rounded.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from math import comb

from matl import validate
from matl.errors import InvalidValueError
from matl.privacy.hypergeometric import above, at_most
from matl.privacy.secagg import quorum

__all__ = ["FAILURE", "Shares", "contaminated_majority", "count_groups", "largest_malicious", "plan_shares"]

FAILURE = Fraction(1, 1000)
"""Accepted probability, in a round, that half of the groups or more are contaminated: once in a thousand rounds."""

_LOST = Fraction(1, 100)
"""Accepted probability that a group loses so many members that its sum is given up, which costs the round its part."""


@dataclass(frozen=True, slots=True)
class Shares:
    """What every unmasked sum is planned to have.

    Parameters
    ----------
    groups : int
        Sums of a round.
    members : int
        Clients of the smallest.
    min_survivors : int
        Fewest clients of a sum; each client checks it.
    corrupt : int
        Dishonest clients in a sum, at most.
    broken : Fraction
        Probability that more of them are in some client's sum, for that client, in one round.
    """

    groups: int
    members: int
    min_survivors: int
    corrupt: int
    broken: Fraction = Fraction(0)

    @property
    def honest(self) -> int:
        """h: noise shares that can be relied on."""
        return self.min_survivors - self.corrupt


def count_groups(clients: int, size: int) -> int:
    """How many groups of at least ``size`` members there are."""
    return max(1, clients // size)


def plan_shares(clients: int, groups: int, dropout: int, dishonest: int, broken: Fraction) -> Shares:
    """How much noise every sum can be relied on to have.

    One sum of all has to bear the worst case. A random group has to bear what is likely: more dishonest members only
    with the probability ``broken``, more drop-outs only once in a hundred rounds.

    Parameters
    ----------
    clients, groups : int
        n, and the sums they are drawn for.
    dropout, dishonest : int
        Clients that may drop out, and clients whose noise is not relied on, of all n.
    broken : Fraction
        Accepted probability, for one client in one round, of more dishonest members than planned.

    Raises
    ------
    InvalidValueError
        Fewer than two honest shares are left, or survivors that a lying server could have twice.

    Examples
    --------
    >>> plan_shares(100, 1, dropout=10, dishonest=5, broken=Fraction(1, 10**8))
    Shares(groups=1, members=100, min_survivors=90, corrupt=5, broken=Fraction(0, 1))
    >>> plan_shares(100, 5, dropout=10, dishonest=5, broken=Fraction(1, 100))
    Shares(groups=5, members=20, min_survivors=15, corrupt=3, broken=Fraction(...))
    """
    members, more = divmod(clients, groups)
    dropout, dishonest = min(dropout, clients), min(dishonest, clients)
    if groups == 1:
        lost, corrupt, chance = dropout, dishonest, Fraction(0)
    else:
        lost = at_most(clients, dropout, members, _LOST)
        others = members - 1 + (more > 0)  # of the client to protect, in the largest group
        corrupt = at_most(clients - 1, min(dishonest, clients - 1), others, broken)
        chance = above(clients - 1, min(dishonest, clients - 1), others, corrupt)
    shares = Shares(groups, members, members - lost, corrupt, chance)
    what = "clients" if groups == 1 else f"members of a group of {members}"
    if shares.honest < 2:
        raise InvalidValueError(
            f"expected at least 2 honest clients in every sum, got {max(shares.honest, 0)}: of {members} {what} "
            f"{lost} may drop out and {corrupt} may be dishonest"
        )
    needed = quorum(members, corrupt)
    if shares.min_survivors < needed:
        raise InvalidValueError(
            f"expected at least {needed} survivors of {members} {what}, {corrupt} of which may be dishonest, so that a "
            f"lying server cannot have two sets of them, got {shares.min_survivors}"
        )
    return shares


@lru_cache(maxsize=1024)
def contaminated_majority(clients: int, size: int, malicious: int) -> Fraction:
    """Probability that half of the random groups or more have a malicious member, so that no rule over them holds.

    Parameters
    ----------
    clients, malicious : int
        n, and how many of them.
    size : int
        Fewest members of a group.

    Returns
    -------
    Fraction
        Exact, by inclusion and exclusion over the sets of groups that are clean, each of which is hypergeometric.

    Examples
    --------
    >>> [float(contaminated_majority(100, 4, malicious)) for malicious in (12, 13, 14)]
    [0.0, 0.049..., 0.181...]
    >>> float(1 - contaminated_majority(100, 2, 45))
    3.2...e-11
    """
    validate.whole(1, clients=clients, size=size)
    validate.whole(0, malicious=malicious)
    count = count_groups(clients, size)
    if count == clients:
        return Fraction(2 * malicious >= clients)
    members, larger = divmod(clients, count)
    enough = count // 2 + 1  # clean groups are a majority
    ways = 0
    for clean in range(enough, count + 1):
        fits = 0
        for of_larger in range(max(0, clean - (count - larger)), min(clean, larger) + 1):
            rest = clients - clean * members - of_larger
            if rest >= malicious:
                fits += comb(count - larger, clean - of_larger) * comb(larger, of_larger) * comb(rest, malicious)
        ways += (-1) ** (clean - enough) * comb(clean - 1, enough - 1) * fits
    return 1 - Fraction(ways, comb(clients, malicious))


@lru_cache(maxsize=256)
def largest_malicious(clients: int, size: int, failure: Fraction = FAILURE) -> int:
    """Most malicious clients that a rule over groups bears, but with this probability in a round.

    Examples
    --------
    >>> [largest_malicious(100, size) for size in (1, 2, 4, 8)]
    [49, 24, 12, 5]
    """
    counts = range(clients + 1)
    return bisect_left(counts, True, key=lambda m: contaminated_majority(clients, size, m) > failure) - 1
