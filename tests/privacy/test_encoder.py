"""The encoder keeps the bounds of the theorem whatever it is given, and sums of its words decode to sums of updates."""

import hashlib
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from matl.codec.sketch import BlockLayout
from matl.errors import InvalidValueError, LayoutError
from matl.privacy import _encode
from matl.privacy.certificate import Instance
from matl.privacy.encoder import Encoder, fit
from matl.privacy.words import Words

ONE = 1 << 24
TABLE = tuple(count << 34 for count in (1, 8, 46, 8, 1))  # variance 0.375 a share
GOLDEN_WORDS = [1, 0, 1, 0, 0, 0, 0, 0]
GOLDEN_HASH = "eed3b554f82f0b5ecd2319e4f668effa0cfb28879a935a683d74073771048c4d"
BOUND, SQUARED_NORM = Fraction(137, 1024), Fraction(684691, 32768)


def instance(bits=8, table=TABLE, resolution=40, bound=BOUND, squared_norm=SQUARED_NORM):
    return Instance(bits, table, resolution, 8, bound, squared_norm, 30, Fraction(1, 100000))


def encoder(size, *, fraction=0.375, clip=1.0, slack=0.0, **constants):
    return Encoder(instance(**constants), BlockLayout(size, fraction=fraction), clip, slack)


@pytest.fixture(params=["compiled", "plain"])
def kernel(request):
    return lambda name: getattr(_encode, name) if request.param == "compiled" else getattr(_encode, name).py_func


def kept_within(X, coder):
    values = [int(value) for value in X]
    limit, allowed = coder.instance.bound * ONE, coder.instance.squared_norm * ONE * ONE
    return max(map(abs, values)) <= limit and sum(value * value for value in values) <= allowed


@given(
    hnp.arrays(np.float32, st.integers(1, 300), elements=st.floats(width=32)),
    st.sampled_from([0.2, 1.0]),
    st.floats(1e-6, 1e6),
)
@settings(max_examples=150, deadline=None)
def test_no_update_gets_beyond_the_certified_bounds(update, fraction, clip):
    coder = encoder(len(update), fraction=fraction, clip=clip)
    assert kept_within(coder.fixed_point(update, seed=1), coder)


@pytest.mark.parametrize("spikes", [1, 3, 40])
def test_the_re_clip_holds_where_the_sketch_is_longer_than_the_update(spikes):
    update = np.zeros(5000, np.float32)
    update[:spikes] = 10.0
    seeds = range(40)
    coder = encoder(5000, clip=1.0, bound=Fraction(1), squared_norm=Fraction(9, 2))
    lengths = [float((coder.fixed_point(update, seed).astype(float) ** 2).sum()) for seed in seeds]
    assert all(kept_within(coder.fixed_point(update, seed), coder) for seed in seeds)
    assert sum(length > 0.9999 * 4.5 * ONE**2 for length in lengths) > 5  # it was needed


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_sent_as_zeros(bad):
    update = np.ones(100, np.float32)
    update[7] = bad
    assert not encoder(100).fixed_point(update, seed=0).any()


def test_zeros_are_sent_with_noise_of_their_own():
    coder = encoder(2000)
    assert coder.encode(np.zeros(2000, np.float32), seed=0).any()


@pytest.mark.parametrize("scale", [1e-42, 1e-20, 1e20, 3e38])
def test_any_scale_of_an_update_becomes_the_clipping_norm_or_stays(scale):
    update = np.full(4096, scale, np.float32)
    coder = encoder(4096, fraction=1.0, clip=1.0, bound=Fraction(1))
    length = math.sqrt(float((coder.fixed_point(update, seed=2).astype(float) ** 2).sum())) / ONE
    wanted = math.sqrt(SQUARED_NORM) * min(1.0, 64 * scale)
    assert length == pytest.approx(wanted, rel=2e-3, abs=1e-4)


@pytest.mark.parametrize("size", [1, 2, 63, 4096, 4097, 9000])
@pytest.mark.parametrize("bits", [4, 8, 10])
def test_sums_of_words_decode_to_sums_of_updates(size, bits):
    clients = 4
    coder = encoder(size, fraction=1.0, bits=bits, bound=Fraction(1), squared_norm=Fraction(1, 2))
    updates = np.random.default_rng(size).normal(size=(clients, size)).astype(np.float32)
    updates /= np.linalg.norm(updates, axis=1, keepdims=True)
    rounds = [
        coder.decode_sum(sum((coder.encode(u, seed) for u in updates), np.zeros(coder.layout.kept, coder.dtype)), seed)
        for seed in range(200)
    ]
    assert coder.encode(updates[0], 0).max() < 1 << bits
    # Rounding has a variance of at most 1/4 a client, the noise one of 0.375; five standard errors.
    error = np.linalg.norm(np.mean(rounds, axis=0) - updates.sum(axis=0))
    allowed = math.sqrt(clients * (0.25 + 0.375) / len(rounds) * coder.layout.kept) / coder.scale
    assert error < allowed * (1 + 5 / math.sqrt(size))


def test_an_update_within_the_norm_is_not_shortened_and_a_longer_one_to_the_norm():
    update = np.random.default_rng(0).normal(size=20_000).astype(np.float32)
    update *= 0.5 / np.linalg.norm(update)
    coder = encoder(20_000, fraction=1.0)
    lengths = [np.linalg.norm(coder.fixed_point(factor * update, 0)) / ONE for factor in (np.float32(1), np.float32(8))]
    assert lengths == pytest.approx([math.sqrt(SQUARED_NORM) / 2, math.sqrt(SQUARED_NORM)], rel=1e-4)


