"""Standing: the composite trust of every client, from what it did in this round and in those before it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from matl.params import Float32
from matl.state import State
from matl.trust.composite import Composite
from matl.trust.consistency import faded
from matl.trust.diversity import diversity
from matl.trust.entropy import ROUNDS, behaviour, composition
from matl.trust.oracle import FOLDS
from matl.trust.sequential import WINDOW, moved
from matl.trust.table import ClientTable, column
from matl.trust.view import View

__all__ = ["COMPONENTS", "Standing"]

COMPONENTS = ("tcdm", "entropy", "trust", "trust_low", "trust_high")
"""What is told of each client, in this order; PoGQ, the first component, is the caller's."""

Float64 = NDArray[np.float64]


@dataclass(frozen=True)
class Standing(ClientTable):
    """What the composite score remembers of clients; simulated ones are remembered beside it, by the same rules.

    Parameters
    ----------
    ids : tuple of str
        Clients in sorted order; row i of every array is ``ids[i]``.
    residuals : float32 array of shape (N, 2, k)
        Faded sum of the client's residuals, for rounds on each fold of the root.
    compositions : float64 array of shape (N, T, K + 2)
        What the updates of the last T rounds were made of (`matl.trust.entropy.composition`); NaN where absent.
    arrivals : float64 array of shape (N, W)
        When the client arrived in each of the last W rounds, in seconds after the round opened; NaN where absent.
    """

    residuals: Float32 = column(0.0)
    compositions: Float64 = column(np.nan)
    arrivals: Float64 = column(np.nan)

    @classmethod
    def init(cls, shadows: int, classes: int, width: int) -> State:
        """The state before the first round, for that many shadows, classes and numbers in a sketch."""
        empty = cls(
            (),
            np.empty((0, FOLDS, width), np.float32),
            np.empty((0, ROUNDS, classes + 2)),
            np.empty((0, WINDOW)),
        )
        return {
            "clients": empty.as_state(),
            "shadow_residuals": np.zeros((shadows, FOLDS, width), np.float32),
            "shadow_compositions": np.full((shadows, ROUNDS, classes + 2), np.nan),
        }

    @classmethod
    def after(
        cls,
        state: State,
        ids: Sequence[str],
        fold: int,
        clients: View,
        shadows: View,
        received_at: Float64,
        pogq: Float64,
        weights: Composite,
    ) -> tuple[dict[str, Float64], State]:
        """Score the clients of a round.

        Parameters
        ----------
        state : State
            That after the round before.
        ids : sequence of str
            The n clients of the round.
        fold : int
            Fold of the root that the round was judged by.
        clients, shadows : View
            What was seen of them.
        received_at : float64 array of shape (n,)
            When they arrived, in seconds after the round opened.
        pogq : float64 array of shape (n,)
            Their proof of gradient quality, in [0, 1].
        weights : Composite
            How the components are weighed.

        Returns
        -------
        dict of str to float64 array of shape (n,), State
            `COMPONENTS` by name, calibrated, NaN for no opinion; and the state after the round.

        Notes
        -----
        Cost O((n + M) n k) for n clients, M shadows and sketches of k numbers.
        """
        book = cls.of_state(state["clients"])
        book = replace(book, compositions=moved(book.compositions), arrivals=moved(book.arrivals)).opened(ids)
        rows = book.rows(ids)
        # Sorting the newcomers in copied every column, so these writes reach nobody else's state.
        book.residuals[rows, fold] = faded(book.residuals[rows, fold], clients.residuals)
        book.compositions[rows, -1] = composition(clients.attribution)
        book.arrivals[rows, -1] = received_at
        guests, made_of = state["shadow_residuals"].copy(), moved(state["shadow_compositions"])
        guests[:, fold] = faded(guests[:, fold], shadows.residuals)
        made_of[:, -1] = composition(shadows.attribution)

        company = diversity(book.residuals[rows, fold], guests[:, fold], book.arrivals[rows])
        typical = np.full(len(rows), np.nan) if company is None else company.typical
        behaved = _behaved(book.compositions[rows], made_of)
        trust = weights.score({"pogq": pogq, "tcdm": typical, "entropy": behaved}, shadows=len(guests))
        told = dict(zip(COMPONENTS, (typical, behaved, *trust), strict=True))
        present = np.asarray(~np.isnan(book.arrivals).all(axis=1))
        return told, {
            "clients": book.kept(present).as_state(),
            "shadow_residuals": guests,
            "shadow_compositions": made_of,
        }


def _behaved(clients: Float64, shadows: Float64) -> Float64:
    """Calibrated entropy (n,) of windows of compositions, over the rounds that there have been.

    A simulated client that stood still has no composition and is no yardstick.
    """
    known = ~np.isnan(shadows[:, :, 0]).all(axis=0)
    shadows = shadows[:, known]
    shadows = shadows[~np.isnan(shadows).any(axis=(1, 2))]
    return behaviour(clients[:, known], shadows).typical if len(shadows) else np.full(len(clients), np.nan)
