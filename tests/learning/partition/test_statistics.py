"""Effective classes and divergence, by hand."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from matl.learning.partition import PartitionStatistics


def test_figures_by_hand():
    spread = PartitionStatistics.of(np.array([[4, 0, 0, 0], [1, 1, 1, 1], [0, 2, 2, 0]]))
    assert spread.samples.tolist() == [4, 4, 4]
    assert spread.effective_classes == pytest.approx([1, 4, 2])
    # All together hold 5, 3, 3 and 1 of 12.
    assert spread.divergence == pytest.approx([7 / 12, 1 / 6, 1 / 2])
    assert spread.summary() == {
        "clients": 3,
        "samples_min": 4,
        "samples_median": 4.0,
        "samples_max": 4,
        "effective_classes_mean": pytest.approx(7 / 3),
        "divergence_mean": pytest.approx(5 / 12),
    }


@given(arrays(np.int64, st.tuples(st.integers(1, 6), st.integers(1, 5)), elements=st.integers(0, 50)))
def test_bounds(counts):
    counts[:, 0] += 1
    spread = PartitionStatistics.of(counts)
    held = (counts > 0).sum(axis=1)
    assert (spread.effective_classes >= 1 - 1e-9).all()
    assert (spread.effective_classes <= held + 1e-9).all()
    assert (spread.divergence >= 0).all()
    assert (spread.divergence <= 1).all()
    if len(counts) == 1:
        assert spread.divergence[0] == 0
