"""FLAME: keep the majority of like directions, clip it to the median norm, and add noise."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
from numpy.typing import NDArray

from matl import validate
from matl.aggregators._cosine import cosine_distances
from matl.aggregators._rows import Float64
from matl.aggregators.base import AGGREGATORS, Context, Result, Rows, Rule

__all__ = ["FLAME"]


@AGGREGATORS.register("flame")
@dataclass(frozen=True, slots=True)
class FLAME(Rule):
    """Mean of the updates in the majority cluster of directions, clipped to the median norm, plus noise.

    Parameters
    ----------
    noise : float
        Standard deviation of the Gaussian noise on every coordinate, in median norms; 0 for none.

    Notes
    -----
    Rows are linked while a bound on their cosine distance grows, and the first cluster of more than half of them is
    kept, along with what the same bound adds to it. That is HDBSCAN as the paper sets it (min_cluster_size n // 2 + 1,
    min_samples 1, allow_single_cluster), and it often leaves out nearly half of the rows, attack or not. Zeros are at
    distance 0 from each other and 1 from all other rows.

    The bound for clipping is the median norm of all rows. The context's seed draws the noise; give every round its own.
    The paper measures cosines between the clients' models, here they are between their updates. Weights of the context
    are ignored.

    With 2f < n the result, but for the noise, is no longer than the longest honest row; nothing else is proven.

    References
    ----------
    Nguyen et al., "FLAME: Taming Backdoors in Federated Learning", USENIX Security 2022.
    """

    noise: float = 0.001
    condition: ClassVar[str] = "2f < n"
    breakdown: ClassVar[str] = "1/2"
    cost: ClassVar[str] = "n^2 d"

    def __post_init__(self) -> None:
        Rule.__post_init__(self)
        validate.non_negative(noise=self.noise)

    def max_f(self, n: int) -> int:
        """See `Rule.max_f`."""
        return (n - 1) // 2

    def combine(self, X: Rows, f: int, context: Context) -> Result:
        """See `Rule.combine`."""
        kept = majority_cluster(cosine_distances(X))
        norms = X.norms()
        limit = float(np.median(norms))
        scale = np.divide(limit, norms, out=np.ones(len(X)), where=norms > limit)
        weights = kept * scale / kept.sum()
        vector = X.combine(weights)
        if self.noise > 0:
            draw = np.random.default_rng(context.seed).standard_normal(len(vector), dtype=np.float32)
            with np.errstate(over="ignore", invalid="ignore"):  # a result that is not finite is refused
                vector += np.float32(self.noise * limit) * draw
        return Result(vector, weights, {"clip_norm": limit, "kept": int(kept.sum())})


def majority_cluster(distances: Float64) -> NDArray[np.bool_]:
    """The first single-linkage cluster of more than half of the points as the linking distance grows, shape (n,)."""
    n = len(distances)
    cluster = np.arange(n)
    limit = np.inf
    for height, a, b in _spanning_tree(distances):
        if height > limit:
            break
        merged = (cluster == cluster[a]) | (cluster == cluster[b])
        cluster[merged] = cluster[a]
        if 2 * merged.sum() > n:
            limit = height
    return np.asarray(cluster == np.bincount(cluster).argmax())


def _spanning_tree(distances: Float64) -> list[tuple[float, int, int]]:
    """Edges (length, a, b) of a minimum spanning tree, shortest first; ties to the smaller indices."""
    n = len(distances)
    gap, link = distances[0].copy(), np.zeros(n, np.int64)
    gap[0] = np.inf
    outside = np.ones(n, bool)
    outside[0] = False
    edges = []
    for _ in range(n - 1):
        new = int(np.argmin(gap))
        edges.append((float(gap[new]), int(link[new]), new))
        outside[new] = False
        closer = outside & (distances[new] < gap)
        gap[closer], link[closer] = distances[new, closer], new
        gap[new] = np.inf
    return sorted(edges)
