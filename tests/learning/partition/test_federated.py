"""The split into root, test and clients: no sample is in two of them, and what cannot be split is refused."""

import functools
import operator

import numpy as np
import pytest

from matl.errors import InvalidValueError
from matl.learning.datasets import Dataset, Source
from matl.learning.partition import DirichletPartition, FederatedData, IidPartition, QuantityPartition, split_federation

PARTITIONS = [IidPartition(), DirichletPartition(0.5), QuantityPartition()]


def numbered(classes, per_class, start=0):
    """A data set in which every sample carries its own number, so that it can be followed."""
    y = np.arange(classes * per_class) % classes
    X = np.column_stack([np.arange(start, start + len(y)), y]).astype(np.float32)
    return Dataset("numbered", X, y, classes)


def numbers(data):
    return data.X[:, 0].astype(int).tolist()


@pytest.mark.parametrize("official_test", [False, True])
@pytest.mark.parametrize("partition", PARTITIONS, ids=repr)
def test_root_test_and_clients_share_no_sample(official_test, partition):
    train = numbered(4, 50)
    source = Source(train, numbered(4, 5, start=1000) if official_test else None)

    def split():
        return split_federation(source, clients=6, partition=partition, root_size=23, rng=np.random.default_rng(3))

    data = split()
    everyone = [numbers(data.root), numbers(data.test), *map(numbers, data.clients)]
    together = functools.reduce(operator.iadd, everyone, [])
    assert len(set(together)) == len(together)
    assert sorted(together) == [*range(200), *(range(1000, 1020) if official_test else [])]
    assert data.root.class_counts().tolist() == [5] * 4  # 23 rounded down
    assert data.test.class_counts().tolist() == [5 if official_test else 10] * 4
    assert data.class_counts().sum(axis=1).tolist() == [len(client) for client in data.clients]
    for part in (data.root, data.test, *data.clients):
        np.testing.assert_array_equal(part.X[:, 1], part.y)  # no label left its sample
    again = split()
    assert numbers(again.root) == numbers(data.root)
    assert [numbers(c) for c in again.clients] == [numbers(c) for c in data.clients]


@pytest.mark.parametrize(
    ("root_size", "clients", "message"),
    [
        (7, 2, r"root_size >= 8 \(two samples of each of 4 classes\), got root_size=7"),
        (160, 2, "more than 40 training samples of each class for a root of 160, got 40"),
        (156, 3, "there are 4"),
    ],
)
def test_splits_that_cannot_be(root_size, clients, message):
    with pytest.raises(InvalidValueError, match=message):
        split_federation(
            Source(numbered(4, 50)),
            clients=clients,
            partition=IidPartition(),
            root_size=root_size,
            rng=np.random.default_rng(0),
        )


def test_labels_with_a_gap_are_told_so():
    y = np.repeat([1, 2], 50)
    source = Source(Dataset("gap", np.zeros((100, 2), np.float32), y.astype(np.int64), 3))
    with pytest.raises(InvalidValueError, match="class 0 has no samples; labels must be 0 to 2"):
        split_federation(source, clients=2, partition=IidPartition(), root_size=6, rng=np.random.default_rng(0))


def test_groups_go_where_their_samples_go():
    train = numbered(4, 50)
    train = Dataset(train.name, train.X, train.y, 4, groups=train.X[:, 0].astype(np.int64))
    data = split_federation(
        Source(train), clients=5, partition=IidPartition(), root_size=8, rng=np.random.default_rng(0)
    )
    for part in (data.root, data.test, *data.clients):
        assert part.groups.tolist() == numbers(part)


def test_statistics_are_those_of_the_clients():
    data = split_federation(
        Source(numbered(4, 50)), clients=5, partition=IidPartition(), root_size=8, rng=np.random.default_rng(0)
    )
    assert data.statistics().samples.tolist() == [len(client) for client in data.clients]


def test_parts_that_do_not_belong_together():
    part, other = numbered(4, 5), numbered(3, 5)
    wide = Dataset("wide", np.zeros((4, 9), np.float32), np.arange(4), 4)
    assert len(FederatedData(part, part, (part, part)).clients) == 2
    with pytest.raises(InvalidValueError, match="at least one client, got none"):
        FederatedData(part, part, ())
    with pytest.raises(InvalidValueError, match="got 3 and 2 in client 1, 4 and 2 in the test set"):
        FederatedData(part, part, (part, other))
    with pytest.raises(InvalidValueError, match="got 4 and 9 in root, 4 and 2 in the test set"):
        FederatedData(wide, part, (part,))
