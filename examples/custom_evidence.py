"""Your own evidence: a figure of every update, calibrated on simulated honest clients."""

import numpy as np

import matl
from matl.trust.calibration import Shadows, typicality


# --8<-- [start:evidence]
def flatness(X):
    """Whether few parameters move (near 0) or all of them alike (1), shape (n,)."""
    return np.abs(X).mean(axis=1) / np.sqrt(np.square(X).mean(axis=1) + 1e-12)


def calibrated_flatness(X, oracle, params, seed):
    """How ordinary that is among 100 simulated honest clients, in [0, 1], shape (n,)."""
    shadows = oracle.honest(params, Shadows.draw(oracle.num_classes, 100, seed=0), seed, fold=0)
    return typicality(flatness(X), flatness(shadows))


# --8<-- [end:evidence]


if __name__ == "__main__":
    # --8<-- [start:run]
    data, task, recipe = matl.federate("digits"), matl.MLPTask(64, 10), matl.LocalTraining()
    oracle = matl.RootOracle(task, data.root, recipe)
    params = task.init(np.random.default_rng(0))
    rngs = [np.random.default_rng(client) for client in range(50)]
    X = matl.train_locally(task, params, data.clients, recipe, rngs)
    X[:3] = rngs[0].normal(size=X[:3].shape)  # three clients send noise
    print(calibrated_flatness(X, oracle, params, seed=1).round(2))
    # --8<-- [end:run]
