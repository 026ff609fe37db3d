"""Curves: composition, conversion and projection, by algebra, by brute force and against other accountants."""

import json
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matl.errors import InvalidValueError
from matl.privacy import certificate
from matl.privacy.accounting import (
    WHOLE_ORDERS,
    Adjacency,
    RdpCurve,
    certified_curve,
    gaussian_curve,
    releases_left,
    sampled_gaussian_curve,
)
from matl.privacy.certificate import UNIT, Instance
from matl.privacy.table import skellam_table

DELTA = Fraction(1, 100_000)
INSTANCE = Instance(
    3, skellam_table("1/4").counts, 40, 8, Fraction(1, 16), Fraction(1, 4), 4, DELTA, ((2, 4), (1, 12)), 2
)


def test_one_transmission_times_all_is_the_certificate():
    certified, curve = certificate.certify(INSTANCE), certified_curve(INSTANCE)
    for adjacency, figure in (("zero_out", certified.zero_out), ("replace_one", certified.replace_one)):
        total = curve.times(4)
        found = (total if adjacency == "zero_out" else total.replaced()).guarantee(DELTA)
        assert found.adjacency == adjacency
        assert found.order == figure.order
        assert 0 <= found.epsilon - figure.units / UNIT < 1e-12


def test_an_instance_that_proves_nothing():
    silent = Instance(3, (1 << 40,), 40, 8, Fraction(1, 16), Fraction(1, 4), 4, DELTA)
    with pytest.raises(InvalidValueError, match="these constants prove nothing"):
        certified_curve(silent)


@given(st.fractions(min_value=Fraction(1, 4), max_value=50), st.integers(0, 50), st.integers(0, 50))
@settings(max_examples=30)
def test_composition_adds(z, first, second):
    release = gaussian_curve(z, WHOLE_ORDERS)
    assert release.times(first) + release.times(second) == release.times(first + second)


def test_composition_keeps_the_orders_that_are_shared():
    fine, coarse = gaussian_curve(Fraction(2)), sampled_gaussian_curve(Fraction(1, 2), Fraction(2))
    both = fine + coarse
    assert tuple(order for order, _ in both.points) == WHOLE_ORDERS
    assert both.points[0][1] == fine.times(1).points[16 - 1][1] + coarse.points[0][1]
    with pytest.raises(InvalidValueError, match="curves that share an order, got none"):
        gaussian_curve(Fraction(1), [Fraction(3, 2)]) + coarse
    with pytest.raises(InvalidValueError, match="curves of one adjacency, got replace_one and zero_out"):
        fine.replaced() + fine


def test_a_gaussian_replaced_has_twice_the_sensitivity():
    """Lemma 6 loses nothing on a curve that is a line through the origin."""
    for order, value in gaussian_curve(Fraction(5)).replaced().points:
        assert 0 <= value - 4 * order / 50 < Fraction(1, 10**17)


def test_curves_are_replaced_once():
    with pytest.raises(InvalidValueError, match="a curve of zero_out, got one of replace_one"):
        gaussian_curve(Fraction(1)).replaced().replaced()


@pytest.mark.parametrize(
    ("points", "message"),
    [
        ((), "ascending orders > 1, got"),
        (((Fraction(1), Fraction(1)),), "ascending orders > 1, got"),
        (((Fraction(3), Fraction(1)), (Fraction(2), Fraction(1))), "ascending orders > 1"),
        (((Fraction(2), Fraction(1)), (Fraction(2), Fraction(1))), "ascending orders > 1"),
        (((Fraction(2), Fraction(-1)),), "divergences >= 0"),
    ],
)
def test_what_is_no_curve(points, message):
    with pytest.raises(InvalidValueError, match=message):
        RdpCurve(points)


@pytest.mark.parametrize("delta", [Fraction(0), Fraction(1), Fraction(-1), 2])
def test_deltas_that_are_none(delta):
    with pytest.raises(InvalidValueError, match="expected 0 < delta < 1"):
        gaussian_curve(Fraction(1)).guarantee(delta)


