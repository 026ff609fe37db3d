"""What can be had instead of a plan that cannot: the nearest demands, each of which has a plan."""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from matl.errors import InvalidValueError
from matl.privacy.demand import Demand, Kind
from matl.privacy.planner import Draft, draft
from matl.privacy.secagg.graph import MAX_CLIENTS
from matl.records import Visibility

__all__ = ["Alternative", "nearest"]

_STEP = 1.05  # numbers that are not whole are tried in such steps
_FARTHEST = 100  # times the epsilon that was asked for
_MORE, _FEWER = 10, 4  # times as many clients, and as few
_Change = tuple[str, Sequence[Any], dict[str, Any]]
"""A field, values for it from the nearest to the farthest, and what else changes with it."""


@dataclass(frozen=True, slots=True)
class Alternative:
    """A demand that differs from another in one respect, and that can be met.

    Parameters
    ----------
    changed : dict
        What to change, by name of the field, and to what.
    plan : Draft
        What comes of it; to be certified.
    """

    changed: dict[str, Any]
    plan: Draft


def nearest(demand: Demand) -> tuple[Alternative, ...]:
    """For a demand that is refused, the smallest change of each kind that makes it feasible.

    Parameters
    ----------
    demand : Demand
        It is refused by `plan`.

    Returns
    -------
    tuple of Alternative
        Each of them was tried: it has a plan. There is none where no single change helps.

    Examples
    --------
    >>> demand = Demand(clients=100, params=10**5, rounds=30, epsilon=8.0, delta=1e-5, dropout=0.6)
    >>> [alternative.changed for alternative in nearest(demand)][:1]
    [{'dropout': 49}]
    """
    changes = (*_numbers(demand), *_other_ways(demand))
    found = (_first_feasible(demand, name, values, also) for name, values, also in changes)
    return tuple(alternative for alternative in found if alternative is not None)


def _first_feasible(demand: Demand, name: str, values: Sequence[Any], also: dict[str, Any]) -> Alternative | None:
    """The first value that helps. Values after it help too, as far as they are listed, so that bisection finds it."""

    def attempt(value: Any) -> Draft | None:
        try:
            return draft(replace(demand, **{name: value}, **also))
        except InvalidValueError:
            return None

    index = bisect_left(values, True, key=lambda value: attempt(value) is not None)
    made = attempt(values[index]) if index < len(values) else None
    return None if made is None else Alternative({name: values[index], **also}, made)


def _numbers(demand: Demand) -> Iterator[_Change]:
    """Other numbers, from the nearest to the farthest."""
    for name in ("dropout", "corrupt", "malicious"):
        yield name, range(demand.count(name) - 1, -1, -1), {}
    yield "budget_bits", _upwards(demand.budget_bits, 32.0), {}
    yield "epsilon", _upwards(demand.epsilon, _FARTHEST * demand.epsilon), {}
    yield "rounds", range(demand.rounds - 1, 0, -1), {}
    yield "clients", range(demand.clients + 1, min(_MORE * demand.clients, MAX_CLIENTS) + 1), {}
    yield "clients", range(demand.clients - 1, demand.clients // _FEWER, -1), {}
    if demand.group_size is not None:
        yield "group_size", range(demand.group_size - 1, 1, -1), {}
        yield "group_size", range(demand.group_size + 1, demand.asked + 1), {}


def _other_ways(demand: Demand) -> Iterator[_Change]:
    """To trust somebody else, or to show something else."""
    auto = {} if demand.mechanism is Kind.AUTO else {"mechanism": Kind.AUTO}
    if demand.sampling is not None:
        yield "sampling", (None,), {}
    if auto:
        yield "mechanism", (Kind.AUTO,), {}
    for visibility in (Visibility.SUMMED, Visibility.GROUPED, Visibility.SEALED):
        if visibility is not demand.visibility:
            yield "visibility", (visibility,), auto
    if demand.count("malicious") and demand.kind is not Kind.LOCAL:  # nobody needs more noise for any other reason
        yield "mechanism", (Kind.LOCAL,), {"visibility": Visibility.CLEAR}


def _upwards(start: float, last: float) -> list[float]:
    """Numbers above one, to two digits, in small steps."""
    count = max(0, math.ceil(math.log(last / start, _STEP))) if last > start else 0
    rounded = (float(f"{start * _STEP**i:.2g}") for i in range(1, count + 1))
    return sorted({value for value in rounded if start < value <= last})
