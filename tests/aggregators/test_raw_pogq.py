"""The literal proof of gradient quality: rows that lower the root loss are averaged, the others left out."""

import numpy as np
import pytest

from matl.aggregators import Context, RawPoGQ
from matl.errors import InvalidValueError


def test_raw_pogq(X, agree):
    gain = np.linspace(-1, 2, len(X)) if len(X) > 1 else np.ones(1)
    rows = np.asarray(X, np.float32).astype(float)
    agree(RawPoGQ()(X, root_gain=gain), rows[gain > 0].mean(axis=0), X)


def test_rows_that_lower_the_loss_count_alike_and_the_others_not_at_all():
    X = np.array([[1.0, 0.0], [0.0, 3.0], [50.0, 50.0], [-7.0, 7.0]])
    context = Context(root_gain=[0.5, 1e-9, -0.1, 0.0], weights=[1, 90, 1, 1])
    result, _ = RawPoGQ().aggregate(X, context, {})
    assert result.vector.tolist() == [0.5, 1.5]
    assert result.unit_weights.tolist() == [0.5, 0.5, 0, 0]
    assert result.diagnostics == {"kept": 2}


def test_the_threshold_has_to_be_exceeded():
    X, gain = np.diag([4.0, 8.0, 16.0]), [0.25, 0.5, 1.0]
    assert RawPoGQ(0.25)(X, root_gain=gain).tolist() == [0, 4, 8]
    assert RawPoGQ(-1.0)(X, root_gain=[-1.0, -0.5, -2.0]).tolist() == [0, 8, 0]


@pytest.mark.parametrize("gain", [0.0, -1.0, np.nan, -np.inf])
def test_nobody_lowers_the_loss_so_nothing_moves(gain):
    result, _ = RawPoGQ().aggregate(np.eye(3), Context(root_gain=np.full(3, gain)), {})
    assert result.vector.tolist() == [0, 0, 0]
    assert result.unit_weights.tolist() == [0, 0, 0]
    assert result.diagnostics == {"kept": 0}


@pytest.mark.parametrize("threshold", [0.0, -5.0])
def test_a_gain_that_is_no_number_is_above_no_threshold(threshold):
    assert RawPoGQ(threshold)(np.eye(3), root_gain=[np.nan, 1.0, np.nan]).tolist() == [0, 1, 0]


@pytest.mark.parametrize(
    ("gain", "message"),
    [
        (None, "RawPoGQ needs root_gain, by how much each update alone lowers the loss on clean root data; got none"),
        (np.ones(2), r"root_gain of shape \(3,\), got shape \(2,\)"),
        (np.ones((3, 1)), r"root_gain of shape \(3,\), got shape \(3, 1\)"),
    ],
    ids=["none", "length", "shape"],
)
def test_gains_that_are_none(gain, message):
    with pytest.raises(InvalidValueError, match=message):
        RawPoGQ()(np.eye(3), root_gain=gain)


@pytest.mark.parametrize("threshold", [np.nan, np.inf])
def test_a_threshold_is_finite(threshold):
    with pytest.raises(InvalidValueError, match="expected threshold to be finite"):
        RawPoGQ(threshold)
