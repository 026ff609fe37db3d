"""Plans hold what they state, and what cannot hold is refused."""

import math
from dataclasses import replace
from fractions import Fraction

import numpy as np
import pytest

from matl.errors import BoundError, InvalidValueError
from matl.privacy import certificate, choice, planner
from matl.privacy.accounting import Adjacency, gaussian_curve, sampled_gaussian_curve
from matl.privacy.choice import vector_bytes
from matl.privacy.manifest import Manifest
from matl.privacy.planner import Demand, Kind, draft, plan
from matl.records import Visibility

DEMAND = Demand(clients=100, params=116_970, rounds=30, epsilon=8.0, delta=1e-5)
PART = replace(DEMAND, dropout=0.1, corrupt=5)
GROUPED = replace(DEMAND, visibility=Visibility.GROUPED, group_size=20, dropout=2, corrupt=3)


@pytest.mark.parametrize("demand", [PART, replace(PART, adjacency=Adjacency.REPLACE_ONE, epsilon=4.0), GROUPED])
def test_a_plan_is_certified_and_its_manifest_verifies(demand):
    found = plan(demand)
    assert 0.999 * demand.epsilon < found.epsilon <= demand.epsilon
    instance, proven, digest = certificate.check(found.manifest().document())
    assert (instance, digest) == (found.instance, found.manifest().sha256)
    assert (float(str(proven.zero_out)), float(str(proven.replace_one))) == (found.zero_out, found.replace_one)
    assert found.zero_out < found.replace_one
    # What the search in floating point expected is what came out.
    assert found.mse_ratio == pytest.approx(draft(demand).mse_ratio, rel=5e-3)


def test_thousands_of_clients_have_a_certificate():
    found = plan(replace(DEMAND, clients=4000, params=10**6, alignment=0.1, bits=8))
    assert found.instance.survivors == 4000
    assert 7.99 < found.epsilon <= 8


def test_noise_that_tables_do_not_cover_is_refused(monkeypatch):
    monkeypatch.setattr(choice, "MAX_VARIANCE", 0)
    with pytest.raises(InvalidValueError, match="noise that tables cover, got 100 honest shares in a sum"):
        draft(DEMAND)


def test_rules_may_judge_what_has_its_noise_already():
    found = draft(replace(DEMAND, visibility=Visibility.CLEAR, mechanism=Kind.LOCAL, malicious=0.45))
    assert found.mse_ratio > 100


def test_the_manifest_pins_how_many_may_be_dishonest():
    found = plan(replace(PART, malicious=0))
    session = found.manifest().session("run", 0, size=PART.params)
    assert (session.corrupt, session.min_survivors) == (found.shares.corrupt, found.shares.min_survivors) == (5, 90)
    assert session.length == found.choice.sums.layout.kept
    assert found.manifest().encoder(PART.params).layout == found.choice.sums.layout


def test_a_plan_counts_honest_survivors_only():
    shares = plan(PART).shares
    assert (shares.members, shares.min_survivors, shares.corrupt, shares.honest) == (100, 90, 5, 85)
    assert plan(PART).instance.survivors == 85
    lying = draft(replace(GROUPED, corrupt=1, malicious=1))
    assert lying.shares.corrupt == 2


def test_groups_keep_a_part_of_delta_for_draws_that_are_worse_than_planned():
    found = draft(replace(GROUPED, corrupt=0.2, group_size=33, delta=1e-2))
    assert found.shares.broken > 0
    delta = Fraction(1, 100)
    assert found.choice.instance.delta + found.demand.rounds * found.shares.broken <= delta
    assert draft(GROUPED).choice.instance.delta == Fraction(1, 100_000)  # no draw can be worse than all three


def test_the_sketch_is_as_large_as_the_budget_allows():
    for budget in (0.5, 2.0, 3.2):
        found = draft(replace(DEMAND, budget_bits=budget))
        assert budget - 0.02 < found.bits_per_coordinate <= budget
        assert found.vector_bytes == vector_bytes(found.choice.sums.layout.kept, found.choice.instance.bits)
    whole = draft(replace(DEMAND, budget_bits=32.0))
    assert whole.choice.sums.fraction == 1
    small = draft(replace(DEMAND, fraction=0.25, bits=8))
    assert small.choice.sums.fraction == 0.25


