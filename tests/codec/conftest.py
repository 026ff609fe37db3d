"""Public randomness and the Hadamard matrix once more, in plain Python, as another language would write them."""

from types import SimpleNamespace

import numpy as np
import pytest

MASK = (1 << 64) - 1


def splitmix(state):
    while True:
        state = (state + 0x9E3779B97F4A7C15) & MASK
        z = state
        z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) & MASK
        z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) & MASK
        yield z ^ (z >> 31)


def word(state, k):
    """Word k of the generator."""
    return next(splitmix((state + k * 0x9E3779B97F4A7C15) & MASK))


def draw(seed, b, width, kept):
    """Signs (+1, -1) and rows of block b."""
    words = splitmix(word(seed, b))
    bits = [next(words) for _ in range(-(-width // 64))]
    signs = np.array([-1.0 if bits[j // 64] >> (j % 64) & 1 else 1.0 for j in range(width)])
    order = list(range(width))
    if kept < width:
        half = 0
        for j in range(kept):
            half = next(words) if j % 2 == 0 else half >> 32
            k = j + ((half & 0xFFFFFFFF) * (width - j) >> 32)
            order[j], order[k] = order[k], order[j]
    return signs, order[:kept]


def matrix(width):
    """The Hadamard matrix, orthonormal, in natural order."""
    return np.array([[(-1) ** (r & j).bit_count() for j in range(width)] for r in range(width)]) / np.sqrt(width)


@pytest.fixture(scope="session")
def reference():
    return SimpleNamespace(splitmix=splitmix, word=word, draw=draw, matrix=matrix)
