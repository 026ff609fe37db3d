import numpy as np
import pytest

from matl.errors import InvalidValueError
from matl.learning import oracle as module
from matl.learning.datasets import Dataset
from matl.learning.local import LocalTraining
from matl.learning.oracle import RootOracle
from matl.learning.tasks import MLPTask
from matl.trust.calibration import Shadows

CLASSES, FEATURES = 4, 6
RECIPE = LocalTraining(learning_rate=0.1, batch_size=8, steps=3)


def make_root(per_class=6, seed=0):
    rng = np.random.default_rng(seed)
    y = np.repeat(np.arange(CLASSES), per_class)
    X = rng.normal(size=(len(y), FEATURES)) + 2 * np.eye(CLASSES, FEATURES)[y]
    return Dataset("blobs", X.astype(np.float32), y.astype(np.int64), CLASSES)


@pytest.fixture
def task():
    return MLPTask(FEATURES, CLASSES, hidden=(5,))


@pytest.fixture
def params(task):
    return task.init(np.random.default_rng(1))


@pytest.fixture
def oracle(task):
    return RootOracle(task, make_root(), RECIPE)


def test_atoms_are_negative_gradients_of_the_named_label(oracle, task, params):
    atoms = oracle.atoms(params, fold=0)
    assert atoms.honest.shape == (CLASSES, task.layout.size)
    assert atoms.pairs.tolist() == [[a, b] for a in range(CLASSES) for b in range(CLASSES) if a != b]
    X = oracle.root.X[oracle._folds[0][2]]
    for label, atom in ((2, atoms.honest[2]), (3, atoms.poison[atoms.pairs.tolist().index([2, 3])])):
        y = np.full((1, len(X)), label)
        expected = -task.loss_and_gradient(params[None], X[None], y)[1][0]
        np.testing.assert_allclose(atom, expected, atol=1e-6)


def test_how_many_models_are_worked_on_at_a_time_and_where_they_lie_changes_no_bit(oracle, params, monkeypatch):
    def asked(*allocate):
        shadows = Shadows.draw(CLASSES, 21, seed=0)
        atoms = oracle.atoms(params, 1, *allocate)
        return atoms.honest, atoms.poison, oracle.honest(params, shadows, 3, 0, *allocate)

    made = []

    def allocate(shape):
        made.append(np.full(shape, np.nan, np.float32))
        return made[-1]

    at_once = asked()
    monkeypatch.setattr(module, "_NUMBERS", 3 * params.size)
    for few in (asked(), asked(allocate)):
        assert [array.tobytes() for array in few] == [array.tobytes() for array in at_once]
    assert [array.shape for array in made] == [(CLASSES**2, params.size), (21, params.size)]


def test_folds_are_disjoint_stratified_and_the_whole_root(oracle):
    held = [np.sort(np.concatenate(fold)) for fold in oracle._folds]
    assert not set(held[0]) & set(held[1])
    assert len(held[0]) + len(held[1]) == len(oracle.root)
    for fold in oracle._folds:
        assert [len(own) for own in fold] == [3] * CLASSES


def test_atoms_of_the_two_folds_differ(oracle, params):
    assert not np.allclose(oracle.atoms(params, 0).honest, oracle.atoms(params, 1).honest)


def of_mixes(mixes, size):
    return Shadows(np.asarray(mixes, np.float64), np.full(len(mixes), size))


def test_a_simulated_client_trains_on_its_own_mix(oracle, params):
    updates = oracle.honest(params, of_mixes(np.eye(CLASSES), 50), seed=3, fold=0)
    atoms = oracle.atoms(params, fold=0).honest
    cosines = (updates @ atoms.T) / np.outer(np.linalg.norm(updates, axis=1), np.linalg.norm(atoms, axis=1))
    assert cosines.argmax(axis=1).tolist() == [0, 1, 2, 3]


