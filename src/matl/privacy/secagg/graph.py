"""Who masks with whom: a k-regular graph over a round's clients, its Shamir threshold, and random groups of clients.

Up to `COMPLETE` clients everybody masks with everybody. Above, clients stand on a ring in an order that a hash of the
round's transcript decides, and mask with the k/2 nearest on either side (a Harary graph), as in Bell et al. 2020.

What the threshold t has to hold against is a server that lies, and chooses whom it calls dropped after it has seen the
graph. Let c_v be the corrupt neighbours of client v. If t > k/2 + c_v for every honest v, then:

* The server cannot name any set of drop-outs that leaves two separate honest parts. To remove the self-mask of v it
  needs t shares, at least t - c_v > k/2 of them from honest survivors among v's neighbours: some on either side of v.
  From any honest survivor one therefore reaches another one clockwise, all around the ring, and whoever is stepped
  over is a neighbour of both. Honest survivors are connected, so that only the sum over all of them is free of masks.
* Corrupt neighbours alone, c_v < t, recover no secret of an honest client.

A complete graph needs c < t only. `choose_graph` takes the smallest k for which the condition fails with a probability
that is stated, from exact hypergeometric tails in whole numbers.

References: J. Bell et al., "Secure single-server aggregation with (poly)logarithmic overhead", CCS 2020;
K. Bonawitz et al., "Practical secure aggregation for privacy-preserving machine learning", CCS 2017.
"""

from __future__ import annotations

import hashlib
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache

from matl import validate
from matl.errors import InvalidValueError
from matl.privacy.hypergeometric import above, at_most
from matl.records import Unit

__all__ = ["COMPLETE", "MAX_CLIENTS", "Graph", "choose_graph", "draw_groups", "quorum"]

COMPLETE = 100
"""Clients up to which the graph is complete: there, masks cost less than what a sparse graph asks of the plan."""

MAX_CLIENTS = 4096
"""Most clients of one aggregation. Every client checks every other's signature; more are several aggregations."""

FAILURE = 2.0**-40
"""Probability that an honest client gets too many corrupt neighbours (the statistical security of Bell et al. 2020)."""

ATTEMPTS = 2**64
"""Graphs that an adversary can try in a round. The order of the ring is a hash of all keys, the last of which its own
clients send, so that it can draw again as often as it can hash; the bound holds for all its draws together."""

ABANDONED = 2.0**-20
"""Probability that a round whose drop-outs are as planned is lost, because too many were neighbours of one client."""


@dataclass(frozen=True, slots=True)
class Graph:
    """A regular graph over n clients, known to everyone.

    Parameters
    ----------
    n : int
        Clients.
    degree : int
        Neighbours of each client; n - 1 for the complete graph, else even.
    threshold : int
        Shares that recover a secret of a client from its neighbours.
    """

    n: int
    degree: int
    threshold: int

    @property
    def complete(self) -> bool:
        """Whether everybody is everybody's neighbour."""
        return self.degree == self.n - 1

    def neighbours(self, client: int, seed: bytes) -> tuple[int, ...]:
        """Neighbours of one client, in increasing order.

        Parameters
        ----------
        client : int
            In [0, n).
        seed : bytes
            Decides the order of the ring. It must be drawn after the clients are known.
        """
        if self.complete:
            return tuple(other for other in range(self.n) if other != client)
        ring, place = _ring(self.n, seed)
        half = self.degree // 2
        steps = [step for step in range(-half, half + 1) if step]
        return tuple(sorted(ring[(place[client] + step) % self.n] for step in steps))


def quorum(n: int, corrupt: int) -> int:
    """Signatures that no two survivor sets of one round can both have: more than half of n + corrupt.

    Two sets of q > (n + corrupt) / 2 signers share more than ``corrupt`` of them, an honest one among those, and an
    honest client signs one survivor set only.
    """
    return (n + corrupt) // 2 + 1


