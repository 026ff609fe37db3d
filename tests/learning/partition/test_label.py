"""Label skew: how much of it, and of which kind."""

import numpy as np
import pytest

from matl.errors import InvalidValueError
from matl.learning.datasets import Dataset
from matl.learning.partition import (
    ClassesPartition,
    DirichletPartition,
    GroupBiasPartition,
    IidPartition,
    PartitionStatistics,
    ShardsPartition,
)


def labelled(y, classes=None):
    y = np.asarray(y)
    return Dataset("labelled", np.zeros((len(y), 1), np.float32), y, classes or int(y.max()) + 1)


def deal(partition, y, clients, seed=0):
    """Samples of each client by class."""
    dealt = partition.deal(labelled(y), clients, np.random.default_rng(seed))
    return np.stack([client.class_counts() for client in dealt])


def test_iid_deals_evenly():
    assert sorted(deal(IidPartition(), np.zeros(23, int), 4).sum(axis=1).tolist()) == [5, 6, 6, 6]
    assert deal(IidPartition(), np.zeros(6, int), 3).sum() == 6  # the fewest that are enough


def test_iid_deals_as_it_always_has():
    """Published figures stand on these very hands."""
    dealt = IidPartition().deal(labelled(np.arange(12) % 3), 3, np.random.default_rng(5))
    parts = np.array_split(np.random.default_rng(5).permutation(12), 3)
    assert [client.y.tolist() for client in dealt] == [(np.sort(part) % 3).tolist() for part in parts]


def test_alpha_is_the_skew():
    """Mean over clients of the largest class share: near 1 for small alpha, near 1/10 for large.

    The share is averaged over 20 clients of 200 samples: at alpha 100 its standard deviation is about .01 and the bar
    stands more than five away; at .05 about .03, the bar more than five away. False failure below 1e-6 each.
    """

    def skew(alpha):
        counts = deal(DirichletPartition(alpha), np.arange(4000) % 10, 20, seed=1)
        return (counts.max(axis=1) / counts.sum(axis=1)).mean()

    assert skew(100.0) < 0.2 < 0.6 < skew(0.05)


@pytest.mark.parametrize("alpha", [0.0, -1.0, np.nan, np.inf])
def test_alpha_is_positive_and_finite(alpha):
    with pytest.raises(InvalidValueError, match="alpha"):
        DirichletPartition(alpha)


def test_a_skew_that_cannot_serve_everyone_gives_up_and_says_so():
    with pytest.raises(InvalidValueError, match=r"alpha=0.001\) gave each of 5 clients at least 2 of 10 samples"):
        deal(DirichletPartition(0.001), np.zeros(10, int), 5)


def test_two_shards_are_few_classes_and_equal_sizes():
    counts = deal(ShardsPartition(), np.arange(4000) % 10, 20)
    assert set(counts.sum(axis=1)) == {200}
    assert ((counts > 0).sum(axis=1) <= 2).all()  # 40 shards of 100: none spans two of the 10 classes of 400
    assert len({tuple(row) for row in counts > 0}) > 5  # not always the same pairs
    with pytest.raises(InvalidValueError, match="3 clients need at least 5 samples each, 15 in all, but there are 12"):
        deal(ShardsPartition(5), np.arange(12) % 3, 3)
    with pytest.raises(InvalidValueError, match="per_client to be a whole number >= 1"):
        ShardsPartition(0)


@pytest.mark.parametrize(("per_client", "clients"), [(1, 10), (2, 5), (2, 23), (3, 7), (10, 4)])
def test_every_client_holds_exactly_so_many_classes(per_client, clients):
    counts = deal(ClassesPartition(per_client), np.arange(2000) % 10, clients)
    assert ((counts > 0).sum(axis=1) == per_client).all()
    holders = (counts > 0).sum(axis=0)
    assert holders.max() - holders.min() <= 1
    for of_class in counts.T:
        assert np.ptp(of_class[of_class > 0]) <= 1


