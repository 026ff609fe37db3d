"""Directed deviation against the rules it is directed at."""

import numpy as np
import pytest

from matl.aggregators import Krum, Median, TrimmedMean
from matl.attacks import Knowledge, ModelPoisoning
from matl.errors import InvalidValueError

RNG = np.random.default_rng


def against(aggregate, honest):
    """How far an aggregate is pushed against the signs of the honest mean."""
    return -float(aggregate @ np.sign(honest.mean(axis=0)))


def test_against_krum_sends_the_largest_multiple_that_krum_chooses(view, own, honest):
    sent = ModelPoisoning("krum").craft(view(own, honest), RNG(0))
    s = np.sign(honest.mean(axis=0))
    length = -float((sent[0] * s).mean())
    np.testing.assert_allclose(sent, np.tile(-length * s, (4, 1)), rtol=1e-6)
    everyone = np.concatenate([honest, sent])
    np.testing.assert_array_equal(Krum(f=4)(everyone), sent[0])
    twice = np.concatenate([honest, 2 * sent])
    assert not np.array_equal(Krum(f=4)(twice), 2 * sent[0])


def test_against_trimming_draws_from_just_beyond_the_honest_values(view, own, honest):
    honest[:, 0] = np.linspace(1, 2, 7)  # all above zero, rising: below the smallest means towards zero
    honest[:, 1] = -honest[:, 0]
    honest[:, 2] = np.linspace(-1, 3, 7)  # the smallest is below zero: further out
    honest[:, 3] = -honest[:, 2]
    sent = ModelPoisoning("trimmed_mean").craft(view(own, honest), RNG(0))
    for column, (low, high) in enumerate([(0.5, 1.0), (-1.0, -0.5), (-2.0, -1.0), (1.0, 2.0)]):
        assert ((sent[:, column] >= low) & (sent[:, column] <= high)).all()
    assert len(np.unique(sent, axis=0)) == 4
    everyone = np.concatenate([honest, sent])
    for rule in (TrimmedMean(f=4), Median()):
        assert against(rule(everyone), honest) > against(rule(np.concatenate([honest, own])), honest)


def test_in_force_sends_what_moves_the_aggregate_of_the_judge_most(view, own, honest, judge):
    averaging = judge(honest)
    sent = ModelPoisoning(rehearsals=5).craft(view(own, honest, rehearse=averaging), RNG(0))
    assert len(averaging.shown) == 5
    damages = [against(judge(honest)(rows).aggregate, honest) for rows in averaging.shown]
    np.testing.assert_array_equal(sent, averaging.shown[int(np.argmax(damages))])
    assert np.linalg.norm(sent[0]) > 30 * np.linalg.norm(honest.mean(axis=0))  # averaging takes anything
    bar = 2 * np.linalg.norm(honest, axis=1).max()
    careful = ModelPoisoning().craft(view(own, honest, rehearse=judge(honest, bar)), RNG(0))
    assert (np.linalg.norm(careful, axis=1) <= bar).all()


def test_knowledge_is_no_more_than_the_rule_asks_for():
    assert [ModelPoisoning(rule).knowledge for rule in ("in_force", "krum", "trimmed_mean")] == [
        Knowledge.WHITE_BOX,
        Knowledge.OMNISCIENT,
        Knowledge.OMNISCIENT,
    ]


@pytest.mark.parametrize("wrong", [lambda: ModelPoisoning("median"), lambda: ModelPoisoning(rehearsals=2)])
def test_options_out_of_range_are_refused_with_the_value_seen(wrong):
    with pytest.raises(InvalidValueError, match=r"expected .*, got \w+=\S+"):
        wrong()