@lru_cache(maxsize=256)
def choose_graph(
    n: int,
    dropout: int,
    corrupt: int,
    failure: float = FAILURE,
    *,
    attempts: int = ATTEMPTS,
    abandoned: float = ABANDONED,
) -> Graph:
    """The sparsest graph that bisection finds to hold against planned drop-out and corruption.

    Parameters
    ----------
    n : int
        Clients, at most `MAX_CLIENTS`.
    dropout : int
        Clients that may drop out, in all phases together.
    corrupt : int
        Clients that may work for the server. They were corrupted before they saw the graph.
    failure : float
        Probability that some honest client has so many corrupt neighbours that ``threshold`` does not protect it.
    attempts : int
        Draws of the graph among which the adversary may pick; 1 if nobody can draw again.
    abandoned : float
        Probability that a round with ``dropout`` random drop-outs cannot be finished. Nothing is revealed then.

    Returns
    -------
    Graph
        Complete up to `COMPLETE` clients, and where nothing sparser will do.

    Raises
    ------
    InvalidValueError
        More clients may drop out than leave a majority that no lying server can have twice; the message says how many
        may.

    Examples
    --------
    >>> choose_graph(100, dropout=30, corrupt=10)
    Graph(n=100, degree=99, threshold=55)
    >>> choose_graph(1000, dropout=100, corrupt=50)
    Graph(n=1000, degree=180, threshold=138)
    >>> choose_graph(100, dropout=50, corrupt=10)
    Traceback (most recent call last):
        ...
    matl.errors.InvalidValueError: expected dropout <= 44 for n=100 clients with corrupt=10, got dropout=50: 56 ...
    """
    validate.whole(2, n=n)
    validate.whole(0, dropout=dropout, corrupt=corrupt)
    validate.whole(1, attempts=attempts)
    validate.positive(failure=failure, abandoned=abandoned)
    if n > MAX_CLIENTS:
        raise InvalidValueError(
            f"expected n <= {MAX_CLIENTS} clients in one aggregation, got n={n}; draw groups and aggregate each"
        )
    needed = quorum(n, corrupt)
    if corrupt > n - 2 or dropout > n - needed:
        raise InvalidValueError(
            f"expected dropout <= {max(n - needed, 0)} for n={n} clients with corrupt={corrupt}, "
            f"got dropout={dropout}: {needed} clients have to sign the same survivors; plan for fewer drop-outs"
        )
    if n > COMPLETE:
        unsafe, unlucky = Fraction(failure) / (attempts * n), Fraction(abandoned) / n

        def threshold(degree: int) -> int:
            return degree // 2 + at_most(n - 1, corrupt, degree, unsafe) + 1

        def holds(degree: int) -> bool:
            spare = degree - threshold(degree)
            return spare >= 0 and above(n - 1, dropout, degree, spare) <= unlucky

        degrees = range(2, n - 1, 2)
        found = bisect_left(degrees, True, key=holds)  # parity makes it jump a little; what is found does hold
        if found < len(degrees):
            return Graph(n, degrees[found], threshold(degrees[found]))
    return Graph(n, n - 1, needed - 1)


def draw_groups(clients: Iterable[str], size: int, seed: int) -> tuple[Unit, ...]:
    """Random groups of clients, from a public seed that was drawn after they registered.

    Everybody who knows the seed draws the same groups, on any machine and in any version: clients are ordered by
    SHA-256 of seed and id, and cut. A seed known earlier would let clients choose ids, and with them their group.

    Parameters
    ----------
    clients : iterable of str
        Ids, each once; their order does not matter.
    size : int
        Fewest members of a group; groups differ by at most one.
    seed : int
        Non-negative.

    Returns
    -------
    tuple of Unit
        ``group-0``, ``group-1``, ... with their members in order of id.

    Raises
    ------
    InvalidValueError
        An id comes twice, or there are fewer clients than one group has.

    Examples
    --------
    >>> [unit.members for unit in draw_groups(["a", "b", "c", "d", "e"], size=2, seed=1)]
    [('a', 'c', 'e'), ('b', 'd')]
    """
    members = list(clients)
    validate.whole(1, size=size)
    validate.whole(0, seed=seed)
    if len(set(members)) != len(members) or len(members) < size:
        raise InvalidValueError(
            f"expected at least size={size} clients with different ids, got {len(members)} with {len(set(members))} ids"
        )
    key = hashlib.sha256(f"matl groups {seed}".encode()).digest()
    shuffled = sorted(members, key=lambda client: hashlib.sha256(key + client.encode()).digest())
    count = len(members) // size
    return tuple(Unit(f"group-{i}", tuple(sorted(shuffled[i::count]))) for i in range(count))


@lru_cache(maxsize=64)
def _ring(n: int, seed: bytes) -> tuple[list[int], list[int]]:
    """Clients in order of a hash, and the place of each: a random permutation that does not depend on a library."""
    ring = sorted(range(n), key=lambda client: hashlib.sha256(seed + client.to_bytes(4, "big")).digest())
    place = [0] * n
    for position, client in enumerate(ring):
        place[client] = position
    return ring, place
