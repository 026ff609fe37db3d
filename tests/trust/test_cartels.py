import sys

import numpy as np
import pytest
from scipy import stats

from matl.errors import InvalidValueError, MissingExtraError, StateError
from matl.state import pack, unpack
from matl.trust.cartels import Action, Group, Ledger, Level, find_groups, respond, standing, undo, weight_factors
from matl.trust.cartels.actions import THRESHOLDS
from matl.trust.cartels.groups import _binomial_tail, _geography, _stake, _timing
from matl.trust.reputation import voting_shares

NAMES = tuple(f"m{index:02d}" for index in range(30))
CARTEL = NAMES[:5]
WHERE = np.ix_(range(5), range(5))


def ballots(accepting, rejecting, unit="u"):
    return {**{name: {unit: True} for name in accepting}, **{name: {unit: False} for name in rejecting}}


def ledger(halves=(0, 1), size=5, rate=1.0, times=None, seed=0):
    """Thirty members with lone liars among them; the first `size` vouch for each other in these halves."""
    rng = np.random.default_rng(seed)
    contested = rng.poisson(3.0, size=(2, 30, 30)).astype(float)
    contested[:, :, 10:] *= rng.random(20) < 0.2
    for half in (0, 1):
        np.fill_diagonal(contested[half], 0.0)
    chance = np.full((2, 30, 30), 0.15)
    for half in halves:
        chance[half, :size, :size] = rate
    vouched = rng.binomial(contested.astype(int), chance).astype(float)
    return Ledger(NAMES, contested, vouched, 0.15 * contested, np.empty((0, 30)) if times is None else times)


def moving(cartel, seed=1):
    """Times of forty rounds; those of the cartel correlate by this much."""
    rng = np.random.default_rng(seed)
    own, common = rng.normal(size=(40, 30)), rng.normal(size=(40, 1))
    moved = own.copy()
    moved[:, :5] = np.sqrt(cartel) * common + np.sqrt(1 - cartel) * own[:, :5]
    return 100 + 50 * rng.random(30) + moved


REGIONS = {name: "north" if name in CARTEL else f"region {index % 4}" for index, name in enumerate(NAMES)}
STAKES = {name: 10.0 if name in CARTEL else 1.0 + index / 30 for index, name in enumerate(NAMES)}


# Ledger


def counted(accepting, rejecting):
    """Who cast a contested vote on a unit that its own member accepts."""
    book = Ledger.empty().recorded({**ballots(accepting, rejecting, unit="z"), "z": {"z": True}}, {})
    return {name for name in book.ids if book.contested[0, book.ids.index(name), book.ids.index("z")]}


def test_only_votes_on_units_that_most_others_rejected_are_counted():
    assert counted("a", "bcde") == set("abcde")
    assert counted("ab", "cdefg") == set("abcdefg")
    assert counted("abc", "de") == set()


def test_a_majority_is_of_three_others_at_least_and_more_than_half_of_them():
    assert counted("ab", "cde") == {"a", "b"}, "of c's four others, two accept"
    assert counted("a", "bcd") == set("abcd")
    assert counted("a", "bc") == set()


def test_the_expectation_is_how_often_the_other_judges_accepted():
    shown = Ledger.empty().recorded({**ballots("ab", "cdefg", unit="h"), "h": {}}, {})
    row = {name: index for index, name in enumerate(shown.ids)}
    assert shown.vouched[0, row["a"], row["h"]] == 1
    assert shown.vouched[0, row["c"], row["h"]] == 0
    assert shown.expected[0, row["a"], row["h"]] == pytest.approx(1.5 / 7)
    assert shown.expected[0, row["c"], row["h"]] == pytest.approx(2.5 / 7)


def test_rounds_alternate_between_the_halves_and_newcomers_join_in_order():
    first = Ledger.empty().recorded({**ballots("c", "defg", unit="g"), "g": {}}, {"c": 5.0})
    second = first.recorded({**ballots("a", "defg", unit="c"), "c": {}}, {"a": 7.0})
    assert second.ids == ("a", "c", "d", "e", "f", "g")
    row = {name: index for index, name in enumerate(second.ids)}
    assert second.vouched[0, row["c"], row["g"]] == second.vouched[1, row["a"], row["c"]] == 1
    assert second.vouched.sum() == 2
    np.testing.assert_array_equal(second.times[:, row["a"]], [np.nan, 7.0])
    np.testing.assert_array_equal(second.times[:, row["c"]], [5.0, np.nan])
    assert first.rounds == 1
    assert first.ids == ("c", "d", "e", "f", "g"), "nothing is changed in place"


def test_units_of_those_who_never_vote_are_left_out():
    assert not Ledger.empty().recorded(ballots("ab", "cdef", unit="client"), {}).contested.any()


def test_a_ledger_survives_the_codec():
    book = Ledger.empty().recorded({**ballots("ab", "cdef", unit="f"), "f": {}}, {"a": 0.1})
    back = Ledger.of_state(unpack(pack(book.as_state())))
    assert back.ids == book.ids
    for name in ("contested", "vouched", "expected", "times"):
        assert getattr(back, name).tobytes() == getattr(book, name).tobytes()
    with pytest.raises(StateError, match="lacks 'ids'"):
        Ledger.of_state({})