def test_pairs_of_classes_differ_between_seeds_and_clients():
    first, second = (deal(ClassesPartition(), np.arange(2000) % 10, 20, seed) > 0 for seed in (1, 2))
    assert (first != second).any()
    assert len({tuple(row) for row in first}) > 5


@pytest.mark.parametrize(
    ("per_client", "y", "clients", "message"),
    [
        (1, np.arange(100) % 5, 4, "expected per_client from 2 to 5, so that 4 clients hold all of 5 classes"),
        (6, np.arange(100) % 5, 4, "expected per_client from 2 to 5, .* got per_client=6"),
        (2, [0] * 50 + [1] * 3, 5, "class 1 has 3 samples, too few for the 5 clients that hold it"),
    ],
)
def test_classes_that_cannot_be_held(per_client, y, clients, message):
    with pytest.raises(InvalidValueError, match=message):
        deal(ClassesPartition(per_client), y, clients)


def groups_of(counts):
    """The clients of each group, by the class they hold most of."""
    favourites = counts.argmax(axis=1)
    return [np.flatnonzero(favourites == label) for label in range(counts.shape[1])]


@pytest.mark.parametrize(("bias", "clients"), [(0.5, 20), (0.9, 13)])
def test_a_group_gets_its_class_with_the_bias_and_every_other_alike(bias, clients):
    """Shares of 40,000 samples of each of four classes.

    A share's standard deviation is at most sqrt(.25 / 40000) = .0025; the bar of .015 stands six of them away, for
    16 shares: false failure below 1e-7.
    """
    counts = deal(GroupBiasPartition(bias), np.arange(160_000) % 4, clients)
    groups = groups_of(counts)
    assert sorted(map(len, groups)) == sorted(map(len, np.array_split(np.arange(clients), 4)))
    shares = np.stack([counts[group].sum(axis=0) for group in groups]) / 40_000
    expected = np.full((4, 4), (1 - bias) / 3)
    np.fill_diagonal(expected, bias)
    np.testing.assert_allclose(shares, expected, atol=0.015)
    for group in groups:  # within a group all clients are alike: 10,000 samples each at least, so within 6 %
        sizes = counts[group].sum(axis=1)
        np.testing.assert_allclose(sizes, sizes.mean(), rtol=0.06)


def test_bias_goes_from_nothing_of_the_own_class_to_nothing_else():
    y = np.arange(3000) % 3
    assert ((deal(GroupBiasPartition(1.0), y, 7) > 0).sum(axis=1) == 1).all()
    assert ((deal(GroupBiasPartition(0.0), y, 7) > 0).sum(axis=1) == 2).all()


def test_groups_differ_between_seeds_and_one_class_is_one_group():
    first, second = (deal(GroupBiasPartition(1.0), np.arange(400) % 4, 8, seed) > 0 for seed in (1, 2))
    assert (first != second).any()
    assert deal(GroupBiasPartition(), np.zeros(60, int), 3).sum() == 60


def test_fewer_clients_than_classes_share_them():
    counts = deal(GroupBiasPartition(1.0), np.arange(100) % 5, 3)
    assert sorted(tuple(np.flatnonzero(row)) for row in counts) == [(0, 3), (1, 4), (2,)]


@pytest.mark.parametrize("bias", [-0.1, 1.1, np.nan])
def test_bias_is_a_probability(bias):
    with pytest.raises(InvalidValueError, match="bias"):
        GroupBiasPartition(bias)


def test_the_kinds_of_skew_in_order():
    y = np.arange(4000) % 10
    spread = [
        PartitionStatistics.of(deal(partition, y, 20)).summary()
        for partition in (ClassesPartition(2), DirichletPartition(0.5), IidPartition())
    ]
    effective = [one["effective_classes_mean"] for one in spread]
    divergence = [one["divergence_mean"] for one in spread]
    assert effective == sorted(effective)
    assert divergence == sorted(divergence, reverse=True)
