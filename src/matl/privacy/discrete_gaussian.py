"""Samples of the discrete Gaussian: integers all the way, so that no floating point leaks through the noise."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from matl import validate
from matl.errors import InvalidValueError
from matl.privacy.words import Words

__all__ = ["MAX_SIGMA", "discrete_gaussian"]

MAX_SIGMA = 1 << 20
"""Squares of proposals then fit 64 bits."""

_AT_ONCE = 1 << 16  # words drawn at a time


def discrete_gaussian(size: int, sigma: int, words: Words | None = None) -> NDArray[np.int64]:
    """Independent samples of the law on the integers with P(y) proportional to exp(-y^2 / 2 sigma^2).

    Parameters
    ----------
    size : int
        How many.
    sigma : int
        1 to `MAX_SIGMA`; the standard deviation is no larger, and from 1 on the same to seven digits.
    words : Words, optional
        Randomness; by default the operating system's.

    Returns
    -------
    int64 array of shape (size,)
        The samples.

    Raises
    ------
    InvalidValueError
        A number is out of range.

    Notes
    -----
    Rejection from the discrete Laplace law, decided by coins whose probabilities are ratios of integers: Algorithms 1
    to 3 of Canonne, Kamath and Steinke, "The Discrete Gaussian for Differential Privacy", NeurIPS 2020, with a Laplace
    scale of sigma. A proposal beyond 1024 sigma, which would be accepted with a probability below exp(-500000), is
    refused outright: the law is exact but for that, which adds less than exp(-500000) for each number to delta.
    About 30 words a sample, whose number depends on what is drawn: the time it takes is not constant.

    Examples
    --------
    >>> discrete_gaussian(6, 3, Words(bytes(32)))
    array([-2, -9,  3, -2, -2, -1])
    """
    from matl.privacy._coins import fill

    validate.whole(0, size=size)
    validate.whole(1, sigma=sigma)
    if sigma > MAX_SIGMA:
        raise InvalidValueError(f"expected sigma <= {MAX_SIGMA}, got sigma={sigma}; use a coarser grid")
    stream = Words() if words is None else words
    out, done = np.empty(size, np.int64), 0
    while done < size:
        done = int(fill(stream.take(_AT_ONCE), np.uint64(sigma), out, done))
    return out