def test_a_time_before_the_round_is_refused():
    with pytest.raises(InvalidValueError, match="times"):
        Ledger.empty().recorded({}, {"a": -1.0})


# Groups


def test_a_planted_cartel_is_found_with_all_its_signs():
    (group, *others) = find_groups(ledger(times=moving(0.9)), regions=REGIONS, stakes=STAKES)
    assert group.members == CARTEL
    assert group.risk > 0.9
    assert set(group.tails) == {"vouching", "timing", "stake", "geography"}
    assert group.reason.startswith("vouched for 100 % of ")
    assert "where other judges did for 15 %; times correlate by 0." in group.reason
    assert "100 % of its pairs are in one region" in group.reason
    assert all(other.risk < THRESHOLDS[Level.WATCH] for other in others)


def test_votes_alone_call_for_nothing_but_a_watch():
    group = find_groups(ledger())[0]
    assert set(group.tails) == {"vouching"}
    assert THRESHOLDS[Level.WATCH] <= group.risk <= 0.4 < THRESHOLDS[Level.DAMPEN]


def test_a_group_is_tested_on_rounds_it_was_not_found_in():
    """Had the same rounds served twice, the group that chance made would look proven."""
    group = find_groups(ledger(halves=(0,), times=moving(0.9)), regions=REGIONS, stakes=STAKES)[0]
    assert group.members == CARTEL
    assert group.tails["timing"] < 0.01, "which counts for nothing without vouching"
    assert group.tails["vouching"] > 0.5
    assert group.risk == 0.0
    assert all(group.risk < 0.05 for group in find_groups(ledger(halves=(1,))))


def test_honest_members_are_left_alone():
    risks = [group.risk for seed in range(20) for group in find_groups(ledger(halves=(), seed=seed))]
    assert max(risks, default=0.0) < THRESHOLDS[Level.WATCH]


def test_a_little_more_vouching_than_others_is_within_the_margin():
    groups = [find_groups(ledger(rate=0.22, size=10, seed=seed)) for seed in range(10)]
    assert all(group.risk < THRESHOLDS[Level.WATCH] for found in groups for group in found)


def test_the_same_seed_gives_the_same_groups():
    book = ledger(times=moving(0.9))
    assert find_groups(book, regions=REGIONS, seed=3) == find_groups(book, regions=REGIONS, seed=3)


def test_an_empty_ledger_has_no_groups():
    assert find_groups(Ledger.empty()) == ()


def test_networkx_is_asked_for_by_name(monkeypatch):
    monkeypatch.setitem(sys.modules, "networkx", None)
    with pytest.raises(MissingExtraError, match=r"networkx is not installed.*matl\[sim\]"):
        find_groups(ledger())


def test_facts_that_are_not_known_of_all_its_members_give_no_opinion():
    partly = {name: region for name, region in REGIONS.items() if name != CARTEL[2]}
    others = {name: stake for name, stake in STAKES.items() if name != NAMES[20]}
    group = find_groups(ledger(), regions=partly, stakes=others)[0]
    assert set(group.tails) == {"vouching", "stake"}


def test_without_contested_votes_in_odd_rounds_there_is_no_opinion_on_vouching():
    book = ledger()
    book.contested[1] = book.vouched[1] = book.expected[1] = 0.0
    group = find_groups(book, stakes=STAKES)[0]
    assert set(group.tails) == {"stake"}
    assert group.risk == 0.0


def test_a_negative_stake_is_refused():
    with pytest.raises(InvalidValueError, match=r"stakes\['m03'\]"):
        find_groups(ledger(), stakes={**STAKES, "m03": -1.0})


@pytest.mark.parametrize("rounds", [0, 7])
def test_few_common_rounds_give_no_opinion_on_times(rounds):
    times = moving(0.9)
    times[rounds:, :5] = np.nan
    assert "timing" not in find_groups(ledger(times=times))[0].tails


def test_constant_times_and_common_habits_are_no_synchrony():
    constant = np.tile(np.linspace(1, 30, 30), (40, 1))
    assert find_groups(ledger(times=constant))[0].tails["timing"] == 1.0
    everyone = constant + np.random.default_rng(0).normal(size=(40, 1))
    assert find_groups(ledger(times=everyone))[0].tails["timing"] == 1.0


def test_times_that_correlate_no_more_than_a_regions_are_within_the_margin():
    assert find_groups(ledger(times=moving(0.3)))[0].tails["timing"] > 0.2
    assert find_groups(ledger(times=moving(0.8)))[0].tails["timing"] < 0.01


