"""Whatever the partition: every sample goes to exactly one client, every client gets two, a seed deals one hand."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matl.errors import InvalidValueError
from matl.learning.datasets import Dataset
from matl.learning.partition import (
    PARTITIONS,
    BrightnessPartition,
    ClassesPartition,
    DirichletPartition,
    GroupBiasPartition,
    IidPartition,
    IndexPartition,
    NaturalPartition,
    QuantityPartition,
    RotationPartition,
    ShardsPartition,
)

EVERY = [
    IidPartition(),
    DirichletPartition(100.0),
    DirichletPartition(0.1),
    ShardsPartition(),
    ShardsPartition(3),
    ClassesPartition(3),
    GroupBiasPartition(),
    QuantityPartition(),
    QuantityPartition(0.05),
    NaturalPartition(),
    RotationPartition(),
    RotationPartition(base=DirichletPartition()),
    BrightnessPartition(),
]


def numbered(samples, seed=0, classes=5):
    """Images of three pixels; every sample carries its own number as its group, so that it can be followed."""
    rng = np.random.default_rng(seed)
    y = rng.permutation(np.arange(samples) % classes)
    X = rng.random((samples, 3), np.float32)
    return Dataset("numbered", X, y, classes, shape=(1, 1, 3), groups=np.arange(samples))


def numbers(client):
    return client.groups.tolist()


@pytest.mark.parametrize("partition", EVERY, ids=repr)
@settings(max_examples=20)
@given(seed=st.integers(0, 2**32), clients=st.integers(2, 8), samples=st.integers(100, 200))
def test_disjoint_complete_and_at_least_two_each(partition, seed, clients, samples):
    data = numbered(samples, seed)
    dealt = partition.deal(data, clients, np.random.default_rng(seed))
    assert len(dealt) == clients
    assert min(map(len, dealt)) >= 2
    assert sorted(itertools.chain.from_iterable(map(numbers, dealt))) == list(range(samples))
    for client in dealt:
        np.testing.assert_array_equal(client.y, data.y[client.groups])  # no label left its sample
        assert (client.shape, client.num_classes, client.name) == (data.shape, data.num_classes, data.name)
    for again, client in zip(partition.deal(data, clients, np.random.default_rng(seed)), dealt, strict=True):
        np.testing.assert_array_equal(again.X, client.X)
        np.testing.assert_array_equal(again.groups, client.groups)


@pytest.mark.parametrize("partition", EVERY, ids=repr)
@pytest.mark.parametrize(("samples", "clients"), [(10, 6), (10, 0), (10, -1), (1, 1)])
def test_too_many_clients_are_refused_with_the_numbers(partition, samples, clients):
    with pytest.raises(InvalidValueError, match=str(samples if clients > 0 else clients)):
        partition.deal(numbered(samples), clients, np.random.default_rng(0))


def test_an_unlucky_deal_is_dealt_again_and_given_up_in_the_end():
    class Drawn(IndexPartition):
        """All to the first client, until the third draw."""

        draws = 0

        def assign(self, data, clients, rng):
            self.draws += 1
            return np.arange(len(data)) % (clients if self.draws == 3 else 1)

    partition = Drawn()
    assert [len(client) for client in partition.deal(numbered(10), 2, np.random.default_rng(0))] == [5, 5]
    assert partition.draws == 3
    with pytest.raises(InvalidValueError, match=r"gave each of 2 clients at least 2 of 10 samples in 1000 draws"):
        partition.deal(numbered(10), 2, np.random.default_rng(0))


def test_every_partition_has_its_name():
    assert list(PARTITIONS) == [
        *("brightness", "classes", "dirichlet", "group_bias", "iid", "natural", "quantity", "rotation", "shards"),
    ]
    assert {type(PARTITIONS.create(name)) for name in PARTITIONS} == {type(partition) for partition in EVERY}
    nested = {"name": "rotation", "degrees": "30", "base": {"name": "dirichlet", "alpha": 1}}
    assert PARTITIONS.create(nested) == RotationPartition(30.0, DirichletPartition(1.0))
