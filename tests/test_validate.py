"""Argument checks: what passes, what does not, and what the message says."""

import numpy as np
import pytest

from matl import validate
from matl.errors import InvalidValueError


@pytest.mark.parametrize(
    ("check", "good", "bad"),
    [
        (lambda v: validate.finite(x=v), [-1e300, 0, 3], [np.nan, np.inf, -np.inf]),
        (lambda v: validate.positive(x=v), [1e-300, 3], [0, -1, np.nan, np.inf, -np.inf]),
        (lambda v: validate.non_negative(x=v), [0, 3.0], [-1e-300, np.nan, np.inf]),
        (lambda v: validate.at_least(2, x=v), [2, 5], [1.999, np.nan, np.inf]),
        (lambda v: validate.whole(2, x=v), [2, np.int64(5)], [1, 2.0, True, np.float64(3), "3", None, np.nan]),
        (lambda v: validate.fraction(x=v), [0, 0.5, 1], [-1e-9, 1.0000001, np.nan, np.inf]),
        (
            lambda v: validate.vector(x=np.array(v)),
            [[1.0], []],
            [1.0, [[1.0]], [np.nan], [np.inf]],
        ),
        (lambda v: validate.vector(2, x=np.array(v)), [[1.0, 2.0]], [[1.0], [1.0, 2.0, 3.0], [1.0, np.nan]]),
        (
            lambda v: validate.finite_matrix(x=np.array(v)),
            [[[1.0]], [[1e308], [1e308]]],  # the second sums to infinity, yet every entry is finite
            [[1.0], [[]], np.empty((0, 2)), [[np.nan]], [[np.inf, -np.inf]], [[1.0], [np.inf]]],
        ),
        (
            lambda v: validate.sample_weights(2, x=np.array(v)),
            [[0.0, 1.0]],
            [[0.0, 0.0], [-1.0, 2.0], [1.0], [np.nan, 1.0], [np.inf, 1.0]],
        ),
    ],
    ids=["finite", "positive", "non_negative", "at_least", "whole", "fraction", "vector", "sized", "matrix", "weights"],
)
def test_checks(check, good, bad):
    for value in good:
        check(value)
    for value in bad:
        with pytest.raises(InvalidValueError, match=r"\bx\b"):
            check(value)


def test_messages_name_the_rows_that_are_not_finite():
    X = np.zeros((9, 2))
    X[[1, 7], 1] = np.nan, np.inf
    with pytest.raises(InvalidValueError, match=r"row\(s\) \[1, 7\]; mend or leave out"):
        validate.finite_matrix(X=X)


def test_no_weights_at_all_is_the_callers_error_and_not_a_crash():
    with pytest.raises(InvalidValueError, match="not all zero"):
        validate.sample_weights(0, weights=np.empty(0))