def test_a_guarantee_is_rounded_up():
    curve = RdpCurve(((Fraction(2), Fraction(1, 3)),))
    exact = Fraction(certificate.epsilon(Fraction(2), -(-UNIT // 3), DELTA), UNIT)
    found = curve.guarantee(DELTA).epsilon
    assert exact <= Fraction(found) < exact + Fraction(1, 10**14)


def test_curves_survive_json_exactly():
    curve = certified_curve(INSTANCE)
    assert RdpCurve.of_dict(json.loads(json.dumps(curve.as_dict()))) == curve
    assert RdpCurve.of_dict(curve.replaced().as_dict()).adjacency is Adjacency.REPLACE_ONE


@pytest.mark.parametrize(
    "data",
    [{}, {"points": 3, "adjacency": "zero_out"}, {"points": {"x": "1"}, "adjacency": "zero_out"},
     {"points": {"2": "zz"}, "adjacency": "zero_out"}, {"points": {"2": "1"}, "adjacency": "none"},
     {"points": {"1/0": "1"}, "adjacency": "zero_out"}, {"points": {"1/2": "1"}, "adjacency": "zero_out"}],
)  # fmt: skip
def test_json_that_is_no_curve(data):
    with pytest.raises(InvalidValueError):
        RdpCurve.of_dict(data)


# Projection


@given(st.fractions(min_value=1, max_value=30), st.integers(0, 12), st.fractions(min_value=1, max_value=12))
@settings(max_examples=15)
def test_exactly_so_many_releases_are_left(z, done, budget):
    release = gaussian_curve(z, WHOLE_ORDERS)
    left = releases_left(release, budget, DELTA, spent=release.times(done))
    assert left >= 0
    if left:
        assert release.times(done + left).guarantee(DELTA).epsilon <= budget + 1e-12
    assert release.times(done + left + 1).guarantee(DELTA).epsilon > budget


def test_the_releases_of_an_instance_are_those_it_was_made_for():
    curve = certified_curve(INSTANCE)
    epsilon = Fraction(certificate.certify(INSTANCE).zero_out.units, UNIT) + Fraction(1, 10**9)
    assert releases_left(curve, epsilon, DELTA) == 4
    assert releases_left(curve, epsilon, DELTA, spent=curve.times(3)) == 1
    assert releases_left(curve, epsilon, DELTA, spent=curve.times(9)) == 0


def test_a_release_that_costs_nothing_has_no_number():
    free = RdpCurve(((Fraction(2), Fraction(0)),))
    with pytest.raises(InvalidValueError, match="costs something at every order, got 0 at order 2"):
        releases_left(free, Fraction(1), DELTA)


# Theorem C


@pytest.mark.parametrize(("sigma", "shift"), [(0.5, 1), (1.0, 1), (2.0, 3), (3.0, 7)])
def test_the_discrete_gaussian_diverges_no_more_than_the_continuous(sigma, shift):
    t = np.arange(-400, 401)
    noise, moved = -(t**2) / (2 * sigma**2), -((t - shift) ** 2) / (2 * sigma**2)  # logarithms
    total = math.log(np.exp(noise).sum())
    for order, bound in gaussian_curve(Fraction(sigma) / shift).points[::7]:
        for first, second in ((moved, noise), (noise, moved)):
            terms = float(order) * first + (1 - float(order)) * second - total
            divergence = (math.log(np.exp(terms - terms.max()).sum()) + terms.max()) / (float(order) - 1)
            assert divergence <= float(bound) * (1 + 1e-9)


def mixture_moments(q, z, shift, order):
    """``E (mixture / noise)^a`` and ``E (noise / mixture)^a``, each under its denominator, by summing over integers."""
    sigma = z * shift
    t = np.arange(-60 * math.ceil(sigma) - 40 * shift, 60 * math.ceil(sigma) + 40 * shift + 1, dtype=np.longdouble)
    noise = np.exp(-(t**2) / (2 * sigma**2))
    noise /= noise.sum()
    ratio = (1 - q) + q * np.exp((2 * t * shift - shift**2) / (2 * sigma**2))
    return float((noise * ratio**order).sum()), float((noise * ratio ** (1 - order)).sum())


@pytest.mark.parametrize(("q", "z", "shift"), [(0.1, 1.0, 1), (0.1, 2.0, 4), (0.5, 1.5, 2), (0.9, 3.0, 1)])
def test_sampling_by_brute_force_in_both_directions(q, z, shift):
    """The sampled discrete Gaussian, summed over the integers; the reverse direction is the smaller (Lemma 4)."""
    curve = dict(sampled_gaussian_curve(Fraction(q), Fraction(z)).points)
    for order in (2, 3, 5, 8, 12):
        there, back = (math.log(moment) / (order - 1) for moment in mixture_moments(q, z, shift, order))
        assert there == pytest.approx(float(curve[order]), rel=1e-6)
        assert there <= float(curve[order]) * (1 + 1e-12)
        assert back <= there * (1 + 1e-12)


@given(st.floats(1.01, 40), st.floats(0.01, 0.99), st.floats(1e-3, 1e3))
def test_the_reverse_direction_is_the_smaller_one_pointwise(a, q, r):
    """The inequality in the proof of Lemma 4, for a pair of points that the involution swaps."""
    u, mirrored = 1 - q + q * r, 1 - q + q / r
    forward, backward = u**a + r * mirrored**a, u ** (1 - a) + r * mirrored ** (1 - a)
    assert backward <= forward * (1 + 1e-9)


def test_sampling_at_the_ends():
    everyone, nobody = (sampled_gaussian_curve(Fraction(q), Fraction(2)) for q in (1, 0))
    for (order, sampled), (_, plain) in zip(
        everyone.points, gaussian_curve(Fraction(2), WHOLE_ORDERS).points, strict=True
    ):
        assert 0 <= sampled - plain < Fraction(1, 10**15), order
    assert all(value <= Fraction(1, 1 << 63) for _, value in nobody.points)


@pytest.mark.parametrize(
    ("rate", "multiplier", "orders", "message"),
    [
        (Fraction(-1), Fraction(1), WHOLE_ORDERS, r"a sampling rate in \[0, 1\], got -1"),
        (Fraction(2), Fraction(1), WHOLE_ORDERS, r"a sampling rate in \[0, 1\], got 2"),
        (Fraction(1, 2), Fraction(0), WHOLE_ORDERS, "a noise multiplier > 0, got 0"),
        (Fraction(1, 2), Fraction(1), [Fraction(5, 2)], "expected whole orders"),
    ],
)
def test_sampling_that_is_not_analysed(rate, multiplier, orders, message):
    with pytest.raises(InvalidValueError, match=message):
        sampled_gaussian_curve(rate, multiplier, orders)


def test_extreme_noise_is_still_bounded():
    loud = sampled_gaussian_curve(Fraction(1, 1000), Fraction(1, 1000), [Fraction(2), Fraction(64)])
    assert float(loud.points[1][1]) == pytest.approx(64 / 2e-6 + math.log(1e-3) * 64 / 63, rel=1e-6)
    quiet = sampled_gaussian_curve(Fraction(1, 1000), Fraction(10**9), [Fraction(2), Fraction(64)])
    assert 0 < quiet.points[0][1] < Fraction(1, 10**19)


# Other accountants


@pytest.mark.parametrize(("q", "z", "steps"), [(1.0, 3.49, 30), (0.1, 1.0, 300), (0.01, 0.7, 1000)])
def test_opacus_agrees_at_whole_orders(q, z, steps):
    rdp = pytest.importorskip("opacus.accountants.analysis.rdp", reason="opacus is not installed")
    orders = [int(order) for order in WHOLE_ORDERS]
    theirs = rdp.compute_rdp(q=q, noise_multiplier=z, steps=steps, orders=orders)
    ours = sampled_gaussian_curve(Fraction(q), Fraction(z)).times(steps)
    assert [float(value) for _, value in ours.points] == pytest.approx(list(theirs), rel=1e-9)
    epsilon, order = rdp.get_privacy_spent(orders=orders, rdp=theirs, delta=1e-5)
    found = ours.guarantee(DELTA)
    assert (found.epsilon, found.order) == (pytest.approx(epsilon, rel=1e-9), order)


def test_dp_accounting_agrees_at_whole_orders():
    dp = pytest.importorskip("dp_accounting", reason="dp_accounting is not installed")
    for q, z, steps in ((1.0, 3.49, 30), (0.1, 1.0, 300), (0.01, 0.7, 1000)):
        accountant = dp.rdp.RdpAccountant([int(order) for order in WHOLE_ORDERS])
        accountant.compose(dp.PoissonSampledDpEvent(q, dp.GaussianDpEvent(z)), steps)
        found = sampled_gaussian_curve(Fraction(q), Fraction(z)).times(steps).guarantee(DELTA)
        assert found.epsilon == pytest.approx(accountant.get_epsilon(1e-5), rel=1e-6)
