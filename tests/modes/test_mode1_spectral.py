"""Many clients that do the same small thing beside honest training are told by what divides the cohort."""

from dataclasses import replace

import numpy as np
import pytest
from tests.modes import test_mode1
from tests.modes.test_mode1 import CLASSES, RECIPE, TASK, blobs, play, quarantined

from matl.learning.oracle import RootOracle
from matl.modes import mode1
from matl.modes.mode1 import Mode1
from matl.trust.spectral import OPENS

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
    told = []

    def listening(clients, shadows, weights, *others):
        told.append(weights)
        return original(clients, shadows, weights, *others)

    original = mode1.divide
    monkeypatch.setattr(mode1, "divide", listening)

    def both(updates, t):
        whisper(updates, t)
        updates[-3:] *= -1 if t < 3 else 1  # then they behave, and wait in quarantine for the end of it

    judgements, _, _ = play(both, rounds=5)
    assert quarantined(judgements[-1]) == {*range(LIARS), CLIENTS - 3, CLIENTS - 2, CLIENTS - 1}
    assert all(not weights[-3:].any() and weights[:-3].all() for weights in told[1:])


def test_who_is_known_to_be_foreign_is_no_news(monkeypatch: pytest.MonkeyPatch):
    """A few that lie loudly divide the cohort: the others would be accused of what is left."""
    told = []

    def listening(*given):
        told.append((given[-1].copy(), original(*given).strength, original(*given[:-1]).strength))
        return original(*given)

    original = mode1.divide
    monkeypatch.setattr(mode1, "divide", listening)
    liars = np.arange(CLIENTS) < 10

    def loud(updates, t):
        if t < 3:  # then they behave, and wait in quarantine for the end of it
            updates[liars] += 1.5 * np.linalg.norm(updates[liars], axis=1, keepdims=True) * DIRECTION

    judgements, _, _ = play(loud, rounds=5)
    assert quarantined(judgements[-1]) == set(range(10))
    assert all(np.array_equal(known, liars) for known, _, _ in told)
    (_, strength, otherwise), *_ = told
    assert strength < 1.0 < OPENS[1] < otherwise
