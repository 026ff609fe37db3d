"""Compiled: coins whose probabilities are ratios of integers, and the discrete Gaussian made of them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from matl.jit import compiled

__all__ = ["below", "exp_of_minus", "fill"]

_FARTHEST = 1 << 10  # standard deviations; see the notes of `discrete_gaussian`
_MOST = 1 << 13  # words left below which no sample is begun

_Words = NDArray[np.uint64]


@compiled
def below(words: _Words, at: Any, n: Any) -> Any:
    """A uniform integer below n, and where the words go on; words that would favour small ones are passed over."""
    biased = (np.uint64(0) - n) % n
    while at < words.shape[0] and words[at] < biased:
        at += 1
    return (words[at] % n if at < words.shape[0] else np.uint64(0)), at + 1


@compiled
def exp_of_minus(words: _Words, at: Any, p: Any, q: Any) -> Any:
    """Whether a coin of probability exp(-p / q), 0 <= p <= q, falls right: Algorithm 1 of Canonne et al."""
    k = np.uint64(1)
    while True:
        first, at = below(words, at, q)
        second, at = below(words, at, k)
        if at > words.shape[0] or not (first < p and second < np.uint64(1)):
            return k % np.uint64(2) == 1, at
        k += np.uint64(1)


@compiled
def fill(words: _Words, sigma: Any, out: NDArray[np.int64], done: Any) -> Any:
    """Samples from ``out[done]`` on, until ``out`` is full or words run short; how many there are then.

    A sample takes about 30 words, and one that takes more than `_MOST` does not occur (2^-1000).
    """
    one, at = np.uint64(1), 0
    double = np.uint64(2) * sigma * sigma
    while done < out.shape[0] and at + _MOST < words.shape[0]:
        # The discrete Laplace law of scale sigma: sigma v + u, u weighed by exp(-u / sigma), v geometric.
        u, at = below(words, at, sigma)
        keep, at = exp_of_minus(words, at, u, sigma)
        if not keep:
            continue
        v = np.uint64(0)
        more, at = exp_of_minus(words, at, one, one)
        while more and v < np.uint64(_FARTHEST):
            v += one
            more, at = exp_of_minus(words, at, one, one)
        if at >= words.shape[0]:
            break
        negative = words[at] & one
        at += 1
        size = u + sigma * v
        if (negative and size == 0) or v >= np.uint64(_FARTHEST):
            continue
        # Accepted with probability exp(-(|y| - sigma)^2 / 2 sigma^2), by whole powers of 1 / e and the rest.
        gap = size - sigma if size > sigma else sigma - size
        left, keep = gap * gap, True
        while keep and left > double:
            keep, at = exp_of_minus(words, at, one, one)
            left -= double
        if keep:
            keep, at = exp_of_minus(words, at, left, double)
        if at > words.shape[0]:
            break
        if keep:
            out[done] = -np.int64(size) if negative else np.int64(size)
            done += 1
    return done
