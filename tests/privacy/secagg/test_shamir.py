"""Shamir's sharing: any threshold of shares, nothing from fewer, and a field that is one."""

import secrets
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chi2

from matl.errors import InvalidValueError
from matl.privacy.secagg import shamir
from matl.privacy.secagg.shamir import PRIME, combine, split


def probably_prime(n, bases=64):
    """Miller-Rabin: a composite passes with probability below 4^-64."""
    odd, twos = n - 1, 0
    while odd % 2 == 0:
        odd, twos = odd // 2, twos + 1
    for _ in range(bases):
        x = pow(secrets.randbelow(n - 3) + 2, odd, n)
        if x not in (1, n - 1) and all((x := x * x % n) != n - 1 for _ in range(twos - 1)):
            return False
    return True


def test_the_field_is_that_of_the_largest_prime_of_256_bits():
    assert PRIME.bit_length() == 256
    assert probably_prime(PRIME)
    assert not any(probably_prime(PRIME + step, bases=2) for step in range(1, 2**256 - PRIME))


@given(secret=st.integers(0, PRIME - 1), holders=st.integers(1, 12), data=st.data())
@settings(max_examples=50, deadline=None)
def test_any_threshold_of_shares_gives_the_secret(secret, holders, data):
    threshold = data.draw(st.integers(1, holders))
    shares = split(secret, holders, threshold)
    held = data.draw(st.permutations(range(holders)))[: data.draw(st.integers(threshold, holders))]
    assert combine({holder: shares[holder] for holder in held}) == secret


def test_every_subset_of_the_threshold_and_no_smaller_one():
    shares = split(7, 6, 4)
    for held in combinations(range(6), 4):
        assert combine({holder: shares[holder] for holder in held}) == 7
    for held in combinations(range(6), 3):  # right by chance with probability 20 / 2^256
        assert combine({holder: shares[holder] for holder in held}) != 7


def test_fewer_shares_than_the_threshold_are_uniform_whatever_the_secret():
    for secret in (0, PRIME - 1):
        shares = [split(secret, 5, 3) for _ in range(4000)]
        for holder in (0, 1, 4):
            counts = np.bincount([row[holder] >> 252 for row in shares], minlength=16)
            together = np.bincount([(r[0] >> 254) * 4 + (r[3] >> 254) for r in shares], minlength=16)
            for seen in (counts, together):
                # Wrong alarm with probability 1e-8, twelve tests in all.
                assert ((seen - 250) ** 2 / 250).sum() < chi2.isf(1e-8, 15)


def test_a_wrong_share_gives_another_number():
    shares = split(7, 5, 3)
    assert combine({0: shares[0] ^ 1, 1: shares[1], 2: shares[2]}) != 7


@pytest.mark.parametrize(("secret", "holders", "threshold"), [(PRIME, 3, 2), (-1, 3, 2), (1, 2, 3), (1, 3, 0)])
def test_what_cannot_be_shared_is_refused(secret, holders, threshold):
    with pytest.raises(InvalidValueError) as error:
        split(secret, holders, threshold)
    assert str(PRIME) not in str(error.value)


def test_nothing_cannot_be_combined():
    with pytest.raises(InvalidValueError, match="shares >= 1"):
        combine({})


def test_a_long_polynomial_is_evaluated_exactly(monkeypatch):
    coefficients = iter(range(1, 51))
    monkeypatch.setattr(shamir.secrets, "randbelow", lambda _: next(coefficients))
    shares = split(99, 100, 51)
    points = [sign * x for x in range(1, 51) for sign in (1, -1)]
    assert shares == [(99 + sum(c * x**c for c in range(1, 51))) % PRIME for x in points]
