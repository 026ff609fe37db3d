"""Quantity skew: sizes differ, what is held does not."""

import numpy as np
import pytest

from matl.errors import InvalidValueError
from matl.learning.datasets import Dataset
from matl.learning.partition import PartitionStatistics, QuantityPartition


def deal(alpha, samples=4000, clients=20):
    y = np.arange(samples) % 10
    data = Dataset("t", np.zeros((samples, 1), np.float32), y, 10)
    return np.stack([c.class_counts() for c in QuantityPartition(alpha).deal(data, clients, np.random.default_rng(1))])


def test_sizes_are_skewed_and_labels_are_not():
    """A large client's labels are a random sample of all: of n of them, K - 1 over n is about the squared distance.

    For the largest client (over 500 of 4,000) a total variation of .15 is more than five deviations away: below 1e-6.
    """
    counts = deal(0.3)
    spread = PartitionStatistics.of(counts)
    assert spread.samples.max() > 3 * np.median(spread.samples)
    assert spread.divergence[spread.samples.argmax()] < 0.15
    even = PartitionStatistics.of(deal(1000.0)).samples
    assert even.max() < 1.5 * even.min()


def test_no_client_goes_without():
    assert deal(0.01).sum(axis=1).min() == 2
    assert (deal(0.5, samples=40).sum(axis=1) == 2).all()
    with pytest.raises(InvalidValueError, match="expected alpha > 0"):
        QuantityPartition(0.0)
