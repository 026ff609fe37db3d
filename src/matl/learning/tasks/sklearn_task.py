"""A scikit-learn linear classifier as a task: estimators that learn by ``partial_fit``."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from matl import validate
from matl.errors import InvalidValueError
from matl.params import Float32, ParamEntry, ParamLayout

__all__ = ["SklearnTask"]


class SklearnTask:
    """A linear scikit-learn classifier with ``partial_fit``, ``coef_`` and ``intercept_``.

    Its "gradient" is the parameters minus the parameters after one ``partial_fit`` on the mini-batch, so that a local
    step with ``learning_rate=1`` is exactly one ``partial_fit``; use that learning rate, and set the estimator's own
    (``SGDClassifier(learning_rate="constant", eta0=0.01)``). Every ``partial_fit`` begins with the estimator's first
    step, so a rate that falls over time stays at its beginning.

    Parameters
    ----------
    estimator : object
        ``sklearn.linear_model.SGDClassifier``, ``Perceptron``, ...; it is copied. A ``random_state`` that is not set
        is set to 0.
    features : int
        Inputs per sample.
    num_classes : int
        Number of labels. For two, scikit-learn keeps one row of coefficients.

    Attributes
    ----------
    layout : ParamLayout
        ``coef`` (K, features) and ``intercept`` (K,), with K = 1 for two classes.
    pseudo_gradient : bool
        True: the gradient is that of no loss function, and `matl.testing.check_task` does not hold it against one.

    Raises
    ------
    InvalidValueError
        The estimator is none of these, or averages its parameters.

    Examples
    --------
    >>> from sklearn.linear_model import SGDClassifier
    >>> task = SklearnTask(SGDClassifier(loss="log_loss", learning_rate="constant", eta0=0.1), 64, 10)
    >>> [(entry.name, entry.shape) for entry in task.layout.entries]
    [('coef', (10, 64)), ('intercept', (10,))]
    """

    pseudo_gradient = True

    def __init__(self, estimator: Any, features: int, num_classes: int) -> None:
        validate.at_least(1, features=features)
        validate.at_least(2, num_classes=num_classes)
        name = type(estimator).__name__
        if not hasattr(estimator, "partial_fit") or not hasattr(estimator, "get_params"):
            raise InvalidValueError(
                f"expected a scikit-learn classifier with partial_fit, such as SGDClassifier, got {name}"
            )
        options = estimator.get_params()
        if options.get("average"):
            raise InvalidValueError(
                f"{name} with average={options['average']} keeps a second set of parameters; use average=False"
            )
        if "random_state" in options and options["random_state"] is None:
            options["random_state"] = 0
        self._estimator = type(estimator)(**options)
        self._classes = np.arange(num_classes)
        self._estimator.partial_fit(np.zeros((num_classes, features)), self._classes, classes=self._classes)
        rows = 1 if num_classes == 2 else num_classes
        if getattr(self._estimator, "coef_", np.empty(0)).shape != (rows, features):
            raise InvalidValueError(
                f"expected a linear classifier with coef_ of shape ({rows}, {features}), which {name} does not have; "
                "use SGDClassifier or Perceptron, or write a task of your own"
            )
        self.features, self.num_classes = features, num_classes
        self.layout = ParamLayout(
            (ParamEntry("coef", (rows, features), "float32"), ParamEntry("intercept", (rows,), "float32"))
        )

    def init(self, rng: np.random.Generator) -> Float32:
        """Zeros, where scikit-learn's linear classifiers begin."""
        return np.zeros(self.layout.size, np.float32)

    def loss_and_gradient(self, params: Float32, X: Float32, y: NDArray[np.int64]) -> tuple[Float32, Float32]:
        """See `Task.loss_and_gradient`.

        The loss is the cross-entropy of the softmax of the decision values (for two classes the logistic loss),
        whatever the estimator's own loss is; the gradient is what ``partial_fit`` subtracts. Where training
        diverged both are NaN.
        """
        losses = np.empty(len(X), np.float32)
        gradients = np.empty((len(X), self.layout.size), np.float32)
        for index in range(len(X)):
            losses[index] = _cross_entropy(self._decision(params[index], X[index]), y[index])
            gradients[index] = params[index] - self._after(params[index], X[index], y[index])
        return losses, gradients

    def predict(self, params: Float32, X: Float32) -> NDArray[np.int64]:
        """See `Task.predict`."""
        labels: NDArray[np.int64] = self._decision(params, X).argmax(axis=1)
        return labels

    def _decision(self, params: Float32, X: Float32) -> Float32:
        """Decision values (n, K); for two classes 0 and the value of the second."""
        weights = self.layout.unflatten(params)
        values: Float32 = X @ weights["coef"].T + weights["intercept"]
        return values if self.num_classes > 2 else np.hstack([np.zeros_like(values), values])

    def _after(self, params: Float32, X: Float32, y: NDArray[np.int64]) -> Float32:
        """The parameters after one ``partial_fit``."""
        if not np.isfinite(params).all():
            return np.full_like(params, np.nan)
        weights = self.layout.unflatten(params)
        model = self._estimator
        model.coef_ = weights["coef"].astype(np.float64)
        model.intercept_ = weights["intercept"].astype(np.float64)
        model.t_ = 1.0
        try:
            model.partial_fit(X.astype(np.float64), y)
        except ValueError as error:
            if "overflow" not in str(error):
                raise
            return np.full_like(params, np.nan)
        return np.concatenate([model.coef_.ravel(), model.intercept_]).astype(np.float32)


def _cross_entropy(values: Float32, y: NDArray[np.int64]) -> float:
    """Mean over samples of the cross-entropy of the softmax of decision values (n, K)."""
    values = values - values.max(axis=1, keepdims=True)
    return float(np.mean(np.log(np.exp(values).sum(axis=1)) - values[np.arange(len(y)), y]))
