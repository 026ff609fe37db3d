import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from scipy import stats

from matl.codec import QUANTISERS, FixedStep, Float, Hadamard, LloydMax, MaxScaled, RmsScaled
from matl.codec.parts import Quantiser
from matl.codec.quantisers import _CENTROIDS, _Grid
from matl.errors import InvalidValueError

VECTORS = arrays(np.float32, st.integers(1, 100), elements=st.floats(-(2.0**60), 2.0**60, width=32))
GAUSSIAN = np.random.default_rng(0).normal(size=200_000).astype(np.float32)
ALL = [
    Float(),
    MaxScaled(),
    MaxScaled(bits=2, chunk=7),
    MaxScaled(bits=16, stochastic=True),
    RmsScaled(),
    RmsScaled(step=4.0, chunk=10),
    FixedStep(0.5),
    FixedStep(1e-30, bits=16),
    LloydMax(),
    LloydMax(bits=4, chunk=3),
]


def there_and_back(quantiser, values, key=5):
    words, scales = quantiser.quantise(values, key)
    assert scales.dtype == np.float32
    assert scales.size == quantiser.scales(values.size)
    return words, quantiser.restore(words, scales)


@pytest.mark.parametrize("quantiser", ALL, ids=str)
@given(values=VECTORS)
def test_words_fit_their_bits_and_restore_finite_numbers(quantiser, values):
    words, back = there_and_back(quantiser, values)
    assert back.dtype == np.float32
    assert back.shape == words.shape == values.shape
    assert np.isfinite(back).all()
    if quantiser.bits < 32:
        assert words.dtype.itemsize * 8 >= quantiser.bits
        assert np.abs(words.astype(int) + 0.5).max() <= 2 ** (quantiser.bits - 1)
    if quantiser.contracts:
        assert np.linalg.norm(back.astype(float) - values) <= np.linalg.norm(values.astype(float)) * (1 + 1e-6)


@pytest.mark.parametrize("quantiser", ALL, ids=str)
def test_zeros_stay_zeros(quantiser):
    assert not there_and_back(quantiser, np.zeros(20, np.float32))[1].any()


@pytest.mark.parametrize("bits", [2, 3, 4, 5, 6, 7, 8, 16])
@given(values=VECTORS)
def test_max_scaled_is_off_by_half_a_step_at_most(bits, values):
    quantiser = MaxScaled(bits=bits, chunk=10)
    _, back = there_and_back(quantiser, values)
    for start in range(0, values.size, 10):
        part = values[start : start + 10].astype(float)
        step = np.abs(part).max() / (2 ** (bits - 1) - 1)
        # Half a step, and what rounding step and result to float32 adds.
        assert np.abs(back[start : start + 10] - part).max() <= 0.5 * step + 2e-7 * np.abs(part).max() + 1e-40


@pytest.mark.parametrize(
    "quantiser", [MaxScaled(bits=4, stochastic=True, chunk=100), RmsScaled(step=4.0, chunk=100), FixedStep(0.7, bits=5)]
)
def test_stochastic_rounding_is_unbiased(quantiser):
    values = GAUSSIAN[:100]
    runs = np.array([there_and_back(quantiser, values, key)[1] for key in range(3000)])
    step = np.unique(np.abs(np.diff(np.unique(runs))).round(4))[-1] if quantiser.sums else quantiser.steps(values)[0]
    # Every mean has a deviation of at most step / 2 / sqrt(3000); 6.5 of it in any of 100 fails with p < 1e-8.
    assert np.abs(runs.mean(axis=0) - values).max() < 6.5 * step / 2 / np.sqrt(3000)
    assert quantiser.draws
    assert not quantiser.contracts


@pytest.mark.parametrize(("step", "bits", "error"), [(1.0, 2.16, 0.1667), (2.0, 1.42, 0.662), (4.0, 0.92, 2.19)])
def test_what_rms_scaled_costs(step, bits, error):
    words, back = there_and_back(RmsScaled(step=step), GAUSSIAN)
    shares = np.unique(words, return_counts=True)[1] / words.size
    assert -(shares * np.log2(shares)).sum() == pytest.approx(bits, abs=0.01)
    assert np.mean((back - GAUSSIAN) ** 2) == pytest.approx(error, rel=0.03)


