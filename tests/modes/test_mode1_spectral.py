"""Many clients that do the same small thing beside honest training are told by what divides the cohort."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from tests.modes import test_mode1
from tests.modes.test_mode1 import CLASSES, RECIPE, TASK, blobs, play, quarantined

from matl.learning.oracle import RootOracle
from matl.modes import mode1
from matl.modes.mode1 import Mode1
from matl.trust.spectral import OPENS, REMEMBERS, divide

CLIENTS, LIARS, HELD = 50, 20, 120
DIRECTION = np.random.default_rng(3).normal(size=TASK.layout.size)
DIRECTION /= np.linalg.norm(DIRECTION)


def many(seed=0):
    rng = np.random.default_rng(seed)
    root = blobs(np.repeat(np.arange(CLASSES), 10), rng)
    mixes = rng.dirichlet(np.full(CLASSES, 1.0), size=CLIENTS)
    mode = Mode1(RootOracle(TASK, root, RECIPE), campaign_bar=1e9)  # which would hear some of them
    return mode, tuple(blobs(rng.choice(CLASSES, size=HELD, p=mix), rng) for mix in mixes)


def whisper(updates, t, share=0.7):
    lengths = np.linalg.norm(updates[:LIARS], axis=1, keepdims=True)
    updates[:LIARS] += (share * lengths * DIRECTION).astype(np.float32)


def heard(monkeypatch: pytest.MonkeyPatch, change=lambda division, t: division):
    """What the channel was given and found in each round, and perhaps other findings in their place."""
    told = []
    original = mode1.divide

    def listening(*given):
        division = change(original(*given), len(told))
        told.append((given, division))
        return division

    monkeypatch.setattr(mode1, "divide", listening)
    return told


@pytest.fixture(autouse=True)
def _many(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(test_mode1, "world", many)


def test_what_each_does_a_little_is_seen_in_what_all_do(monkeypatch: pytest.MonkeyPatch):
    judgements, _, _ = play(whisper, rounds=4)
    assert not quarantined(judgements[0])  # one round is not enough
    assert quarantined(judgements[-1]) == set(range(LIARS))
    told = np.array([[verdict.evidence["spectral"] for verdict in judgement.verdicts] for judgement in judgements])
    assert told[:, :LIARS].max(axis=0).min() > 1.0 > told[:, LIARS:].max()
    assert "trains what its classes do not explain" in judgements[-1].verdicts[0].reason

    mode, clients = many()
    deaf = replace(mode, spectral_bar=1e9)
    assert deaf.digest != mode.digest
    monkeypatch.setattr(test_mode1, "world", lambda seed: (deaf, clients))
    judgements, _, _ = play(whisper, rounds=4)
    assert len(quarantined(judgements[-1])) < LIARS / 2
    assert max(verdict.evidence["spectral"] for verdict in judgements[-1].verdicts) < 0.01


def test_nobody_is_accused_of_it_where_nobody_does_it():
    judgements, state, _ = play(lambda updates, t: None, rounds=8)
    assert not any(map(quarantined, judgements))
    assert state["divided"] < np.log(OPENS[0])
    assert not np.any(state["clients"]["stood"])


def test_who_lies_otherwise_is_left_out_of_what_divides(monkeypatch: pytest.MonkeyPatch):
    """Sign flips would divide any cohort, and hide those that whisper."""
    told = heard(monkeypatch)

    def both(updates, t):
        whisper(updates, t)
        updates[-3:] *= -1 if t < 3 else 1  # then they behave, and wait in quarantine for the end of it

    judgements, _, _ = play(both, rounds=5)
    assert quarantined(judgements[-1]) == {*range(LIARS), CLIENTS - 3, CLIENTS - 2, CLIENTS - 1}
    assert all(not given[2][-3:].any() and given[2][:-3].all() for given, _ in told[1:])


def test_who_is_known_to_be_foreign_is_no_news(monkeypatch: pytest.MonkeyPatch):
    """A few that lie loudly divide the cohort: the others would be accused of what is left."""
    told = heard(monkeypatch)
    liars = np.arange(CLIENTS) < 10

    def loud(updates, t):
        if t < 3:  # then they behave, and wait in quarantine for the end of it
            updates[liars] += 1.5 * np.linalg.norm(updates[liars], axis=1, keepdims=True) * DIRECTION

    judgements, _, _ = play(loud, rounds=5)
    assert quarantined(judgements[-1]) == set(range(10))
    assert all(np.array_equal(given[-1], liars) for given, _ in told)
    (given, division), *_ = told
    assert division.strength < 1.0 < OPENS[1] < divide(*given[:-1]).strength


def test_what_told_the_parts_apart_is_remembered(monkeypatch: pytest.MonkeyPatch):
    told = heard(monkeypatch)
    _, state, _ = play(whisper, rounds=4)
    assert not told[0][0][4].any()
    for (_, before), (given, _) in pairwise(told):
        np.testing.assert_allclose(given[4], REMEMBERS * before.leaned)
    np.testing.assert_allclose(state["clients"]["leaned"], REMEMBERS * told[-1][1].leaned)
    assert all(given[6] == many()[0].bound for given, _ in told)


def test_a_doubtful_far_part_is_no_evidence(monkeypatch: pytest.MonkeyPatch):
    _, certain, _ = play(whisper, rounds=3)
    heard(monkeypatch, lambda division, t: replace(division, sure=0.0))
    _, doubtful, _ = play(whisper, rounds=3)
    assert np.any(certain["clients"]["stood"])
    assert not np.any(doubtful["clients"]["stood"])


def test_no_more_are_accused_at_a_time_than_the_declared_bound(monkeypatch: pytest.MonkeyPatch):
    mode, clients = many()
    few = replace(mode, bound=0.3)
    monkeypatch.setattr(test_mode1, "world", lambda seed: (few, clients))
    told = heard(monkeypatch)
    judgements, _, _ = play(whisper, rounds=6)
    assert max(division.bar for _, division in told) > mode.spectral_bar
    for judgement in judgements:
        assert sum(verdict.evidence["spectral"] > 1.0 for verdict in judgement.verdicts) <= 0.3 * CLIENTS
    assert quarantined(judgements[-1])


@pytest.mark.parametrize("risen", [False, True])
def test_nobody_short_of_a_risen_bar_stays_accused_for_earlier_rounds(monkeypatch: pytest.MonkeyPatch, risen: bool):
    bar = many()[0].spectral_bar
    quiet = np.arange(CLIENTS) >= LIARS

    def come_nearer(division, t):
        now = 2.0 * bar if risen else bar
        way = np.where(quiet, 0.0, 3.0 if t < 4 else 0.95) * now
        certain = {"leaned": np.ones(CLIENTS), "strength": 10.0, "sure": 4.0}
        return replace(division, shared=way, near=0.0, far=1.0, bar=now, **certain)

    heard(monkeypatch, come_nearer)
    judgements, _, _ = play(lambda updates, t: None, rounds=5)
    *_, before, last = np.array([[each.evidence["spectral"] for each in one.verdicts] for one in judgements])
    assert before[:LIARS].min() > 1.5
    assert not before[LIARS:].any()
    assert set(last[:LIARS]) == {1.0} if risen else last[:LIARS].min() > 1.3
