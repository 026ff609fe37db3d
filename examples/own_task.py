"""A task of your own in NumPy: one-against-all linear support vector machines."""

import numpy as np

import matl
from matl.testing import check_task


# --8<-- [start:task]
class SVMTask:
    """One linear machine per class, trained on the squared hinge loss."""

    def __init__(self, features, num_classes):
        self.features, self.num_classes = features, num_classes
        self.layout = matl.ParamLayout.of({"weight": np.zeros((features, num_classes), np.float32)})

    def init(self, rng):
        return np.zeros(self.layout.size, np.float32)

    def loss_and_gradient(self, params, X, y):
        weight = params.reshape(-1, self.features, self.num_classes)
        sign = np.where(y[..., None] == np.arange(self.num_classes), 1, -1).astype(np.float32)
        gap = np.maximum(0, 1 - sign * (X @ weight))  # (models, batch, classes)
        slope = -2 * sign * gap / np.float32(X.shape[1])
        gradients = X.transpose(0, 2, 1) @ slope
        return (gap**2).sum(axis=2).mean(axis=1), gradients.reshape(params.shape)

    def predict(self, params, X):
        return (X @ params.reshape(self.features, self.num_classes)).argmax(axis=1)


# --8<-- [end:task]

# --8<-- [start:use]
check_task(SVMTask(features=20, num_classes=5))  # raises ContractError, and says what is wrong

task = SVMTask(features=64, num_classes=10)
local = {"learning_rate": 0.02}
result = matl.simulate(dataset="digits", task=task, local=local, clients=20, rounds=20, seed=1)
print(f"accuracy {result.accuracy:.1%}, caught {result.tpr:.0%}, accused {result.fpr:.0%}")
# --8<-- [end:use]
