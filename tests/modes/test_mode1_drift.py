"""What honest clients have in common, and the root does not show, is held against none of them."""

from dataclasses import replace

import numpy as np
import pytest
from tests.modes import test_mode1
from tests.modes.test_mode1 import BAD, CLASSES, CLIENTS, RECIPE, TASK, blobs, play, quarantined, sign_flip

from matl.learning.oracle import RootOracle
from matl.modes.mode1 import Mode1


def elsewhere(seed=0):
    """Clients with much data, all classes, and features that lie elsewhere than the root's."""
    rng = np.random.default_rng(seed)
    root = blobs(np.repeat(np.arange(CLASSES), 10), rng)
    away = 1.5 * np.random.default_rng(99).normal(size=root.X.shape[1])
    held = [blobs(rng.choice(CLASSES, size=300), rng) for _ in range(CLIENTS)]
    clients = tuple(replace(data, X=(data.X + away).astype(data.X.dtype)) for data in held)
    return Mode1(RootOracle(TASK, root, RECIPE)), clients


def test_liars_that_do_not_look_alien_do_not_have_honest_clients_accused_of_looking_so(monkeypatch: pytest.MonkeyPatch):
    """Sign flips are made of classes: liars are the least alien of all, and four in ten lower a quantile."""
    monkeypatch.setattr(test_mode1, "world", elsewhere)
    judgements, _, _ = play(sign_flip, rounds=12)
    assert [quarantined(judgement) for judgement in judgements[1:]] == [set(range(BAD))] * 11


def test_a_client_in_quarantine_is_told_what_it_did_and_not_what_it_does_now():
    def enormous(updates, t):
        if t < 4:
            updates[:BAD] *= 20

    judgements, _, _ = play(enormous, rounds=7)
    convicted, waiting = (judgements[t].verdicts[0].reason for t in (3, 6))
    assert float(convicted.removeprefix("is ").split(" times")[0]) > 2.0
    assert waiting.endswith(f"it {convicted}")