@pytest.mark.parametrize("component", ["stake", "geography", "timing"])
def test_tail_probabilities_are_calibrated(component):
    """Of random groups, at most a tenth may have a tail probability of at most a tenth."""
    rng = np.random.default_rng(0)
    stakes = dict(zip(NAMES, rng.lognormal(size=30), strict=True))
    regions = {name: str(rng.integers(4)) for name in NAMES}
    book = ledger(times=rng.random((40, 30)))
    tails = []
    for _ in range(100):
        group = np.sort(rng.choice(30, 5, replace=False))
        members = [NAMES[row] for row in group]
        if component == "stake":
            opinion = _stake(NAMES, members, stakes, rng)
        elif component == "geography":
            opinion = _geography(NAMES, members, regions, rng)
        else:
            opinion = _timing(book, group, rng)
        tails.append(opinion[0])
    assert np.mean(np.array(tails) <= 0.1) <= 0.19  # three standard errors above
    if component == "stake":
        assert stats.kstest(tails, "uniform").pvalue > 0.01


@pytest.mark.parametrize(("count", "of", "chance"), [(3, 3, 0.5), (40, 100, 0.25), (301, 301, 0.4), (900, 2000, 0.4)])
def test_the_binomial_tail_is_scipys(count, of, chance):
    assert _binomial_tail(count, of, chance) == pytest.approx(stats.binom.sf(count - 1, of, chance), rel=1e-9)


@pytest.mark.parametrize(("count", "of", "chance"), [(0, 0, 0.2), (1, 4, 0.25), (0, 4, 0.25), (4, 4, 1.0), (4, 4, 1.1)])
def test_no_more_than_expected_is_no_evidence(count, of, chance):
    assert _binomial_tail(count, of, chance) == 1.0


# Actions


def suspicious(risk, members=("a", "b", "c")):
    return Group(members, risk, {"vouching": 0.001}, "vouched for each other")


def grown(risk, periods):
    log = ()
    for number in range(periods):
        log = respond(log, [suspicious(risk)], round=10 * (number + 1))
    return log


def test_levels_rise_one_per_period_and_stop_at_what_the_risk_calls_for():
    assert [action.kind for action in grown(0.9, 5)] == ["watch", "dampen", "suspend"]
    assert [action.kind for action in grown(0.7, 5)] == ["watch", "dampen"]
    assert [action.kind for action in grown(0.4, 5)] == ["watch"]
    assert grown(0.29, 5) == ()


def test_an_action_says_who_why_when_and_on_what_evidence():
    (action,) = grown(0.9, 1)
    assert action == Action(
        "watch",
        ("a", "b", "c"),
        10,
        "risk 0.90 (watch from 0.30): vouched for each other",
        {"risk": 0.9, "vouching": 0.001},
    )


def test_a_newcomer_to_a_group_starts_at_the_bottom():
    log = respond(grown(0.9, 2), [suspicious(0.9, ("b", "c", "d"))], round=30)
    assert [(action.kind, action.members) for action in log[2:]] == [("watch", ("d",)), ("suspend", ("b", "c"))]
    assert standing(log) == {"a": Level.DAMPEN, "b": Level.SUSPEND, "c": Level.SUSPEND, "d": Level.WATCH}


def test_the_same_period_cannot_count_twice():
    log = grown(0.9, 1)
    for number in (9, 10):
        with pytest.raises(InvalidValueError, match="once per period"):
            respond(log, [suspicious(0.9)], round=number)


def test_undoing_takes_an_action_out_of_force_and_leaves_it_on_the_record():
    log = grown(0.9, 3)
    freed = undo(log, 2, 31, "the three share an office, as the operator checked")
    assert freed[:3] == log
    assert freed[3].undoes == 2
    assert freed[3].members == ("a", "b", "c")
    assert set(standing(freed).values()) == {Level.DAMPEN}
    for number in (1, 0):
        freed = undo(freed, number, 32, "as before")
    assert standing(freed) == {}
    assert [action.kind for action in respond(freed, [suspicious(0.9)], round=40)][-1] == "watch"


@pytest.mark.parametrize(
    ("number", "reason", "message"),
    [
        (3, "why", "can be undone"),
        (-1, "why", "can be undone"),
        (1, "why", "can be undone"),
        (0, "why", "undone already"),
    ],
)
def test_only_actions_in_force_can_be_undone(number, reason, message):
    log = undo(grown(0.4, 1), 0, 11, "a mistake")
    with pytest.raises(InvalidValueError, match=message):
        undo(log, number, 12, reason)


def test_undoing_needs_a_reason():
    with pytest.raises(InvalidValueError, match="expected a reason"):
        undo(grown(0.4, 1), 0, 11, " ")


def test_levels_dampen_and_suspend_voting_weight():
    log = respond(respond(grown(0.9, 2), [suspicious(0.9, ("a",))], 30), [suspicious(0.4, ("d",))], 40)
    ids = ["a", "b", "d", "e"]
    np.testing.assert_array_equal(weight_factors(log, ids), [0.0, 0.5, 1.0, 1.0])
    shares = voting_shares(np.ones(4), weight_factors(log, ids), cap=1.0)
    np.testing.assert_allclose(shares, [0.0, 0.2, 0.4, 0.4])


def test_a_log_survives_the_codec():
    log = undo(grown(0.9, 2), 0, 21, "a mistake")
    state = unpack(pack({"log": [action.as_state() for action in log]}))
    assert tuple(Action.of_state(one) for one in state["log"]) == log
    with pytest.raises(StateError, match="lacks 'kind'"):
        Action.of_state({})
