"""Kernels of rounding, compiled and as plain Python, against NumPy in float64."""

import numpy as np
import pytest

from matl.codec import _rounding

VALUES = np.random.default_rng(0).normal(size=50).astype(np.float32)
CHUNK = 16  # 16, 16, 16 and 2
PARTS = np.split(VALUES.astype(float), [16, 32, 48])
STEPS = np.array([0.25, 0.5, 0.0, 2.0], np.float32)
WIDE = np.repeat(STEPS.astype(float), [16, 16, 16, 2])
ON_GRID = np.divide(VALUES, WIDE, out=np.zeros(50), where=WIDE > 0)


@pytest.fixture(params=["compiled", "plain"])
def kernel(request):
    return lambda name: getattr(_rounding, name) if request.param == "compiled" else getattr(_rounding, name).py_func


def test_largest_and_squares(kernel):
    bits, squares = np.empty(4, np.int32), np.empty(4)
    kernel("largest")(VALUES.view(np.int32), CHUNK, bits)
    np.testing.assert_array_equal(bits.view(np.float32), [np.abs(part).max() for part in PARTS])
    kernel("add_squares")(VALUES, CHUNK, squares)
    np.testing.assert_allclose(squares, [(part**2).sum() for part in PARTS], rtol=1e-14)


def test_largest_of_nan_is_nan_and_of_infinity_infinity(kernel):
    bits = np.empty(2, np.int32)
    kernel("largest")(np.array([1, np.nan, -np.inf, 2], np.float32).view(np.int32), 2, bits)
    np.testing.assert_array_equal(bits.view(np.float32), [np.nan, np.inf])


@pytest.mark.parametrize("limit", [3, 127])
def test_round_to_nearest(kernel, limit):
    words = np.full(50, 99, np.int8)
    kernel("round_to_nearest")(VALUES, STEPS, CHUNK, limit, words)
    np.testing.assert_array_equal(words, np.clip(np.rint(ON_GRID), -limit, limit))


def test_round_up_or_down(kernel, reference):
    words = np.full(50, 99, np.int16)
    with np.errstate(over="ignore"):
        kernel("round_up_or_down")(VALUES, STEPS, CHUNK, 3, np.uint64(7), words)
    chances = np.array([reference.word(7, i) >> 11 for i in range(50)]) / 2**53
    np.testing.assert_array_equal(words, np.where(WIDE > 0, np.clip(np.floor(ON_GRID + chances), -3, 3), 0))


def test_rounding_up_or_down_keeps_the_mean():
    # 0.3 of a step: 100,000 words of deviation .46 have a mean of deviation .00145; 6 of it fail with p < 1e-8.
    values, words = np.full(100_000, 0.3, np.float32), np.empty(100_000, np.int8)
    _rounding.round_up_or_down(values, np.ones(1, np.float32), values.size, 127, np.uint64(3), words)
    assert set(words) == {0, 1}
    assert abs(words.mean() - 0.3) < 6 * 0.00145


def test_times(kernel):
    words, out = np.arange(-25, 25, dtype=np.int16), np.empty(50, np.float32)
    kernel("times")(words, STEPS, CHUNK, out)
    np.testing.assert_array_equal(out, words * WIDE)


def test_tables(kernel):
    table = np.array([-1.5, -0.5, 0.5, 1.5], np.float32)
    words, scales, out = np.empty(50, np.int8), np.empty(4, np.float32), np.empty(50, np.float32)
    rms = np.array([1.0, 0.5, 0.0, 2.0], np.float32)
    values = np.where(np.arange(50) // 16 == 2, 0, VALUES)
    kernel("round_to_table")(values, rms, CHUNK, table, words, scales)
    kernel("from_table")(words, scales, CHUNK, table, out)
    for c in range(4):
        part = slice(16 * c, 16 * c + 16)
        if rms[c] == 0:
            assert not out[part].any()
            continue
        nearest = table[np.abs(values[part, None] / rms[c] - table).argmin(axis=1)].astype(float)
        np.testing.assert_array_equal(table[words[part] + 2], nearest)
        v = values[part].astype(float)
        assert scales[c] == pytest.approx((v @ v) / (v @ nearest), rel=1e-6)
        np.testing.assert_allclose(out[part], scales[c] * nearest, rtol=1e-6)
