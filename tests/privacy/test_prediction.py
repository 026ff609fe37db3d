"""What is predicted is what comes out: of the encoder, of the codec, of the certificate and of the accountant."""

import math
from fractions import Fraction

import numpy as np
import pytest

from matl.codec import rotated
from matl.codec.sketch import BlockLayout
from matl.errors import InvalidValueError
from matl.privacy import certificate
from matl.privacy.accounting import Adjacency, gaussian_curve, sampled_gaussian_curve
from matl.privacy.certificate import Instance
from matl.privacy.encoder import Encoder
from matl.privacy.mechanism import Distributed
from matl.privacy.prediction import (
    Sums,
    coordinate_rates,
    gaussian_multiplier,
    largest_squared_norm,
    predict,
    rounded_gaussian,
    sampled_multiplier,
    wrapped,
)
from matl.privacy.table import skellam_table
from matl.privacy.words import Words

Z = 3.4950  # at whole Rényi orders: epsilon 8, delta 1e-5, 30 rounds
DELTA = Fraction(1, 100_000)


# The table of the design: epsilon 8 over 30 rounds, alignment .6, certified constants (b, mu, B, c)
EIGHT, SIX, WIDE_SIX = (8, 256.0, 137 / 1024, 4.5714), (6, 28.8, 1 / 16, 1.5197), (6, 60.0, 1 / 8, 2.2059)


@pytest.mark.parametrize(
    ("size", "clients", "honest", "constants", "fraction", "slack", "bits", "ratio"),
    [
        (116_970, 100, 100, EIGHT, 0.375, 3, 3.05, 1.030),
        (116_970, 100, 100, EIGHT, 0.375, 0, 3.05, 1.014),
        (116_970, 100, 70, EIGHT, 0.375, 3, 3.05, 1.467),
        (116_970, 1437, 1437, SIX, 0.5, 3, 3.05, 1.820),
        (1_000_000, 1000, 1000, EIGHT, 0.375, 3, 3.00, 1.080),
        (1_000_000, 1000, 700, EIGHT, 0.375, 3, 3.00, 1.512),
        (116_970, 100, 100, WIDE_SIX, 0.125, 3, 0.76, 1.089),
    ],
)
def test_published_settings_cost_what_was_published(size, clients, honest, constants, fraction, slack, bits, ratio):
    b, variance, bound, c = constants
    layout = BlockLayout(size, fraction=fraction)
    tau = slack * math.sqrt((1 - fraction) / (2 * layout.kept))
    costs = predict(Sums(clients, honest, layout, alignment=0.6), b, variance, c * c, bound, Z, tau)
    assert float(costs.total) == pytest.approx(ratio, abs=0.002)
    assert b * layout.kept / size == pytest.approx(bits, abs=0.005)


def updates(clients, size, alignment, kind):
    """Vectors of norm 1 with about this alignment; the heavy-tailed have a kurtosis in the hundreds."""
    rng = np.random.default_rng(0)

    def drawn():
        v = (
            rng.standard_normal(size)
            if kind == "normal"
            else rng.standard_t(2.2, size) * np.exp(rng.standard_normal(size))
        )
        return v / np.linalg.norm(v)

    common, share = drawn(), max(0, (clients * alignment**2 - 1) / (clients - 1))
    X = [math.sqrt(share) * common + math.sqrt(1 - share) * drawn() for _ in range(clients)]
    return np.array([x / np.linalg.norm(x) for x in X], np.float32)


def simulate(sums, b, variance, squared_norm, bound, kind, rounds, slack=0.0):
    """Predicted and simulated error. All randomness has a seed, so that the test cannot fail by chance."""
    n, size, h = sums.clients, sums.layout.size, sums.honest
    table = skellam_table(Fraction(variance) / h).counts
    mechanism = Distributed(
        Encoder(Instance(b, table, 40, h, Fraction(bound), Fraction(squared_norm), 30, DELTA), sums.layout, 1.0, slack)
    )
    X = updates(n, size, sums.alignment, kind)
    total = X.sum(axis=0, dtype=np.float64)
    squares = []
    for seed in range(rounds):
        words = (Words(bytes([seed]) + client.to_bytes(31, "big")) for client in range(n))
        sent = [mechanism.encode(x, seed, words=key) for x, key in zip(X, words, strict=True)]
        members = np.array_split(np.arange(n), sums.groups)
        parts = (mechanism.decode_sum(mechanism.total(sent[i] for i in part), seed) for part in members)
        squares.append(np.square(sum(parts) - total).sum())
    true = Sums(n, h, sums.layout, sums.groups, float(np.linalg.norm(total)) / n)
    found = predict(true, b, variance, squared_norm, bound, Z, slack)
    return float(found.total), np.mean(squares) / (size * Z * Z)


