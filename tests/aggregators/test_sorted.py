"""The sorting network, as it stands and as the kernels run it."""

import itertools

import numpy as np
import pytest

from matl.aggregators import _kernels
from matl.aggregators._sorted import TILE, block_width, sorting_network


def pairs(n):
    """The network's comparators in order."""
    layers = {0: [(1, 2)], 1: [(1, 3), (2, 4), (1, 2), (3, 4)], 2: [(1, 4), (2, 3), (1, 2), (3, 4)]}
    return [(int(step[a]), int(step[b])) for step in sorting_network(n) for a, b in layers[int(step[0])]]


@pytest.mark.parametrize("n", range(1, 17))
def test_it_sorts_all_zeros_and_ones_and_therefore_everything(n):
    """Knuth's zero-one principle: a network that sorts every sequence of zeros and ones sorts every sequence."""
    values = np.array(list(itertools.product([0, 1], repeat=n))).T
    for a, b in pairs(n):
        assert a < b < n
        values[a], values[b] = np.minimum(values[a], values[b]), np.maximum(values[a], values[b])
    assert (np.diff(values, axis=0) >= 0).all()


@pytest.mark.parametrize(
    ("n", "compiled"),
    [(n, True) for n in (1, 2, 3, 20, 31, 32, 33, 64, 65, 100, 127, 128, 129, 255, 500, 1000)]
    + [(n, False) for n in (1, 2, 3, 20, 33)],
)
def test_kernels_sort_as_numpy_does(n, compiled):
    rng = np.random.default_rng(n)
    tile = TILE if compiled else 8
    X = (rng.normal(size=(n, 2 * tile)) * 10.0 ** rng.integers(-30, 30, size=(n, 1))).astype(np.float32)
    keys = np.zeros((n, 2 * tile), np.int32)
    plain = [_kernels.load_keys, _kernels.sort_columns, _kernels.restore_floats]
    load, sort, restore = plain if compiled else [kernel.py_func for kernel in plain]
    load(X.view(np.int32), 0, 2 * tile, keys)
    sort(keys, 2 * tile, tile, sorting_network(n))
    restore(keys, 0, n, 2 * tile)
    np.testing.assert_array_equal(keys.view(np.float32), np.sort(X, axis=0))


def test_the_buffer_is_bounded_and_made_of_whole_tiles():
    for n in (1, 20, 100, 1000, 5000, 100_000):
        width = block_width(n)
        assert width % TILE == 0
        assert width // TILE % 2 == 1
        assert width == TILE or 4 * n * width <= 8 * 2**20
