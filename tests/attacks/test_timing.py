"""Attacks that choose when to act."""

import itertools

import numpy as np
import pytest

from matl.attacks import ATTACKS, Alie, LabelFlip, Malformed, OnOff, Scaling, SignFlip, Sleeper, SlowDrift
from matl.errors import InvalidValueError

RNG = np.random.default_rng


def test_sleeper_wakes_at_its_round():
    sleeper = Sleeper(Alie(), wake_round=3)
    assert [sleeper.at(t) for t in range(5)] == [None, None, None, Alie(), Alie()]
    assert isinstance(Sleeper().at(10), SignFlip)
    assert Sleeper().at(9) is None
    assert Sleeper(Sleeper(wake_round=4), wake_round=2).at(3) is None  # one inside the other
    spec = {"name": "sleeper", "wake_round": "4", "attack": {"name": "scaling", "scale": 3}}
    assert ATTACKS.create(spec) == Sleeper(Scaling(3.0), 4)


@pytest.mark.parametrize(
    ("period", "duty", "rounds"), [(4, 0.5, [2, 3, 6, 7]), (3, 0.1, [2, 5]), (5, 0.6, [2, 3, 4, 7]), (1, 1.0, range(8))]
)
def test_on_off_acts_at_the_end_of_each_turn(period, duty, rounds):
    attack = OnOff(Alie(), period, duty)
    assert [t for t in range(8) if attack.at(t) == Alie()] == [*rounds]
    assert all(attack.at(t) is None for t in range(8) if t not in rounds)


def test_slow_drift_grows_by_the_same_step_each_round(view, own):
    drift = SlowDrift(Scaling(3.0), rounds=4)
    factors = [float((drift.at(t).craft(view(own), RNG(0)) / own).mean()) for t in range(6)]
    assert factors == pytest.approx([1.0, 1.5, 2.0, 2.5, 3.0, 3.0], rel=1e-5)
    assert SlowDrift(Sleeper(wake_round=3)).at(2) is None


def test_slow_drift_poisons_more_of_the_same_samples_each_round():
    X, y = np.arange(10, dtype=np.float32)[:, None], np.zeros(10, np.int64)
    drift = SlowDrift(LabelFlip(), rounds=4)
    poisoned = []
    for t in range(5):
        poisoned_X, poisoned_y = drift.at(t).poison(X, y, 10, RNG(7))
        assert sorted(poisoned_X.ravel()) == sorted(X.ravel())
        poisoned.append({float(x) for x in poisoned_X[poisoned_y == 9, 0]})
    assert [len(one) for one in poisoned] == [0, 2, 5, 8, 10]
    assert all(a <= b for a, b in itertools.pairwise(poisoned))


def test_slow_drift_tampers_more_often_each_round():
    class Tampering(Malformed):
        def tamper(self, update, rng):
            return "tampered"

    counts = [
        sum(SlowDrift(Tampering(), rounds=4).at(t).tamper("sent", RNG(draw)) == "tampered" for draw in range(200))
        for t in (0, 2, 4)
    ]
    assert counts[0] == 0
    assert 70 < counts[1] < 130
    assert counts[2] == 200


@pytest.mark.parametrize(
    "wrong",
    [
        lambda: Sleeper(wake_round=-1),
        lambda: OnOff(period=0),
        lambda: OnOff(duty=0.0),
        lambda: OnOff(duty=1.5),
        lambda: SlowDrift(rounds=0),
    ],
)
def test_impossible_times_are_refused_with_the_value_seen(wrong):
    with pytest.raises(InvalidValueError, match=r"expected .*, got \w+=\S+"):
        wrong()
