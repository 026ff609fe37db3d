"""Every kernel compiled, as plain Python, and against the plain Python of the specification."""

import numba
import numpy as np
import pytest

from matl import jit
from matl.codec import _hadamard

RNG = np.random.default_rng(0)


@pytest.fixture(params=["compiled", "plain"])
def kernel(request, monkeypatch):
    """A kernel by name; as plain Python it calls the others as plain Python too."""
    for name, value in list(vars(_hadamard).items()):
        if request.param == "plain" and hasattr(value, "py_func"):
            monkeypatch.setattr(_hadamard, name, value.py_func)
    return lambda name: getattr(_hadamard, name)


def test_the_generator_is_splitmix64(kernel, reference):
    # The first three words from state 0, as every implementation of SplitMix64 gives them.
    known = [0xE220A8397B1DCDAF, 0x6E789E6AA1B965F4, 0x06C45D188009454F]
    words = reference.splitmix(0)
    with np.errstate(over="ignore"):
        for k, wanted in enumerate(known):
            assert int(kernel("mix64")(np.uint64(k + 1) * _hadamard.GAMMA)) == next(words) == wanted


@pytest.mark.parametrize("width", [1, 2, 4, 8, 16, 64, 128, 512])
def test_transform(kernel, reference, width):
    x = RNG.normal(size=width).astype(np.float32)
    work = x.copy()
    kernel("transform")(work)
    np.testing.assert_allclose(work, reference.matrix(width) @ x * np.sqrt(width), atol=1e-4)


@pytest.mark.parametrize("width", [2, 32, 4096])
def test_transform_has_the_bits_of_one_layer_after_another(width):
    x = RNG.normal(size=width).astype(np.float32)
    work, textbook = x.copy(), x.copy()
    _hadamard.transform(work)
    h = 1
    while h < width:
        pairs = textbook.reshape(-1, 2, h)
        textbook = np.stack([pairs[:, 0] + pairs[:, 1], pairs[:, 0] - pairs[:, 1]], axis=1).ravel()
        h *= 2
    np.testing.assert_array_equal(work, textbook)


@pytest.mark.parametrize(("size", "width", "kept"), [(1, 1, 1), (3, 4, 2), (5, 8, 8), (64, 64, 24), (70, 128, 1)])
def test_one_block_forward_and_backward(kernel, reference, size, width, kept):
    x = RNG.normal(size=size).astype(np.float32)
    words = RNG.integers(2**64, size=-(-width // 64), dtype=np.uint64)
    signs = np.array([-1 if int(words[j // 64]) >> (j % 64) & 1 else 1 for j in range(width)])
    rows = RNG.permutation(width)[:kept].astype(np.uint16)
    scale = np.float32(1 / np.sqrt(width))
    work, y, back = np.full(width, np.nan, np.float32), np.empty(kept, np.float32), np.empty(size, np.float32)

    kernel("forward_block")(x, words, rows, scale, work, y)
    H = reference.matrix(width)[rows] * signs
    np.testing.assert_allclose(y, H[:, :size] @ x, atol=1e-5)

    kernel("backward_block")(y, words, rows, scale, work, back)
    np.testing.assert_allclose(back, (H.T @ y)[:size], atol=1e-5)


@pytest.mark.parametrize("fraction", [0.375, 1.0])
def test_ranges_of_blocks(kernel, reference, fraction):
    size, block, tail, seed = 64 * 2 + 3, 64, 4, 99
    kept, last = int(np.ceil(fraction * block)), int(np.ceil(fraction * tail))
    signs, rows = np.empty(3, np.uint64), np.empty(2 * kept + last, np.uint16)
    x, y, back = RNG.normal(size=size).astype(np.float32), np.zeros(rows.size, np.float32), np.zeros(size, np.float32)
    scales = np.array([1 / 8, 1 / 2], np.float32)
    with np.errstate(over="ignore"):
        kernel("draw_blocks")(np.uint64(seed), block, tail, kept, signs, rows)
    kernel("run_blocks")(x, y, signs, rows, scales, block, tail, kept, 1, 3, False)
    kernel("run_blocks")(back, y, signs, rows, scales, block, tail, kept, 0, 3, True)
    wanted = np.zeros(size)
    for b, (width, m) in enumerate([(64, kept), (64, kept), (4, last)]):
        drawn, chosen = reference.draw(seed, b, width, m)
        np.testing.assert_array_equal(rows[b * kept :][:m], chosen)
        if b > 0:  # block 0 was left out
            H = (reference.matrix(width)[chosen] * drawn)[:, : x[b * block :][:width].size]
            np.testing.assert_allclose(y[b * kept :][:m], H @ x[b * block :][:width], atol=1e-5)
            wanted[b * block :][:width] = H.T @ y[b * kept :][:m]
    assert not y[:kept].any()
    np.testing.assert_allclose(back, wanted, atol=1e-5)


def test_other_compiled_code_can_call_a_block():
    @numba.njit(nogil=True)
    def energy(x, words, rows, work, out):
        _hadamard.forward_block(x, words, rows, np.float32(0.125), work, out)
        return (out * out).sum()

    x, words, rows = np.ones(64, np.float32), np.zeros(1, np.uint64), np.arange(64, dtype=np.uint16)
    assert energy(x, words, rows, np.empty(64, np.float32), np.empty(64, np.float32)) == 64


def test_they_run_where_compiled_code_cannot_be_kept(monkeypatch):
    real = numba.njit

    def nowhere_to_write(**options):
        if options.get("cache"):
            raise RuntimeError("cannot cache function: no locator available")
        return real(**options)

    monkeypatch.setattr(numba, "njit", nowhere_to_write)
    work = np.array([1, 2], np.float32)
    jit.compiled(_hadamard.transform.py_func)(work)
    np.testing.assert_array_equal(work, [3, -1])
