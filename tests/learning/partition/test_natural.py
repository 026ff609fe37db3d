"""By where samples come from: groups stay whole."""

import numpy as np
import pytest

from matl.errors import InvalidValueError
from matl.learning.datasets import Dataset
from matl.learning.partition import NaturalPartition


def grouped(groups):
    groups = np.asarray(groups)
    return Dataset("wards", np.zeros((len(groups), 1), np.float32), np.arange(len(groups)) % 2, 2, groups=groups)


def test_groups_are_never_torn_apart():
    data = grouped(np.arange(60) % 11 * 7)
    dealt = NaturalPartition().deal(data, 4, np.random.default_rng(0))
    held = [set(client.groups.tolist()) for client in dealt]
    assert sorted(map(len, held)) == [2, 3, 3, 3]
    assert set.union(*held) == set(data.groups.tolist())
    assert sum(map(len, held)) == 11


def test_as_many_clients_as_groups_hold_one_each():
    dealt = NaturalPartition().deal(grouped(np.repeat([5, 9, 2], 4)), 3, np.random.default_rng(0))
    assert sorted(client.groups.tolist() for client in dealt) == [[2] * 4, [5] * 4, [9] * 4]


@pytest.mark.parametrize(
    ("data", "clients", "message"),
    [
        (grouped(np.repeat([5, 9, 2], 4)), 4, "expected at most 3 clients, one for each group that wards has left"),
        (grouped([1, 1, 1, 2]), 2, "gave each of 2 clients at least 2 of 4 samples"),
        (
            Dataset("plain", np.zeros((8, 1), np.float32), np.arange(8) % 2, 2),
            2,
            r"goes by groups, and plain has none; name the column that holds them, e.g. csv:path=...,group=hospital",
        ),
    ],
)
def test_what_cannot_be_dealt_by_groups(data, clients, message):
    with pytest.raises(InvalidValueError, match=message):
        NaturalPartition().deal(data, clients, np.random.default_rng(0))