@given(st.integers(1, 4096))
def test_rms_scaled_cuts_nothing_off(size):
    values = np.zeros(size, np.float32)
    values[size // 2] = -3.0
    words, back = there_and_back(RmsScaled(step=64 / 127), values)
    assert abs(back[size // 2] + 3) <= RmsScaled(step=64 / 127).steps(values)[0] * (1 + 1e-5)
    assert np.abs(words).max() <= 127


def test_fixed_step_sums_and_cuts_off():
    quantiser = FixedStep(0.5, bits=4)
    assert quantiser.sums
    words, back = there_and_back(quantiser, np.array([1.0, -100.0, 100.0], np.float32))
    assert back.tolist() == [1.0, -3.5, 3.5]
    np.testing.assert_array_equal(
        quantiser.restore(1000 * words.astype(np.int64), np.empty(0, np.float32)), 1000 * back
    )


@pytest.mark.parametrize(("bits", "error"), [(1, 0.571), (2, 0.133), (3, 0.0358), (4, 0.0096)])
def test_lloyd_max_has_the_error_of_its_docstring(bits, error):
    _, back = there_and_back(LloydMax(bits), GAUSSIAN)
    assert np.mean((back - GAUSSIAN) ** 2) == pytest.approx(error, rel=0.03)


@pytest.mark.parametrize("bits", [1, 2, 3, 4])
def test_centroids_are_those_of_the_normal_law(bits):
    centroids = np.array(_CENTROIDS[bits])
    edges = np.array([0, *(centroids[1:] + centroids[:-1]) / 2, np.inf])
    mass, density = np.diff(stats.norm.cdf(edges)), stats.norm.pdf(edges)
    np.testing.assert_allclose(centroids, -np.diff(density) / mass, atol=1e-6)


def test_lloyd_max_is_nearly_unbiased_after_a_rotation():
    x = np.random.default_rng(3).standard_t(3, size=512).astype(np.float32)
    quantiser, total = LloydMax(), np.zeros(512)
    for seed in range(1000):
        values = Hadamard(block=512).forward(x, seed)
        total += Hadamard(block=512).backward(there_and_back(quantiser, values)[1], 512, seed)
    # An error of .571 |x|^2 per run, so .0239 |x| in the mean of 1000, spread over 512 nearly independent numbers: 1.4
    # times that has p < 1e-9.
    assert np.linalg.norm(total / 1000 - x) < 1.4 * 0.0239 * np.linalg.norm(x)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: MaxScaled(bits=1), "bits to be one of 2, 3, 4, 5, 6, 7, 8, 16, got bits=1"),
        (lambda: MaxScaled(bits=8.0), "whole number"),
        (lambda: MaxScaled(chunk=0), "chunk"),
        (lambda: MaxScaled(chunk=1 << 31), "chunk <= 1073741824"),
        (lambda: RmsScaled(step=0.5), r"0.504 <= step <= 1024, got step=0.5"),
        (lambda: RmsScaled(step=float("nan")), "step"),
        (lambda: FixedStep(0.0), "1.18e-38 <= step"),
        (lambda: FixedStep(float("inf")), "step"),
        (lambda: FixedStep(1e300), "step <= 3.4e"),
        (lambda: FixedStep(1.0, bits=9), "bits"),
        (lambda: LloydMax(bits=5), "bits to be one of 1, 2, 3, 4, got bits=5"),
        (lambda: LloydMax(bits=True), "whole number"),
    ],
)
def test_options_that_are_refused(build, message):
    with pytest.raises(InvalidValueError, match=message):
        build()


def test_names():
    assert list(QUANTISERS) == ["fixed", "float", "lloyd_max", "max", "rms"]


def test_an_unfinished_quantiser_says_what_it_lacks():
    lacks = pytest.raises(NotImplementedError, match="does not")
    for use in (
        lambda q: q.bits,
        lambda q: q.scales(1),
        lambda q: q.quantise(None, 0),
        lambda q: q.restore(None, None),
    ):
        with lacks:
            use(Quantiser())
    for use in (lambda q: q.chunk, lambda q: q.steps(None)):
        with lacks:
            use(_Grid())
    assert not Quantiser().contracts
    assert not Quantiser().draws
