"""Consistency evidence: a client's data change slowly, so its update points where its earlier ones did.

A sleeper that trained honestly for twenty rounds and then turns is judged best against itself: its own past is a far
sharper yardstick than its peers.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from matl.params import Float32

__all__ = ["MEMORY", "faded", "turn", "turn_evidence"]

MEMORY = 0.7
"""Factor by which a past direction fades with each round it is added to. Chosen on development seeds 0-4."""

_TINY = 1e-12
_LEAST_BAR = 0.8  # a fall of the cosine that no honest client showed, however alike the shadows' rounds are
_UPPER = 0.95


def faded(past: Float32, now: Float32) -> Float32:
    """The past of clients, with this round in it: sketches of the same shape."""
    return (MEMORY * past + (1.0 - MEMORY) * now).astype(np.float32)


def turn(now: Float32, past: Float32) -> NDArray[np.float64]:
    """One minus the cosine between sketches of this update and of the client's own past, each of shape (n, k).

    0 means the same direction, 1 a right angle, 2 the opposite.
    """
    scale = np.linalg.norm(now, axis=1) * np.linalg.norm(past, axis=1) + _TINY
    return np.asarray(1.0 - np.einsum("ij,ij->i", now, past).astype(np.float64) / scale)


def turn_evidence(turned: NDArray[np.float64], shadows: NDArray[np.float64], bar: float) -> NDArray[np.float64]:
    """Turns of clients (n,) in units of their bar: 1 is where honest behaviour ends.

    The bar is ``bar`` spreads (95 % quantile minus median) above the shadows' median turn, and a fall of the cosine by
    at least 0.8. The caller leaves out clients with fewer than two earlier updates: they have no past to turn from.
    """
    middle = float(np.median(shadows))
    spread = float(np.quantile(shadows, _UPPER)) - middle
    return np.asarray((turned - middle) / max(bar * spread, _LEAST_BAR))
