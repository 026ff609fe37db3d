"""The public sketch: its shape, its golden vectors, and that it is linear, unbiased and spread over every block."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from matl.codec import BlockLayout, HadamardSketch, derive_seed
from matl.errors import InvalidValueError

SIZES = st.integers(1, 300)


def sketch_of(size, seed, *, block=64, fraction=0.375):
    return HadamardSketch.draw(BlockLayout(size, block, fraction), seed)


def normal(size, seed=0):
    return np.random.default_rng(seed).normal(size=size).astype(np.float32)


@pytest.mark.parametrize(
    ("size", "fraction", "widths", "kept"),
    [
        (1, 0.375, [1], [1]),
        (1, 1.0, [1], [1]),
        (3, 0.375, [4], [2]),
        (64, 0.375, [64], [24]),
        (65, 0.375, [64, 1], [24, 1]),
        (127, 0.375, [64, 64], [24, 24]),
        (128, 1.0, [64, 64], [64, 64]),
        (150, 0.01, [64, 64, 32], [1, 1, 1]),
    ],
)
def test_layout(size, fraction, widths, kept):
    layout = BlockLayout(size, 64, fraction)
    blocks = list(layout)
    assert [block.width for block in blocks] == widths
    assert layout.padded == sum(widths)
    assert [block.kept for block in blocks] == kept
    assert layout.kept == sum(kept) == blocks[-1].y.stop
    assert [i for block in blocks for i in range(size)[block.x]] == list(range(size))
    assert [i for block in blocks for i in range(layout.kept)[block.y]] == list(range(layout.kept))
    assert HadamardSketch.draw(layout, 1).signs.size == blocks[-1].signs.stop == len(blocks)


def test_layout_has_no_block_beyond_its_last():
    with pytest.raises(IndexError, match="block 2 of 2"):
        BlockLayout(100, 64)[2]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"size": 0}, "size to be a whole number >= 1, got size=0"),
        ({"block": 100}, "power of two from 64 to 65536, got 100"),
        ({"block": 32}, "power of two from 64 to 65536, got 32"),
        ({"block": 1 << 17}, "power of two"),
        ({"fraction": 0.0}, "fraction > 0"),
        ({"fraction": 1.5}, "fraction <= 1"),
        ({"fraction": float("nan")}, "finite"),
    ],
)
def test_layouts_that_are_refused(options, message):
    with pytest.raises(InvalidValueError, match=message):
        BlockLayout(**({"size": 100} | options))


@pytest.mark.parametrize("seed", [-1, 1 << 64, 1.5])
def test_a_seed_has_64_bits(seed):
    with pytest.raises(InvalidValueError, match="seed"):
        sketch_of(10, seed)


@given(SIZES, st.integers(0, 2**64 - 1), st.sampled_from([0.1, 0.375, 1.0]))
def test_it_is_what_the_specification_says(reference, size, seed, fraction):
    layout, x = BlockLayout(size, 64, fraction), normal(size)
    sketch = HadamardSketch.draw(layout, seed)
    y, back = sketch.forward(x), sketch.backward(sketch.forward(x))
    for b, block in enumerate(layout):
        signs, rows = reference.draw(seed, b, block.width, block.kept)
        np.testing.assert_array_equal(sketch.rows[block.y], rows)
        H = (reference.matrix(block.width)[rows] * signs)[:, : x[block.x].size]
        np.testing.assert_allclose(y[block.y], H @ x[block.x], atol=1e-5)
        np.testing.assert_allclose(back[block.x], block.width / block.kept * H.T @ y[block.y], atol=1e-4)


def test_golden_vector():
    sketch = sketch_of(70, 2024, fraction=0.1)
    assert [hex(word) for word in sketch.signs] == ["0x9073042e1efa35a0", "0x7d8029131a9cf55a"]
    assert sketch.rows.tolist() == [6, 20, 13, 12, 49, 41, 15, 3]
    y = sketch.forward(np.arange(70, dtype=np.float32))
    assert y.tolist() == [36.25, -68.25, 20.75, 5.25, -29.75, 2.75, -69.25, -49.85102844238281]
    assert sketch.backward(y)[[0, 1, 69]].tolist() == [-116.85714721679688, 55.71428680419922, 141.0]


@given(SIZES, st.integers(0, 2**32))
def test_sums_of_sketches_are_sketches_of_sums(size, seed):
    sketch, a, b = sketch_of(size, seed), normal(size, 1), normal(size, 2)
    np.testing.assert_allclose(sketch.forward(a) + 2 * sketch.forward(b), sketch.forward(a + 2 * b), atol=1e-4)


@given(SIZES, st.integers(0, 2**32))
def test_backward_undoes_forward_where_all_rows_are_kept(size, seed):
    sketch, x = sketch_of(size, seed, fraction=1.0), normal(size)
    np.testing.assert_allclose(sketch.backward(sketch.forward(x)), x, atol=1e-5)


def test_it_is_unbiased():
    x = normal(150)
    total = np.zeros(150)
    for seed in range(2000):
        sketch = sketch_of(150, seed)
        total += sketch.backward(sketch.forward(x))
    # The mean of 2000 has an error of mean square (1/f - 1) |x|^2 / 2000 = (.029 |x|)^2; 1.4 times that fails with a
    # probability below 1e-9 for a sum of squares of 150 nearly Gaussian errors.
    assert np.linalg.norm(total / 2000 - x) < 1.4 * 0.029 * np.linalg.norm(x)


@pytest.mark.parametrize("b", range(8))
def test_every_block_keeps_its_share_of_a_vector(b):
    """Rows are of every block: a vector that lives in one block keeps f of its square, whichever block that is."""
    x = np.zeros(8 * 512, np.float32)
    x[512 * b : 512 * (b + 1)] = np.random.default_rng(b).standard_t(2, size=512)
    y = sketch_of(x.size, 5, block=512).forward(x)
    # Var of the kept share is at most 2 f (1 - f) / w = .030^2; 7 deviations either way.
    assert abs(float(y @ y) / float(x @ x) - 0.375) < 0.21


def test_all_rows_are_equally_likely():
    counts = np.zeros(64)
    for seed in range(400):
        for block in np.split(sketch_of(640, seed, fraction=0.5).rows, 10):
            assert np.unique(block).size == 32
            counts[block] += 1
    # 4000 blocks: binomial(4000, 1/2) has a deviation of 31.6; 6.5 of it in any of 64 rows, with probability < 1e-8.
    assert np.abs(counts - 2000).max() < 6.5 * 31.6


def test_blocks_and_seeds_have_their_own_signs():
    words = np.concatenate([sketch_of(640, seed).signs for seed in range(5)])
    assert np.unique(words).size == words.size
    ones = sum(int(word).bit_count() for word in words)
    assert abs(ones - 1600) < 6 * np.sqrt(3200) / 2  # fails with probability < 1e-8


def test_blocks_can_be_shared_out():
    sketch, x = sketch_of(300, 9), normal(300)
    y, back = np.zeros(sketch.layout.kept, np.float32), np.zeros(300, np.float32)
    for first, last in ((3, 5), (0, 3), (2, 2)):
        sketch.forward_blocks(x, y, first, last)
    np.testing.assert_array_equal(y, sketch.forward(x))
    for first, last in ((3, 5), (0, 3)):
        sketch.backward_blocks(y, back, first, last)
    np.testing.assert_array_equal(back, sketch.backward(y))
    with pytest.raises(InvalidValueError, match="<= 5 blocks, got 2 and 6"):
        sketch.forward_blocks(x, y, 2, 6)


def test_views_are_taken_and_other_shapes_are_not():
    sketch, x = sketch_of(100, 1), normal(200)
    frozen = x[::2].copy()
    frozen.flags.writeable = False
    np.testing.assert_array_equal(sketch.forward(x[::2]), sketch.forward(frozen))
    for wrong in (x, x[:100].astype(np.float64)):
        with pytest.raises(InvalidValueError, match=r"float32 array of shape \(100,\), got float"):
            sketch.forward(wrong)


def test_derived_seeds(reference):
    assert derive_seed(5) == 5
    assert derive_seed(5 + (1 << 64), 2) == derive_seed(5, 2) == reference.word(5, 2)
    assert derive_seed(5, 2, 3) == reference.word(reference.word(5, 2), 3)
    assert len({derive_seed(5, round_, client) for round_ in range(20) for client in range(20)}) == 400