@pytest.mark.parametrize(
    ("clients", "honest", "groups", "size", "fraction", "alignment", "constants", "kind", "rounds"),
    [
        pytest.param(100, 100, 1, 20_000, 0.375, 0.6, (8, 256, 20.9, 137 / 1024), "normal", 8, id="b = 8"),
        pytest.param(100, 70, 1, 20_000, 0.375, 0.6, (8, 256, 20.9, 137 / 1024), "normal", 6, id="70 honest"),
        pytest.param(100, 100, 1, 20_000, 0.375, 1.0, (8, 256, 20.9, 137 / 1024), "heavy", 6, id="heavy tails"),
        pytest.param(200, 200, 1, 20_000, 0.5, 0.6, (6, 28.8, 2.31, 1 / 16), "normal", 6, id="b = 6"),
        pytest.param(60, 40, 1, 20_000, 0.125, 1.0, (8, 600, 52, 1 / 2), "heavy", 16, id="f = 1/8"),
        pytest.param(100, 100, 1, 20_000, 1.0, 0.6, (5, 7.125, 0.546, 1), "heavy", 6, id="b = 5, no sketch"),
        pytest.param(10, 8, 1, 5_000, 0.25, 1.0, (8, 600, 52, 1 / 2), "heavy", 60, id="few clients"),
        pytest.param(60, 9, 5, 20_000, 0.375, 0.8, (8, 256, 20.9, 1), "normal", 8, id="five groups"),
    ],
)
def test_the_encoder_has_the_predicted_error(
    clients, honest, groups, size, fraction, alignment, constants, kind, rounds
):
    sums = Sums(clients, honest, BlockLayout(size, fraction=fraction), groups, alignment)
    b, variance, squared_norm, bound = constants
    predicted, simulated = simulate(sums, b, variance, squared_norm, bound, kind, rounds)
    # A variance from rounds x kept numbers has a standard error of 0.3 to 0.7 %.
    assert simulated == pytest.approx(predicted, rel=0.02)


def test_slack_costs_what_is_predicted():
    sums, spread = Sums(50, 50, BlockLayout(20_000, fraction=0.1)), math.sqrt(0.9 / 4000)
    without, with_slack = (simulate(sums, 8, 256, 20.9, 1, "normal", 6, slack) for slack in (0.0, 3 * spread))
    # Both have the same noise but for its scale, so that their ratio is far more exact than either.
    assert with_slack[1] / without[1] == pytest.approx(with_slack[0] / without[0], rel=0.01)
    assert with_slack[0] > 1.08 * without[0]


