"""The trade between what the judge may see and what stays private."""

import math
from dataclasses import replace

import pytest

from matl.privacy.groups import largest_malicious
from matl.privacy.planner import Demand, Kind
from matl.privacy.visibility import JUDGED_BY, SEEN, trade
from matl.records import Visibility

DEMAND = Demand(clients=64, params=116_970, rounds=30, epsilon=8.0, delta=1e-5)


def test_the_less_is_seen_the_fewer_liars_are_borne_and_the_less_noise_is_needed():
    options = trade(DEMAND)
    assert [option.visibility for option in options[:2]] == [Visibility.CLEAR, Visibility.SEALED]
    grouped = options[2:-1]
    assert [option.group_size for option in grouped] == [2, 4, 8, 16]
    assert [option.malicious for option in grouped] == [largest_malicious(64, size) for size in (2, 4, 8, 16)]
    assert options[0].malicious == 31
    assert options[-1].visibility is Visibility.SUMMED
    assert options[-1].malicious == 0
    errors = [option.error for option in options[2:]]
    assert errors == sorted(errors, reverse=True)
    # With nobody missing, the noise of G sums is that of one, sqrt(G) times as large, and so is nearly the error.
    for option in options:
        assert option.noise_factor == (1 if option.plan.shares is None else math.sqrt(option.groups))
        assert option.error == pytest.approx(option.noise_factor, rel=0.02)
        assert option.worth == pytest.approx(64 / option.error)
        assert option.signal_to_noise == pytest.approx(options[0].signal_to_noise * options[0].error / option.error)


def test_distrust_makes_small_groups_impossible_and_says_why():
    options = trade(replace(DEMAND, corrupt=2, malicious=1, mechanism=Kind.DISTRIBUTED))
    pairs = next(option for option in options if option.group_size == 2)
    assert pairs.plan is pairs.error is pairs.worth is pairs.signal_to_noise is None
    assert "at least 2 honest clients in every sum" in pairs.refused
    summed = options[-1]
    assert (summed.refused, summed.plan.shares.honest) == ("", 61)


def test_every_visibility_is_told_of():
    assert set(SEEN) == set(JUDGED_BY) == set(Visibility)
