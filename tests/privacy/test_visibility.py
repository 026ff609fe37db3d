"""The trade between what the judge may see and what stays private."""

import math
from dataclasses import replace

import pytest

from matl.errors import BoundError
from matl.privacy.groups import largest_malicious
from matl.privacy.planner import Demand, Kind, draft
from matl.privacy.visibility import WAYS, trade
from matl.records import Visibility

DEMAND = Demand(clients=64, params=116_970, rounds=30, epsilon=8.0, delta=1e-5)


def test_the_less_is_seen_the_fewer_liars_are_borne_and_the_less_noise_is_needed():
    options = trade(DEMAND)
    judged = options[2:-1]
    assert [str(option.way) for option in judged] == ["clear, local", *["grouped"] * 4]
    assert [option.group_size for option in judged] == [1, 2, 4, 8, 16]
    assert [option.malicious for option in judged] == [31, *(largest_malicious(64, size) for size in (2, 4, 8, 16))]
    assert str(options[-1].way) == "summed"
    errors = [option.error for option in options[2:]]
    assert errors == sorted(errors, reverse=True)
    # With nobody missing, the noise of G sums is that of one, sqrt(G) times as large, and so is nearly the error.
    for option in options:
        assert option.noise_factor == (1 if option.way.mechanism is Kind.CENTRAL else math.sqrt(option.groups))
        assert option.error == pytest.approx(option.noise_factor, rel=0.03)
        assert option.worth == pytest.approx(64 / option.error)
        assert option.signal_to_noise == pytest.approx(options[0].signal_to_noise * options[0].error / option.error)


def test_noise_for_a_mean_bears_no_malicious_clients_and_the_planner_agrees():
    """A rule that compares clients has no epsilon under central noise; after local noise any rule may judge."""
    for option in trade(DEMAND):
        if not option.way.judged:
            assert option.malicious == 0
            with pytest.raises(BoundError, match="expected malicious=0"):
                draft(replace(option.plan.demand, malicious=1))
        elif option.way.mechanism is Kind.LOCAL:
            assert draft(replace(option.plan.demand, malicious=31)).mse_ratio == option.plan.mse_ratio
    assert [str(way) for way in WAYS if not way.judged] == ["clear", "sealed", "summed"]


def test_distrust_makes_small_groups_impossible_and_says_why():
    options = trade(replace(DEMAND, corrupt=2, malicious=1, mechanism=Kind.DISTRIBUTED))
    pairs = next(option for option in options if option.group_size == 2)
    assert pairs.plan is pairs.error is pairs.worth is pairs.signal_to_noise is None
    assert "at least 2 honest clients in every sum" in pairs.refused
    summed = options[-1]
    assert (summed.refused, summed.plan.shares.honest) == ("", 61)


def test_every_visibility_is_told_of_once_for_each_who_adds_noise_to_it():
    assert {way.visibility for way in WAYS} == set(Visibility)
    assert len({(way.visibility, way.mechanism) for way in WAYS}) == len(WAYS)
