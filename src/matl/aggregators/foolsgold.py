"""FoolsGold: trust clients less the more alike their histories are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from matl.aggregators._cosine import cosine_distances
from matl.aggregators._rows import Float64
from matl.aggregators.base import AGGREGATORS, Context, Result, Rows, Rule
from matl.errors import StateError
from matl.matrix import UpdateMatrix
from matl.params import Float32, ParamLayout
from matl.state import State

__all__ = ["FoolsGold"]


@AGGREGATORS.register("foolsgold")
@dataclass(frozen=True, slots=True)
class FoolsGold(Rule):
    """Mean weighted by how unlike the sum of a client's updates is to those of the other clients.

    Notes
    -----
    Against sybils: clients that push in one direction lose their weight, however many they are, and so do honest ones
    that are as alike. With s_ij the cosine of the histories of i and j, this round included, and m_i the largest s_ij
    or 0: s_ij is multiplied by m_i / m_j where m_i < m_j (the pardon), a_i = 1 - max_j s_ij is cut to [0, 1], divided
    by the largest, cut to 0.99, and weighs log(a_i / (1 - a_i)) + 1/2, cut to [0, 1]. The weights are divided by their
    sum; where all are zero, as for copies of one row, so is the update. (The paper adds the weighted updates up, and
    its authors' code divides by n, so the step depends on how many lost their weight.)

    The whole update is the history, where the authors look at the output layer alone. A single malicious client is
    trusted in full, and norms are not bounded. Weights of the context are ignored.

    State: the names of all clients ever seen and a float32 matrix of as many rows of d numbers. It never forgets one,
    so memory and checkpoints grow with them; a round needs two such matrices for a moment. Clients of the round alone
    are compared. A history beyond float32 is halved, because only its direction counts. Without names, the number of a
    row is its client. Called directly, the rule has no history.

    References
    ----------
    Fung, Yoon and Beschastnikh, "The Limitations of Federated Learning in Sybil Settings", RAID 2020.
    """

    breakdown: ClassVar[str] = "1/n"
    cost: ClassVar[str] = "n^2 d"
    keeps_state: ClassVar[bool] = True

    def init(self, layout: ParamLayout) -> State:
        """No clients."""
        return {"clients": [], "history": np.empty((0, layout.size), np.float32)}

    def step(self, X: Rows, f: int, context: Context, state: State) -> tuple[Result, State]:
        """See `Rule.step`.

        Raises
        ------
        StateError
            The state lacks names or histories, or they do not fit each other or the updates.
        """
        n, d = X.shape
        names = [str(row) for row in range(n)] if context.clients is None else list(context.clients)
        if missing := sorted({"clients", "history"} - state.keys()):
            raise StateError(
                f"expected a state with clients and history, got none of {missing}; start from init(layout)"
            )
        before: dict[str, int] = {name: row for row, name in enumerate(state["clients"])}
        past = np.asarray(state["history"], np.float32)
        if past.shape != (len(before), d):
            raise StateError(
                f"expected a history of shape {(len(before), d)} for {len(before)} clients, got {past.shape}; "
                "the state belongs to another run"
            )
        history = X.dense()
        for row, name in enumerate(names):
            if name in before:
                history[row] = _sum(history[row], past[before[name]])
        weights = _weights(cosine_distances(Rows(UpdateMatrix(history))))
        total = float(weights.sum())
        share = weights / total if total > 0 else weights
        result = Result(X.combine(share), share, {"weight_total": total})
        absent = sorted(before.keys() - set(names), key=before.__getitem__)
        if absent:
            history = np.concatenate([history, past[[before[name] for name in absent]]])
        return result, {"clients": names + absent, "history": history}


def _sum(a: Float32, b: Float32) -> Float32:
    """The sum, or half of it where float32 cannot hold it."""
    with np.errstate(over="ignore"):
        total = a + b
    return total if np.isfinite(total).all() else np.asarray(a / 2 + b / 2, np.float32)


def _weights(distances: Float64) -> Float64:
    """Weight of each client in [0, 1] by the cosine distances of their histories, shape (n,)."""
    similarity = 1.0 - distances
    np.fill_diagonal(similarity, 0.0)
    closest = similarity.max(axis=1)
    pardon = closest[:, None] < closest
    similarity *= np.divide(closest[:, None], closest, out=np.ones_like(similarity), where=pardon)
    unlike = np.clip(1.0 - similarity.max(axis=1), 0.0, 1.0)
    unlike = np.minimum(unlike / max(unlike.max(), np.finfo(np.float64).tiny), 0.99)
    with np.errstate(divide="ignore"):
        return np.asarray(np.clip(np.log(unlike / (1.0 - unlike)) + 0.5, 0.0, 1.0))
