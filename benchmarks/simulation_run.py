"""One simulation in this process, for `simulation_speed.py`: by MATL, or by a plain loop.

::

    python benchmarks/simulation_run.py matl mlp FOLDER --workers 2

prints the time at the end of every round as one line of JSON, and writes the final model to ``FOLDER/params.npy``.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import numpy as np
from simulation_case import CASES, SEED, Case
from threadpoolctl import threadpool_limits

import matl
from matl.events import Event
from matl.learning.datasets import Dataset
from matl.learning.partition import FederatedData
from matl.params import Float32
from matl.simulation.randomness import stream


def by_matl(case: Case, folder: Path, workers: int) -> tuple[Float32, float, list[float]]:
    """Final model, its accuracy, and the time at the end of every round."""
    ends: list[float] = []

    def sink(event: Event) -> None:
        if event.kind == "round_committed":
            ends.append(time.time())

    test = case.test(folder)
    clients = tuple(case.client(folder, index) for index in range(case.clients))
    result = matl.simulate(
        dataset=FederatedData(root=test.take(np.arange(100)), test=test, clients=clients),
        task=case.task,
        mode="plain",
        attack="none",
        local={key: value for key, value in case.recipe.as_dict().items() if key in ("steps", "batch_size")},
        rounds=case.rounds,
        seed=SEED,
        workers=workers,
        sink=sink,
    )
    return result.params, result.accuracy, ends


def by_loop(case: Case, folder: Path) -> tuple[Float32, float, list[float]]:
    """Federated averaging as one writes it down: a loop over rounds, clients and steps."""
    test = case.test(folder)
    clients = [case.client(folder, index) for index in range(case.clients)]
    params, ends, score = case.init(), [], 0.0
    with threadpool_limits(1):
        for number in range(case.rounds):
            total = np.zeros_like(params)
            for index, client in enumerate(clients):
                total += trained(case, params, client, stream(SEED, "client", number, index))
            params = total / np.float32(case.clients)
            score = case.accuracy(params, test)
            ends.append(time.time())
    return params, score, ends


def trained(case: Case, params: Float32, client: Dataset, rng: np.random.Generator) -> Float32:
    """A client's model after its local steps: softmax regression, or one hidden ReLU layer."""
    recipe, layers = case.recipe, [array.copy() for array in case.task.layout.unflatten(params).values()]
    rate = np.float32(recipe.learning_rate)
    for batch in rng.integers(len(client), size=(recipe.steps or 0, recipe.batch_size)):
        X, y = client.X[batch], client.y[batch]
        hidden = np.maximum(X @ layers[0] + layers[1], 0) if case.hidden else X
        logits = hidden @ layers[-2] + layers[-1]
        delta = np.exp(logits - logits.max(axis=1, keepdims=True))
        delta /= delta.sum(axis=1, keepdims=True)
        delta[np.arange(len(y)), y] -= 1
        delta /= len(y)
        gradients = [hidden.T @ delta, delta.sum(axis=0)]
        if case.hidden:
            delta = (delta @ layers[2].T) * (hidden > 0)
            gradients = [X.T @ delta, delta.sum(axis=0), *gradients]
        for layer, gradient in zip(layers, gradients, strict=True):
            layer -= rate * gradient
    return np.concatenate([layer.ravel() for layer in layers])


def main() -> None:
    """Run one and print what it took."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("system", choices=["matl", "loop"])
    parser.add_argument("case", choices=CASES)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--workers", type=int, default=1)
    given = parser.parse_args()
    case = CASES[given.case]
    if given.system == "loop":
        params, score, ends = by_loop(case, given.folder)
    else:
        params, score, ends = by_matl(case, given.folder, given.workers)
    np.save(given.folder / "params.npy", params)
    print(json.dumps({"ends": ends, "accuracy": score}))


if __name__ == "__main__":
    main()
