"""The weighted mean, plain and clipped, against float64."""

import numpy as np
import pytest

from matl.aggregators import ClippedMean, Context, Mean


@pytest.mark.parametrize("weighted", [False, True])
def test_mean(X, agree, weighted):
    weights = np.random.default_rng(0).integers(0, 500, len(X)) + np.eye(len(X))[0] if weighted else None
    agree(Mean()(X, weights=weights), np.average(np.asarray(X, float), axis=0, weights=weights), X)


@pytest.mark.parametrize("weighted", [False, True])
def test_clipped_mean(X, agree, weighted):
    weights = np.random.default_rng(0).integers(1, 500, len(X)).astype(float) if weighted else None
    rows = np.asarray(X, float)
    norms = np.linalg.norm(rows, axis=1)
    clipped = rows * np.minimum(1, np.median(norms) / norms)[:, None]
    agree(ClippedMean()(X, weights=weights), np.average(clipped, axis=0, weights=weights), X)


def test_clipped_mean_says_what_it_clipped():
    X = np.array([[3.0, 4.0], [0.0, 1.0], [30.0, 40.0], [0.0, 0.0]])  # norms 5, 1, 50, 0; median 3
    result, _ = ClippedMean().aggregate(X, Context(), {})
    assert result.diagnostics == {"clip_norm": 3.0, "clipped": 2}
    np.testing.assert_allclose(result.unit_weights, np.array([3 / 5, 1, 3 / 50, 1]) / 4)


def test_nothing_but_zeros_is_zero():
    assert ClippedMean()(np.zeros((3, 2))).tolist() == [0, 0]


def test_a_client_without_weight_counts_for_nothing():
    assert Mean()(np.array([[1.0], [3e38]]), weights=np.array([5.0, 0.0])) == [1]
