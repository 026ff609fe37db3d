"""Three mechanisms behind one interface: sums come out right, sensitivity holds, accounts are those of the theorems."""

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from matl.codec.sketch import BlockLayout
from matl.errors import InvalidValueError, LayoutError
from matl.privacy.accounting import Adjacency
from matl.privacy.certificate import Instance, certify
from matl.privacy.encoder import Encoder
from matl.privacy.mechanism import Central, Distributed, Local
from matl.privacy.table import skellam_table

DELTA = Fraction(1, 100_000)
SIZE, CLIENTS = 3000, 16
INSTANCE = Instance(
    8, skellam_table(4).counts, 40, CLIENTS, Fraction(1, 2), Fraction(4), 30, DELTA, orders=((1, 16),), cells=1
)


def mechanisms():
    return [
        Distributed(Encoder(INSTANCE, BlockLayout(SIZE, fraction=1.0), 1.0)),
        Central(SIZE, 1.0, Fraction(4)),
        Local(SIZE, 1.0, Fraction(4)),
    ]


def noise(mechanism):
    """Standard deviation of the noise of a sum of all clients, in the unit of updates."""
    if isinstance(mechanism, Distributed):
        return math.sqrt(4 * CLIENTS) / mechanism.encoder.scale
    return 4.0 * (math.sqrt(CLIENTS) if isinstance(mechanism, Local) else 1.0)


@pytest.mark.parametrize("mechanism", mechanisms(), ids=lambda mechanism: type(mechanism).__name__)
def test_the_noise_of_a_sum_is_what_the_mechanism_says(mechanism):
    updates = np.random.default_rng(0).normal(size=(CLIENTS, SIZE)).astype(np.float32)
    updates *= 3.0 / np.linalg.norm(updates, axis=1, keepdims=True)  # to be shortened to 1
    decoded = mechanism.decode_sum(mechanism.total(mechanism.encode(u, seed=1) for u in updates), seed=1)
    error = decoded - updates.sum(axis=0) / 3.0
    # The variance of 3,000 numbers has a standard error of 2.6 %; rounding adds 0.4 % at most.
    assert np.mean(error**2) == pytest.approx(noise(mechanism) ** 2, rel=6 * 0.026)
    assert abs(error.mean()) < 6 * noise(mechanism) / math.sqrt(SIZE)


@given(hnp.arrays(np.float32, SIZE // 60, elements=st.floats(width=32)), st.sampled_from([1, 100, 1 << 14]))
@settings(max_examples=60, deadline=None)
def test_the_sensitivity_of_the_grid_holds_for_any_update(update, sigma):
    mechanism = Central(len(update), 0.5, Fraction(1, 2), sigma)
    integers = mechanism.encode(update, seed=0).astype(object)
    assert sum(integers * integers) <= (2 * sigma) ** 2


@pytest.mark.parametrize("scale", [5, 10**6, 2**31 - 1])
def test_what_a_hostile_client_sends_is_cut_down_by_the_server(scale):
    mechanism = Central(SIZE, 1.0, Fraction(4))
    hostile = np.full(SIZE, scale, np.int64)
    assert float((mechanism.total([hostile]).astype(float) ** 2).sum()) <= (mechanism.sigma / 4) ** 2


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("mechanism", mechanisms()[1:2], ids=lambda mechanism: type(mechanism).__name__)
def test_what_is_not_finite_counts_as_zeros(mechanism, bad):
    assert not mechanism.encode(np.full(SIZE, bad, np.float32), seed=0).any()


def test_accounts():
    distributed, central, local = mechanisms()
    certified = certify(INSTANCE)
    assert distributed.account(30, DELTA).epsilon == pytest.approx(float(str(certified.zero_out)), abs=1e-8)
    replaced = distributed.account(30, DELTA, Adjacency.REPLACE_ONE)
    assert replaced.epsilon == pytest.approx(float(str(certified.replace_one)), abs=1e-8)
    assert replaced.adjacency is Adjacency.REPLACE_ONE
    assert central.account(30, DELTA) == local.account(30, DELTA)
    assert central.account(30, DELTA).epsilon < central.account(31, DELTA).epsilon
    sampled = Central(SIZE, 1.0, Fraction(4), rate=Fraction(1, 10))
    assert sampled.account(30, DELTA).epsilon < 0.3 * central.account(30, DELTA).epsilon


@pytest.mark.parametrize(
    ("make", "seen"),
    [
        (lambda: Central(0, 1.0, Fraction(1)), "size=0"),
        (lambda: Central(5, 0.0, Fraction(1)), "clip_norm=0"),
        (lambda: Central(5, 1.0, Fraction(0)), "multiplier=0"),
        (lambda: Local(5, 1.0, Fraction(1), 1 << 21), "sigma=2097152"),
        (lambda: Central(5, 1.0, Fraction(8), 4), "choose another sigma"),
        (lambda: Central(5, 1.0, Fraction(1, 1 << 11)), "choose another sigma"),
    ],
)
def test_refused_constants(make, seen):
    with pytest.raises(InvalidValueError, match=seen):
        make()


@pytest.mark.parametrize("mechanism", mechanisms(), ids=lambda mechanism: type(mechanism).__name__)
def test_updates_of_another_length_are_refused(mechanism):
    with pytest.raises(LayoutError, match="expected an update of shape"):
        mechanism.encode(np.zeros(SIZE + 1, np.float32), seed=0)


def test_integers_of_another_length_are_refused():
    with pytest.raises(LayoutError, match="expected integers of shape"):
        mechanisms()[1].total([np.zeros(3, np.int32)])
