"""Norm evidence: an update far longer than honest training makes it is an attempt to be heard more than once."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

__all__ = ["log_norms"]

_TINY = 1e-12  # keeps the logarithm of an all-zero update finite


def log_norms(lengths: NDArray[np.float64]) -> NDArray[np.float64]:
    """Logarithm of the norms, shape (n,): the channel compares ratios, so one bar fits early and late rounds.

    It always has an opinion. It is one-sided: a short update does no harm.
    """
    return np.log(lengths + _TINY)
