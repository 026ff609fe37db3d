"""Kernels of packing, compiled and as plain Python."""

import numpy as np
import pytest

from matl.codec import _packing


@pytest.fixture(params=["compiled", "plain"])
def kernel(request):
    return lambda name: getattr(_packing, name) if request.param == "compiled" else getattr(_packing, name).py_func


@pytest.mark.parametrize("bits", range(1, 8))
def test_bits(kernel, bits):
    words = np.random.default_rng(bits).integers(-(1 << (bits - 1)), 1 << (bits - 1), size=37).astype(np.int8)
    packed, back = np.empty(-(-37 * bits // 8), np.uint8), np.empty(37, np.int8)
    kernel("pack_bits")(words, bits, packed)
    whole = sum((int(word) & ((1 << bits) - 1)) << (bits * j) for j, word in enumerate(words))
    assert packed.tobytes() == whole.to_bytes(packed.size, "little")
    kernel("unpack_bits")(packed, bits, back)
    np.testing.assert_array_equal(back, words)


def test_count(kernel):
    counts = np.zeros(256, np.int64)
    kernel("count")(np.array([-128, 0, 0, 127], np.int8), counts)
    assert {k: int(counts[k]) for k in np.flatnonzero(counts)} == {0: 1, 128: 2, 255: 1}


def test_ans(kernel):
    words = np.random.default_rng(0).choice(np.array([-1, 0, 2], np.int8), p=[0.1, 0.7, 0.2], size=500)
    shares = np.array([1638, 11470, 0, 3276])
    frequencies, starts = shares.astype(np.uint64), (np.cumsum(shares) - shares).astype(np.uint64)
    states, code = np.full(4, 1 << 16, np.uint64), np.zeros(500, np.uint16)
    at = kernel("ans_encode")(words, -1, frequencies, starts, states, code)
    slots, back, ends = np.repeat(np.arange(4, dtype=np.uint8), shares), np.empty(500, np.int8), states.copy()
    assert kernel("ans_decode")(code[at:], -1, frequencies, starts, slots, ends, back) == 500 - at
    np.testing.assert_array_equal(back, words)
    np.testing.assert_array_equal(ends, 1 << 16)
    # 500 words of 1.157 bits; the last few are in the states.
    assert 16 * (500 - at) < 500 * 1.157 * 1.05
    assert kernel("ans_decode")(code[at + 1 :], -1, frequencies, starts, slots, states.copy(), back) == -1
