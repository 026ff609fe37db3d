"""What every attack is: idle by default, declared, stateless, and gentle with what it is shown."""

import dataclasses
import pickle

import numpy as np
import pytest

from matl.attacks import ATTACKS, Attack, AttackView, Knowledge, Rehearsal, Scaling, Sleeper, TargetedFlip, Wrapper
from matl.records import Status

RNG = np.random.default_rng
DATA = {"backdoor", "class_only", "free_rider", "label_flip", "targeted_flip"}
OMNISCIENT = {"adaptive_mix", "alie", "ipm", "lie", "mimic", "min_max", "min_sum"}
WHITE_BOX = {"adaptive_fltrust", "cone", "disguise", "model_poisoning", "white_box", "white_box_blend"}


def full_view(view, own, honest, judge, root, **given):
    params = np.zeros(own.shape[1], np.float32)
    seen = {"params": params, "previous": honest.mean(axis=0), "rehearse": judge(honest), "oracle": root(honest)}
    return view(own, honest, **(seen | given))


def test_the_base_attacks_nothing(view, own):
    idle, update = Attack(), object()
    X, y = np.ones((3, 2), np.float32), np.arange(3)
    assert idle.at(7) is idle
    assert idle.on((1, 2, 2)) is idle
    assert idle.craft(view(own), RNG(0)) is own
    assert idle.tamper(update, RNG(0)) is update
    assert idle.poison(X, y, 3, RNG(0)) == (X, y)
    assert idle.triggered(X, y, 3) is None
    assert idle.knowledge is Knowledge.OWN_UPDATES


def test_every_attack_declares_what_it_knows():
    declared = {name: ATTACKS.create(name).knowledge for name in ATTACKS}
    expected = {Knowledge.DATA: DATA, Knowledge.OMNISCIENT: OMNISCIENT, Knowledge.WHITE_BOX: WHITE_BOX}
    for knowledge, names in expected.items():
        assert {name for name in declared if declared[name] is knowledge} == names


@pytest.mark.parametrize("name", [*ATTACKS])
def test_every_attack_says_what_it_is_and_where_it_comes_from(name):
    summary = ATTACKS.summary(name)
    assert summary.endswith(".")
    ours = {
        "malformed",
        "forged_words",
        "sleeper",
        "slow_drift",
        "cone",
        "disguise",
        "white_box",
        "white_box_blend",
        "adaptive_mix",
    }
    assert ("References" in ATTACKS.get(name).__doc__) == (name not in ours)


@pytest.mark.parametrize("name", [*ATTACKS])
def test_every_attack_is_a_value_without_state(name, view, own, honest, judge, root):
    attack = ATTACKS.create(name)
    assert attack == ATTACKS.create(name)
    assert hash(attack) == hash(ATTACKS.create(name))
    assert pickle.loads(pickle.dumps(attack)) == attack
    with pytest.raises((dataclasses.FrozenInstanceError, TypeError, AttributeError)):
        attack.anything = 1
    for array in (own, honest):
        array.flags.writeable = False
    acting = attack.at(25) or attack.at(0)
    sent = [acting.craft(full_view(view, own, honest, judge, root, round=25), RNG(3)) for _ in range(2)]
    assert sent[0].shape == own.shape
    assert sent[0].dtype == np.float32
    assert np.isfinite(sent[0]).all()
    np.testing.assert_array_equal(*sent)


@pytest.mark.parametrize("name", [*ATTACKS])
def test_no_attack_needs_more_than_it_is_given(name, view, own):
    """Alone in a round, in its first round, or where nobody honest takes part, as participation allows."""
    attack = ATTACKS.create(name)
    acting = attack.at(25) or attack.at(0)
    one, nothing = own[:1], np.zeros_like(own)
    for seen in (view(one), view(one, nothing[:0]), view(nothing, nothing)):
        sent = acting.craft(seen, RNG(0))
        assert sent.shape == seen.own.shape
        assert np.isfinite(sent).all()


def test_an_adversary_who_sees_nobody_honest_takes_its_own_for_them(own, honest):
    assert AttackView(round=0, own=own, clients=4).reference is own
    assert AttackView(round=0, own=own, honest=honest[:0], clients=4).reference is own
    assert AttackView(round=0, own=own, honest=honest, clients=11).reference is honest


def test_caught_are_the_quarantined_and_the_rejected():
    statuses = tuple(Status)
    rehearsal = Rehearsal(np.zeros(2, np.float32), np.ones(len(statuses)), statuses, ({},) * len(statuses))
    assert {status for status, caught in zip(statuses, rehearsal.caught, strict=True) if caught} == {
        Status.QUARANTINED,
        Status.REJECTED,
    }


WRAPPERS = ["sleeper", "on_off", "slow_drift", "sybil", "adaptive_mix", "disguise", "white_box_blend"]


@pytest.mark.parametrize("wrapper", WRAPPERS)
def test_a_wrapper_wants_and_does_what_the_other_attack_does(wrapper):
    inner = {"name": "backdoor", "scale": 2.0}
    wrapped = ATTACKS.create({"name": wrapper, "attack": inner}).on((1, 3, 3))
    alone = ATTACKS.create(inner).on((1, 3, 3))
    X, y = RNG(0).random((20, 9), np.float32), np.arange(20) % 3
    assert wrapped.attack == alone
    for got, expected in zip(wrapped.triggered(X, y, 3), alone.triggered(X, y, 3), strict=True):
        np.testing.assert_array_equal(got, expected)
    acting = wrapped.at(25)
    for got, expected in zip(acting.poison(X, y, 3, RNG(1)), alone.poison(X, y, 3, RNG(1)), strict=True):
        assert got.shape == expected.shape
    assert Sleeper(TargetedFlip(), 3).knowledge is Knowledge.DATA


def test_a_wrapper_that_changes_nothing_is_the_other_attack(view, own):
    class Telling(Scaling):
        def tamper(self, update, rng):
            return f"{update} tampered with"

    wrapped = Wrapper(Telling(3.0))
    np.testing.assert_array_equal(wrapped.craft(view(own), RNG(0)), np.float32(3) * own)
    assert wrapped.tamper("message", RNG(0)) == "message tampered with"
    assert wrapped.at(4) == wrapped


def test_what_a_wrapped_attack_does_not_do_in_a_round_is_not_done():
    sybils = ATTACKS.create({"name": "sybil", "attack": {"name": "sleeper", "wake_round": 3}})
    assert sybils.at(2) is None
    assert sybils.at(3).attack == ATTACKS.create("sign_flip")