def test_a_simulated_client_keeps_its_data_and_the_seed_orders_its_batches(oracle):
    mix = np.array([0.5, 0.5, 0.0, 0.0])
    held = oracle._holding(4, mix, 9, 1)
    assert len(held) == 9
    np.testing.assert_array_equal(held.X, oracle._holding(4, mix, 9, 1).X)
    assert not np.array_equal(held.X, oracle._holding(5, mix, 9, 1).X)
    of_fold = oracle.root.X[np.concatenate(oracle._folds[1])]
    assert {row.tobytes() for row in held.X} <= {row.tobytes() for row in of_fold}


def test_simulated_updates_are_a_function_of_the_seed_and_not_of_how_many_are_asked_for(oracle, params):
    shadows = of_mixes(np.full((20, CLASSES), 0.25), 12)
    first = oracle.honest(params, shadows, seed=3, fold=0)
    np.testing.assert_array_equal(first, oracle.honest(params, shadows, seed=3, fold=0))
    assert not np.array_equal(first, oracle.honest(params, shadows, seed=4, fold=0))
    few = Shadows(shadows.mixes[:3], shadows.sizes[:3])
    np.testing.assert_array_equal(first[:3], oracle.honest(params, few, seed=3, fold=0))


def test_who_holds_more_trains_longer_where_the_recipe_counts_epochs(task, params):
    oracle = RootOracle(task, make_root(), LocalTraining(learning_rate=0.1, batch_size=8, steps=None, epochs=1))
    short, long = (oracle.honest(params, of_mixes(np.full((8, CLASSES), 0.25), n), 0, 0) for n in (8, 80))
    assert np.linalg.norm(long, axis=1).mean() > 2 * np.linalg.norm(short, axis=1).mean()


def test_images_of_the_root_are_also_moved(task, params):
    image = np.zeros((1, 4, 4), np.float32)
    image[0, 1, 2] = 1.0
    root = Dataset("dots", np.repeat(image.reshape(1, -1), 8, axis=0), np.repeat(np.arange(4), 2), 4, (1, 4, 4))
    variants = RootOracle(MLPTask(16, 4), root, RECIPE)._variants
    assert variants.shape == (8, 9, 16)
    np.testing.assert_array_equal(variants[:, 4], root.X)  # the middle one is where it was
    down = variants[0, 7].reshape(4, 4)  # by a quarter of a pixel
    assert down[1, 2] == pytest.approx(0.75)
    assert down[2, 2] == pytest.approx(0.25)
    assert RootOracle(task, make_root(), RECIPE)._variants.shape == (24, 1, FEATURES)


def test_the_root_update_lowers_the_loss_on_the_root(oracle, params):
    assert oracle.loss(params + oracle.root_update(params, seed=0)) < oracle.loss(params)


def test_loss_is_the_mean_over_the_root(oracle, task, params):
    logits_free = task.loss_and_gradient(np.zeros_like(params)[None], oracle.root.X[None], oracle.root.y[None])[0][0]
    assert oracle.loss(np.zeros_like(params)) == pytest.approx(np.log(CLASSES), rel=1e-5)
    assert logits_free == pytest.approx(np.log(CLASSES), rel=1e-5)


def test_the_digest_covers_data_recipe_and_seed(task):
    base = RootOracle(task, make_root(), RECIPE).digest
    assert base == RootOracle(task, make_root(), RECIPE).digest
    others = [
        RootOracle(task, make_root(seed=1), RECIPE),
        RootOracle(task, make_root(), LocalTraining(learning_rate=0.2, batch_size=8, steps=3)),
        RootOracle(task, make_root(), RECIPE, seed=1),
        RootOracle(MLPTask(FEATURES, CLASSES, hidden=(6,)), make_root(), RECIPE),
    ]
    assert len({base, *(other.digest for other in others)}) == 5


def test_a_root_that_lacks_a_class_is_refused(task):
    root = make_root()
    with pytest.raises(InvalidValueError, match=r"at least 2 root samples of every class, got \[6, 6, 6, 0\]"):
        RootOracle(task, root.take(np.flatnonzero(root.y < 3)), RECIPE)


def test_a_root_for_another_task_is_refused(params):
    with pytest.raises(InvalidValueError, match="expected a root of 3 classes"):
        RootOracle(MLPTask(FEATURES, 3), make_root(), RECIPE)
