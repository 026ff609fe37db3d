"""A rule alone: it aggregates, gives no verdicts, and says so."""

import dataclasses

import numpy as np
import pytest

from matl.aggregators import FLTrust, Krum, Mean, Median, RawPoGQ, TrimmedMean
from matl.errors import BoundError, InvalidValueError
from matl.modes import Plain
from matl.params import ParamLayout
from matl.records import Cohort, Status

X = np.random.default_rng(0).normal(size=(9, 5)).astype(np.float32)


class Root:
    """An oracle that records what it is asked."""

    digest, num_classes = "root", 4

    def __init__(self):
        self.asked = []

    def root_update(self, params, seed):
        self.asked.append(seed)
        return np.ones(params.size, np.float32)

    def loss(self, params):
        """Squared distance from (1, ..., 1)."""
        self.asked.append(params)
        return float(((params - 1) ** 2).sum())


def judge(mode, cohort):
    return mode.judge(cohort, mode.init(ParamLayout.of([cohort.params])))[0]


def test_the_mean_is_weighted_and_accepts_everybody():
    cohort = Cohort.of(X, weights=np.arange(1, 10))
    judgement = judge(Plain(), cohort)
    np.testing.assert_allclose(judgement.aggregate, np.average(X, axis=0, weights=np.arange(1, 10)), rtol=1e-5)
    assert [v.unit for v in judgement.verdicts] == list(cohort.ids)
    assert {(v.status, v.weight, v.reason) for v in judgement.verdicts} == {(Status.ACCEPTED, 1.0, "")}
    assert not Plain().gives_verdicts
    assert Plain().channels == ()


def test_a_row_the_rule_leaves_out_is_accepted_with_no_weight_and_a_reason():
    judgement = judge(Plain(Krum()), Cohort.of(X, max_byzantine=2))
    weights = [v.weight for v in judgement.verdicts]
    assert sorted(weights) == [0.0] * 8 + [1.0]
    np.testing.assert_array_equal(judgement.aggregate, X[weights.index(1.0)])
    assert all(v.status is Status.ACCEPTED and bool(v.reason) == (v.weight == 0) for v in judgement.verdicts)


def test_the_bound_of_the_cohort_reaches_the_rule():
    with pytest.raises(BoundError, match="Krum with n=9"):
        judge(Plain(Krum()), Cohort.of(X, max_byzantine=4))
    trimmed = judge(Plain(TrimmedMean()), Cohort.of(X, max_byzantine=4)).aggregate
    np.testing.assert_allclose(trimmed, np.median(X, axis=0), rtol=1e-6)


def test_root_update_is_that_of_a_client_with_the_whole_root():
    root = Root()
    judgement = judge(Plain(FLTrust(), oracle=root), Cohort.of(np.ones((3, 5)), seed=8))
    np.testing.assert_allclose(judgement.aggregate, np.ones(5), rtol=1e-6)
    assert root.asked == [8]
    judge(Plain(Median(), oracle=root), Cohort.of(X))
    assert len(root.asked) == 1  # nobody else pays for it


def test_root_gain_is_what_each_update_alone_takes_from_the_loss_at_the_rounds_parameters():
    """From 0.5 to 1, a step of 0.25 comes nearer, one the other way does not, and one of 1.5 goes too far."""
    rows, root = np.array([[0.25], [-0.25], [1.5]], np.float32) * np.ones(5, np.float32), Root()
    cohort = Cohort.of(rows, params=np.full(5, 0.5, np.float32))
    judgement = judge(Plain(RawPoGQ(), oracle=root), cohort)
    np.testing.assert_allclose(judgement.aggregate, rows[0])
    assert [v.weight for v in judgement.verdicts] == [1, 0, 0]
    assert len(root.asked) == 1 + len(rows)
    # The first update takes exactly 5 (0.5^2 - 0.25^2) = 0.9375 from the loss, which a threshold has to exceed.
    assert judge(Plain(RawPoGQ(0.9374), oracle=root), cohort).diagnostics["kept"] == 1
    assert judge(Plain(RawPoGQ(0.9375), oracle=root), cohort).diagnostics["kept"] == 0
    asked = len(root.asked)
    judge(Plain(Median(), oracle=root), cohort)
    assert len(root.asked) == asked  # nobody else pays for it


def test_an_update_that_breaks_the_loss_is_left_out():
    class Breaking(Root):
        def loss(self, params):
            return float((0 * np.exp(params) - params).mean())  # no number beyond exp(88)

    judgement = judge(Plain(RawPoGQ(), oracle=Breaking()), Cohort.of([[1.0, 1.0], [1e6, 1e6]]))
    assert judgement.aggregate.tolist() == [1, 1]


@pytest.mark.parametrize("rule", [FLTrust(), RawPoGQ()])
def test_a_rule_that_needs_root_data_is_refused_without(rule):
    name = type(rule).__name__
    with pytest.raises(InvalidValueError, match=f"{name} needs an oracle with root data, got oracle=None"):
        Plain(rule)


def test_a_bound_beyond_one_is_refused():
    with pytest.raises(InvalidValueError, match=r"0 <= bound <= 1, got bound=1.5"):
        Plain(bound=1.5)


def test_the_digest_tells_rules_options_bounds_and_oracles_apart():
    modes = [
        Plain(),
        Plain(Median()),
        Plain(TrimmedMean()),
        Plain(TrimmedMean(f=1)),
        Plain(bound=0.2),
        Plain(oracle=Root()),
    ]
    assert len({mode.digest for mode in modes}) == len(modes)
    assert Plain(TrimmedMean(f=1)).digest == Plain(TrimmedMean(f=1)).digest


@pytest.mark.parametrize("rule", [Mean(), Median(), Krum(), TrimmedMean()])
def test_shuffling_rows_and_ids_permutes_the_verdicts(rule):
    order = np.random.default_rng(1).permutation(len(X))
    cohort = Cohort.of(X, max_byzantine=2)
    shuffled = dataclasses.replace(cohort, X=cohort.X.take(order), units=tuple(cohort.units[i] for i in order))
    before, after = judge(Plain(rule), cohort), judge(Plain(rule), shuffled)
    assert {v.unit: v for v in before.verdicts} == {v.unit: v for v in after.verdicts}
    assert [v.unit for v in after.verdicts] == [cohort.ids[i] for i in order]
    np.testing.assert_allclose(before.aggregate, after.aggregate, rtol=1e-5, atol=1e-6)