def test_slack_leaves_room_for_sketches_that_are_too_long():
    fraction = 0.375
    update = np.random.default_rng(0).normal(size=8192).astype(np.float32)
    slacks = (0.0, 3 * math.sqrt((1 - fraction) / 2 / 3072))
    tight, loose = (encoder(8192, slack=slack, bound=Fraction(1), squared_norm=Fraction(20)) for slack in slacks)
    shrunk = [
        sum(np.linalg.norm(coder.fixed_point(update, seed)) > 0.99999 * ONE * math.sqrt(20) for seed in range(60))
        for coder in (tight, loose)
    ]
    assert shrunk[0] > 15
    assert shrunk[1] <= 2


def test_words_are_reproducible_under_a_key_and_fresh_without():
    coder = encoder(500)
    update = np.linspace(-1, 1, 500, dtype=np.float32)
    same = [coder.encode(update, 9, words=Words(bytes(32))) for _ in range(2)]
    np.testing.assert_array_equal(*same)
    assert (coder.encode(update, 9) != coder.encode(update, 9)).any()


def test_golden_vector():
    update = (np.arange(1000, dtype=np.float32) - 500) / np.float32(1000)
    words = encoder(1000).encode(update, 9, words=Words(bytes(range(32))))
    assert words[:8].tolist() == GOLDEN_WORDS
    assert hashlib.sha256(words.tobytes()).hexdigest() == GOLDEN_HASH


def test_rounding_and_noise_from_a_word_bit_by_bit(kernel):
    """Against the definition: the low 24 bits against |x|, the high 40 against the table's prefix sums."""
    coder = encoder(64)
    rng = np.random.default_rng(3)
    X = rng.integers(-ONE, ONE + 1, size=3000).astype(np.int32)
    drawn = rng.integers(0, 2**64, size=3000, dtype=np.uint64)
    X[:4], drawn[:4] = [ONE, -ONE, 0, 5], [2**64 - 1, 0, 2**64 - 1, 4]  # extreme words and numbers
    starts, thresholds = coder._search
    out = np.empty(3000, np.uint8)
    with np.errstate(over="ignore"):
        kernel("round_and_add_noise")(X, drawn, starts, thresholds, -2, 255, out)
    sums = np.cumsum(TABLE)
    for x, word, found in zip(X.tolist(), drawn.tolist(), out.tolist(), strict=True):
        rounded = int(np.sign(x)) * (word % ONE < abs(x))
        noise = sum(int(total) <= word >> 24 for total in sums) - 2
        assert found == (rounded + noise) % 256


def test_the_other_kernels(kernel):
    rng = np.random.default_rng(4)
    y = np.concatenate([rng.normal(size=50), [0.0, 1e30, -1e30]]).astype(np.float32)
    odd = np.empty(3, np.int32)
    kernel("to_fixed_point")(np.array([np.nan, np.inf, -np.inf], np.float32), float(ONE), np.int64(7), odd)
    assert odd.tolist() == [0, 7, -7]
    X = np.empty(53, np.int32)
    kernel("to_fixed_point")(y, float(ONE), np.int64(ONE // 2), X)
    np.testing.assert_array_equal(X, np.clip(np.trunc(y.astype(float) * ONE), -ONE // 2, ONE // 2))
    sums = np.empty(3, np.int64)
    kernel("squares")(X, 20, sums)
    assert sums.tolist() == [sum(int(v) ** 2 for v in X[i : i + 20]) for i in (0, 20, 40)]
    shrunk = X.copy()
    kernel("shrink")(shrunk, 0.3)
    np.testing.assert_array_equal(shrunk, np.trunc(X * 0.3))
    halves, least_and_most = np.array([0.25, 0.25, -0.25, -0.25], np.float32), np.array([0, 2**64 - 1] * 2, np.uint64)
    on_grid = np.empty(4, np.int32)
    kernel("round_to_grid")(halves, 10.0, least_and_most, on_grid)
    assert on_grid.tolist() == [2, 3, -3, -2]
    total, back = np.array([0, 1, 127, 128, 255], np.uint8), np.empty(5, np.float32)
    kernel("centre")(total, 128, np.float32(0.5), back)
    assert back.tolist() == [0.0, 0.5, 63.5, -64.0, -0.5]


def test_refusals():
    coder = encoder(100)
    with pytest.raises(LayoutError, match=r"shape \(100,\), got \(99,\)"):
        coder.fixed_point(np.zeros(99, np.float32), 0)
    with pytest.raises(LayoutError, match=r"shape \(128,\)|shape \(48,\)"):
        coder.decode_sum(np.zeros(100, np.uint8), 0)
    with pytest.raises(InvalidValueError, match="clip"):
        encoder(100, clip=0.0)
    with pytest.raises(InvalidValueError, match=r"1e-30 <= clip <= 1e\+30, got clip=1e-310"):
        encoder(100, clip=1e-310)
    with pytest.raises(InvalidValueError, match="slack"):
        encoder(100, slack=-1.0)
    coarse = tuple(count >> 20 for count in TABLE)
    with pytest.raises(InvalidValueError, match="40 bits, got 20"):
        encoder(100, table=coarse, resolution=20)


def test_coordinates_beyond_the_bound_are_seen_whatever_the_kernel_wrote(monkeypatch):
    def broken(y, scale, limit, X):
        X[:] = np.iinfo(np.int32).min

    monkeypatch.setattr(_encode, "to_fixed_point", broken)
    assert not encoder(100).fixed_point(np.ones(100, np.float32), seed=0).any()


def test_what_the_shortening_left_too_long_becomes_zeros(monkeypatch):
    monkeypatch.setattr(_encode, "shrink", lambda X, factor: None)
    X = np.full(10, 1000, np.int32)
    fit(X, 100)
    assert not X.any()
