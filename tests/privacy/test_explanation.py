"""What is said of a plan fits it."""

import re
from dataclasses import replace

import pytest

from matl.privacy.accounting import Adjacency
from matl.privacy.explanation import advice, describe, planning_only, protected, simulation_only, unprotected, utility
from matl.privacy.planner import Demand, Kind, draft, plan
from matl.records import Visibility

DEMAND = Demand(clients=100, params=116_970, rounds=30, epsilon=8.0, delta=1e-5)
CENTRAL = replace(DEMAND, visibility=Visibility.SEALED)


def test_who_is_trusted_and_what_is_not_protected():
    distributed = plan(replace(DEMAND, dropout=10, corrupt=5))
    text = "\n".join(protected(distributed))
    assert "helped by up to 5 clients" in text
    assert "unmask no sum with fewer than 90" in text
    assert text.index("zero-out") < text.index("replace-one")
    assert any("No amplification" in line for line in unprotected(distributed))
    sealed = plan(replace(CENTRAL, adjacency=Adjacency.REPLACE_ONE, sampling=0.5))
    text = "\n".join(protected(sealed))
    assert "Trusted with every update: an attested oracle" in text
    assert "Who was drawn is part of the secret" in text
    assert text.index("replace-one") < text.index("zero-out")
    assert not any("No amplification" in line for line in unprotected(sealed))
    clear = plan(replace(CENTRAL, visibility=Visibility.CLEAR, rounds=1))
    assert "Trusted with every update: the server" in "\n".join(protected(clear))
    local = plan(replace(CENTRAL, visibility=Visibility.CLEAR, mechanism=Kind.LOCAL, delta=0.02))
    assert "From everybody" in "\n".join(protected(local))
    assert any("no less than 1 / clients" in line for line in unprotected(local))
    assert not any("no less than" in line for line in unprotected(clear))


@pytest.mark.parametrize(
    ("changes", "planned", "simulated"),
    [
        ({}, (), ()),
        ({"visibility": Visibility.GROUPED, "group_size": 25}, (), ("Groups",)),
        ({"visibility": Visibility.SEALED}, ("oracle of Mode 2 adds no noise", "integers of 32 bits"), ()),
        ({"visibility": Visibility.CLEAR}, ("integers of 32 bits .* 3.+ bits",), ("Central noise",)),
        ({"visibility": Visibility.CLEAR, "budget_bits": 32.0}, (), ("Central noise",)),
        (
            {"visibility": Visibility.CLEAR, "mechanism": Kind.LOCAL, "budget_bits": 32.0},
            ("integers of 64 bits .* 32 bits",),
            ("Local noise",),
        ),
        (
            {"visibility": Visibility.CLEAR, "sampling": 0.5, "budget_bits": 32.0},
            ("No command draws clients",),
            ("Central noise",),
        ),
    ],
)
def test_what_nothing_carries_out_is_said(changes, planned, simulated):
    made = plan(replace(DEMAND, **changes))
    for told, expected in ((planning_only(made), planned), (simulation_only(made), simulated)):
        assert len(told) == len(expected)
        assert all(re.search(words, line) for line, words in zip(told, expected, strict=True))
    described = describe(made)
    assert (described["planning_only"], described["simulation_only"]) == (planning_only(made), simulation_only(made))


def test_the_utility_is_told_in_numbers():
    found = draft(CENTRAL)
    once, all_rounds, worth = utility(found)
    assert f"{1 / found.signal_to_noise:.3g} times as long" in once
    assert f"{1 / (found.signal_to_noise * 30**0.5):.3g} times" in all_rounds
    assert "that 100 would have" in worth


def test_advice_on_the_sketch_does_what_it_says():
    demand = replace(DEMAND, clients=1000, params=10**6, alignment=0.8)
    found = draft(demand)
    text = advice(found)["sketch"]
    assert found.costs.sketch > 0.03
    words = text.split()
    fraction, bits = (float(words[words.index(name) + 1]) for name in ("--fraction", "--budget-bits"))
    better = draft(replace(demand, fraction=fraction, budget_bits=bits, bits=found.choice.instance.bits))
    assert better.costs.sketch == pytest.approx(0.03, rel=0.02)
    assert "sketch" not in advice(draft(replace(demand, budget_bits=20.0)))


def test_every_large_cost_has_advice_and_no_small_one():
    assert advice(draft(replace(CENTRAL, clients=10, params=10**6))) == {}
    assert set(advice(draft(replace(DEMAND, dropout=20)))) == {"surplus"}
    assert "each of 4 sums" in advice(draft(replace(DEMAND, visibility=Visibility.GROUPED, group_size=25)))["surplus"]
    local = advice(draft(replace(CENTRAL, visibility=Visibility.CLEAR, mechanism=Kind.LOCAL)))
    assert set(local) == {"surplus", "rounding"}
    assert "clip" in advice(draft(replace(DEMAND, params=1, clients=5, budget_bits=200.0)))
    assert {"rounding", "wrap"} <= set(advice(draft(replace(DEMAND, bits=2, clients=500, params=10**6))))


@pytest.mark.parametrize("demand", [DEMAND, CENTRAL, replace(CENTRAL, budget_bits=40.0)])
def test_the_description_is_plain_data(demand):
    described = describe(plan(demand))
    required = {"bits_per_coordinate", "bytes_per_round", "epsilon", "delta", "predicted_mse_ratio"}
    assert all(type(described[name]) in (int, float) for name in required)
    assert sum(described["costs"].values()) == pytest.approx(described["predicted_mse_ratio"])
    assert described["bytes_per_round_with_keys"] >= described["bytes_per_round"]
    assert ("codec" in described) == (demand.kind is Kind.CENTRAL)