def test_fewer_bits_are_chosen_where_they_are_better():
    for alignment, ratio in ((0.6, 1.454), (1.0, 1.970)):  # the design's, with 6 and 5 bits
        found = draft(replace(DEMAND, clients=1000, params=100_000, alignment=alignment))
        assert found.choice.instance.bits < 8
        assert 0.95 * ratio < found.mse_ratio <= 1.01 * ratio
        assert found.mse_ratio < draft(replace(found.demand, bits=8)).mse_ratio
    assert draft(replace(DEMAND, bits=3, budget_bits=1.2)).choice.instance.bits == 3


def test_bits_are_those_modulo_which_sums_are_taken(monkeypatch):
    """Words of 6 bits that are added modulo 256 would show how often their sum passes 64."""
    monkeypatch.setattr(choice, "vector_bytes", lambda words, bits: None if bits != 8 else words + 8)
    assert draft(replace(DEMAND, clients=1000, params=100_000)).choice.instance.bits == 8
    with pytest.raises(InvalidValueError, match="expected bits to be one of 8, as secure aggregation adds, got bits=6"):
        draft(replace(DEMAND, bits=6))


@pytest.mark.parametrize(
    ("clients", "params", "alignment", "ratio"),
    [(100, 10**6, 1.0, 1.05), (1000, 10**6, 0.6, 1.10), (100, 10**5, 1.0, 1.035), (1000, 10**5, 0.3, 1.16)],
)
def test_ten_times_smaller_costs_no_more_than_the_design_says(clients, params, alignment, ratio):
    found = draft(replace(DEMAND, clients=clients, params=params, alignment=alignment))
    assert found.bits_per_coordinate <= 3.2
    assert found.mse_ratio <= ratio


@pytest.mark.parametrize("adjacency", Adjacency)
@pytest.mark.parametrize("sampling", [None, 0.1])
def test_central_noise_is_accounted_for_exactly(adjacency, sampling):
    found = plan(
        replace(DEMAND, clients=1000, visibility=Visibility.SEALED, adjacency=adjacency, sampling=sampling, delta=1e-6)
    )
    assert found.demand.kind is Kind.CENTRAL
    z = found.noise_multiplier
    release = gaussian_curve(z) if sampling is None else sampled_gaussian_curve(Fraction(1, 10), z)
    curve = release.times(30) if adjacency is Adjacency.ZERO_OUT else release.times(30).replaced()
    assert curve.guarantee(Fraction(1, 10**6)).epsilon == found.epsilon
    assert 7.95 < found.epsilon <= 8
    assert found.mse_ratio == pytest.approx(1, abs=0.01)
    assert found.bits_per_coordinate <= 3.2
    assert found.demand.asked == (1000 if sampling is None else 100)


def test_a_search_that_was_optimistic_is_corrected(monkeypatch):
    exact = plan(replace(DEMAND, visibility=Visibility.SEALED, sampling=0.5))
    monkeypatch.setattr(planner, "sampled_multiplier", lambda *_: exact.multiplier * 0.997)
    found = plan(exact.demand)
    assert (found.epsilon, found.noise_multiplier) == (exact.epsilon, exact.noise_multiplier)


def test_local_noise_is_planned_and_told_to_be_as_much_as_it_is():
    found = plan(replace(DEMAND, visibility=Visibility.CLEAR, mechanism=Kind.LOCAL))
    assert 100 < found.mse_ratio < 110  # every one of 100 clients adds all of it, and rounding on top
    assert found.signal_to_noise == pytest.approx(100 / (found.multiplier * math.sqrt(116_970 * found.mse_ratio)))
    with pytest.raises(InvalidValueError, match="got local noise"):
        found.manifest()


def test_a_large_budget_is_for_float32():
    found = plan(replace(DEMAND, visibility=Visibility.SEALED, budget_bits=32.0))
    assert (found.step, found.bits_per_coordinate, found.key_traffic) == (None, 32.0, None)


def test_the_size_of_groups_is_chosen_for_the_malicious():
    demand = replace(DEMAND, clients=200, visibility=Visibility.GROUPED, malicious=0.02)
    size = draft(demand).demand.group_size
    assert draft(replace(demand, group_size=size - 1))
    with pytest.raises(BoundError):
        draft(replace(demand, group_size=size + 10))


