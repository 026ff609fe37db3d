"""Attacks on the training data: which labels become which."""

import numpy as np
import pytest

from matl.attacks import ClassOnly, LabelFlip, TargetedFlip
from matl.errors import InvalidValueError

RNG = np.random.default_rng
X, Y = np.arange(24, dtype=np.float32).reshape(12, 2), np.arange(12) % 10


@pytest.mark.parametrize(
    ("flip", "expected"),
    [("reverse", [9, 8, 7, 6, 5, 4, 3, 2, 1, 0, 9, 8]), ("shift", [1, 2, 3, 4, 5, 6, 7, 8, 9, 0, 1, 2])],
)
def test_label_flip_reverses_or_shifts_the_labels(flip, expected):
    poisoned_X, poisoned_y = LabelFlip(flip).poison(X, Y, 10, RNG(0))
    assert poisoned_X is X
    assert poisoned_y.tolist() == expected


def test_random_flips_reach_every_other_label_and_never_the_own():
    y = np.repeat(np.arange(3), 100)
    flipped = LabelFlip("random").poison(np.zeros((300, 1), np.float32), y, 3, RNG(0))[1]
    counts = np.array([np.bincount(flipped[y == label], minlength=3) for label in range(3)])
    assert (np.diag(counts) == 0).all()
    assert counts[~np.eye(3, dtype=bool)].min() > 30  # 50 +- 5 of each


def test_targeted_flips_change_their_own_classes_alone():
    poisoned_X, poisoned_y = TargetedFlip().poison(X, Y, 10, RNG(0))
    assert poisoned_X is X
    assert poisoned_y.tolist() == [0, 7, 2, 3, 9, 5, 6, 7, 8, 9, 0, 7]
    triggered, wanted = TargetedFlip(((3, 0),)).triggered(X, Y, 10)
    assert (triggered.tolist(), wanted.tolist()) == ([[6.0, 7.0]], [0])


def test_swapped_classes_do_not_run_through_each_other():
    assert TargetedFlip(((0, 1), (1, 0))).poison(X, Y, 10, RNG(0))[1][:3].tolist() == [1, 0, 2]


@pytest.mark.parametrize("pairs", [(), ((1, 1),), ((1, 2), (1, 3)), ((-1, 2),)])
def test_pairs_that_say_nothing_clear_are_refused(pairs):
    with pytest.raises(InvalidValueError, match="expected pairs"):
        TargetedFlip(pairs)


def test_pairs_beyond_the_classes_are_refused():
    with pytest.raises(InvalidValueError, match="names class 9, but the classes are 0 to 2"):
        TargetedFlip().triggered(X, Y % 3, 3)


def test_class_only_keeps_the_samples_of_its_class():
    kept_X, kept_y = ClassOnly(1).poison(X, Y, 10, RNG(0))
    assert kept_y.tolist() == [1, 1]
    assert kept_X.tolist() == [[2.0, 3.0], [22.0, 23.0]]
    everything = ClassOnly(5).poison(X[:3], Y[:3], 10, RNG(0))  # a client without any
    np.testing.assert_array_equal(everything[1], Y[:3])


@pytest.mark.parametrize("wrong", [lambda: LabelFlip("upwards"), lambda: ClassOnly(-1), lambda: ClassOnly(1.5)])
def test_options_out_of_range_are_refused_with_the_value_seen(wrong):
    with pytest.raises(InvalidValueError, match=r"expected .*, got \w+=\S+"):
        wrong()
