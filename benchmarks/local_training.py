"""Local training alone: CPU time of 100 clients x 5 steps x batch 32 of a 784-128-10 MLP, on one thread.

::

    python benchmarks/local_training.py       # writes benchmarks/results/local_training.{json,md}

MATL's kernel, a plain loop over clients in NumPy and, where torch is installed, a loop with autograd and `torch.func`'s
vmap over clients. They take turns, and all have to end with the same updates.
"""

from __future__ import annotations

import argparse
import importlib.util
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from common import markdown, write
from simulation_case import CASES, SEED
from simulation_run import trained
from threadpoolctl import threadpool_limits

from matl.learning.datasets import Dataset
from matl.learning.local import train_locally
from matl.params import Float32
from matl.simulation.randomness import stream

CASE = CASES["mlp"]
TOLERANCE = 1e-4


def streams() -> list[np.random.Generator]:
    """Every client's own randomness."""
    return [stream(SEED, "client", 0, index) for index in range(CASE.clients)]


def by_matl(params: Float32, clients: list[Dataset]) -> Float32:
    """The kernel under every simulation."""
    return train_locally(CASE.task, params, clients, CASE.recipe, streams())


def by_loop(params: Float32, clients: list[Dataset]) -> Float32:
    """As one writes it down in NumPy."""
    pairs = zip(clients, streams(), strict=True)
    return np.stack([trained(CASE, params, client, rng) - params for client, rng in pairs])


def by_autograd(params: Float32, clients: list[Dataset]) -> Float32:
    """As one writes it down in torch."""
    import torch

    updates = np.empty((len(clients), params.size), np.float32)
    for row, (client, rng) in enumerate(zip(clients, streams(), strict=True)):
        layers = [torch.tensor(array, requires_grad=True) for array in CASE.task.layout.unflatten(params).values()]
        for batch in rng.integers(len(client), size=(5, 32)):
            loss = torch_loss(layers, torch.from_numpy(client.X[batch]), torch.from_numpy(client.y[batch]))
            gradients = torch.autograd.grad(loss, layers)
            with torch.no_grad():
                for layer, gradient in zip(layers, gradients, strict=True):
                    layer.sub_(gradient, alpha=CASE.recipe.learning_rate)
        updates[row] = torch.cat([layer.detach().ravel() for layer in layers]).numpy() - params
    return updates


def by_vmap(params: Float32, clients: list[Dataset], block: int = 10) -> Float32:
    """Many clients at a time in torch."""
    import torch

    updates = np.empty((len(clients), params.size), np.float32)
    gradient_of = torch.func.vmap(torch.func.grad(torch_loss))
    batches = np.stack(
        [rng.integers(len(client), size=(5, 32)) for client, rng in zip(clients, streams(), strict=True)]
    )
    for start in range(0, len(clients), block):
        own = range(start, start + block)
        layers = [
            torch.tensor(array).expand(block, *array.shape).clone()
            for array in CASE.task.layout.unflatten(params).values()
        ]
        for step in range(5):
            X = torch.from_numpy(np.stack([clients[index].X[batches[index, step]] for index in own]))
            y = torch.from_numpy(np.stack([clients[index].y[batches[index, step]] for index in own]))
            for layer, gradient in zip(layers, gradient_of(layers, X, y), strict=True):
                layer.sub_(gradient, alpha=CASE.recipe.learning_rate)
        updates[start : start + block] = (
            torch.cat([layer.reshape(block, -1) for layer in layers], dim=1).numpy() - params
        )
    return updates


def torch_loss(layers: Any, X: Any, y: Any) -> Any:
    """Cross-entropy of the MLP."""
    import torch

    hidden = torch.relu(X @ layers[0] + layers[1])
    return torch.nn.functional.cross_entropy(hidden @ layers[2] + layers[3], y)


def main() -> None:
    """Time all in turns, print the table, write it with the raw rows beside it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "results" / "local_training")
    given = parser.parse_args()
    kernels: dict[str, Callable[[Float32, list[Dataset]], Float32]] = {"MATL": by_matl, "NumPy loop": by_loop}
    if importlib.util.find_spec("torch") is None:
        print("torch is not installed: its two rows are left out", file=sys.stderr)
    else:
        import torch

        torch.set_num_threads(1)
        kernels |= {"torch autograd loop": by_autograd, "torch vmap": by_vmap}
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as temporary, threadpool_limits(1):
        CASE.write(Path(temporary))
        clients = [CASE.client(Path(temporary), index) for index in range(CASE.clients)]
        rows = timed(kernels, CASE.init(), clients, given.repeats)
    plain = statistics.median(rows[1]["cpu_seconds"])
    lines = [
        [
            row["kernel"],
            f"{statistics.median(row['cpu_seconds']):.3f} s",
            f"{min(row['cpu_seconds']):.3f} to {max(row['cpu_seconds']):.3f} s",
            f"{statistics.median(row['cpu_seconds']) / plain:.2f}",
        ]
        for row in rows
    ]
    remarks = (
        f"CPU time of one round's local training on one thread: {CASE.clients} clients, 5 steps, batch 32, MLP "
        f"784-128-10; median and range of {given.repeats} repeats in turns."
    )
    if "torch vmap" in kernels:
        remarks += f" torch {torch.__version__}."
    head = ["kernel", "CPU time", "range", "x NumPy loop"]
    print(write(given.out, markdown(head, lines), remarks, rows, time.perf_counter() - started))


def timed(
    kernels: dict[str, Callable[[Float32, list[Dataset]], Float32]],
    params: Float32,
    clients: list[Dataset],
    repeats: int,
) -> list[dict[str, Any]]:
    """A row per kernel, after checking that they agree."""
    expected = by_loop(params, clients)
    for name, kernel in kernels.items():
        distance = float(np.abs(kernel(params, clients) - expected).max())
        if not distance <= TOLERANCE:
            raise SystemExit(f"{name} computes other updates: they differ by {distance:.2g}")
    rows: list[dict[str, Any]] = [{"kernel": name, "cpu_seconds": []} for name in kernels]
    for _ in range(repeats):
        for row, kernel in zip(rows, kernels.values(), strict=True):
            before = time.process_time()
            kernel(params, clients)
            row["cpu_seconds"].append(time.process_time() - before)
    return rows


if __name__ == "__main__":
    main()
