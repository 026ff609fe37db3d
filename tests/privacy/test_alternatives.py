"""What is offered instead of a refused plan holds, and nothing nearer does."""

from dataclasses import replace

import pytest

from matl.errors import InvalidValueError
from matl.privacy.alternatives import nearest
from matl.privacy.planner import Demand, Kind, draft, plan
from matl.records import Visibility

DEMAND = Demand(clients=100, params=116_970, rounds=30, epsilon=8.0, delta=1e-5)
SEALED, SUMMED = {"visibility": Visibility.SEALED}, {"visibility": Visibility.SUMMED}
GROUPED, LOCAL = {"visibility": Visibility.GROUPED}, {"visibility": Visibility.CLEAR, "mechanism": Kind.LOCAL}
BIG = {"params": 10**8, "rounds": 10**6}


@pytest.mark.parametrize(
    ("changed", "offered"),
    [
        ({"dropout": 0.6}, [{"dropout": 49}, SEALED]),
        ({"dropout": 0.3, "corrupt": 0.5}, [{"dropout": 24}, {"corrupt": 39}, SEALED]),
        ({"visibility": Visibility.GROUPED, "malicious": 0.45}, [{"malicious": 5}, LOCAL]),
        ({"visibility": Visibility.GROUPED, "malicious": 0.2, "group_size": 30}, [{"malicious": 1}, LOCAL]),
        ({"malicious": 0.1}, [{"malicious": 0}, LOCAL]),
        ({"malicious": 1}, [{"malicious": 0}, GROUPED, LOCAL]),
        ({"visibility": Visibility.SEALED, "malicious": 1}, [{"malicious": 0}, GROUPED, LOCAL]),
        ({**LOCAL, "malicious": 60}, [{"malicious": 49}, {"clients": 121}]),
        ({"sampling": 0.3}, [{"sampling": None}, SEALED]),
        ({"mechanism": Kind.LOCAL}, [{"mechanism": Kind.AUTO}, SEALED | {"mechanism": Kind.AUTO}]),
        ({"epsilon": 0.01}, [{"epsilon": 0.11}]),
        ({"budget_bits": 1e-3}, [{"budget_bits": 0.017}]),
        ({"visibility": Visibility.GROUPED}, [SUMMED, SEALED]),
        ({"epsilon": 0.2, **BIG}, [{"epsilon": 2.4}, {"rounds": 10_000}, SEALED]),
        ({"clients": 1}, [{"clients": 2}, SEALED]),
        ({"clients": 5000, "alignment": 0.1, "budget_bits": 8.0}, [{"clients": 4096}, SEALED]),
    ],
)
def test_alternatives_hold_and_are_the_nearest(changed, offered):
    demand = replace(DEMAND, **changed)
    with pytest.raises(InvalidValueError):
        draft(demand)
    found = nearest(demand)
    for alternative in found:
        assert draft(replace(demand, **alternative.changed)) == alternative.plan
    assert not (demand.count("malicious") and any(alternative.changed == SEALED for alternative in found))
    for wanted in offered:
        assert any(alike(alternative.changed, wanted) for alternative in found)


def alike(change, wanted):
    """The same, or numbers that are nearly so."""
    if change.keys() != wanted.keys():
        return False
    return all(
        change[name] == pytest.approx(value, rel=0.1) if isinstance(value, int | float) else change[name] == value
        for name, value in wanted.items()
    )


@pytest.mark.parametrize(
    ("changed", "name", "nearer"), [({"dropout": 0.6}, "dropout", 1), ({"clients": 1}, "clients", -1)]
)
def test_nothing_nearer_holds(changed, name, nearer):
    demand = replace(DEMAND, **changed)
    (value,) = (alternative.changed[name] for alternative in nearest(demand) if name in alternative.changed)
    with pytest.raises(InvalidValueError):
        draft(replace(demand, **{name: value + nearer}))


def test_an_alternative_is_certified_like_any_plan():
    demand = replace(DEMAND, malicious=0.1)
    first = nearest(demand)[0]
    assert plan(replace(demand, **first.changed)).epsilon <= 8


def test_where_nothing_helps_nothing_is_offered():
    assert (
        nearest(replace(DEMAND, clients=2, params=1, budget_bits=0.01, visibility=Visibility.SEALED, fraction=1.0))
        == ()
    )
