"""Every sample goes to exactly one place, every client gets some, and the same seed deals the same hands."""

import functools
import operator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from matl.errors import InvalidValueError
from matl.learning.datasets import Dataset, Source
from matl.learning.partition import DirichletPartition, IidPartition, split_federation

PARTITIONS = [IidPartition(), DirichletPartition(100.0), DirichletPartition(0.5)]


def assert_partition(parts, total):
    together = np.concatenate(parts)
    assert len(together) == total
    np.testing.assert_array_equal(np.sort(together), np.arange(total))
    assert min(len(part) for part in parts) >= 2


@pytest.mark.parametrize("partition", [*PARTITIONS, DirichletPartition(0.1)], ids=repr)
@settings(max_examples=30)
@given(seed=st.integers(0, 2**32), clients=st.integers(1, 8))
def test_disjoint_complete_and_at_least_two_each(partition, seed, clients):
    y = np.random.default_rng(seed).integers(0, 5, size=200)
    parts = partition.assign(y, clients, np.random.default_rng(seed))
    assert len(parts) == clients
    assert_partition(parts, 200)
    for again, part in zip(partition.assign(y, clients, np.random.default_rng(seed)), parts, strict=True):
        np.testing.assert_array_equal(again, part)


def test_iid_deals_evenly():
    sizes = [len(part) for part in IidPartition().assign(np.zeros(23, int), 4, np.random.default_rng(0))]
    assert sorted(sizes) == [5, 6, 6, 6]


def test_the_fewest_samples_that_are_enough():
    assert_partition(IidPartition().assign(np.zeros(6, int), 3, np.random.default_rng(0)), 6)


def test_alpha_is_the_skew():
    """Mean over clients of the largest class share: near 1 for small alpha, near 1/10 for large.

    The share is averaged over 20 clients of 200 samples: at alpha 100 its standard deviation is about .01 and the bar
    stands more than five away; at .05 about .03, the bar more than five away. False failure below 1e-6 each.
    """
    y = np.arange(4000) % 10

    def skew(alpha):
        parts = DirichletPartition(alpha).assign(y, 20, np.random.default_rng(1))
        return np.mean([np.bincount(y[part]).max() / len(part) for part in parts])

    assert skew(100.0) < 0.2 < 0.6 < skew(0.05)


@pytest.mark.parametrize("alpha", [0.0, -1.0, np.nan, np.inf])
def test_alpha_is_positive_and_finite(alpha):
    with pytest.raises(InvalidValueError, match="alpha"):
        DirichletPartition(alpha)


@pytest.mark.parametrize("partition", PARTITIONS, ids=repr)
@pytest.mark.parametrize(("samples", "clients"), [(10, 6), (10, 0), (10, -1), (1, 1), (0, 1)])
def test_too_many_clients_are_refused_with_the_numbers(partition, samples, clients):
    with pytest.raises(InvalidValueError, match=str(samples if clients > 0 else clients)):
        partition.assign(np.zeros(samples, int), clients, np.random.default_rng(0))


def test_a_skew_that_cannot_serve_everyone_gives_up_and_says_so():
    with pytest.raises(InvalidValueError, match=r"alpha=0.001 gave each of 5 clients at least 2 of 10 samples"):
        DirichletPartition(0.001).assign(np.zeros(10, int), 5, np.random.default_rng(0))


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
