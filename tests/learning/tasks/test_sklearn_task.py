"""scikit-learn classifiers as tasks: a local step is one partial_fit."""

import copy

import numpy as np
import pytest

pytest.importorskip("sklearn", reason="scikit-learn is not installed")
from sklearn.linear_model import Perceptron, SGDClassifier
from sklearn.naive_bayes import GaussianNB
from sklearn.neighbors import KNeighborsClassifier

import matl
from matl.errors import InvalidValueError
from matl.learning.tasks import SklearnTask
from matl.testing import check_task

LOGISTIC = SGDClassifier(loss="log_loss", learning_rate="constant", eta0=0.1)


@pytest.mark.parametrize("num_classes", [2, 4])
@pytest.mark.parametrize("estimator", [LOGISTIC, Perceptron(random_state=3)], ids=["SGDClassifier", "Perceptron"])
def test_a_step_is_one_partial_fit(estimator, num_classes):
    rng = np.random.default_rng(0)
    X, y = rng.normal(size=(6, 1, 8, 5)).astype(np.float32), rng.integers(0, num_classes, size=(6, 1, 8))
    task = SklearnTask(estimator, 5, num_classes)
    assert not hasattr(estimator, "coef_")  # a copy is trained
    seed = estimator.random_state if estimator.random_state is not None else 0
    reference = copy.copy(estimator).set_params(random_state=seed)
    params = task.init(rng)[None]
    for samples, labels in zip(X, y, strict=True):
        params -= task.loss_and_gradient(params, samples, labels)[1]
        reference.partial_fit(samples[0].astype(np.float64), labels[0], classes=np.arange(num_classes))
    expected = np.concatenate([reference.coef_.ravel(), reference.intercept_])
    # Parameters go through float32 once a step.
    np.testing.assert_allclose(params[0], expected, atol=1e-5)
    flat = X.reshape(-1, 5)
    np.testing.assert_array_equal(task.predict(params[0], flat), reference.predict(flat))


@pytest.mark.parametrize("num_classes", [2, 3])
def test_the_contract_holds(num_classes):
    check_task(SklearnTask(LOGISTIC, 6, num_classes))


@pytest.mark.parametrize("num_classes", [2, 3])
def test_the_loss_is_the_cross_entropy_of_the_decision_values(num_classes):
    task = SklearnTask(LOGISTIC, 6, num_classes)
    X, y = np.ones((1, 5, 6), np.float32), np.arange(5)[None] % num_classes
    loss, _ = task.loss_and_gradient(task.init(np.random.default_rng(0))[None], X, y)
    assert loss[0] == pytest.approx(np.log(num_classes))
    # Two classes and one row of coefficients: the logistic loss, log(1 + exp(-margin)).
    if num_classes == 2:
        params = np.full((1, 7), 0.5, np.float32)
        margins = np.where(y[0] == 1, 3.5, -3.5)
        assert task.loss_and_gradient(params, X, y)[0][0] == pytest.approx(np.log1p(np.exp(-margins)).mean())


@pytest.mark.parametrize("far", [np.inf, 3e38])
def test_training_that_diverged_gives_nan_which_screening_refuses(far):
    task = SklearnTask(SGDClassifier(learning_rate="constant", eta0=1e295, loss="squared_error"), 6, 3)
    params = np.full((1, task.layout.size), far, np.float32)
    with np.errstate(all="ignore"):
        _, gradient = task.loss_and_gradient(params, np.full((1, 4, 6), 100, np.float32), np.zeros((1, 4), np.int64))
    assert np.isnan(gradient).all()


@pytest.mark.parametrize(
    ("estimator", "message"),
    [
        (KNeighborsClassifier(), "with partial_fit, such as SGDClassifier, got KNeighborsClassifier"),
        (GaussianNB(), r"with coef_ of shape \(3, 6\), which GaussianNB does not have"),
        (SGDClassifier(average=True), "average=True keeps a second set"),
        (None, "got NoneType"),
    ],
)
def test_estimators_that_cannot_be_used(estimator, message):
    with pytest.raises(InvalidValueError, match=message):
        SklearnTask(estimator, 6, 3)


def test_it_learns_among_liars():
    result = matl.simulate(
        dataset="digits",
        task=SklearnTask(SGDClassifier(loss="log_loss", learning_rate="constant", eta0=0.02), 64, 10),
        local={"learning_rate": 1.0, "steps": 5},
        mode="mode0",
        clients=10,
        byzantine=0.3,
        alpha=5.0,
        rounds=5,
        seed=1,
    )
    assert result.accuracy > 0.85
    assert set(result.quarantined) == set(result.malicious)
