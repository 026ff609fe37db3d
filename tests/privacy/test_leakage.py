"""What is said to leak: exact laws and epsilons against brute force, and an attack that never claims too much."""

import itertools
import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matl.errors import InvalidValueError
from matl.privacy.certificate import Instance
from matl.privacy.leakage import coordinate_laws, exact_epsilon, frequencies, lower_bound


def instance(table=(1, 3, 8, 3, 1), bits=2, survivors=2, squared_norm=Fraction(1, 2), transmissions=1, delta="1/50"):
    resolution = sum(table).bit_length() - 1
    return Instance(
        bits, table, resolution, survivors, Fraction(1), squared_norm, transmissions, Fraction(delta), ((1, 4),), 1
    )


def every_sum(constants, x):
    """Probabilities of all values of one coordinate's sum, from all values of the shares and of the rounding bit."""
    reach, modulus = len(constants.table) // 2, 1 << constants.bits
    shape = [0.0] * modulus
    for values in itertools.product(range(-reach, reach + 1), repeat=constants.survivors):
        noise = math.prod(constants.table[value + reach] for value in values) / 2 ** (
            constants.resolution * constants.survivors
        )
        shape[sum(values) % modulus] += (1 - abs(x)) * noise
        shape[(sum(values) + (x > 0) - (x < 0)) % modulus] += abs(x) * noise
    return shape


@pytest.mark.parametrize("x", [0.0, 0.3, -0.7, 1.0])
def test_laws_are_those_of_all_cases(x):
    constants = instance()
    assert coordinate_laws(constants, [x], 2)[0] == pytest.approx(every_sum(constants, x), abs=1e-15)


def slow_epsilon(constants, coordinates):
    """By bisection, over all vectors of sums."""
    x = math.sqrt(constants.squared_norm / coordinates)
    k, delta = coordinates * constants.transmissions, float(constants.delta)
    laws = [every_sum(constants, 0.0), every_sum(constants, x)]
    without, given_x = ([math.prod(values) for values in itertools.product(shape, repeat=k)] for shape in laws)

    def direction(p, q):
        low, high = 0.0, 50.0
        for _ in range(60):
            middle = (low + high) / 2
            beyond = sum(max(0.0, a - math.exp(middle) * b) for a, b in zip(p, q, strict=True))
            low, high = (middle, high) if beyond > delta else (low, middle)
        return high

    return max(direction(given_x, without), direction(without, given_x))


def test_the_exact_epsilon_is_that_of_the_worse_direction():
    back = instance((7, 2, 7), delta="1/5")  # zeros are told from the vector, 0.50, and not the reverse, 0.35
    low, high = exact_epsilon(back, coordinates=2)
    assert low <= slow_epsilon(back, 2) <= high
    assert low > 0.45


@pytest.mark.parametrize("coordinates", [1, 3])
@pytest.mark.parametrize("transmissions", [1, 2])
@pytest.mark.parametrize("delta", ["1/50", "1/2000"])
def test_the_exact_epsilon_is_that_of_all_cases(coordinates, transmissions, delta):
    constants = instance(transmissions=transmissions, delta=delta)
    low, high = exact_epsilon(constants, coordinates)
    assert low - 1e-9 <= slow_epsilon(constants, coordinates) <= high + 1e-9
    assert high - low <= 0.012  # of the tolerance and two steps


def test_what_needs_too_fine_a_grid_or_too_small_a_delta_is_refused():
    with pytest.raises(InvalidValueError, match="at most 16777216 privacy losses"):
        exact_epsilon(instance(transmissions=1000), coordinates=100)
    with pytest.raises(InvalidValueError, match=r"delta >= 1e-09 .* got 1e-10"):
        exact_epsilon(instance(delta="1/10000000000"))


@given(st.integers(0, 2**32), st.sampled_from([0.02, 0.2, 0.5]), st.sampled_from([0.0, 0.3, 2.0]))
@settings(max_examples=30, deadline=None)
def test_an_attack_never_shows_more_than_there_is(seed, p, epsilon):
    """A false alarm has probability 1e-9 here, and 3e-8 in all examples."""
    rng = np.random.default_rng(seed)
    q = p * math.exp(-epsilon)
    absent, present = (rng.random((2000, 1)) < chance for chance in (q, p))
    other = math.log((1 - q) / (1 - p))  # of the event that the bit is 0, without the data
    shown = lower_bound(absent.astype(np.uint8), present.astype(np.uint8), 2, 0.0, 1e-9)
    assert 0 <= shown <= max(epsilon, other) + 1e-9


@pytest.mark.parametrize("turned", [False, True])
def test_an_attack_shows_what_is_plain_in_either_direction(turned):
    rng = np.random.default_rng(0)
    words = [(rng.random((20_000, 3)) < chance).astype(np.uint8) for chance in (0.01, 0.6)]
    absent, present = reversed(words) if turned else words
    assert lower_bound(absent, present, 2, 1e-3, 1e-6) > 5


def test_an_attack_on_the_same_data_shows_nothing():
    rng = np.random.default_rng(0)
    absent, present = rng.integers(0, 16, (2, 20_000, 4)).astype(np.uint8)
    assert lower_bound(absent, present, 16, 1e-3, 1e-6) == 0


def test_a_delta_beyond_every_event_leaves_nothing_to_show():
    ones = np.ones((100, 1), np.uint8)
    assert lower_bound(0 * ones, ones, 2, 0.99, 1e-6) == 0


def test_frequencies_are_counted_sample_by_sample():
    samples = np.random.default_rng(0).integers(0, 5, (3, 200_000)).astype(np.uint8)
    assert frequencies(samples, 6).tolist() == [[int((row == value).sum()) for value in range(6)] for row in samples]
