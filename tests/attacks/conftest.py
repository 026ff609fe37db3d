"""Views that attacks are shown."""

from types import SimpleNamespace

import numpy as np
import pytest

from matl.attacks import AttackView, Rehearsal
from matl.records import Status

D, CLASSES = 50, 4


@pytest.fixture
def own():
    return np.random.default_rng(0).normal(size=(4, D)).astype(np.float32)


@pytest.fixture
def honest():
    """Seven honest updates with something in common."""
    return (np.random.default_rng(1).normal(size=(7, D)) + 0.5).astype(np.float32)


@pytest.fixture
def view():
    """Builds a view; the number of clients follows from the rows unless given."""

    def build(own, honest=None, **given):
        others = 0 if honest is None else len(honest)
        return AttackView(**({"round": 0, "own": own, "honest": honest, "clients": len(own) + others} | given))

    return build


class Judge:
    """Averages everybody but those it catches: rows whose norm exceeds a bar. It keeps all it was shown."""

    def __init__(self, honest, bar=np.inf):
        self.honest, self.bar, self.shown = honest, bar, []

    def __call__(self, rows):
        self.shown.append(rows)
        caught = np.linalg.norm(rows, axis=1) > self.bar
        return Rehearsal(
            aggregate=np.concatenate([self.honest, rows[~caught]]).mean(axis=0),
            weights=(~caught).astype(float),
            statuses=tuple(Status.QUARANTINED if one else Status.ACCEPTED for one in caught),
            evidence=({},) * len(rows),
        )


@pytest.fixture
def judge():
    return Judge


class Root:
    """A validator whose class gradients are unit vectors and whose own training leads to a goal."""

    num_classes = CLASSES

    def __init__(self, goal):
        self.goal = goal

    def atoms(self, params, fold):
        pairs = np.array([(a, b) for a in range(CLASSES) for b in range(CLASSES) if a != b])
        directions = np.eye(CLASSES, len(params), dtype=np.float32)
        return SimpleNamespace(honest=directions, poison=directions[pairs[:, 1]] - directions[pairs[:, 0]], pairs=pairs)

    def root_update(self, params, seed):
        return self.goal - params


@pytest.fixture
def root():
    """Builds a validator whose model should end where the mean of these updates leads."""
    return lambda honest: Root(honest.mean(axis=0))
