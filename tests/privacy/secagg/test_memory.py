"""Whole rounds: the exact sum whoever drops out and whenever, or a refusal."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matl.errors import AggregationAborted
from matl.privacy.secagg import (
    Aggregate,
    Phase,
    Session,
    aggregate_groups,
    aggregate_in_memory,
    choose_graph,
    draw_groups,
    memory,
    quorum,
)
from matl.privacy.secagg import graph as graph_module
from matl.privacy.secagg.memory import new_identities
from matl.records import Rejection

PHASES = list(Phase)[:-1]


def vectors(n, length, bits, seed=0):
    rng = np.random.default_rng(seed)
    dtype = np.dtype(f"u{max(bits // 8, 1)}")
    return {f"c{i:03d}": rng.integers(0, 1 << bits, length, dtype) for i in range(n)}


def exact(inputs, names, bits):
    return sum(inputs[name].astype(np.uint64) for name in names) % (1 << bits)


def expected_survivors(session, left):
    """Who is in the sum by the rules alone, or ``None`` for a refusal; ``left`` is who is there in each phase."""
    registered = len(left[Phase.ADVERTISE])
    needed, signing = session.needed(registered), quorum(registered, session.corrupt)
    if any(len(left[phase]) < needed for phase in PHASES[:3]) or len(left[Phase.CONSISTENCY]) < signing:
        return None
    # A secret takes quorum - 1 shares of others than its owner.
    if any(len(left[Phase.UNMASK] - {owner}) < signing - 1 for owner in left[Phase.SHARE]):
        return None
    return tuple(sorted(left[Phase.MASK]))


@given(
    n=st.integers(2, 8),
    bits=st.sampled_from([2, 3, 6, 8, 16, 32]),
    length=st.integers(1, 9),
    corrupt=st.integers(0, 2),
    data=st.data(),
)
@settings(max_examples=100, deadline=None)
def test_drop_outs_in_every_phase_give_the_exact_sum_or_a_refusal(n, bits, length, corrupt, data):
    least = data.draw(st.integers(2 + corrupt, 6))
    session = Session(run="r", round=0, length=length, bits=bits, corrupt=corrupt, min_survivors=least)
    inputs = vectors(n, length, bits)
    order = data.draw(st.permutations(sorted(inputs)))
    leaving = data.draw(st.lists(st.sampled_from([*PHASES, None, None, None]), min_size=n, max_size=n))
    dropouts = {p: [name for name, when in zip(order, leaving, strict=True) if when is p] for p in PHASES}
    left, there = {}, set(inputs)
    for phase in PHASES:
        there = there - set(dropouts[phase])
        left[phase] = there
    survivors = expected_survivors(session, left)
    if survivors is None:
        with pytest.raises(AggregationAborted):
            aggregate_in_memory(inputs, session, dropouts=dropouts)
    else:
        aggregate, traffic = aggregate_in_memory(inputs, session, dropouts=dropouts)
        assert aggregate.survivors == survivors
        np.testing.assert_array_equal(aggregate.total, exact(inputs, survivors, bits))
        assert aggregate.total.dtype == session.dtype
        assert traffic.round_trips == 5


@pytest.fixture
def sparse(monkeypatch):
    monkeypatch.setattr(graph_module, "COMPLETE", 4)
    choose_graph.cache_clear()
    yield
    choose_graph.cache_clear()


@pytest.mark.usefixtures("sparse")
@pytest.mark.parametrize("seed", range(4))
def test_a_sparse_graph_gives_the_exact_sum_with_as_many_drop_outs_as_planned(seed):
    session = Session(run="r", round=seed, length=11, bits=16, corrupt=2, min_survivors=18)
    assert session.graph(22).degree < 21
    inputs = vectors(22, 11, 16, seed)
    names = np.random.default_rng(seed).permutation(sorted(inputs))
    dropouts = dict(zip(PHASES[1:], [[name] for name in names[:4]], strict=True))
    aggregate, _ = aggregate_in_memory(inputs, session, dropouts=dropouts)
    assert len(aggregate.survivors) == 20
    np.testing.assert_array_equal(aggregate.total, exact(inputs, aggregate.survivors, 16))


def test_a_hundred_clients_with_drop_outs_in_every_phase_up_to_the_threshold():
    inputs = vectors(100, 100_000, 8)
    names = sorted(inputs)
    session = Session(run="r", round=0, length=100_000, corrupt=5, min_survivors=70)
    # 53 signatures are a quorum of 100 with 5 corrupt; the sum is over 70.
    dropouts = {
        Phase.SHARE: names[:15],
        Phase.MASK: names[15:30],
        Phase.CONSISTENCY: names[30:40],
        Phase.UNMASK: names[40:47],
    }
    aggregate, traffic = aggregate_in_memory(inputs, session, dropouts=dropouts)
    assert aggregate.survivors == tuple(names[30:])
    np.testing.assert_array_equal(aggregate.total, exact(inputs, names[30:], 8))
    assert traffic.largest_up[Phase.MASK] < 100_000 + 2_000
    dropouts[Phase.UNMASK] = names[40:48]
    with pytest.raises(AggregationAborted, match=r"expected 52 shares of a secret of '.*', got 51"):
        aggregate_in_memory(inputs, session, dropouts=dropouts)


EVERY_PHASE = dict(zip(PHASES, (5, 12, 13, 10, 9), strict=True))
"""Of 100 clients with 5 corrupt: 95 register, 70 are in the sum, 51 hold the 50 shares that each secret is made of."""


def leaving(names, counts):
    names = iter(names)
    return {phase: [next(names) for _ in range(count)] for phase, count in counts.items()}


@pytest.mark.slow
def test_a_hundred_clients_with_a_million_words_and_drop_outs_in_every_phase_up_to_the_threshold():
    inputs = vectors(100, 1_000_000, 8)
    session = Session(run="r", round=0, length=1_000_000, corrupt=5, min_survivors=70)
    aggregate, _ = aggregate_in_memory(inputs, session, dropouts=leaving(sorted(inputs), EVERY_PHASE))
    assert aggregate.survivors == tuple(sorted(inputs)[30:])
    np.testing.assert_array_equal(aggregate.total, exact(inputs, aggregate.survivors, 8))


@pytest.mark.parametrize(
    ("phase", "message"),
    [
        (Phase.ADVERTISE, "at least 70 clients in the phase mask, got 69"),
        (Phase.SHARE, "at least 70 clients in the phase mask, got 69"),
        (Phase.MASK, "at least 70 clients in the phase mask, got 69"),
        (Phase.CONSISTENCY, r"expected 50 shares of a secret of '.*', got 49"),
        (Phase.UNMASK, r"expected 50 shares of a secret of '.*', got 49"),
    ],
)
def test_one_client_beyond_the_threshold_in_any_phase_ends_the_round_without_a_sum(phase, message):
    inputs = vectors(100, 50, 8)
    session = Session(run="r", round=0, length=50, corrupt=5, min_survivors=70)
    more = EVERY_PHASE | {phase: EVERY_PHASE[phase] + 1}
    with pytest.raises(AggregationAborted, match=message):
        aggregate_in_memory(inputs, session, dropouts=leaving(sorted(inputs), more))


def test_traffic_counts_every_byte():
    inputs = vectors(4, 10, 8)
    session = Session(run="r", round=0, length=10, min_survivors=2)
    _, traffic = aggregate_in_memory(inputs, session, dropouts={Phase.UNMASK: ["c000"]})
    assert set(traffic.up) == set(traffic.down) == set(PHASES)
    assert traffic.up[Phase.CONSISTENCY] == 4 * 69
    assert traffic.up[Phase.UNMASK] == 3 * traffic.largest_up[Phase.UNMASK] == 3 * (3 + 4 + 2 + 3 * 32)
    assert traffic.down[Phase.SHARE] == 4 * traffic.largest_down[Phase.SHARE]
    assert traffic.down[Phase.ADVERTISE] == 0


def test_identities_can_be_kept_from_round_to_round():
    inputs = vectors(3, 5, 8)
    identities = new_identities(inputs)
    for number in range(2):
        session = Session(run="r", round=number, length=5, min_survivors=2)
        aggregate, _ = aggregate_in_memory(inputs, session, identities=identities)
        np.testing.assert_array_equal(aggregate.total, exact(inputs, inputs, 8))


def test_a_sum_of_short_words_says_nothing_but_itself():
    """Not even how often it passed 2^bits: the high bits of words and of their sum are gone."""
    session = Session(run="r", round=0, length=6, bits=3, min_survivors=2)
    inputs = {name: np.full(6, 0b11111_110, np.uint8) for name in "abc"}
    aggregate, traffic = aggregate_in_memory(inputs, session)
    assert aggregate.total.tolist() == [(3 * 0b110) % 8] * 6
    assert traffic.largest_up[Phase.MASK] == 3 + (3 + 2) + (2 + 2 * 16) + 1  # six words of three bits are three bytes


def test_groups_give_their_own_sums_and_one_that_fails_costs_no_other():
    inputs = vectors(11, 7, 16)
    session = Session(run="r", round=0, length=7, bits=16, min_survivors=3)
    units = draw_groups(inputs, 3, seed=5)
    lost, hurt, *_ = units
    dropouts = {Phase.MASK: lost.members[:2], Phase.UNMASK: hurt.members[:1]}
    sums = aggregate_groups(inputs, session, 3, 5, dropouts=dropouts)
    assert list(sums) == list(units)
    for unit, found in sums.items():
        if unit is lost or unit == lost:
            assert isinstance(found, Rejection)
            assert (found.client_id, found.code) == (lost.id, "aborted")
        else:
            assert isinstance(found, Aggregate)
            assert found.survivors == unit.members
            np.testing.assert_array_equal(found.total, exact(inputs, unit.members, 16))


def test_a_group_is_a_session_of_its_own(monkeypatch):
    seen = []

    def record(inputs, session, **_):
        seen.append((tuple(inputs), session.group))
        return Aggregate(session.empty(), tuple(inputs)), None

    monkeypatch.setattr(memory, "aggregate_in_memory", record)
    inputs = vectors(7, 2, 8)
    aggregate_groups(inputs, Session(run="r", round=0, length=2, min_survivors=2), 3, 1)
    assert seen == [(unit.members, unit.id) for unit in draw_groups(inputs, 3, 1)]
