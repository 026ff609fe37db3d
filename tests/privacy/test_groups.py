"""Random groups: exact probabilities against a count of all cases."""

from fractions import Fraction
from itertools import combinations
from math import comb

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matl.errors import InvalidValueError
from matl.privacy.groups import (
    FAILURE,
    contaminated_majority,
    count_groups,
    largest_malicious,
    plan_shares,
)
from matl.privacy.secagg import Session, draw_groups


def counted(clients, size, malicious):
    """The same by going through all sets of malicious clients; which of them are in a group makes no difference."""
    units = draw_groups([f"c{i:02}" for i in range(clients)], size, seed=0)
    groups = [{int(name[1:]) for name in unit.members} for unit in units]
    bad = sum(
        2 * sum(not group.isdisjoint(chosen) for group in groups) >= len(groups)
        for chosen in combinations(range(clients), malicious)
    )
    return Fraction(bad, comb(clients, malicious))


@given(st.integers(1, 11), st.data())
@settings(max_examples=60, deadline=None)
def test_contaminated_majorities_are_counted_right(clients, data):
    size = data.draw(st.integers(1, clients))
    malicious = data.draw(st.integers(0, clients))
    assert contaminated_majority(clients, size, malicious) == counted(clients, size, malicious)


def test_forty_five_percent_contaminate_groups_of_any_size():
    for clients in (20, 100, 1000):
        for size in (2, 3, 8):
            assert contaminated_majority(clients, size, round(0.45 * clients)) > Fraction(9, 10)


@pytest.mark.parametrize("clients", [7, 100, 997])
@pytest.mark.parametrize("size", [1, 2, 4, 7])
def test_the_largest_number_borne_is_the_largest(clients, size):
    most = largest_malicious(clients, size)
    assert contaminated_majority(clients, size, most) <= FAILURE < contaminated_majority(clients, size, most + 1)
    assert most >= (count_groups(clients, size) - 1) // 2  # each contaminates one group at most


@given(
    st.integers(4, 60), st.integers(1, 6), st.integers(0, 12), st.integers(0, 12), st.sampled_from([0.2, 1e-3, 1e-9])
)
@settings(max_examples=150, deadline=None)
def test_planned_shares_are_what_a_session_enforces(clients, groups, dropout, dishonest, broken):
    groups = min(groups, clients // 2)
    try:
        shares = plan_shares(clients, groups, dropout, dishonest, Fraction(broken))
    except InvalidValueError:
        return
    assert shares.honest >= 2
    assert shares.broken <= Fraction(broken)
    for members in {clients // groups, -(-clients // groups)}:
        session = Session(run="", round=0, length=1, min_survivors=shares.min_survivors, corrupt=shares.corrupt)
        assert session.needed(members) - shares.corrupt >= shares.honest
        assert session.graph(members).n == members


def test_one_sum_bears_the_worst_case_and_groups_what_is_likely():
    assert plan_shares(100, 1, 10, 20, Fraction(1, 10**9)).honest == 70
    likely = plan_shares(100, 4, 0, 10, Fraction(1, 100))
    assert likely.corrupt < 10
    others, dishonest = 24, 10  # of a client, in its group; and in all
    above = sum(comb(dishonest, k) * comb(99 - dishonest, others - k) for k in range(likely.corrupt + 1, dishonest + 1))
    assert likely.broken == Fraction(above, comb(99, others)) <= Fraction(1, 100)
    one_less = above + comb(dishonest, likely.corrupt) * comb(99 - dishonest, others - likely.corrupt)
    assert Fraction(one_less, comb(99, others)) > Fraction(1, 100)


def test_the_largest_group_is_the_likeliest_to_have_many_corrupt_members():
    shares = plan_shares(11, 3, 0, 2, Fraction(1, 2))  # groups of 4, 4 and 3
    assert (shares.members, shares.corrupt) == (3, 1)
    assert shares.broken == Fraction(comb(8, 1), comb(10, 3))  # both among the three others of a group of 4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((10, 1, 5, 4), "at least 2 honest clients in every sum, got 1: of 10 clients 5 may drop out and 4"),
        ((100, 1, 50, 0), "at least 51 survivors of 100 clients"),
        ((100, 50, 0, 1), "of 2 members of a group of 2 0 may drop out and 1 may be dishonest"),
    ],
)
def test_too_few_are_refused(arguments, message):
    with pytest.raises(InvalidValueError, match=message):
        plan_shares(*arguments, Fraction(1, 10**6))