@pytest.mark.parametrize(
    ("changed", "kind", "message"),
    [
        ({"mechanism": Kind.LOCAL}, InvalidValueError, "expected visibility clear with local noise, got summed"),
        ({"mechanism": Kind.CENTRAL}, InvalidValueError, "clear or sealed with central noise, got summed"),
        ({"visibility": "clear", "mechanism": Kind.DISTRIBUTED}, InvalidValueError, "summed or grouped with distrib"),
        ({"sampling": 0.1}, InvalidValueError, "here the server sees that"),
        ({"malicious": 0.1}, BoundError, "got 10 of 100: each of them moves the sum"),
        (
            {"visibility": "sealed", "malicious": 1},
            BoundError,
            "malicious=0 with central noise, got 1 of 100: rules th",
        ),
        ({"visibility": "clear", "malicious": 0.1}, BoundError, "every client add all of the noise .local., after whi"),
        (
            {"visibility": "clear", "mechanism": Kind.LOCAL, "malicious": 0.5},
            BoundError,
            "fewer malicious clients than half of 100, got 50",
        ),
        ({"visibility": "grouped"}, InvalidValueError, "expected group_size, or malicious clients"),
        ({"visibility": "grouped", "malicious": 0.45}, BoundError, r"hypergeometric\) probability 1 - 3.2e-11,"),
        ({"visibility": "grouped", "malicious": 13, "group_size": 4}, BoundError, "at most 12 of .* probability 0.049"),
        ({"visibility": "grouped", "group_size": 101}, InvalidValueError, "<= 100 clients, got group_size=101"),
        ({"clients": 5000}, InvalidValueError, "at most 4096 clients in one secure aggregation, got 5000"),
        ({"clients": 1}, InvalidValueError, "expected at least 2 honest clients in every sum, got 1"),
        ({"dropout": 0.6}, InvalidValueError, "expected at least 51 survivors"),
        ({"budget_bits": 0.001}, InvalidValueError, "got 0.001 bits for each of 116970"),
        ({"budget_bits": 0.3, "clients": 1000}, InvalidValueError, "at most 4 times that of central noise, got"),
        ({"visibility": "sealed", "budget_bits": 1e-4}, InvalidValueError, "expected budget_bits >= "),
        ({"bits": 9}, InvalidValueError, "got bits=9"),
        ({"bits": 33}, InvalidValueError, r"got bits=33"),
        ({"epsilon": 0.01}, InvalidValueError, "allow a larger epsilon or delta"),
    ],
)
def test_what_cannot_hold_is_refused(changed, kind, message):
    if "visibility" in changed:
        changed = changed | {"visibility": Visibility(changed["visibility"])}
    with pytest.raises(kind, match=message):
        plan(replace(DEMAND, **changed))


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"epsilon": 0.0}, "epsilon > 0"),
        ({"epsilon": math.inf}, "epsilon to be finite"),
        ({"delta": 0.0}, "2\\^-200 <= delta < 1, got delta=0.0"),
        ({"delta": 1.0}, "delta=1.0"),
        ({"delta": math.nan}, "delta=nan"),
        ({"dropout": -0.1}, "dropout >= 0"),
        ({"dropout": 101}, "share below 1 or a number up to clients=100, got dropout=101"),
        ({"corrupt": math.nan}, "corrupt to be finite"),
        ({"alignment": 0.0}, "0 < alignment <= 1"),
        ({"sampling": 1.5}, "0 < sampling <= 1, got sampling=1.5"),
        ({"fraction": 0.0}, "0 < fraction <= 1"),
        ({"rounds": 10**7}, "rounds <= 1000000"),
        ({"clients": 0}, "clients"),
        ({"params": 2.5}, "params"),
        ({"group_size": 0}, "group_size"),
    ],
)
def test_values_out_of_range_are_refused(changed, message):
    with pytest.raises(InvalidValueError, match=message):
        replace(DEMAND, **changed)


def test_shares_are_rounded_up_and_numbers_taken_as_they_are():
    demand = replace(DEMAND, clients=15, dropout=0.1, corrupt=3, malicious=0.01)
    assert [demand.count(name) for name in ("dropout", "corrupt", "malicious")] == [2, 3, 1]
    assert replace(DEMAND, dropout=0.07).count("dropout") == 7  # although 0.07 * 100 > 7


def test_tiny_models_and_federations_have_plans():
    for params, clients in ((1, 5), (10, 3), (5000, 2)):
        found = draft(replace(DEMAND, params=params, clients=clients, budget_bits=200.0))
        assert np.isfinite(found.mse_ratio)
        assert found.choice.instance.survivors == clients


def test_manifests_carry_the_clip_norm_and_the_sketch():
    found = plan(replace(PART, clip=0.3))
    manifest = Manifest.read(found.manifest().document(), sha256=found.manifest().sha256)
    assert manifest.clip_norm == Fraction(3, 10)
    assert manifest.kept / manifest.block == pytest.approx(found.choice.sums.fraction, abs=1e-3)