@pytest.mark.parametrize(("bits", "noise", "signal"), [(3, 1.2, 0.1), (4, 6.0, 0.25), (5, 20.0, 3.0), (6, 80.0, 10.0)])
def test_sums_that_wrap_cost_what_is_predicted_once_they_are_right_on_average(bits, noise, signal):
    rng, modulus = np.random.default_rng(bits), 1 << bits
    true = rng.normal(0, math.sqrt(signal), 2_000_000)
    shares = rng.poisson(noise / 2, true.size) - rng.poisson(noise / 2, true.size)
    total = np.floor(true + rng.random(true.size)) + shares
    lifted = (total + modulus // 2) % modulus - modulus // 2
    gain = lifted @ true / (true @ true)
    added = np.mean((lifted / gain - true) ** 2) - np.mean((total - true) ** 2)
    assert gain < 1
    predicted = float(wrapped(total.var(), modulus))
    assert 0.6 * predicted < added < 1.1 * predicted  # a standard error of 5 % at most
    assert np.mean((lifted - true) ** 2) < np.mean((total - true) ** 2) + predicted


@pytest.mark.parametrize(
    ("bits", "variance", "bound"), [(8, 256, Fraction(137, 1024)), (4, 6, Fraction(1)), (3, 1, Fraction(1, 4))]
)
def test_rates_are_those_of_the_certificate(bits, variance, bound):
    orders = [Fraction(a) for a in ("3/2", "2", "5", "17", "48")]
    weights = certificate.law(skellam_table(Fraction(variance, 8)).counts, 8, 1 << bits)
    exact = certificate.bounds(weights, bound, orders, cells=8)
    rates = coordinate_rates(bits, [float(variance)], [float(bound)], np.array([float(a) for a in orders]))[0, 0]
    np.testing.assert_allclose(rates, [value / certificate.UNIT for value in exact.values()], rtol=2e-3)


@pytest.mark.parametrize("adjacency", Adjacency)
@pytest.mark.parametrize("epsilon", [0.5, 8.0])
def test_multipliers_are_those_of_the_accountant(epsilon, adjacency):
    plain = gaussian_curve(Fraction(gaussian_multiplier(epsilon, 1e-5, 30, adjacency)))
    z = sampled_multiplier(epsilon, 1e-5, 30, 0.25, adjacency)
    sampled = sampled_gaussian_curve(Fraction(1, 4), Fraction(z).limit_denominator(1 << 20))
    for curve in (plain.times(30), sampled.times(30)):
        spent = curve if adjacency is Adjacency.ZERO_OUT else curve.replaced()
        assert spent.guarantee(DELTA).epsilon == pytest.approx(epsilon, rel=1e-4)


def test_sampling_everybody_is_no_sampling():
    assert sampled_multiplier(8.0, 1e-5, 30, 1.0, Adjacency.ZERO_OUT) == pytest.approx(
        gaussian_multiplier(8.0, 1e-5, 30), rel=0.02
    )  # whole orders only


def test_an_epsilon_that_no_order_shows_is_refused_and_buys_nothing():
    with pytest.raises(InvalidValueError, match=r"orders up to 64 can show at delta=1e-05, got epsilon=0.05"):
        gaussian_multiplier(0.05, 1e-5, 1)
    orders = np.array([2.0, 64.0])
    assert largest_squared_norm(orders / 2, orders, 0.05, 1e-5, 1, Adjacency.ZERO_OUT) == 0


@pytest.mark.parametrize("step", [0.51, 1.0, 4.0])
def test_the_codec_takes_the_predicted_bits_and_makes_the_predicted_error(step):
    x = np.random.default_rng(0).standard_normal(200_000).astype(np.float32)
    data, _ = rotated(step).encode(x, seed=1, rng=np.random.default_rng(2))
    bits, error = rounded_gaussian(step)
    layout = BlockLayout(x.size)
    assert 8 * len(data) / x.size == pytest.approx(layout.padded / x.size * bits, rel=0.02)
    decoded = rotated(step).decode(data, size=x.size)
    assert np.square(decoded - x).sum() / np.square(x).sum() == pytest.approx(error, rel=0.02)


def test_the_alignment_of_groups_lies_between_that_of_all_and_one():
    layout = BlockLayout(1000)
    assert Sums(100, 100, layout, 1, 0.3).group_alignment == 0.3
    assert Sums(100, 5, layout, 20, 1.0).group_alignment == pytest.approx(1)
    assert Sums(100, 5, layout, 20, 0.1).group_alignment == pytest.approx(math.sqrt(1 / 5))  # independent updates
    assert Sums(1, 1, layout, 1, 1.0).group_alignment == 1


def test_groups_have_the_rounding_of_one_sum_and_the_noise_of_many():
    layout = BlockLayout(10**6, fraction=0.375)
    one, four = (predict(Sums(100, 100 // g, layout, g), 8, 256.0, 20.9, 0.5, Z) for g in (1, 4))
    assert four.rounding == pytest.approx(one.rounding)
    assert (four.noise, four.sketch) == (one.noise, one.sketch)
    assert four.noise + four.surplus == pytest.approx(4 * one.noise)
