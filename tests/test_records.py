"""What a judge is given fits together, or is refused."""

import dataclasses

import numpy as np
import pytest

from matl.errors import InvalidValueError
from matl.matrix import UpdateMatrix
from matl.records import Cohort, Unit


def test_a_cohort_from_a_bare_matrix():
    cohort = Cohort.of([[1, 2], [3, 4], [5, 6]], max_byzantine=1, round=7, seed=9)
    assert cohort.ids == ("client-000", "client-001", "client-002")
    assert cohort.X.dense().dtype == np.float32
    assert cohort.params.tolist() == [0, 0]
    assert cohort.weights.tolist() == [1, 1, 1]
    assert (cohort.spec.round, cohort.seed, cohort.max_byzantine) == (7, 9, 1)
    named = Cohort.of(np.eye(2), params=np.ones(2), ids=["a", "b"], weights=np.array([2, 3]))
    assert named.units == (Unit("a", ("a",)), Unit("b", ("b",)))
    assert named.params.dtype == np.float32
    assert named.weights.dtype == np.float64


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"X": [[1, 2], [3]]}, "n rows of d numbers"),
        ({"X": np.zeros((0, 2))}, "shape"),
        ({"X": np.zeros((2, 0))}, "shape"),
        ({"X": np.array([[np.nan]])}, r"row\(s\) \[0\]"),
        ({"X": np.array([[0.0], [1e300]])}, r"row\(s\) \[1\]"),
        ({"X": np.eye(2), "params": np.zeros(3)}, r"= \(2, 3\), got \(2, 2\)"),
        ({"X": np.eye(2), "params": np.array([0, np.inf])}, "params to be finite"),
        ({"X": np.eye(2), "ids": ["a", "b", "c"]}, r"= \(3, 2\), got \(2, 2\)"),
        ({"X": np.eye(2), "ids": ["a", "a"]}, "unique unit ids"),
        ({"X": np.eye(2), "weights": np.zeros(2)}, "not all zero"),
        ({"X": np.eye(2), "weights": np.ones(3)}, r"weights of shape \(2,\)"),
        ({"X": np.eye(2), "max_byzantine": 2}, "got max_byzantine=2 and n=2"),
        ({"X": np.eye(2), "max_byzantine": -1}, "got max_byzantine=-1"),
    ],
)
def test_cohorts_that_do_not_fit_together(arguments, message):
    with pytest.raises(InvalidValueError, match=message):
        Cohort.of(**arguments)


@pytest.mark.parametrize("field", ["staleness", "received_at"])
def test_one_entry_per_unit(field):
    with pytest.raises(InvalidValueError, match=rf"{field} of shape \(2,\)"):
        dataclasses.replace(Cohort.of(np.eye(2)), **{field: np.zeros(3)})


def test_nobody_is_no_cohort():
    whole = Cohort.of(np.eye(2))
    with pytest.raises(InvalidValueError, match="expected units >= 1, got units=0"):
        dataclasses.replace(whole, units=(), X=UpdateMatrix(np.empty((0, 2))), weights=np.empty(0))


def test_no_record_has_a_place_for_the_truth():
    from matl import records

    forbidden = ("malicious", "byzantine", "honest", "attack", "truth")
    for name in ("Cohort", "Judgement", "Rejection", "RoundSpec", "Unit", "Update", "Verdict"):
        for field in dataclasses.fields(getattr(records, name)):
            if field.name != "max_byzantine":  # a declared bound, never the count
                assert not any(word in field.name for word in forbidden), (name, field.name)


def test_a_row_too_long_for_float32_products_is_refused():
    with pytest.raises(InvalidValueError, match="norm <= 1e"):
        Cohort.of(np.full((2, 3), 3e38, np.float32))
