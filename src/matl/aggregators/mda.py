"""Minimum-diameter averaging: the mean of the n - f updates that lie closest together, found without enumerating."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from matl.aggregators._rows import Float64
from matl.aggregators.base import AGGREGATORS, Context, Result, Rows, Rule
from matl.aggregators.krum import krum_scores
from matl.errors import BoundError

__all__ = ["MinimumDiameterAveraging"]

_NODES = 20_000  # of all search trees together: seconds; a thousand random rows with f = 450 take 5000
_EQUAL = 1e-5  # squared diameters that differ by a smaller share of themselves count as equal: distances are no better


@AGGREGATORS.register("minimum_diameter_averaging", "mda")
@dataclass(frozen=True, slots=True)
class MinimumDiameterAveraging(Rule):
    """Mean of the n - f updates with the smallest largest distance between two of them.

    Parameters
    ----------
    f : int or None
        Byzantine rows to tolerate; ``None`` takes the bound of the context.

    Notes
    -----
    Exact. A diameter t is possible if f rows can be left out so that no two others are farther apart than t: if the
    graph of the pairs farther apart has a vertex cover of f rows. A search over the sorted distances finds the smallest
    t, and for each a bounded search tree decides. Outliers, and updates without structure, leave it next to nothing to
    branch on, but the problem is NP-hard: beyond 20,000 branchings the rule gives up.

    Often several sets share the smallest diameter (within 1e-5 of its square). Then rows are ranked by their Krum score
    with n - f - 1 neighbours, ties to the smaller index, and the set is taken that keeps the first row that any of them
    keeps, then the next, and so on.

    The result is no farther from the mean of the honest rows than 2 f / (n - f) times their diameter: Farhadkhani et
    al., "Byzantine Machine Learning Made Easy by Resilient Averaging of Momentums", ICML 2022. Weights are ignored.

    References
    ----------
    Rousseeuw, "Multivariate Estimation with High Breakdown Point", Mathematical Statistics and Applications 1985;
    El Mhamdi, Guerraoui and Rouault, "The Hidden Vulnerability of Distributed Learning in Byzantium", ICML 2018.
    """

    f: int | None = None
    condition: ClassVar[str] = "2f < n"
    breakdown: ClassVar[str] = "1/2"
    cost: ClassVar[str] = "n^2 d, and at worst exponential in f"

    def max_f(self, n: int) -> int:
        """See `Rule.max_f`."""
        return (n - 1) // 2

    def combine(self, X: Rows, f: int, context: Context) -> Result:
        """See `Rule.combine`.

        Raises
        ------
        BoundError
            The search takes more than 20,000 branchings.
        """
        n = len(X)
        distances = X.squared_distances
        central = np.argsort(krum_scores(distances, n - f - 1), kind="stable")
        kept, diameter = _closest(distances[np.ix_(central, central)], f)
        weights = np.zeros(n)
        weights[central[kept]] = 1.0 / (n - f)
        return Result(X.combine(weights), weights, {"diameter": diameter})


def _closest(distances: Float64, f: int) -> tuple[list[int], float]:
    """The n - f rows with the smallest diameter, the first such set in lexicographic order, and their diameter."""
    n = len(distances)
    everyone = (1 << n) - 1
    search = _Search()
    values = np.unique(distances)
    low, high = 0, len(values) - 1
    while low < high:
        middle = (low + high) // 2
        if search.cover(_farther(distances, values[middle]), everyone, f) is None:
            low = middle + 1
        else:
            high = middle
    far = _farther(distances, values[low] * (1.0 + _EQUAL))
    # Keep one row after another, unless every set of n - f rows that keeps those before leaves it out.
    kept: list[int] = []
    undecided, out, budget = everyone, search.cover(far, everyone, f) or 0, f
    for i in range(n):
        if len(kept) == n - f:
            break
        row = 1 << i
        if not undecided & row:
            continue
        undecided &= ~row
        lost = far[i] & undecided
        if out & row:
            other = search.cover(far, undecided & ~lost, budget - lost.bit_count())
            if other is None:
                budget -= 1
                continue
            out = other
        kept.append(i)
        undecided &= ~lost
        budget -= lost.bit_count()
    return kept, float(np.sqrt(values[low]))


def _farther(distances: Float64, limit: float) -> list[int]:
    """For every row, those farther from it than ``limit``, as the bits of a number."""
    bits = np.packbits(distances > limit, axis=1, bitorder="little")
    return [int.from_bytes(row.tobytes(), "little") for row in bits]


class _Search:
    """Vertex covers by bounded search trees; counts branchings. Sets of vertices are the bits of a number."""

    def __init__(self) -> None:
        self.nodes = 0

    def cover(self, graph: list[int], vertices: int, size: int) -> int | None:
        """At most ``size`` of the vertices that touch every edge between two of them; ``None`` if there are none.

        Parameters
        ----------
        graph : list of int
            The neighbours of every vertex.
        """
        open_nodes = [(vertices, size, 0)]
        while open_nodes:
            self.nodes += 1
            if self.nodes > _NODES:
                raise BoundError(
                    f"expected to find the rows of smallest diameter within {_NODES} branchings, got no answer for "
                    f"n={len(graph)}; lower f or choose another rule, such as multi_krum or caf"
                )
            left, size, chosen = open_nodes.pop()
            while size >= 0:
                degrees = _degrees(graph, left)
                if not degrees:
                    return chosen
                forced = _forced(graph, left, degrees, size)
                if not forced:
                    break
                left &= ~forced
                chosen |= forced
                size -= forced.bit_count()
            else:
                continue
            ranked = sorted(degrees.values(), reverse=True)
            if 2 * sum(ranked[:size]) < sum(ranked):  # even the largest do not cover all edges
                continue
            pivot = max(degrees, key=degrees.__getitem__)
            around = graph[pivot] & left
            open_nodes.append((left & ~around, size - around.bit_count(), chosen | around))
            open_nodes.append((left & ~(1 << pivot), size - 1, chosen | (1 << pivot)))
        return None


def _degrees(graph: list[int], vertices: int) -> dict[int, int]:
    """Degrees of those vertices that have neighbours among them."""
    degrees = {}
    rest = vertices
    while rest:
        lowest = rest & -rest
        vertex = lowest.bit_length() - 1
        if degree := (graph[vertex] & vertices).bit_count():
            degrees[vertex] = degree
        rest ^= lowest
    return degrees


def _forced(graph: list[int], vertices: int, degrees: dict[int, int], size: int) -> int:
    """Vertices that may be taken without branching: some smallest cover, if it is small enough, holds all of them."""
    forced = 0
    for vertex, degree in degrees.items():
        if degree > size:  # else all its neighbours would have to be in the cover
            forced |= 1 << vertex
    if forced:
        return forced
    for vertex, degree in degrees.items():
        if degree == 1 and not forced & (1 << vertex):  # its neighbour covers all that it covers
            forced |= graph[vertex] & vertices
    if not forced and max(degrees.values()) == 2:  # cycles, of which any vertex will do
        forced = 1 << next(iter(degrees))
    return forced
