"""Graphs: what the theorem asks, against enumeration; refusals; groups."""

import hashlib
from collections import deque
from fractions import Fraction
from itertools import combinations
from math import comb

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.stats import chi2

from matl.errors import InvalidValueError
from matl.privacy.secagg import graph as module
from matl.privacy.secagg.graph import COMPLETE, MAX_CLIENTS, Graph, choose_graph, draw_groups, quorum

SEED = hashlib.sha256(b"test").digest()


@pytest.fixture
def sparse(monkeypatch):
    """Sparse graphs for few clients, where everything can be enumerated."""
    monkeypatch.setattr(module, "COMPLETE", 4)
    choose_graph.cache_clear()
    yield
    choose_graph.cache_clear()


def ring(n, degree):
    return {i: [(i + s) % n for s in range(-(degree // 2), degree // 2 + 1) if s] for i in range(n)}


@given(n=st.integers(7, 40), half=st.integers(1, 6), seed=st.binary(min_size=1, max_size=32))
def test_a_drawn_graph_is_regular_and_symmetric(n, half, seed):
    graph = Graph(n, 2 * half if 2 * half < n - 1 else n - 1, 1)
    neighbours = [graph.neighbours(client, seed) for client in range(n)]
    for client, others in enumerate(neighbours):
        assert len(others) == graph.degree
        assert client not in others
        assert list(others) == sorted(set(others))
        assert all(client in neighbours[other] for other in others)


def test_the_ring_is_the_same_on_every_machine():
    assert Graph(12, 4, 3).neighbours(0, SEED) == (4, 6, 9, 11)


def test_every_pair_is_neighbours_equally_often():
    counts = np.zeros((10, 10))
    for draw in range(3000):
        for other in Graph(10, 4, 3).neighbours(0, draw.to_bytes(4, "big")):
            counts[0, other] += 1
    expected = 3000 * 4 / 9
    # Draws without replacement vary less than the chi-square law allows; wrong alarm with probability below 1e-6.
    assert ((counts[0, 1:] - expected) ** 2 / expected).sum() < chi2.isf(1e-6, 8)


def reached(start, members, neighbours):
    """Everyone connected with a client through members."""
    seen, queue = set(), deque([start])
    while queue:
        client = queue.popleft()
        if client not in seen:
            seen.add(client)
            queue.extend(members.intersection(neighbours[client]) - seen)
    return seen


def a_server_can_split(n, degree, threshold, corrupt):
    """Whether some honest survivors can be unmasked apart from the others, over all drop-outs a server can name.

    A part is free of masks if no other honest survivor is reached from it, and the seed of each member is recovered
    from shares of its surviving and its corrupt neighbours.
    """
    neighbours = ring(n, degree)
    honest = [client for client in range(n) if client not in corrupt]
    for alive in (set(some) for size in range(2, len(honest) + 1) for some in combinations(honest, size)):
        known = {v for v in alive if len((alive | set(corrupt)).intersection(neighbours[v])) >= threshold}
        for start in alive:
            part = reached(start, alive, neighbours)
            if part <= known and part != alive:
                return True
    return False


@pytest.mark.parametrize(("degree", "corrupt"), [(6, ()), (6, (0,)), (6, (0, 6)), (6, (2, 3)), (4, (3, 9))])
def test_no_drop_outs_a_server_can_name_split_the_honest_survivors(degree, corrupt):
    most = max(len(set(corrupt) & set(others)) for v, others in ring(12, degree).items() if v not in corrupt)
    assert not a_server_can_split(12, degree, degree // 2 + most + 1, corrupt)


@pytest.mark.parametrize(("degree", "corrupt"), [(6, ()), (4, ()), (4, (3, 9))])
def test_with_a_threshold_one_lower_a_server_can_split_them(degree, corrupt):
    most = max(len(set(corrupt) & set(others)) for v, others in ring(12, degree).items() if v not in corrupt)
    assert a_server_can_split(12, degree, degree // 2 + most, corrupt)


@pytest.mark.usefixtures("sparse")
@pytest.mark.parametrize(("n", "dropout", "corrupt"), [(12, 2, 2), (13, 3, 1), (14, 1, 3), (15, 3, 3), (16, 0, 2)])
@pytest.mark.parametrize("failure", [0.5, 0.1, 1e-3])
def test_the_stated_probabilities_hold_by_enumeration(n, dropout, corrupt, failure):
    graph = choose_graph(n, dropout, corrupt, failure, attempts=1, abandoned=0.2)
    neighbours = ring(n, graph.degree) if not graph.complete else {i: set(range(n)) - {i} for i in range(n)}
    unsafe = sum(
        any(
            len(set(corrupted) & set(neighbours[v])) >= graph.threshold - graph.degree // 2
            for v in range(n)
            if v not in corrupted
        )
        for corrupted in combinations(range(n), corrupt)
    )
    lost = sum(
        any(graph.degree - len(set(dropped) & set(neighbours[v])) < graph.threshold for v in range(n))
        for dropped in combinations(range(n), dropout)
    )
    if not graph.complete:
        assert unsafe <= failure * comb(n, corrupt)
        assert lost <= 0.2 * comb(n, dropout)


@pytest.mark.usefixtures("sparse")
def test_some_of_these_small_graphs_are_sparse():
    assert choose_graph(15, 3, 1, 0.1, attempts=1, abandoned=0.2).degree == 10
    assert choose_graph(14, 1, 3, 0.5, attempts=1, abandoned=0.2).degree < 13


@pytest.mark.parametrize(("n", "dropout", "corrupt"), [(300, 20, 15), (500, 50, 25), (1000, 100, 50)])
@pytest.mark.parametrize("attempts", [1, 2**64])
def test_the_stated_probabilities_hold_exactly_and_nothing_is_given_away(n, dropout, corrupt, attempts):
    graph = choose_graph(n, dropout, corrupt, attempts=attempts)

    def more_than(marked, most, degree):
        """A client has more than ``most`` marked neighbours: counted from the other end than in the module."""
        ways = [comb(marked, i) * comb(n - 1 - marked, degree - i) for i in range(min(most, degree, marked) + 1)]
        return 1 - Fraction(sum(ways), comb(n - 1, degree))

    def unsafe(threshold, degree):
        return attempts * n * more_than(corrupt, threshold - degree // 2 - 1, degree) > Fraction(2) ** -40

    def lost(threshold, degree):
        return n * more_than(dropout, degree - threshold, degree) > Fraction(2) ** -20

    assert not unsafe(graph.threshold, graph.degree)
    assert not lost(graph.threshold, graph.degree)
    assert unsafe(graph.threshold - 1, graph.degree)
    sparser = graph.degree - 2
    assert all(unsafe(t, sparser) or lost(t, sparser) for t in range(sparser // 2 + 1, sparser + 1))


@pytest.mark.parametrize("n", [2, 3, COMPLETE])
def test_few_clients_all_mask_with_each_other(n):
    graph = choose_graph(n, 0, 0)
    assert graph.complete
    assert graph.threshold == quorum(n, 0) - 1


def test_more_corruption_or_drop_out_takes_more_neighbours():
    degrees = [choose_graph(1000, d, c).degree for d, c in ((50, 20), (100, 20), (100, 50), (200, 100))]
    assert degrees == sorted(degrees)
    assert len(set(degrees)) == 4
    assert choose_graph(1000, 100, 50, attempts=1).degree < choose_graph(1000, 100, 50).degree


def test_what_no_sparse_graph_holds_against_falls_back_on_the_complete_one():
    assert choose_graph(200, 80, 30).complete


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((10, 5, 0), "dropout <= 4"),
        ((10, 4, 2), "dropout <= 3"),
        ((10, 0, 9), "dropout <= 0"),
        ((MAX_CLIENTS + 1, 0, 0), f"n <= {MAX_CLIENTS}"),
        ((1, 0, 0), "n to be a whole number >= 2"),
        ((10, -1, 0), "dropout to be a whole number >= 0"),
    ],
)
def test_impossible_plans_are_refused_with_the_bound(arguments, message):
    with pytest.raises(InvalidValueError, match=message):
        choose_graph(*arguments)


@given(n=st.integers(2, 60), corrupt=st.integers(0, 58))
def test_two_quorums_share_an_honest_client(n, corrupt):
    shared = 2 * quorum(n, corrupt) - n  # at least
    assert shared > corrupt


@given(clients=st.sets(st.text(st.characters(codec="utf-8"), min_size=1), min_size=2, max_size=30), data=st.data())
def test_groups_are_a_partition_into_nearly_equal_parts(clients, data):
    size = data.draw(st.integers(1, len(clients)))
    units = draw_groups(clients, size, 7)
    assert sorted(member for unit in units for member in unit.members) == sorted(clients)
    sizes = [len(unit.members) for unit in units]
    assert min(sizes) >= size
    assert max(sizes) - min(sizes) <= 1
    assert len({unit.id for unit in units}) == len(units)
    assert units == draw_groups(sorted(clients, reverse=True), size, 7)


def test_groups_are_random_and_different_for_every_seed():
    clients = [f"c{i}" for i in range(6)]
    together = np.zeros(6)
    for seed in range(3000):
        unit = next(unit for unit in draw_groups(clients, 2, seed) if "c0" in unit.members)
        together[clients.index(next(member for member in unit.members if member != "c0"))] += 1
    # Wrong alarm with probability 1e-6.
    assert ((together[1:] - 600) ** 2 / 600).sum() < chi2.isf(1e-6, 4)


def test_the_drawing_of_groups_is_fixed():
    units = draw_groups([f"c{i}" for i in range(7)], 3, 42)
    assert [unit.members for unit in units] == [("c2", "c3", "c5", "c6"), ("c0", "c1", "c4")]


@pytest.mark.parametrize(("clients", "size"), [(["a", "a"], 1), (["a"], 2), ([], 1), (["a", "b"], 0)])
def test_groups_that_cannot_be_drawn_are_refused(clients, size):
    with pytest.raises(InvalidValueError):
        draw_groups(clients, size, 1)
