import numpy as np
import pytest

from matl.matrix import UpdateMatrix
from matl.state import pack, unpack
from matl.trust.composite import Composite
from matl.trust.oracle import Atoms
from matl.trust.sequential import WINDOW
from matl.trust.sketch import Sketch
from matl.trust.standing import COMPONENTS, Standing
from matl.trust.view import View

CLASSES, D, WIDTH, N, M = 4, 300, 64, 12, 40
IDS = [f"c{i:02d}" for i in range(N)]
ATOMS = Atoms(
    honest=np.random.default_rng(0).normal(size=(CLASSES, D)).astype(np.float32),
    poison=np.random.default_rng(1).normal(size=(CLASSES * (CLASSES - 1), D)).astype(np.float32),
    pairs=np.argwhere(~np.eye(CLASSES, dtype=bool)).astype(np.int64),
)


def seen(count, seed, copies=0):
    """Clients of mixed classes with noise of their own, the first of which may be copies of one."""
    rng = np.random.default_rng(seed)
    X = rng.dirichlet(np.ones(CLASSES), size=count) @ ATOMS.honest + 0.5 * rng.normal(size=(count, D))
    X[:copies] = X[0]
    return View.of(UpdateMatrix(X.astype(np.float32)), ATOMS, Sketch(D, 3, WIDTH))


def after(state, t, ids=IDS, copies=0, arrivals=None):
    arrivals = np.random.default_rng([t, 9]).uniform(1, 9, size=len(ids)) if arrivals is None else arrivals
    clients, shadows = seen(len(ids), [t, 1], copies), seen(M, [t, 2])
    return Standing.after(state, ids, t % 2, clients, shadows, arrivals, np.full(len(ids), 0.5), Composite())


def played(rounds, **settings):
    state = Standing.init(M, CLASSES, WIDTH)
    for t in range(rounds):
        told, state = after(state, t, **settings)
    return told, state


def test_trust_is_the_weighted_mean_of_what_is_told():
    told, _ = played(5)
    assert tuple(told) == COMPONENTS
    np.testing.assert_allclose(told["trust"], 0.4 * 0.5 + 0.3 * told["tcdm"] + 0.3 * told["entropy"])
    assert (told["trust_low"] <= told["trust"]).all()
    assert (told["trust"] <= told["trust_high"]).all()


def test_copies_keep_no_ordinary_company():
    told, _ = played(5, copies=5)
    assert told["tcdm"][:5].max() < 0.02
    assert np.median(told["tcdm"][5:]) > 0.1


def test_who_always_arrives_with_its_likes_stands_out():
    state = Standing.init(M, CLASSES, WIDTH)
    for t in range(12):
        arrivals = np.random.default_rng([t, 9]).uniform(1, 9, size=N)
        apart, _ = after(state, t, copies=6, arrivals=arrivals)
        arrivals[:6] = arrivals[0] + 0.01 * np.arange(6)
        together, state = after(state, t, copies=6, arrivals=arrivals)
    assert (together["tcdm"][:6] <= apart["tcdm"][:6]).all()


def test_a_small_cohort_has_no_company_to_speak_of():
    told, _ = played(3, ids=IDS[:4])
    assert np.isnan(told["tcdm"]).all()
    np.testing.assert_allclose(told["trust"], (0.4 * 0.5 + 0.3 * told["entropy"]) / 0.7)


def test_a_client_that_sends_nothing_has_pogq_alone():
    silent = View.of(UpdateMatrix(np.zeros((N, D), np.float32)), ATOMS, Sketch(D, 3, WIDTH))
    state = Standing.init(M, CLASSES, WIDTH)
    told, _ = Standing.after(state, IDS, 0, silent, seen(M, 2), np.ones(N), np.full(N, 0.5), Composite())
    assert np.isnan(told["entropy"]).all()
    np.testing.assert_allclose(told["trust"], 0.5)


def test_shadows_that_stand_still_are_no_yardstick():
    still = View.of(UpdateMatrix(np.zeros((M, D), np.float32)), ATOMS, Sketch(D, 3, WIDTH))
    state = Standing.init(M, CLASSES, WIDTH)
    told, _ = Standing.after(state, IDS, 0, seen(N, 1), still, np.ones(N), np.full(N, 0.5), Composite())
    assert np.isnan(told["entropy"]).all()


def test_what_is_remembered_is_bounded_and_plain():
    _, state = played(3)
    before = pack(state)
    for t in range(3, 3 + WINDOW):
        _, state = after(state, t, ids=IDS[:6])
    assert state["clients"]["ids"] == IDS[:6]  # the others stayed away for a whole window
    assert pack(unpack(pack(state))) == pack(state)
    assert before == pack(played(3)[1])


@pytest.mark.parametrize("t", [1, 3])
def test_the_state_before_is_left_as_it_was(t):
    _, state = played(t)
    kept = pack(state)
    after(state, t)
    assert pack(state) == kept
