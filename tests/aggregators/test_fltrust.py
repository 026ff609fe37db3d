"""FLTrust against float64."""

import numpy as np
import pytest

from matl.aggregators import Context, FLTrust
from matl.errors import InvalidValueError


def naive(X, g):
    rows = np.asarray(X, np.float32).astype(float)
    lengths = np.linalg.norm(rows, axis=1)
    trust = np.maximum(0, rows @ g / (lengths * np.linalg.norm(g)))
    scaled = rows / lengths[:, None] * np.linalg.norm(g)
    return trust @ scaled / trust.sum()


def test_fltrust(X, agree):
    root = np.asarray(X[0], np.float32) + np.asarray(X[-1], np.float32) / 2
    agree(FLTrust()(X, root_update=root), naive(X, root.astype(float)), X)


def test_nobody_agrees_so_nothing_moves():
    result, _ = FLTrust().aggregate(-np.eye(3), Context(root_update=np.ones(3, np.float32)), {})
    assert result.vector.tolist() == [0, 0, 0]
    assert result.unit_weights.tolist() == [0, 0, 0]
    assert result.diagnostics == {"trust_total": 0.0}
    assert FLTrust()(np.eye(3), root_update=np.zeros(3)).tolist() == [0, 0, 0]


@pytest.mark.parametrize("length", [0.0, 1e-45, 1e-37, 1e-20, 1e20, 3e38])
def test_no_length_of_one_row_upsets_the_others(length):
    """A row counts by its direction alone, also where its products with the root leave float32."""
    root = np.full(50, 20.0, np.float32)
    X = np.vstack([np.full((1, 50), length), root, root]).astype(np.float32)
    np.testing.assert_allclose(FLTrust()(X, root_update=root), root, rtol=1e-5)
    X[0] *= -1
    np.testing.assert_allclose(FLTrust()(X, root_update=root), root, rtol=1e-5)


@pytest.mark.parametrize(
    ("root", "message"),
    [
        (None, "FLTrust needs root_update, the update of honest training on clean root data; got none"),
        (np.ones(2), r"root_update of shape \(3,\), got shape \(2,\)"),
        (np.array([1, np.nan, 1]), "root_update to be finite"),
    ],
    ids=["none", "shape", "nan"],
)
def test_roots_that_are_none(root, message):
    with pytest.raises(InvalidValueError, match=message):
        FLTrust()(np.eye(3), root_update=root)
