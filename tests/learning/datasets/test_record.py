"""The record of labelled samples refuses what cannot be."""

import numpy as np
import pytest

from matl.errors import InvalidValueError
from matl.learning.datasets import DATASETS, Dataset, load_dataset


def small(**changes):
    given = {"shape": (1, 1, 2), "groups": np.array([7, 7, 9]), "class_names": ("a", "b", "c", "d")} | changes
    return Dataset("small", np.arange(6, dtype=np.float32).reshape(3, 2), np.array([0, 2, 2]), 4, **given)


def test_take_and_counts():
    data = small()
    assert len(data) == 3
    assert data.class_counts().tolist() == [1, 0, 2, 0]
    part = data.take(np.array([2, 0]))
    assert part.X.tolist() == [[4, 5], [0, 1]]
    assert part.y.tolist() == [2, 0]
    assert part.groups.tolist() == [9, 7]
    assert (part.name, part.num_classes, part.shape) == ("small", 4, (1, 1, 2))
    assert part.class_names == ("a", "b", "c", "d")
    assert small(groups=None).take(np.array([1])).groups is None


def test_a_slice_is_a_view():
    data = small()
    part = data.take(slice(1, 3))
    assert part.y.tolist() == [2, 2]
    assert np.shares_memory(part.X, data.X)


@pytest.mark.parametrize(
    ("X", "y", "message"),
    [
        (np.zeros((2, 2)), np.array([0]), "one label per sample, got 2 samples"),
        (np.zeros((1, 2)), np.array([-1]), "expected labels 0 to 1, got -1 to -1 in bad"),
        (np.zeros((1, 2)), np.array([2]), "got 2 to 2"),
        (np.array([[np.nan]]), np.array([0]), r"row\(s\) \[0\]"),
        (np.zeros((0, 2)), np.array([], int), "shape"),
    ],
)
def test_data_sets_that_cannot_be(X, y, message):
    with pytest.raises(InvalidValueError, match=message):
        Dataset("bad", X, y, 2)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"shape": (3, 32, 32)}, r"a sample of shape \(3, 32, 32\) has 3072 values, but the rows of small have 2"),
        ({"groups": np.array([1, 2])}, r"one group per sample, got 3 samples and groups \(2,\)"),
        ({"class_names": ("a", "b")}, "expected 4 class names, one for each class of small"),
    ],
)
def test_what_is_known_of_samples_has_to_fit_them(changes, message):
    with pytest.raises(InvalidValueError, match=message):
        small(**changes)


def test_a_data_set_with_options_is_checked_before_it_is_loaded():
    bound = DATASETS.bind({"name": "csv", "path": "nowhere.csv", "label": "y"})
    assert callable(bound)  # nothing was read
    for spec, message in [
        ("csv", "dataset 'csv' needs the option 'path', e.g. csv:path="),
        ({"name": "csv", "path": "x.csv", "lable": "y"}, r"has no option 'lable' \(did you mean 'label'\?\)"),
        ({"name": "sklearn", "loader": "boston"}, "sklearn.loader: input should be .*'iris' or 'wine'"),
    ]:
        with pytest.raises(InvalidValueError, match=message):
            DATASETS.bind(spec)


def test_synthetic_is_the_same_everywhere():
    first, second = load_dataset("synthetic").train, load_dataset("synthetic").train
    np.testing.assert_array_equal(first.X, second.X)
    assert first.class_counts().tolist() == [400] * 10
    assert first.X.shape == (4000, 20)
    assert first.shape is None
